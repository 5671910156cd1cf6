"""The formats of ``harness export``: what each is called, and who writes it.

A writer takes the results, oldest first, with the file that each was read from, and returns the
file. It is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import UsageError
from harness.records.result import Result


class Exported(NamedTuple):
    """``notes`` say what the file leaves out, and why."""

    data: bytes
    notes: tuple[str, ...] = ()


Exporter = Callable[[Sequence[Result], Sequence[Path]], Exported]

# name -> "module:function"
FORMATS: dict[str, str] = {
    "compression-engine": "harness.exports.formats:compression_engine",
    "pytest-benchmark": "harness.exports.pytest_benchmark.document:export",
    "csv": "harness.exports.csv:export",
    "junit": "harness.exports.junit:export",
    "markdown": "harness.exports.markdown:export",
}


def exporter(name: str) -> Exporter:
    """The writer of the format ``name``. Raises `UsageError` that lists the formats."""
    if name not in FORMATS:
        raise UsageError(f"--format is {name!r}", f"choose one of {', '.join(FORMATS)}")
    module, _, function = FORMATS[name].partition(":")
    found: Exporter = getattr(importlib.import_module(module), function)
    return found


def compression_engine(results: Sequence[Result], paths: Sequence[Path]) -> Exported:
    from harness.compression.from_results import export

    return Exported(export(results))


def absent_note(absent: int, figures: int, where: str) -> tuple[str, ...]:
    """``9 of 16 figures are absent: each is skipped with its reason``; nothing where none is."""
    return (f"{absent} of {figures} figures are absent: {where}",) if absent else ()


def summed_up(left_out: Iterable[tuple[str, str, str]], total: int) -> tuple[str, ...]:
    """One line per metric and reason, of (cell, metric, reason), and how many cells it holds for.

    The only cell is named; so is the one that lacks everything, whose metric is empty.
    """
    listed = list(left_out)
    lines = [f"{cell}: left out: {why}" for cell, metric, why in listed if not metric]
    lacking = Counter((metric, why) for _, metric, why in listed if metric)
    for (metric, why), cells in lacking.items():
        where = next(cell for cell, m, w in listed if (m, w) == (metric, why))
        place = where if cells == 1 else f"{cells} of {total} cells"
        lines.append(f"{metric}: left out of {place}: {why}")
    return tuple(lines)
