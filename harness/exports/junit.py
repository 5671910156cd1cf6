"""Results as JUnit XML: what was measured, for whatever shows test results. No verdicts.

    measured                 passed; the figures are properties
    absent, with a reason    skipped
    a run that failed        error

One test case per cell and metric, pooled over the cell's runs; ``classname`` is the machine. The
gate writes JUnit of its own (`harness check --report-dir`), which can fail.
"""

from __future__ import annotations

from collections import Counter
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
from harness.exports.formats import Exported, absent_note
from harness.exports.pytest_benchmark.document import full_name
from harness.maybe import Unavailable, explain
from harness.records.result import Result
from harness.views.junit import JunitCase, document


def export(results: Sequence[Result], paths: Sequence[Path]) -> Exported:
    """The XML document, in UTF-8, and how many figures are absent."""
    cases = [case for side in sides_of(results) for case in _cases(side)]
    outcomes = Counter(case.outcome for case in cases)
    figures = len(cases) - outcomes["error"]
    note = absent_note(outcomes["skipped"], figures, "each is skipped with its reason")
    return Exported(document("harness export", cases), note)


def _cases(side: Side) -> list[JunitCase]:
    cases = [_failed(run) for run in side.failed]
    if side.finished:
        cases += [_case(side, measured(side.finished, name)) for name in metrics_of(side.first)]
    return cases


def _case(side: Side, one: Measured) -> JunitCase:
    properties: dict[str, object] = {"unit": one.metric.unit, "better": one.metric.better}
    properties["value"] = one.value
    if not isinstance(one.interval, Unavailable):
        properties |= {"low": one.interval[0], "high": one.interval[1]}
    if not isinstance(one.figures, Unavailable):
        properties["figures"] = len(one.figures)
    properties |= {"runs": " ".join(run.id for run in side.finished), "doubts": doubts(side)}
    case = JunitCase(_machine(side.first), _name(side.first, one.metric.name), properties)
    if isinstance(one.value, Unavailable):
        return case._replace(outcome="skipped", message=explain(one.value))
    return case


def _failed(run: Result) -> JunitCase:
    message = run.error.message if run.error else run.status
    return JunitCase(
        _machine(run), _name(run, "run"), {"runs": run.id}, "error", run.status, message, message
    )


def _machine(run: Result) -> str:
    return f"{hardware_name(run)} ({run.machine.fingerprint})"


def _name(run: Result, metric: str) -> str:
    return f"{full_name(run.spec)} {metric}"
