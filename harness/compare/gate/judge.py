"""The gate: what a policy makes of a comparison, case by case, and the one code it ends with.

    Comparison (verdicts) ──┐
    Policy ─────────────────┼── judge ──> Case, ... ──> exit code
    results ────────────────┘             one per cell and metric, limit, waiver, expected cell

Each case has a code: 0 is fine, 1 worse than allowed, 3 not measured, 4 not compared, 5 not
decided. The gate ends with the first of 1, 3, 4, 5 that any case has. What could not be compared or
decided is listed, and has a code with ``strict`` alone; where nothing at all was compared the gate
says so with 4: it never passes in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Literal, get_args

import msgspec

from harness.compare.comparison import CellComparison, Comparison, compare_sets
from harness.compare.gate.limits import Breach, absolute_limits, accuracy_floors, missing_cells
from harness.compare.gate.waivers import WaiverState, beyond, covering, state_of
from harness.compare.policy import Policy, Waiver, check_globs
from harness.compare.sides import Group, group
from harness.compare.undecided import Undecided, undecided
from harness.compare.verdicts import MetricVerdict, NightSd, Settings
from harness.errors import NothingComparable
from harness.records.cell import cell_of
from harness.records.result import Result

Kind = Literal[
    "regressed",
    "limit broken",
    "accuracy floor",
    "waiver expired",
    "failed",
    "missing",
    "nothing compared",
    "not comparable",
    "inconclusive",
    "not confirmed",
    "waived",
    "quarantined",
    "improved",
    "unchanged",
    "within limit",
]
Outcome = Literal[
    "pass", "regression", "failed", "nothing compared", "not compared", "inconclusive"
]
_OUTCOMES: dict[int, Outcome] = {
    0: "pass",
    1: "regression",
    3: "failed",
    4: "not compared",  # some, with ``strict``
    5: "inconclusive",
}
_NOISE_OF = "latency_median"
_JUDGED = ("improved", "regressed", "unchanged", "inconclusive")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was checked. ``check``: change, maximum, minimum, floor, waiver, measured,
    expected or anything. ``code`` is 0 where it fails nothing."""

    cell: str
    fingerprint: str
    hardware: str
    metric: str
    check: str
    kind: Kind
    code: int
    message: str
    row: MetricVerdict | None = None


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that was judged. ``proposals``: cells that are too noisy to gate, to be quarantined.

    ``undecided``: of how many figures nobody knows whether they are worse. ``confirmations``: what
    got worse, measured again with both builds side by side, those that took turns first.
    """

    outcome: Outcome
    exit_code: int
    strict: bool
    policy: str  # its file, or "default"
    cases: tuple[Case, ...]
    waivers: tuple[WaiverState, ...]
    proposals: tuple[str, ...]
    undecided: Undecided
    comparison: Comparison
    confirmations: tuple[Comparison, ...] = ()  # both builds again, duels first


def judge(
    baseline: Iterable[Result],
    candidate: Iterable[Result],
    policy: Policy | None = None,
    *,
    names: tuple[str, str] = ("baseline", "candidate"),
    source: str = "default",
    strict: bool | None = None,
    night_sd: NightSd | None = None,
    other_hardware: bool = False,
    problems: Sequence[str] = (),
    planned: Mapping[str, str] | None = None,
    today: date | None = None,
) -> GateReport:
    """Hold ``candidate`` against ``baseline``. ``strict`` overrides the policy's own.

    ``planned``: cells that the candidate's sweeps set out to measure, each with what happened.

    Raises `UsageError` where a glob of the policy matches no cell of either.
    """
    policy = policy or Policy()
    if strict is not None:
        policy = msgspec.structs.replace(policy, strict=strict)
    old, new = tuple(baseline), tuple(candidate)
    if old or new:
        check_globs(policy, [cell_of(result).name for result in (*old, *new)])
    settings = settings_of(policy, night_sd)
    found = compare_sets(
        old, new, settings, other_hardware=other_hardware, names=names, problems=problems
    )
    sides = group(old), group(new)
    missing = missing_cells(*sides, policy, planned or {})
    return _report(found, sides, missing, policy, source, today or date.today())


def settings_of(policy: Policy, night_sd: NightSd | None = None) -> Settings:
    """How ``policy`` wants figures compared."""
    return Settings(
        alpha=policy.alpha,
        minimum_launches=policy.minimum_launches,
        metrics=policy.judged(),
        minimum_effects=policy.minimum_effect,
        night_sd={} if night_sd is None else night_sd,
    )


def regressions(
    baseline: Sequence[Result], candidate: Sequence[Result], night_sd: NightSd | None = None
) -> list[str]:
    """One line for whatever fails the default policy, unmeasured cells included.

    Raises `NothingComparable` where there is nothing to judge by.
    """
    report = judge(baseline, candidate, night_sd=night_sd)
    if report.exit_code == 4:
        raise NothingComparable(report.cases[0].message)
    return [describe(case) for case in report.cases if case.code]


def describe(case: Case) -> str:
    """``digits/...: latency_median regressed: worse by 10 % ...``."""
    what = f"{case.metric} {case.kind}".strip()
    return f"{case.cell}: {what}: {case.message}" if case.cell else f"{what}: {case.message}"


def _report(
    found: Comparison,
    sides: tuple[Group, Group],
    missing: Iterable[tuple[str, str]],
    policy: Policy,
    source: str,
    today: date,
) -> GateReport:
    cases = [case for report in found.cells for case in _cell_cases(report, policy, today)]
    breaches = [*absolute_limits(sides[1], policy), *accuracy_floors(*sides, policy)]
    cases += [_breach_case(breach, policy) for breach in breaches]
    alerts = dict(missing)
    cases = [case for case in cases if case.kind != "missing" or case.cell not in alerts]
    for cell, why in alerts.items():
        case = _case(None, "", "expected", ("missing", 3, why))
        cases.append(msgspec.structs.replace(case, cell=cell))
    waivers = tuple(state_of(waiver, found, today) for waiver in policy.waiver)
    for one in waivers:
        if one.state == "expired":
            expired = _case(None, one.waiver.metric, "waiver", ("waiver expired", 1, one.message))
            cases.append(msgspec.structs.replace(expired, cell=one.waiver.cell))
    cases = [_quarantine(case, policy) for case in cases]
    if not any(row.verdict in _JUDGED for report in found.cells for row in report.rows):
        cases.append(_nothing(found))
    outcome, code = _outcome(cases)
    return GateReport(
        outcome=outcome,
        exit_code=code,
        strict=policy.strict,
        policy=source,
        cases=tuple(sorted(cases, key=_urgency)),
        waivers=waivers,
        proposals=tuple(_proposals(found, policy)),
        undecided=_undecided(cases),
        comparison=found,
    )


def concluded(report: GateReport, cases: Sequence[Case]) -> GateReport:
    """``report`` with other cases, and the outcome that follows from them."""
    outcome, code = _outcome(cases)
    return msgspec.structs.replace(
        report,
        outcome=outcome,
        exit_code=code,
        cases=tuple(sorted(cases, key=_urgency)),
        undecided=_undecided(cases),
    )


def _undecided(cases: Iterable[Case]) -> Undecided:
    """Each figure has a case; a second measurement may leave open what the first had judged."""
    return undecided(
        msgspec.structs.replace(case.row, verdict="inconclusive")
        if case.kind == "inconclusive"
        else case.row
        for case in cases
        if case.row is not None
    )


def _outcome(cases: Sequence[Case]) -> tuple[Outcome, int]:
    code = next((code for code in (1, 3, 4, 5) if any(case.code == code for case in cases)), 0)
    if code == 4 and any(case.kind == "nothing compared" for case in cases):
        return "nothing compared", 4
    return _OUTCOMES[code], code


def _urgency(case: Case) -> tuple[int, int, str, str, str]:
    """What fails first, worst first."""
    codes = (1, 3, 4, 5, 0)
    kinds = get_args(Kind)
    return codes.index(case.code), kinds.index(case.kind), case.cell, case.fingerprint, case.metric


def _cell_cases(report: CellComparison, policy: Policy, today: date) -> Iterator[Case]:
    """Of one cell: each of its verdicts; and that it has none, or what else failed beside them."""
    if report.apart:
        yield _apart_case(report, policy)
    elif report.b is not None and report.b.failed:
        run, why = next(iter(report.b.failed.items()))
        attempts = f"{len(report.b.failed)} failed beside those that finished: {run}: {why}"
        yield _case(report, "", "measured", ("failed", 3 * policy.strict, attempts))
    for row in report.rows:
        if row.verdict is not None:
            kind, code, message = _row_outcome(report, row, policy, today)
            message = f"{message}; doubt: {row.doubt}" if row.doubt else message
            case = _case(report, row.metric, "change", (kind, code, message))
            yield msgspec.structs.replace(case, row=row)


def _apart_case(report: CellComparison, policy: Policy) -> Case:
    kind: Kind = "missing" if report.b is None else "not comparable"
    code = 4 * policy.strict
    if report.rows:  # ratios between two machines say nothing about the candidate
        code = 0
    if report.b is not None and not report.b.ids:
        kind, code = "failed", 3
    return _case(report, "", "measured", (kind, code, report.reason))


def _row_outcome(
    report: CellComparison, row: MetricVerdict, policy: Policy, today: date
) -> tuple[Kind, int, str]:
    if row.verdict == "regressed":
        found = covering(policy.waiver, report.cell, row, today)
        return ("regressed", 1, row.reason) if found is None else _waived(found, row)
    if row.verdict == "inconclusive":
        return "inconclusive", 5 * policy.strict, row.reason
    if row.verdict == "improved" or row.verdict == "unchanged":
        return row.verdict, 0, row.reason
    return "not comparable", 0 if report.apart else 4 * policy.strict, row.reason


def _waived(waiver: Waiver, row: MetricVerdict) -> tuple[Kind, int, str]:
    ceiling = f"{waiver.ceiling:g} {row.unit}".rstrip()
    if beyond(waiver, row):
        return "regressed", 1, f"beyond the waiver's {ceiling} ({waiver.issue}); {row.reason}"
    why = f"{waiver.reason} ({waiver.issue})"
    return "waived", 0, f"until {waiver.expires} up to {ceiling}: {why}; {row.reason}"


def _breach_case(breach: Breach, policy: Policy) -> Case:
    broken: Kind = "accuracy floor" if breach.check == "floor" else "limit broken"
    kinds: dict[str, tuple[Kind, int]] = {
        "broken": (broken, 1),
        "kept": ("within limit", 0),
        "unknown": ("not comparable", 4 * policy.strict),
    }
    kind, code = kinds[breach.state]
    return Case(
        cell=breach.cell,
        fingerprint=breach.fingerprint,
        hardware=breach.hardware,
        metric=breach.metric,
        check=breach.check,
        kind=kind,
        code=code,
        message=breach.message,
    )


def _nothing(found: Comparison) -> Case:
    reasons = list(dict.fromkeys(report.reason for report in found.cells if report.reason))
    why = reasons[0] if reasons else "the two sides share no figure"
    others = len(reasons) - 1
    more = f"; {others} more reason{'s' if others > 1 else ''}" if others > 0 else ""
    return _case(
        None,
        "",
        "anything",
        ("nothing compared", 4, why + more),
    )


def _case(
    report: CellComparison | None, metric: str, check: str, outcome: tuple[Kind, int, str]
) -> Case:
    kind, code, message = outcome
    return Case(
        cell=report.cell if report else "",
        fingerprint=report.fingerprint if report else "",
        hardware=report.hardware if report else "",
        metric=metric,
        check=check,
        kind=kind,
        code=code,
        message=message,
    )


def _quarantine(case: Case, policy: Policy) -> Case:
    """Cells in quarantine are shown with what they would have said, and fail nothing."""
    harmless = not case.code and case.kind not in ("regressed", "failed")
    if harmless or not case.cell or not policy.quarantined(case.cell) or case.check == "waiver":
        return case
    message = f"{case.kind}: {case.message}"
    return msgspec.structs.replace(case, kind="quarantined", code=0, message=message)


def _proposals(found: Comparison, policy: Policy) -> Iterator[str]:
    limit = policy.quarantine.propose_above_cv
    for report in found.cells:
        cvs = [cv for row in report.rows if row.metric == _NOISE_OF for cv in row.cv if cv]
        if cvs and max(cvs) > limit and not policy.quarantined(report.cell):
            yield (
                f"{report.cell}: its launches vary by {100 * max(cvs):.1f} %, over "
                f"{100 * limit:.1f} %; consider quarantine.cells = [{report.cell!r}]"
            )
