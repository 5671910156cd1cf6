"""Regressions that are known and accepted: up to a ceiling, until a day, for a reason.

active      it covers a regression now
exceeded    worse than the ceiling: fails again
expired     fails, whatever the verdict: renew or remove it
stale       what it waives is no longer worse: remove it
idle        no verdict that it could apply to (too few launches, no such figure)
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Literal

import msgspec

from harness.compare.comparison import Comparison
from harness.compare.policy import Waiver
from harness.compare.verdicts import MetricVerdict
from harness.maybe import Unavailable
from harness.records.cell import fits
from harness.records.metric import METRICS

State = Literal["active", "exceeded", "expired", "stale", "idle"]


class WaiverState(msgspec.Struct, frozen=True, kw_only=True):
    """What a waiver does in this comparison, and why."""

    waiver: Waiver
    state: State
    message: str


def covering(
    waivers: Iterable[Waiver], cell: str, row: MetricVerdict, today: date
) -> Waiver | None:
    """The first waiver of this metric of this cell that still holds."""
    found = (one for one in waivers if _covers(one, cell, row) and one.expires >= today)
    return next(found, None)


def beyond(waiver: Waiver, row: MetricVerdict) -> bool:
    """Whether B is worse than the waiver accepts."""
    if isinstance(row.b, Unavailable):
        return False
    lower = METRICS[row.metric].better == "lower"
    return row.b > waiver.ceiling if lower else row.b < waiver.ceiling


def state_of(waiver: Waiver, found: Comparison, today: date) -> WaiverState:
    """What the waiver does in the comparison ``found``."""
    rows = [row for one in found.cells for row in one.rows if _covers(waiver, one.cell, row)]
    state, message = _state(waiver, rows, today)
    why = f"{waiver.issue}: {waiver.reason}"
    return WaiverState(waiver=waiver, state=state, message=f"{message} ({why})")


def _state(waiver: Waiver, rows: list[MetricVerdict], today: date) -> tuple[State, str]:
    regressed = [row for row in rows if row.verdict == "regressed"]
    if waiver.expires < today:
        return "expired", f"the waiver expired on {waiver.expires}"
    if any(beyond(waiver, row) for row in regressed):
        return "exceeded", f"worse than its ceiling of {waiver.ceiling:g}"
    if regressed:
        return "active", f"holds until {waiver.expires}"
    if rows and all(row.verdict in ("improved", "unchanged") for row in rows):
        return "stale", "nothing is worse any more: remove it"
    return "idle", "no verdict that it could apply to"


def _covers(waiver: Waiver, cell: str, row: MetricVerdict) -> bool:
    return waiver.metric == row.metric and fits(cell, waiver.cell)
