"""What a second, interleaved measurement makes of a night's regressions.

tonight against the baseline      both builds again, tonight       it was
regressed                         regressed                        the software: confirmed
regressed                         unchanged, improved              the night or the machine
regressed                         inconclusive                     undecided
regressed                         could not be measured            a regression, unconfirmed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from harness.compare.comparison import Comparison
from harness.compare.gate.judge import Case, GateReport, concluded
from harness.compare.verdicts import MetricVerdict
from harness.spec import TURNS

_LATENCY, _THROUGHPUT = "latency_median", "throughput"


def regressed_cells(report: GateReport) -> list[str]:
    """The cells that fail because something got worse, each once."""
    return list(dict.fromkeys(case.cell for case in report.cases if _unconfirmed(case)))


def open_cells(report: GateReport, again: Comparison) -> list[str]:
    """The cells of which ``again`` leaves a regression unsettled, each once."""
    rows = _rows(report, again)
    unsettled = (
        case.cell
        for case in report.cases
        if _unconfirmed(case) and (case.cell, case.metric) not in rows
    )
    return list(dict.fromkeys(unsettled))


def confirmed(
    report: GateReport, again: Sequence[Comparison], failed: Mapping[str, str]
) -> GateReport:
    """``report`` with each regression settled by the first of ``again`` that judges it; ``failed``:
    cell -> why it was not measured again."""
    rows = {key: row for one in reversed(again) for key, row in _rows(report, one).items()}
    cases = [
        _settled(case, rows.get((case.cell, case.metric)), failed.get(case.cell), report.strict)
        if _unconfirmed(case)
        else case
        for case in report.cases
    ]
    found = concluded(report, cases)
    return msgspec.structs.replace(found, confirmations=tuple(one for one in again if one.cells))


def _rows(report: GateReport, again: Comparison) -> dict[tuple[str, str], MetricVerdict]:
    """What ``again`` judges, by cell and metric.

    Turns have no throughput. Where it got worse together with the latency, of one inference at a
    time, it is the other side of that, and settled with it.
    """
    rows = {
        (cell.cell, row.metric): row
        for cell in again.cells
        for row in cell.rows
        if row.verdict not in (None, "not comparable")
    }
    worse = {(case.cell, case.metric) for case in report.cases if _unconfirmed(case)}
    for cell, metric in worse:
        latency = rows.get((cell, _LATENCY))
        if (
            metric == _THROUGHPUT and (cell, metric) not in rows and latency is not None
            and (cell, _LATENCY) in worse and again.design == TURNS
        ):  # fmt: skip
            told = f"by the latency, whose other side it is: {latency.reason}"
            rows[cell, metric] = msgspec.structs.replace(latency, reason=told)
    return rows


def _unconfirmed(case: Case) -> bool:
    return case.kind == "regressed" and case.code == 1


def _settled(case: Case, row: MetricVerdict | None, why: str | None, strict: bool) -> Case:
    replace = msgspec.structs.replace
    if row is None:
        message = f"{case.message}; could not be confirmed: {why or 'it was not measured again'}"
        return replace(case, message=message)
    told = f"side by side, {row.reason}"
    if row.verdict == "regressed":
        return replace(case, message=f"{case.message}; confirmed {told}")
    if row.verdict == "inconclusive":
        message = f"{case.message}; not decided {told}"
        return replace(case, kind="inconclusive", code=5 * strict, message=message)
    message = f"not the software: {told}; the night or the machine differed ({case.message})"
    return replace(case, kind="not confirmed", code=0, message=message)
