"""Two runs, or two sets of runs, side by side for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.compare.comparison import CellComparison, Comparison, Runs, counts, worst
from harness.compare.paired import DESIGN
from harness.compare.verdicts import MetricVerdict
from harness.maybe import Maybe, Unavailable, present
from harness.records.metric import FIGURES
from harness.records.result import Result
from harness.spec import BY_NAME
from harness.views.comparison_matrix import render_matrix
from harness.views.operators_compared import render_changes
from harness.views.terminal import style_of
from harness.views.text import count, number, plain, quantity, subtitle, title

VERDICTS = ("regressed", "inconclusive", "improved", "unchanged", "not comparable")
READ_AS = (
    "A, B: as the run states it; of several runs, the median of their launches. "
    "ratio: Hodges-Lehmann, the median of all quotients of a launch of B and one of A."
)
PAIRED_AS = " That of paired rounds is of the rounds, in which both had a turn."
_MOST_DIFFERENCES = 12


def render_pair(report: CellComparison, a: Result, b: Result) -> RenderableType:
    """Both runs, one row per quantity, and below it what the verdicts rest on."""
    heading = [Text(f"{side}  {plain(run.id)}\n   {title(run)}\n   {subtitle(run)}", style="bold")
               for side, run in (("A", a), ("B", b))]  # fmt: skip
    measured = {k: v for k, v in report.differences.items() if k in BY_NAME}
    if measured:
        heading.append(Text(f"A and B differ in {_listed(measured)}", style="bold yellow"))
    if report.reason:
        heading.append(Text(plain(report.reason), style="yellow"))
    notes = [Text(text, style="dim") for text in _notes(report.rows)]
    if others := {k: v for k, v in report.differences.items() if k not in measured}:
        notes.append(Text(f"differs: {_listed(others)}", style="dim"))
    return Group(*heading, Text(""), _table(report.rows), Text(""), *notes, *render_changes(report))


def render_sets(found: Comparison) -> RenderableType:
    """All at a glance; cell by cell, those first that need attention; what was not compared, and
    the sum."""
    parts: list[RenderableType] = [Text(f"A  {plain(found.a)}\nB  {plain(found.b)}", style="bold")]
    ordered = in_order(found.cells)
    if len(ordered) > 1:
        parts += [Text(""), render_matrix(ordered)]
    for report in ordered:
        parts += [Text(""), *_cell(report)]
    parts += [Text(""), *(Text(text, style="yellow") for text in found.environment)]
    if common := common_differences(found.cells):
        parts.append(Text(f"differs: {_listed(common)}", style="dim"))
    parts.append(Text(summary(found), style="bold"))
    return Group(*parts)


def in_order(cells: Iterable[CellComparison]) -> list[CellComparison]:
    """Regressions first, cells without verdicts last; by name within."""
    return sorted(cells, key=lambda one: (VERDICTS.index(worst(one)), one.cell, one.fingerprint))


def summary(found: Comparison) -> str:
    """``3 cells: 1 regressed, 2 unchanged``."""
    by_verdict = counts(found)
    told = [f"{by_verdict[name]} {name}" for name in VERDICTS if name in by_verdict]
    cells = count(len(found.cells), "cell")
    return f"{cells}: {', '.join(told)}" if told else "no cell on either side"


def common_differences(cells: Iterable[CellComparison]) -> dict[str, tuple[str, str]]:
    """What differs between the sides in the same way for every cell that has both."""
    both = [set(one.differences.items()) for one in cells if one.a and one.b]
    shared = set.intersection(*both) if both else set()
    return dict(sorted(shared))


def metric_name(name: str) -> str:
    """A metric as people read it."""
    return FIGURES[name].title


def metric_value(value: Maybe[float], unit: str) -> str:
    """In a unit that reads well; a share as a percentage."""
    if isinstance(value, Unavailable):
        return "n/a"
    return quantity(value, unit.replace("1/s", "/s")) if unit else f"{value:.2%}"


def ratio_texts(row: MetricVerdict) -> tuple[str, str]:
    """The ratio, and its interval."""
    ratio, interval = present(row.ratio), present(row.interval)
    shown = "" if ratio is None else number(ratio)
    return shown, "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def cell_title(report: CellComparison) -> str:
    """The cell; where two different ones were compared, both."""
    both = f"{report.reference} -> {report.cell}" if report.reference else report.cell
    return plain(both)


def side_texts(report: CellComparison) -> list[str]:
    """What is to be said of each side's runs: failures and doubts."""
    sides = (("A", report.a), ("B", report.b))
    return [f"{name}: {text}" for name, runs in sides if runs for text in _of_side(runs)]


