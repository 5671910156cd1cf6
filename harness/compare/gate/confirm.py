"""What a second, interleaved measurement makes of a night's regressions.

tonight against the baseline      both builds again, tonight       it was
regressed                         regressed                        the software: confirmed
regressed                         unchanged, improved              the night or the machine
regressed                         inconclusive                     undecided
regressed                         could not be measured            a regression, unconfirmed
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from harness.compare.comparison import Comparison
from harness.compare.gate.judge import Case, GateReport, concluded
from harness.compare.verdicts import MetricVerdict


def regressed_cells(report: GateReport) -> list[str]:
    """The cells that fail because something got worse, each once."""
    return list(dict.fromkeys(case.cell for case in report.cases if _unconfirmed(case)))


def confirmed(report: GateReport, again: Comparison, failed: Mapping[str, str]) -> GateReport:
    """``report`` with each regression settled by ``again``; ``failed``: cell -> why it was not
    measured again."""
    rows = {(cell.cell, row.metric): row for cell in again.cells for row in cell.rows}
    cases = [
        _settled(case, rows.get((case.cell, case.metric)), failed.get(case.cell), report.strict)
        if _unconfirmed(case)
        else case
        for case in report.cases
    ]
    return concluded(report, cases)


def _unconfirmed(case: Case) -> bool:
    return case.kind == "regressed" and case.code == 1


def _settled(case: Case, row: MetricVerdict | None, why: str | None, strict: bool) -> Case:
    replace = msgspec.structs.replace
    if row is None or row.verdict is None:
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
