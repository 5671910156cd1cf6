"""Many cells at a glance: a line a cell, a column a metric, and in it B / A with its verdict."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.compare.comparison import CellComparison
from harness.compare.verdicts import MetricVerdict
from harness.maybe import present
from harness.records.metric import FIGURES
from harness.views.aligned import Aligned
from harness.views.terminal import style_of
from harness.views.text import number, plain

_MARKS = {"improved": "+", "regressed": "!", "inconclusive": "?", "unchanged": "="}
_LEGEND = "B / A. ! regressed, ? inconclusive, + improved, = unchanged"


def render_matrix(reports: Sequence[CellComparison]) -> RenderableType:
    """``reports`` in their order. A metric that no cell was judged by has no column."""
    metrics = _judged(reports)
    names = distinct([plain(one.cell) for one in reports])
    header = [Text(FIGURES[name].short or name, style="bold") for name in metrics]
    body = [
        [*(_entry(one, metric) for metric in metrics), Text(name)]
        for one, name in zip(reports, names, strict=True)
    ]
    table = Aligned([[*header, Text("cell", style="bold")], *body], frozenset(range(len(metrics))))
    return Group(table, Text(_LEGEND, style="dim"))


def distinct(cells: Sequence[str]) -> list[str]:
    """The names, without the parts that they all share; whole where that leaves nothing."""
    parts = [cell.split("/") for cell in cells]
    if len(set(cells)) < 2 or len({len(one) for one in parts}) > 1:
        return list(cells)
    told = [index for index, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    return ["/".join(one[index] for index in told) for one in parts]


def _judged(reports: Sequence[CellComparison]) -> list[str]:
    return list(dict.fromkeys(row.metric for one in reports for row in one.rows if _mark(row)))


def _mark(row: MetricVerdict) -> str:
    return _MARKS.get(row.verdict or "", "")


def _entry(report: CellComparison, metric: str) -> Text:
    row = next((row for row in report.rows if row.metric == metric), None)
    if row is None or not _mark(row):
        return Text("")
    ratio = present(row.ratio)
    shown = "" if ratio is None else f"{number(ratio, 3)} "
    return Text(shown + _mark(row), style=style_of(row.verdict or ""))
