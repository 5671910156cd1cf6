"""A result and a comparison as a notebook shows them: a table, and a picture drawn as SVG.

Colours are those of the page around, so that light and dark themes both fit; what a colour says
stands there in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.compare.comparison import CellComparison, Comparison, worst
from harness.compare.verdicts import MetricVerdict
from harness.maybe import Unavailable, present
from harness.records.notebook import RENDERERS
from harness.records.result import LatencyStats, Result
from harness.views.comparison import cell_title, in_order, metric_name, metric_value, summary
from harness.views.markup import Html, h, join
from harness.views.text import number, plain, quantity, rows, subtitle, title

_WIDTH, _LEFT = 560, 150  # pixels of a picture, and of the names in it
_ROW = 26
_COLOURS = {"improved": "#148f63", "regressed": "#c62828"}
_CELLS = 40  # comparisons drawn and listed; a notebook is no place for thousands
_QUANTILES = ("median", "p90", "p95", "p99", "p99_9")


def result_html(result: Result) -> str:
    """Its headline, a picture of its latencies, and every figure."""
    timing = result.timing
    drawn = None if isinstance(timing, Unavailable) else _latencies(timing.latency_ms)
    body = [
        h("tr", h("th", row.section), h("td", row.name), h("td", row.value, style=_RIGHT),
          h("td", row.note, style=_DIM))
        for row in rows(result)
    ]  # fmt: skip
    return h(
        "div", h("strong", plain(title(result))), h("div", f"{result.status}; {subtitle(result)}",
                                                   style=_DIM),
        drawn, h("details", h("summary", "Every figure"), h("table", h("tbody", *body))),
    )  # fmt: skip


def comparison_html(found: Comparison) -> str:
    """How many cells are what, the ratios with their intervals, and the reasons."""
    cells = in_order(found.cells)
    shown = cells[:_CELLS]
    more = len(cells) - len(shown)
    doubts = [h("div", plain(text), style=_DIM) for text in found.environment]
    heading = f"{plain(found.b)} against {plain(found.a)}: {summary(found)}"
    return h(
        "div", h("strong", heading), *doubts,
        *(_cell(cell) for cell in shown),
        h("p", f"and {more} more cells") if more else None,
    )  # fmt: skip


_RIGHT = "text-align:right;white-space:nowrap"
_DIM = "opacity:0.75"


# -- one run --------------------------------------------------------------------------------------


def _latencies(stats: LatencyStats) -> Html:
    """Quantiles as dots over a common axis, with their intervals as bars."""
    found = [(name, present(getattr(stats, name)), stats.ci95.get(name)) for name in _QUANTILES]
    known = [(name, value, bounds) for name, value, bounds in found if value is not None]
    ends = [end for _, value, bounds in known for end in (value, *_range(bounds))]
    scale = _Scale(min(ends), max(ends))
    marks = [
        _mark(at, name.replace("_", "."), value, _range(bounds), scale, quantity(value, "ms"))
        for at, (name, value, bounds) in enumerate(known)
    ]
    return _picture(marks, len(known), "Latency: quantiles, with 95 % intervals")


def _range(bounds: object) -> tuple[float, ...]:
    return tuple(bounds) if isinstance(bounds, tuple) else ()


# -- a comparison ---------------------------------------------------------------------------------


def _cell(cell: CellComparison) -> Html:
    told = [row for row in cell.rows if row.verdict is not None]
    drawn = [row for row in told if not isinstance(row.ratio, Unavailable)]
    body = [
        h("tr", h("th", metric_name(row.metric)), h("td", metric_value(row.a, row.unit)),
          h("td", metric_value(row.b, row.unit)), h("td", _verdict(row)),
          h("td", plain("; ".join(filter(None, (row.reason, row.doubt)))), style=_DIM))
        for row in told
    ]  # fmt: skip
    head = h("tr", *(h("th", name) for name in ("", "A", "B", "verdict", "because")))
    return h(
        "section", h("p", h("b", cell_title(cell)), f"  {worst(cell)}"),
        h("p", plain(cell.reason)) if cell.reason else None,
        _ratios(drawn) if drawn else None,
        h("table", h("thead", head), h("tbody", *body)) if body else None,
    )  # fmt: skip


def _verdict(row: MetricVerdict) -> Html:
    colour = _COLOURS.get(row.verdict or "")
    return h("b", row.verdict or "", style=f"color:{colour}") if colour else h("span", row.verdict)


def _ratios(judged: Sequence[MetricVerdict]) -> Html:
    """B over A, and where there is no difference."""
    ratios = [float(present(row.ratio) or 1.0) for row in judged]
    ends = [1.0, *ratios, *(end for row in judged for end in present(row.interval) or ())]
    scale = _Scale(min(ends), max(ends))
    marks = [
        _mark(at, metric_name(row.metric), ratio, tuple(present(row.interval) or ()), scale,
              number(ratio), _COLOURS.get(row.verdict or "", "currentColor"))
        for at, (row, ratio) in enumerate(zip(judged, ratios, strict=True))
    ]  # fmt: skip
    one = f"{scale.at(1.0):.1f}"
    height = str(len(judged) * _ROW)
    line = h("line", x1=one, x2=one, y1="0", y2=height, stroke="currentColor",
             stroke_dasharray="3 3", opacity="0.5")  # fmt: skip
    return _picture([line, *marks], len(judged), "B over A, with 95 % intervals; dashed: no change")


# -- drawing --------------------------------------------------------------------------------------


class _Scale:
    """A logarithmic axis: ratios, and times over decades."""

    def __init__(self, low: float, high: float) -> None:
        self._low = math.log(max(low, 1e-300))
        self._span = max(math.log(max(high, 1e-300)) - self._low, 1e-9)

    def at(self, value: float) -> float:
        share = (math.log(max(value, 1e-300)) - self._low) / self._span
        return _LEFT + 14 + share * (_WIDTH - _LEFT - 110)


def _mark(
    row: int,
    name: str,
    value: float,
    bounds: tuple[float, ...],
    scale: _Scale,
    text: str,
    colour: str = "currentColor",
) -> Html:
    y, x = f"{row * _ROW + _ROW / 2:.1f}", f"{scale.at(value):.1f}"
    below = f"{row * _ROW + _ROW / 2 + 4:.1f}"
    right = max([scale.at(value), *map(scale.at, bounds)]) + 9
    bar = h("line", x1=f"{scale.at(bounds[0]):.1f}", x2=f"{scale.at(bounds[1]):.1f}", y1=y, y2=y,
            stroke=colour, stroke_width="2", opacity="0.7") if bounds else None  # fmt: skip
    return join(
        h("text", plain(name), x=str(_LEFT), y=below, text_anchor="end", fill="currentColor"),
        bar, h("circle", cx=x, cy=y, r="4", fill=colour),
        h("text", plain(text), x=f"{right:.1f}", y=below, fill="currentColor"),
    )  # fmt: skip


def _picture(marks: Iterable[Html], count: int, caption: str) -> Html:
    height = count * _ROW
    svg = h("svg", h("title", caption), *marks, viewBox=f"0 0 {_WIDTH} {height}", width=str(_WIDTH),
            height=str(height), role="img", font_size="12")  # fmt: skip
    return h("figure", svg, h("figcaption", caption, style=_DIM), style="margin:8px 0")


RENDERERS[Result] = result_html
RENDERERS[Comparison] = comparison_html
