"""Results as one Markdown table: a row per cell and machine, a column per metric.

Columns that no cell has a figure for are left out, and said. ``harness report -o FILE.md`` is the
long form, with verdicts and reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.compare.sides import (
    Measured,
    Side,
    doubts,
    hardware_name,
    measured,
    metrics_of,
    sides_of,
)
from harness.exports.formats import Exported, summed_up
from harness.exports.pytest_benchmark.document import full_name
from harness.maybe import Unavailable, explain
from harness.records.metric import COMPARED, METRICS
from harness.records.result import Result
from harness.views.comparison import metric_name, metric_value
from harness.views.markdown import escape, table_line
from harness.views.text import plain


def export(results: Sequence[Result], paths: Sequence[Path]) -> Exported:
    """The table, in UTF-8, and the reasons for what stands in it as n/a."""
    rows = [(side, _figures(side)) for side in sides_of(results)]
    shown = [name for name in COMPARED if any(_known(found, name) for _, found in rows)]
    head = ["cell", "machine", *map(metric_name, shown), "runs", "remarks"]
    aligned = [":--", ":--", *["--:"] * (len(shown) + 1), ":--"]
    lines = [table_line(head), table_line(aligned)]
    for side, found in rows:
        first = side.first
        machine = f"{hardware_name(first)} ({first.machine.fingerprint})"
        values = [_value(found, name) for name in shown]
        count = f"{len(side.finished)} of {len(side.finished) + len(side.failed)}"
        cells = [full_name(first.spec), machine, *values, count, _remarks(side)]
        lines.append(table_line([escape(plain(cell)) for cell in cells]))
    return Exported(("\n".join(lines) + "\n").encode(), _absent(rows))


_Row = tuple[Side, dict[str, Measured]]


def _figures(side: Side) -> dict[str, Measured]:
    """Empty where no run finished."""
    names = metrics_of(side.first) if side.finished else ()
    return {name: measured(side.finished, name) for name in names}


def _value(found: dict[str, Measured], name: str) -> str:
    return metric_value(found[name].value, METRICS[name].unit) if name in found else "n/a"


def _known(found: dict[str, Measured], name: str) -> bool:
    return name in found and not isinstance(found[name].value, Unavailable)


def _absent(rows: Sequence[_Row]) -> tuple[str, ...]:
    left_out = [
        (full_name(side.first.spec), name, plain(explain(one.value)))
        for side, found in rows
        for name, one in found.items()
        if isinstance(one.value, Unavailable)
    ]
    return summed_up(left_out, len(rows))


def _remarks(side: Side) -> str:
    failed = [f"{run.id} {run.status}" + (f": {run.error.message}" if run.error else "")
              for run in side.failed]  # fmt: skip
    return "; ".join(filter(None, [doubts(side), *failed]))
