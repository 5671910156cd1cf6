"""Results as CSV: one row per run and metric, with its unit, interval and launches.

Absent figures have a row without a value, and the reason in its last column. The time is ISO 8601;
values are full precision, in the metric's own unit. A text that a spreadsheet would take for a
formula gets an apostrophe in front: names of models and branches come from anywhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.compare.sides import Measured, measured
from harness.compression.model import METRICS as BOARD
from harness.compression.model import Board, Entry
from harness.exports.formats import NOTHING, Exported, absent_note
from harness.maybe import Unavailable, explain
from harness.records.cell import cell_of
from harness.records.metric import METRICS
from harness.records.result import Result
from harness.views.text import plain

COLUMNS = (
    "time", "run", "status", "cell", "cell_key", "model", "backend", "device", "precision",
    "batch_size", "scenario", "machine", "commit", "branch", "tags", "metric", "unit", "better",
    "value", "low", "high", "launches", "absent",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "|", "%")


def export(results: Sequence[Result], paths: Sequence[Path], logged: Board = NOTHING) -> Exported:
    """The table, with a header, in UTF-8. What was ``logged`` has the board's metrics and units."""
    text = io.StringIO()
    absent, rows = 0, 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        run = _run(result)
        found = [measured([result], name) for name in METRICS]
        writer.writerows([*run, *_metric(result, one)] for one in found)
        absent += sum(isinstance(one.value, Unavailable) for one in found)
        rows += len(found)
    for entry in logged.entries:
        writer.writerows([*_entry(entry), *row] for row in _logged(entry))
        absent += len(entry.missing)
        rows += len(entry.missing) + len(entry.figures)
    return Exported(text.getvalue().encode(), absent_note(absent, rows, "its last column says why"))


def guarded(text: object) -> str:
    """``text`` on one line, and as text to a spreadsheet too."""
    shown = plain(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _run(result: Result) -> list[str]:
    spec, cell, software = result.spec, cell_of(result), result.software
    tags = " ".join(f"{key}={value}" for key, value in result.tags.items())
    texts = (
        result.started_at, result.id, result.status, cell.name, cell.key, spec.model, spec.backend,
        spec.device, spec.precision, spec.batch_size, spec.scenario, result.machine.fingerprint,
        software.commit or "", software.branch or "", tags,
    )  # fmt: skip
    return [guarded(text) for text in texts]


def _entry(entry: Entry) -> list[str]:
    info = entry.info
    texts = (
        info.get("started_at", ""), entry.run, entry.status, "", "", entry.model,
        info.get("backend", info.get("library", "")), info.get("device", ""), entry.precision,
        info.get("batch_size", ""), info.get("scenario", ""), info.get("machine", ""), "", "", "",
    )  # fmt: skip
    return [guarded(text) for text in texts]


def _logged(entry: Entry) -> Iterator[Sequence[str]]:
    for name, figure in entry.figures.items():
        bounds = ("" if end is None else repr(end) for end in (figure.low, figure.high))
        column = BOARD[name]
        yield (name, column.unit, column.better, repr(figure.value), *bounds, "", "")
    for name, why in entry.missing.items():
        unit, better = (BOARD[name].unit, BOARD[name].better) if name in BOARD else ("", "")
        yield (name, unit, better, "", "", "", "", guarded(why))


def _metric(result: Result, one: Measured) -> Iterator[str]:
    metric, value, bounds = one.metric, one.value, one.interval
    yield from (metric.name, metric.unit, metric.better)
    if isinstance(value, Unavailable):
        yield from ("", "", "", "", guarded(explain(value)))
        return
    yield repr(value)
    yield from ("", "") if isinstance(bounds, Unavailable) else map(repr, bounds)
    yield "" if isinstance(result.timing, Unavailable) else str(len(result.timing.launches))
    yield ""
