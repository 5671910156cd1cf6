"""Which version of a distribution made a model slower: a search whose every step is a duel.

    1.20.1 ............ 1.23.0      is there a change at all?      the ends take turns
    1.20.1 ... 1.22.0 . 1.23.0      on which side is 1.22.0?       all three take turns
    1.20.1  1.21.0 ...              ... until two neighbours are left, which then take turns

A version is on the side that its ratio to the first one is nearer to, on the logarithmic scale. The
error rate is what the steps sum up to: each has a probability, by Student's t, of having turned the
wrong way. It rests on one change; several are told by a last ratio that is not the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from harness.compare.operators import OperatorChanges
from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable
from harness.stats.distributions import student_t_cdf
from harness.stats.paired import PairedRatio

MINIMUM_EFFECT = 0.01
ALPHA = 0.01
_WHOLE = 0.5  # of the change between the ends: less than that is not all of it

# the versions, the first is the reference; the ratio of each of the others to it
Duel = Callable[[Sequence[str]], Sequence[PairedRatio]]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One duel. ``ratios``: of each version but the first, to the first, with 95 % intervals."""

    versions: tuple[str, ...]
    ratios: tuple[tuple[float, float, float], ...]
    side: Literal["ends", "as before", "changed", "neighbours"]
    error: float  # probability of the wrong side


class PackageCulprit(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` made the change that lies between the ends; empty where there is none.

    ``ratio``: of it to ``before``, the version before it, with its 95 % interval.
    """

    distribution: str
    versions: tuple[str, ...]
    version: str
    before: str
    ratio: tuple[float, float, float] | None
    error: float
    whole: bool  # it explains the change between the ends
    steps: tuple[Step, ...]
    # of ``before`` (A) and ``version`` (B), profiled after their turns
    operators: Maybe[OperatorChanges] = Unavailable("no operators were compared")


def search(distribution: str, versions: Sequence[str], duel: Duel) -> PackageCulprit:
    """Raises `NothingComparable` where a duel has no ratio."""
    (ends,) = _ratios(duel, (versions[0], versions[-1]))
    steps = [_step((versions[0], versions[-1]), [ends], "ends", _beyond(ends, 0.0))]
    if abs(ends.log_ratio) < math.log1p(MINIMUM_EFFECT) or steps[0].error > ALPHA:
        return _found(distribution, versions, None, steps)
    good, bad = 0, len(versions) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        asked = (versions[0], versions[middle], versions[-1])
        nearer, whole = _ratios(duel, asked)
        share = nearer.log_ratio - whole.log_ratio / 2
        changed = (share > 0) == (whole.log_ratio > 0)
        error = _wrong(nearer, whole)
        side: Literal["changed", "as before"] = "changed" if changed else "as before"
        steps.append(_step(asked, [nearer, whole], side, error))
        good, bad = (good, middle) if changed else (middle, bad)
    last = ends
    if len(versions) > 2:
        pair = (versions[good], versions[bad])
        (last,) = _ratios(duel, pair)
        steps.append(_step(pair, [last], "neighbours", _beyond(last, 0.0)))
    return _found(distribution, versions, (good, bad, last, ends), steps)


def _ratios(duel: Duel, versions: Sequence[str]) -> Sequence[PairedRatio]:
    found = duel(versions)
    if len(found) != len(versions) - 1:
        raise NothingComparable(f"{', '.join(versions)} have no ratio", "measure longer")
    return found


def _beyond(found: PairedRatio, level: float) -> float:
    """Probability that the true one lies on the other side of ``level``."""
    return _p(found.log_ratio - level, found.error, found.dof)


def _wrong(nearer: PairedRatio, whole: PairedRatio) -> float:
    """That the middle is on the other side of half the way."""
    error = math.hypot(nearer.error, whole.error / 2)
    share = nearer.log_ratio - whole.log_ratio / 2
    return _p(share, error, min(nearer.dof, whole.dof))


def _p(distance: float, error: float, dof: float) -> float:
    if error <= 0.0:
        return 0.0 if distance else 0.5
    return student_t_cdf(-abs(distance) / error, dof)


def _step(
    versions: Sequence[str],
    found: Sequence[PairedRatio],
    side: Literal["ends", "as before", "changed", "neighbours"],
    error: float,
) -> Step:
    return Step(versions=tuple(versions), ratios=tuple(map(_shown, found)), side=side, error=error)


def _shown(found: PairedRatio) -> tuple[float, float, float]:
    half = found.half_width
    return (
        math.exp(found.log_ratio),
        math.exp(found.log_ratio - half),
        math.exp(found.log_ratio + half),
    )


def _found(
    distribution: str,
    versions: Sequence[str],
    culprit: tuple[int, int, PairedRatio, PairedRatio] | None,
    steps: Sequence[Step],
) -> PackageCulprit:
    if culprit is None:
        return PackageCulprit(
            distribution=distribution, versions=tuple(versions), version="", before="",
            ratio=None, error=steps[0].error, whole=False, steps=tuple(steps),
        )  # fmt: skip
    good, bad, last, ends = culprit
    share = last.log_ratio / ends.log_ratio
    return PackageCulprit(
        distribution=distribution,
        versions=tuple(versions),
        version=versions[bad],
        before=versions[good],
        ratio=_shown(last),
        error=min(1.0, sum(step.error for step in steps)),
        whole=share > _WHOLE,
        steps=tuple(steps),
    )
