"""A gate's report for the terminal: what fails, what is left open, and the one word at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from harness.compare.gate.judge import Case, GateReport, describe
from harness.views.comparison import common_differences, summary
from harness.views.gate_markdown import change
from harness.views.terminal import style_of
from harness.views.text import count, plain

_QUIET = ("improved", "unchanged", "within limit")
_STYLES = {"pass": "bold yellow", "inconclusive": "bold yellow"}


def render_gate(report: GateReport) -> RenderableType:
    """One line per case that is not simply fine; then remarks, and the outcome."""
    found = report.comparison
    lines = [Text(f"baseline   {plain(found.a)}\ncandidate  {plain(found.b)}", style="bold")]
    lines += [_line(case) for case in report.cases if case.kind not in _QUIET]
    lines += [Text(text, style="yellow") for text in _remarks(report)]
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


def _line(case: Case) -> Text:
    told = describe(case)
    if case.kind == "not comparable" and case.row is not None:
        told = f"{told}; {change(case.row)}"  # all that is to be known, as nothing is judged
    return Text(plain(told), style="red" if case.code else style_of(case.kind))


def _remarks(report: GateReport) -> Iterable[str]:
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
