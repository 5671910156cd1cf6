"""One series night by night: its levels, what changed last and when, and whether it creeps.

incident    the last change, if it is for the worse and by more than matters
drift       a straight line explains the last 60 nights better than levels do, and what it adds
            up to matters: nothing happened on any one night, yet the cell has become slower
night sd    how far nights lie apart within a level, in logs: what a comparison of two nights
            must allow for
baseline    median of up to 20 last nights of the present level
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec
import numpy as np

from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable
from harness.records.metric import Better
from harness.stats.changepoints import Floats, change_points, clipped, residuals

MIN_NIGHTS_OF_HISTORY = 6
BASELINE_NIGHTS = 20
DRIFT_NIGHTS = 60
TRIGGER_SDS = 1.5
_NEAR_NIGHTS = 5  # an acknowledged change may be dated a little differently later on
_SD_OF_MAD = 1.4826
_DRIFT_T = 4.0  # of the slope, with its error stretched by autocorrelation


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A new level. ``index`` is its first night, ``last_good`` the last one before it."""

    index: int
    before: float  # medians of the levels, in the unit of the series
    after: float
    ratio: float
    verdict: Literal["regressed", "improved", "unchanged"]

    @property
    def last_good(self) -> int:
        return self.index - 1


class Drift(msgspec.Struct, frozen=True):
    """``change`` adds up over ``nights``: 0.04 is 4 % more."""

    change: float
    nights: int
    verdict: Literal["worse", "better"]


class Tonight(msgspec.Struct, frozen=True, kw_only=True):
    """The newest night over the median of the good ones before it. ``nights``: so many in a row."""

    ratio: float
    limit: float  # ratio - 1 that would be too much
    nights: int
    verdict: Literal["fine", "improved", "suspicious", "regressed"]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What a series says. ``incident`` repeats the last change where that is a regression."""

    nights: int
    changes: tuple[Change, ...]
    incident: Change | None
    drift: Drift | None
    tonight: Maybe[Tonight]
    level: float
    baseline: Maybe[float]
    good: tuple[int, int]  # the nights that the baseline is made of: from, and up to
    night_sd: Maybe[float]  # of logs: 0.01 is about 1 %


def history(
    values: Sequence[float],
    better: Better,
    minimum_effect: float,
    acknowledged: Collection[int] = (),
) -> History:
    """The history of positive ``values``, oldest first.

    ``acknowledged``: indices of nights on which a change is known and accepted.

    Raises `NothingComparable` for values that are not positive and finite, or none at all.
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.all(np.isfinite(array) & (array > 0)):
        raise NothingComparable(
            "the series holds no positive values alone", "leave out what was not measured"
        )
    at = change_points(array)
    changes = tuple(_changes(array, at, better, minimum_effect))
    last = changes[-1] if changes and not _accepted(changes[-1], acknowledged) else None
    drift = _drift(array, at, better, minimum_effect)
    incident = last if last and last.verdict == "regressed" and not drift else None
    spread = _night_sd(array, at)
    log_limit = math.log1p(minimum_effect)
    if not isinstance(spread, Unavailable):
        log_limit = max(log_limit, TRIGGER_SDS * spread)
    start, end = _good(array, at, incident, better, log_limit)
    baseline = _baseline(array[start:end])
    return History(
        nights=len(array),
        changes=changes,
        incident=incident,
        drift=drift,
        tonight=baseline
        if isinstance(baseline, Unavailable)
        else _tonight(float(array[-1]) / baseline, len(array) - end, better, log_limit),
        level=float(np.median(array[at[-1] if at else 0 :])),
        baseline=baseline,
        good=(start, end),
        night_sd=spread,
    )


def _accepted(change: Change, acknowledged: Collection[int]) -> bool:
    return any(abs(change.index - night) <= _NEAR_NIGHTS for night in acknowledged)


def _good(
    values: Floats, at: Sequence[int], incident: Change | None, better: Better, log_limit: float
) -> tuple[int, int]:
    """The last nights before tonight that nothing is held against: at most 20, of one level."""
    last = incident.index if incident else len(values)
    start = max((index for index in at if index < last), default=0)
    end = last if incident else len(values) - 1
    while not incident and end - start > BASELINE_NIGHTS // 4:
        before = float(np.median(values[start : end - 1][-BASELINE_NIGHTS:]))
        if _worse(float(values[end - 1]) / before, better) <= log_limit:
            break
        end -= 1
    return max(start, end - BASELINE_NIGHTS), end


