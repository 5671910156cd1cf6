"""A gate's report as Markdown for a CI summary: what fails first, details folded, at most 1 MB."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence

from harness.compare.comparison import CellComparison
from harness.compare.gate.judge import Case, GateReport
from harness.compare.verdicts import MetricVerdict
from harness.maybe import Unavailable
from harness.views.comparison import (
    READ_AS,
    cell_title,
    common_differences,
    in_order,
    metric_name,
    metric_value,
    ratio_texts,
    side_texts,
    summary,
)
from harness.views.markdown import escape, table_line
from harness.views.text import number, plain

LIMIT_BYTES = 1_000_000  # GitHub cuts a step's summary off at 1 MiB
_RESERVED_BYTES = 400  # for saying what was left out
_MOST_CASES = 200
_HEADINGS = {
    "pass": "passed: nothing is worse than allowed",
    "regression": "failed: worse than allowed",
    "failed": "failed: not everything was measured",
    "nothing compared": "failed: nothing was compared",
    "not compared": "failed: not everything was compared",
    "inconclusive": "failed: not decided",
}
_Wanted = Callable[[Case], bool]
_APART = ("not comparable", "missing", "nothing compared", "failed")
_SECTIONS: tuple[tuple[str, _Wanted], ...] = (
    ("Worse than allowed", lambda case: case.code == 1),
    ("Not measured", lambda case: case.code == 3),
    ("Waived", lambda case: case.kind == "waived"),
    ("In quarantine", lambda case: case.kind == "quarantined"),
    ("Not confirmed", lambda case: case.kind == "not confirmed"),
    ("Not decided", lambda case: case.kind == "inconclusive"),
    ("Not compared", lambda case: case.code != 3 and case.kind in _APART),
    ("Better", lambda case: case.kind == "improved"),
)


def render_gate_markdown(report: GateReport) -> str:
    """The report; whole cells are left out from the end where it would grow beyond the limit."""
    found = report.comparison
    head = [
        f"## Gate {'; '.join(filter(None, (_HEADINGS[report.outcome], str(report.undecided))))}",
        "",
        f"{_text(found.b)} against {_text(found.a)}; {summary(found)}. "
        f"Policy: {_text(report.policy)}{', strict' if report.strict else ''}. "
        f"Machines: {_machines(found.cells)}.",
        "",
        *(f"> **{_text(note)}**\n" for note in found.environment),
    ]
    blocks = [
        _section(title, [c for c in report.cases if wanted(c)]) for title, wanted in _SECTIONS
    ]
    blocks += [_remarks(report), *(_details(cell) for cell in in_order(found.cells))]
    return _within_limit(["\n".join(head), *filter(None, blocks)])


def _within_limit(blocks: Sequence[str]) -> str:
    kept: list[str] = []
    left = LIMIT_BYTES - _RESERVED_BYTES
    for index, block in enumerate(blocks):
        left -= len(block.encode()) + 2
        if left < 0:
            rest = len(blocks) - index
            kept.append(f"{rest} more parts were left out: see the JSON report.")
            break
        kept.append(block)
    return "\n\n".join(block.strip("\n") for block in kept) + "\n"


def _section(title: str, cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    lines = [f"### {title} ({len(cases)})", "", "| cell | metric | change | why |",
             "|:--|:--|:--|:--|"]  # fmt: skip
    lines += [_line(case) for case in cases[:_MOST_CASES]]
    if len(cases) > _MOST_CASES:
        lines.append(f"| and {len(cases) - _MOST_CASES} more | | | |")
    return "\n".join(lines)


def _line(case: Case) -> str:
    metric = metric_name(case.metric) if case.metric else ""
    check = "" if case.check in ("change", "measured", "anything") else f" {case.check}"
    cells = (case.cell, metric + check, change(case.row) if case.row else "", case.message)
    return table_line(map(_text, cells))


def change(row: MetricVerdict) -> str:
    """``12.3 % slower: 1.00 ms to 1.12 ms``; words only where the direction is certain."""
    values = f"{metric_value(row.a, row.unit)} to {metric_value(row.b, row.unit)}"
    if isinstance(row.ratio, Unavailable):
        return values
    if row.verdict not in ("improved", "regressed"):
        ratio, interval = ratio_texts(row)
        return f"{values}, B / A {ratio}" + (f" ({interval})" if interval else "")
    return f"{number(100 * abs(row.ratio - 1), 3)} % {direction(row)}: {values}"


def direction(row: MetricVerdict) -> str:
    """What a change of this metric this way is called."""
    assert not isinstance(row.ratio, Unavailable)
    more = row.ratio > 1
    if row.unit in ("ms", "s"):
        return "slower" if more else "faster"
    if row.unit == "bytes":
        return "larger" if more else "smaller"
    worse = more == (row.better == "lower")
    return f"{'more' if more else 'less'} ({'worse' if worse else 'better'})"


def _remarks(report: GateReport) -> str:
    found = report.comparison
    lines = [f"- waiver {_text(one.waiver.cell)} {_text(one.waiver.metric)}: {one.state}, "
             f"{_text(one.message)}" for one in report.waivers]  # fmt: skip
    lines += [f"- quarantine proposed: {_text(text)}" for text in report.proposals]
    lines += [f"- problem: {_text(text)}" for text in found.problems]
    differing = common_differences(found.cells)
    lines += [f"- differs: {_text(k)} {_text(a)} / {_text(b)}" for k, (a, b) in differing.items()]
    return "\n".join(["### Remarks", "", *lines]) if lines else ""


def _details(report: CellComparison) -> str:
    where = f"{report.hardware} ({report.fingerprint})"
    lines = [f"<details><summary>{html.escape(cell_title(report))}</summary>", "", _text(where), ""]
    if report.reason:
        lines += [_text(report.reason), ""]
    if report.rows:
        lines += ["| | A | B | B / A | 95 % interval | verdict | smallest change seen |",
                  "|:--|--:|--:|--:|:--|:--|--:|"]  # fmt: skip
        lines += [_row(row) for row in report.rows if row.verdict is not None]
        lines += ["", READ_AS]
    return "\n".join([*lines, *(f"- {_text(text)}" for text in side_texts(report)), "</details>"])


def _row(row: MetricVerdict) -> str:
    least = row.detectable
    seen = "" if isinstance(least, Unavailable) else f"{100 * least:.1f} %"
    values = (metric_value(row.a, row.unit), metric_value(row.b, row.unit))
    cells = (metric_name(row.metric), *values, *ratio_texts(row), row.verdict or "", seen)
    return table_line(map(_text, cells))


def _machines(cells: Iterable[CellComparison]) -> str:
    names = dict.fromkeys(f"{cell.hardware} ({cell.fingerprint})" for cell in cells)
    return ", ".join(_text(name) for name in names) or "none"


def _text(value: object) -> str:
    return escape(plain(value))