def _of_side(runs: Runs) -> list[str]:
    failed = [f"{plain(run)} failed: {plain(why)}" for run, why in runs.failed.items()]
    return [*failed, *([plain(runs.doubts)] if runs.doubts else [])]


def _cell(report: CellComparison) -> list[RenderableType]:
    verdict = worst(report)
    heading = Text(cell_title(report), style="bold")
    heading.append(f"  {verdict}", style=style_of(verdict))
    where = f"{plain(report.hardware)} ({plain(report.fingerprint)}){_launches(report)}"
    parts: list[RenderableType] = [heading, Text(where, style="dim")]
    if report.reason:
        parts.append(Text(plain(report.reason), style="yellow"))
    if report.rows:
        parts += [_table(report.rows), *(Text(t, style="dim") for t in _notes(report.rows))]
    parts += [Text(text, style="dim") for text in side_texts(report)]
    return [*parts, *render_changes(report)]


def _launches(report: CellComparison) -> str:
    if report.a is None or report.b is None:
        return ""
    return f", {report.a.launches} and {report.b.launches} launches"


def _table(rows: Sequence[MetricVerdict]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    # of several launches it is no quotient of the A and B beside it
    ratio = "ratio" if any(max(row.launches) > 1 for row in rows) else "B / A"
    for name in ("", "A", "B", ratio, "95 % interval", "verdict"):
        right = name in ("A", "B", ratio)
        wraps = name.endswith("interval")
        table.add_column(name, no_wrap=not wraps, justify="right" if right else "left")
    for row in rows:
        values = (metric_value(row.a, row.unit), metric_value(row.b, row.unit))
        cells = [Text(cell) for cell in (metric_name(row.metric), *values, *ratio_texts(row))]
        verdict = _verdict(row)
        table.add_row(*cells, Text(verdict, style=style_of(verdict)))
    return table


def _verdict(row: MetricVerdict) -> str:
    """Nothing where a figure is missing: the table says n/a there, and a note why."""
    absent = isinstance(row.a, Unavailable) or isinstance(row.b, Unavailable)
    return "" if absent or row.verdict is None else row.verdict


def _notes(rows: Sequence[MetricVerdict]) -> list[str]:
    """Why each verdict; reasons that several rows share are said once."""
    by_reason: dict[str, list[str]] = {}
    by_doubt: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict is not None:
            by_reason.setdefault(plain(row.reason), []).append(metric_name(row.metric))
        if row.doubt:
            by_doubt.setdefault(plain(row.doubt), []).append(metric_name(row.metric))
    notes = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    for doubt, names in by_doubt.items():
        which = f" ({', '.join(names)})" if len(by_doubt) > 1 else ""
        notes.append(f"doubt{which}: {doubt}")
    paired = PAIRED_AS if any(row.reason.startswith(DESIGN) for row in rows) else ""
    return [READ_AS + paired, *notes] if any(max(row.launches) > 1 for row in rows) else notes


def _listed(differences: Mapping[str, tuple[str, str]]) -> str:
    listed = [f"{k} {plain(v[0])} / {plain(v[1])}" for k, v in differences.items()]
    more = len(listed) - _MOST_DIFFERENCES
    return ", ".join(listed[:_MOST_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