def _baseline(good: Floats) -> Maybe[float]:
    if len(good) < MIN_NIGHTS_OF_HISTORY:
        return Unavailable(
            f"{len(good)} good nights before tonight are no baseline",
            f"measure at least {MIN_NIGHTS_OF_HISTORY}",
        )
    return float(np.median(good))


def _tonight(ratio: float, since: int, better: Better, log_limit: float) -> Tonight:
    """``since``: nights since the last good one, tonight included."""
    worse = _worse(ratio, better)
    verdict: Literal["fine", "improved", "suspicious", "regressed"] = "fine"
    if worse > log_limit:
        verdict = "regressed" if since > 1 else "suspicious"
    elif worse < -log_limit:
        verdict = "improved"
    nights = since if worse > log_limit else 0
    return Tonight(ratio=ratio, limit=math.expm1(log_limit), nights=nights, verdict=verdict)


def _worse(ratio: float, better: Better) -> float:
    """In logs; above 0 is worse."""
    return math.log(ratio) * (1 if better == "lower" else -1)


def _changes(
    values: Floats, at: Sequence[int], better: Better, minimum_effect: float
) -> list[Change]:
    bounds = [0, *at, len(values)]
    found = []
    for start, index, end in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True):
        before, after = float(np.median(values[start:index])), float(np.median(values[index:end]))
        worse = _worse(after / before, better)
        limit = math.log1p(minimum_effect)
        verdict: Literal["regressed", "improved", "unchanged"] = (
            "regressed" if worse > limit else "improved" if worse < -limit else "unchanged"
        )
        found.append(
            Change(index=index, before=before, after=after, ratio=after / before, verdict=verdict)
        )
    return found


def _night_sd(values: Floats, at: Sequence[int]) -> Maybe[float]:
    if len(values) < MIN_NIGHTS_OF_HISTORY:
        return Unavailable(
            f"{len(values)} night{' says' if len(values) == 1 else 's say'} nothing of how nights"
            " differ",
            f"measure at least {MIN_NIGHTS_OF_HISTORY}",
        )
    return float(_SD_OF_MAD * np.median(np.abs(residuals(np.log(values), at))))


def _drift(
    values: Floats, at: Sequence[int], better: Better, minimum_effect: float
) -> Drift | None:
    """By the information criterion of Schwarz (1978): a line has 2 parameters, k levels 2k - 1."""
    logs = clipped(values)[-DRIFT_NIGHTS:]
    count = len(logs)
    if count < DRIFT_NIGHTS // 2:
        return None
    first = len(values) - count
    levels = [index - first for index in at if index > first]
    from_levels = residuals(logs, levels)
    nights: Floats = np.arange(count, dtype=np.float64) - (count - 1) / 2
    slope = float(nights @ logs / (nights @ nights))
    from_line: Floats = logs - logs.mean() - slope * nights
    line, steps = float(from_line @ from_line), float(from_levels @ from_levels)
    if line <= 0.0:
        return None  # a series without any noise: its levels are exact
    if steps > 0.0 and _schwarz(line, count, 2) >= _schwarz(steps, count, 2 * len(levels) + 1):
        return None
    added = slope * (count - 1)
    if abs(added) <= math.log1p(minimum_effect) or not _certain(slope, nights, from_line):
        return None
    worse = (added > 0) == (better == "lower")
    return Drift(math.expm1(added), count, "worse" if worse else "better")


def _schwarz(squares: float, count: int, parameters: int) -> float:
    return count * math.log(squares / count) + parameters * math.log(count)


def _certain(slope: float, nights: Floats, left: Floats) -> bool:
    squares = float(left @ left)
    autocorrelation = min(max(float(left[1:] @ left[:-1]) / squares, 0.0), 0.8)
    stretched = (1 + autocorrelation) / (1 - autocorrelation)
    error = math.sqrt(squares / (len(left) - 2) * stretched / float(nights @ nights))
    return abs(slope) > _DRIFT_T * error
