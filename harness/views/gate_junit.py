"""A gate's report as JUnit XML, for whatever shows test results.

    worse than allowed                      failure
    not measured                            error
    not compared, not decided               skipped, or a failure where ``strict`` counts it
    waived, in quarantine                   skipped, with the reason
    everything else                         passed

One test case per cell, metric and check; ``classname`` is the machine. Numbers are properties.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.compare.gate.judge import Case, GateReport
from harness.maybe import Unavailable
from harness.views.junit import JunitCase, document

_SKIPPED = ("not confirmed", "not comparable", "missing", "nothing compared", "inconclusive",
            "waived", "quarantined")  # fmt: skip


def render_junit(report: GateReport) -> bytes:
    """The XML document, in UTF-8."""
    found = report.comparison
    properties = {
        "baseline": found.a, "candidate": found.b, "outcome": report.outcome,
        "exit_code": report.exit_code, "policy": report.policy, "strict": report.strict,
        "alpha": found.alpha, "comparisons": found.comparisons,
        **{f"undecided_{name}": n for name, n in msgspec.structs.asdict(report.undecided).items()},
    }  # fmt: skip
    return document("harness check", [_case(case) for case in report.cases], properties)


def _outcome(case: Case) -> Literal["passed", "failure", "error", "skipped"]:
    if case.code:
        return "error" if case.code == 3 else "failure"
    return "skipped" if case.kind in _SKIPPED else "passed"


def _case(case: Case) -> JunitCase:
    return JunitCase(
        machine=f"{case.hardware} ({case.fingerprint})" if case.fingerprint else "harness",
        name=" ".join(filter(None, (case.cell, case.metric, case.check))),
        properties={"verdict": case.kind, **_numbers(case)},
        outcome=_outcome(case),
        kind=case.kind,
        message=case.message,
        text=case.message,
    )


def _numbers(case: Case) -> dict[str, object]:
    row = case.row
    if row is None:
        return {}
    found: dict[str, object] = {
        "unit": row.unit,
        "baseline": row.a,
        "candidate": row.b,
        "ratio": row.ratio,
        "p": row.p,
        "p_adjusted": row.p_adjusted,
        "detectable": row.detectable,
        "minimum_effect": row.minimum_effect,
        "launches_baseline": row.launches[0],
        "launches_candidate": row.launches[1],
    }
    if not isinstance(row.interval, Unavailable):
        found |= {"ratio_low": row.interval[0], "ratio_high": row.interval[1]}
    return found
