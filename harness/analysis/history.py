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
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from harness.analysis.changepoints import Floats, change_points, clipped, residuals
from harness.analysis.metrics import Better
from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable

MIN_NIGHTS_OF_HISTORY = 6
BASELINE_NIGHTS = 20
DRIFT_NIGHTS = 60
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


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What a series says. ``incident`` repeats the last change where that is a regression."""

    nights: int
    changes: tuple[Change, ...]
    incident: Change | None
    drift: Drift | None
    baseline: float
    night_sd: Maybe[float]  # of logs: 0.01 is about 1 %


def history(values: Sequence[float], better: Better, minimum_effect: float) -> History:
    """The history of positive ``values``, oldest first.

    Raises `NothingComparable` for values that are not positive and finite, or none at all.
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.all(np.isfinite(array) & (array > 0)):
        raise NothingComparable(
            "the series holds no positive values alone", "leave out what was not measured"
        )
    at = change_points(array)
    changes = tuple(_changes(array, at, better, minimum_effect))
    last = changes[-1] if changes else None
    drift = _drift(array, at, better, minimum_effect)
    return History(
        nights=len(array),
        changes=changes,
        incident=last if last and last.verdict == "regressed" and not drift else None,
        drift=drift,
        baseline=float(np.median(array[at[-1] if at else 0 :][-BASELINE_NIGHTS:])),
        night_sd=_night_sd(array, at),
    )


def _changes(
    values: Floats, at: Sequence[int], better: Better, minimum_effect: float
) -> list[Change]:
    bounds = [0, *at, len(values)]
    found = []
    for start, index, end in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True):
        before, after = float(np.median(values[start:index])), float(np.median(values[index:end]))
        worse = math.log(after / before) * (1 if better == "lower" else -1)
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
            f"{len(values)} nights say nothing of how nights differ",
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
