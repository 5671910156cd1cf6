"""A gate's report: for the terminal what fails, what is left open and the one word at the end; as
Markdown for a CI summary what fails first, details folded, at most 1 MB.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.compare.comparison import CellComparison
from harness.compare.gate.judge import Case, GateReport, describe
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
from harness.views.terminal import style_of
from harness.views.text import count, number, plain

_QUIET = ("improved", "unchanged", "within limit")
_STYLES = {"pass": "bold yellow", "inconclusive": "bold yellow"}
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


def render_gate(report: GateReport) -> RenderableType:
    """One line per case that is not simply fine; then remarks, and the outcome."""
    found = report.comparison
    lines = [Text(f"baseline   {plain(found.a)}\ncandidate  {plain(found.b)}", style="bold")]
    lines += [_shown(case) for case in report.cases if case.kind not in _QUIET]
    lines += [Text(text, style="yellow") for text in _notes(report)]
    certain = report.outcome == "pass" and not str(report.undecided)
    style = "bold green" if certain else _STYLES.get(report.outcome, "bold red")
    lines.append(Text(outcome_line(report), style=style))
    return Group(*lines)


def outcome_line(report: GateReport) -> str:
    """``gate: pass, 2 of 6 speeds undecided (exit code 0); 9 checks: 7 unchanged, ...``."""
    kinds = Counter(case.kind for case in report.cases)
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    checks = count(len(report.cases), "check")
    inside = f"{checks}: {told}; {summary(report.comparison)}"
    outcome = ", ".join(filter(None, (report.outcome, str(report.undecided))))
    return f"gate: {outcome} (exit code {report.exit_code}); {inside}"


def _shown(case: Case) -> Text:
    told = describe(case)
    if case.kind == "not comparable" and case.row is not None:
        told = f"{told}; {change(case.row)}"  # all that is to be known, as nothing is judged
    return Text(plain(told), style="red" if case.code else style_of(case.kind))


def _notes(report: GateReport) -> Iterable[str]:
    yield from report.comparison.environment
    for one in report.waivers:
        if one.state in ("stale", "idle"):
            waiver = one.waiver
            yield plain(f"waiver {waiver.cell} {waiver.metric}: {one.state}, {one.message}")
    for text in report.proposals:
        yield plain(f"quarantine proposed: {text}")
    differing = common_differences(report.comparison.cells)
    if differing:
        told = ", ".join(f"{k} {a} / {b}" for k, (a, b) in list(differing.items())[:12])
        yield plain(f"differs: {told}")


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
    lines += [_case_line(case) for case in cases[:_MOST_CASES]]
    if len(cases) > _MOST_CASES:
        lines.append(f"| and {len(cases) - _MOST_CASES} more | | | |")
    return "\n".join(lines)


def _case_line(case: Case) -> str:
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
