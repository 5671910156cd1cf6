"""The ratio of two variants that took turns on the same processors.

    launch l    | A | B |  | B | A |  | A | B | ...      short turns, in random order
                 round 1    round 2    round 3

What a machine does to both turns of a round (its clock, its other guests) is in neither side's
favour and leaves their ratio; what differs between launches (where memory lies, which core) does
not, so both levels carry into the interval:

    d_lr   log of B's median turn over A's, in round r of launch l
    e_l    mean of the middle half of d_l. (interquartile mean): a turn that was hit counts little
    s_l    its standard error: rounds follow one another, so batch means of the winsorized d_l.
           (Tukey and McLaughlin, 1963, for the trimmed mean; Schmeiser, 1982, for the batches)
    e      mean of the e_l: unweighted, since what differs between launches counts once a launch,
           and weights from a handful of batches would be noise themselves
    se     the larger of sd(e_l) / sqrt(L) and sqrt(sum of s_l^2) / L: what launches show of their
           spread, but never less than their rounds explain
    95 %   exp(e -+ t(L - 1) se)

With one launch there is no spread between launches to see; the interval then is that of its rounds
alone, and whoever shows it must say so. `tests/unit/stats/test_paired.py` simulates the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import NothingComparable
from harness.records.metric import Better
from harness.stats.distributions import student_t_ppf
from harness.stats.two_samples import MIN_LAUNCHES, Difference, Estimate, Terms

Floats = NDArray[np.float64]
Rounds = Sequence[float] | NDArray[Any]

MIN_ROUNDS = 8  # of a launch: two batches of four
_MOST_BATCHES = 20
_SHORTEST_BATCH = 4
_TRIMMED = 0.25  # of the rounds at either end
_UPPER = 0.975
_LOOKS = 1.2


class LaunchRatio(msgspec.Struct, frozen=True):
    """One launch's log ratio; ``error`` is its standard error, ``dof`` those of the batches."""

    log_ratio: float
    error: float
    dof: int
    rounds: int


class PairedRatio(msgspec.Struct, frozen=True):
    """B over A over all launches, as a logarithm with its standard error and degrees of freedom.

    ``between``: standard deviation between launches beyond what their rounds explain.
    """

    log_ratio: float
    error: float
    dof: float
    between: float
    launches: tuple[LaunchRatio, ...]

    @property
    def half_width(self) -> float:
        """Of the 95 % interval, in logarithms."""
        return student_t_ppf(_UPPER, self.dof) * self.error


def of_launch(a: Rounds, b: Rounds) -> LaunchRatio:
    """One launch from what a turn of each variant took, round by round, in any one unit.

    Raises `NothingComparable` for fewer than `MIN_ROUNDS` rounds, or for a turn that is not
    positive and finite.
    """
    turns = np.asarray([a, b], dtype=np.float64)
    if turns.shape[1] < MIN_ROUNDS:
        raise NothingComparable(
            f"{turns.shape[1]} rounds are too few for an interval",
            f"measure at least {MIN_ROUNDS}: longer, or in shorter turns",
        )
    if not np.all(np.isfinite(turns) & (turns > 0.0)):
        raise NothingComparable("a turn without a positive latency has no ratio")
    differences = np.log(turns[1]) - np.log(turns[0])
    influences = _influences(differences)
    batches = _batches(influences)
    error = float(batches.std(ddof=1)) / math.sqrt(len(batches))
    return LaunchRatio(float(influences.mean()), error, len(batches) - 1, len(differences))


def over_launches(launches: Sequence[LaunchRatio]) -> PairedRatio:
    """All launches as one ratio. Raises `NothingComparable` without any."""
    if not launches:
        raise NothingComparable("no launch has a ratio", "measure longer")
    if len(launches) == 1:
        (one,) = launches
        return PairedRatio(one.log_ratio, one.error, float(one.dof), 0.0, (one,))
    count = len(launches)
    ratios = np.array([launch.log_ratio for launch in launches])
    within = float(np.sum([launch.error**2 for launch in launches])) / count**2
    seen = float(ratios.var(ddof=1)) / count
    between = math.sqrt(max(seen - within, 0.0) * count)
    error = math.sqrt(max(seen, within))
    return PairedRatio(float(ratios.mean()), error, count - 1.0, between, tuple(launches))


def of_stretches(pairs: Sequence[tuple[float, float]]) -> LaunchRatio:
    """One launch from few long stretches: of each pair the log ratio, and its own standard error.

    The error is the larger of what the pairs show of their spread and what theirs explain. Raises
    `NothingComparable` without any.
    """
    if not pairs:
        raise NothingComparable("no stretch was metered on both sides")
    ratios, errors = np.array(pairs, dtype=np.float64).T
    count = len(ratios)
    error = float(np.hypot.reduce(errors)) / count
    if count > 1:
        error = max(error, float(ratios.std(ddof=1)) / math.sqrt(count))
    return LaunchRatio(float(ratios.mean()), error, count - 1, count)


def after_looks(found: PairedRatio) -> PairedRatio:
    """``found`` where a rule looked after each launch whether the interval was narrow enough.

    Such a rule ends where the launches happen to lie close together, so that their spread says too
    little: the plain interval covers 92 % and calls 2 of 100 equal pairs different. An error larger
    by `_LOOKS` makes that 95 % and 1 of 100 in the worst case simulated.
    """
    if len(found.launches) < 2:
        return found
    return msgspec.structs.replace(found, error=_LOOKS * found.error)


def batches_of(rounds: int) -> int:
    """How many batches tell the spread of a launch of so many rounds."""
    return min(_MOST_BATCHES, rounds // _SHORTEST_BATCH)


def estimate_of(
    found: PairedRatio,
    minimum_effect: float,
    better: Better = "lower",
    minimum_launches: int = MIN_LAUNCHES,
) -> Estimate:
    """``found`` as `harness.stats.two_samples.judge` takes it: the same words, the same errors."""
    count = len(found.launches)
    return Estimate(
        terms=Terms(
            minimum_effect=minimum_effect, better=better, minimum_launches=minimum_launches
        ),
        shift=found.log_ratio,
        difference=Difference(found.log_ratio, found.error, found.dof),
        launches=(count, count),
    )


def _influences(values: Floats) -> Floats:
    """Values whose mean is the trimmed mean, and whose spread is its own.

    Each is the value drawn in to the quarter it lies beyond, blown up about the centre by the share
    that was kept.
    """
    ordered = np.sort(values)
    cut = int(_TRIMMED * len(ordered))
    low, high = ordered[cut], ordered[len(ordered) - 1 - cut]
    centre = float(ordered[cut : len(ordered) - cut].mean())
    drawn_in = np.clip(values, low, high)
    kept = 1.0 - 2.0 * cut / len(ordered)
    influences: Floats = centre + (drawn_in - drawn_in.mean()) / kept
    return influences


def _batches(values: Floats) -> Floats:
    """Means of consecutive stretches of equal length, as many as tell the spread well."""
    number = batches_of(len(values))
    length = len(values) // number
    means: Floats = values[len(values) - number * length :].reshape(number, length).mean(axis=1)
    return means
