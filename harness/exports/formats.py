"""The formats of ``harness export``: what each is called, and who writes it.

A writer takes the results, oldest first, with the file that each was read from, and what was
imported or logged without a run; it returns the file. It is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.compression.model import Board
from harness.errors import NothingComparable, UsageError
from harness.records.result import Result


class Exported(NamedTuple):
    """``notes`` say what the file leaves out, and why."""

    data: bytes
    notes: tuple[str, ...] = ()


Exporter = Callable[[Sequence[Result], Sequence[Path], Board], Exported]
NOTHING = Board(entries=())

_TAKE_LOGGED = ("compression-engine", "csv")
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
    found = getattr(importlib.import_module(module), function)
    return found if name in _TAKE_LOGGED else partial(_of_runs_alone, name, found)


def compression_engine(
    results: Sequence[Result], paths: Sequence[Path], logged: Board = NOTHING
) -> Exported:
    from harness.compression.from_results import export

    return Exported(export(results, logged))


def _of_runs_alone(
    name: str,
    write: Callable[[Sequence[Result], Sequence[Path]], Exported],
    results: Sequence[Result],
    paths: Sequence[Path],
    logged: Board = NOTHING,
) -> Exported:
    """What ``write`` makes of the runs; entries without a run are named."""
    entries = logged.entries
    told = ", ".join(dict.fromkeys(entry.model for entry in entries[:3]))
    more = ", ..." if len(entries) > 3 else ""
    why = f"{len(entries)} imported or logged (of {told}{more}): {name} holds runs, with launches"
    if entries and not results:
        raise NothingComparable(
            f"no run to export, only {why}", f"choose {' or '.join(_TAKE_LOGGED)}"
        )
    made = write(results, paths)
    notes = (f"left out: {why}", *made.notes) if entries else made.notes
    return made._replace(notes=notes)


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
