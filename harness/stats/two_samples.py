"""Is b different from a? Launches are compared, never iterations.

One positive number per launch (its median latency, its joules per inference, ...) goes in: a launch
is what is repeated, and thousands of iterations of one launch know nothing of the next one. All
work is on logarithms, so a change is a ratio and the two sides are treated alike.

    ratio       exp(Hodges-Lehmann): median of all differences log b_j - log a_i; one odd launch
                hardly moves it
    interval    ratio x exp(+- t x se), se and degrees of freedom by Welch, 95 %
    p_worse     one-sided Welch t test of "b is worse"; 1 - p_worse is that of "b is better"

    verdict     regressed      p_worse < alpha, and worse by more than the minimum effect
                improved       the same on the other side
                unchanged      the whole interval lies within the minimum effect (equivalence)
                inconclusive   none of these, or fewer than 5 launches on a side; with the reason

A p value alone flags changes too small to matter; a threshold alone flags noise. Simulated with 5
launches a side, 1 / 2 / 3 % apart: false regressions in 0.1 / 0.7 / 0.8 % of comparisons, steps of
5 % found in 99 / 71 / 38 %. Results taken on different days also differ by the day: measure them
interleaved, or raise ``minimum_effect`` to 3 sqrt(2) times the day's spread (`night_floor`).

Where many quantities are compared at once, each p value is adjusted for their number before it is
held against alpha, and the smallest detectable change is that of such a family:

    estimate(question) ──┐
    estimate(question) ──┼── adjust(p of all, alpha) ── judge(estimate, adjusted)
    paired test ─────────┘

A quantity that is the same in every launch of a side (memory, often) has no noise to test against:
with ``deterministic`` the minimum effect alone decides there, from 2 launches a side on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable
from harness.records.metric import Better
from harness.stats.distributions import student_t_cdf, student_t_ppf

MIN_LAUNCHES = 5  # below it the spread between processes is not known well enough to judge by
Outcome = Literal["improved", "regressed", "unchanged", "inconclusive"]
Values = Sequence[float] | NDArray[Any]

_UPPER = 0.975
_POWER = 0.80
_FURTHEST = 300.0  # of logarithms; beyond it a file holds no measurement


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """b over a. Ratios above 1 mean b is larger, whichever direction is better."""

    verdict: Outcome
    reason: str
    ratio: float
    interval: Maybe[tuple[float, float]]  # 95 %
    p_worse: Maybe[float]  # one-sided; uniform where nothing changed, so fit for many comparisons
    p_adjusted: Maybe[float]  # of the direction seen, for the number of comparisons made at once
    detectable: Maybe[float]  # smallest worsening found in 3 of 4 such comparisons, ratio - 1
    launches: tuple[int, int]
    better: Better
    minimum_effect: float
    alpha: float


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as a change, and from how many launches a side on it is judged."""

    minimum_effect: float = 0.02
    better: Better = "lower"
    deterministic: bool = False
    minimum_launches: int = MIN_LAUNCHES


class Question(Terms, frozen=True, kw_only=True):
    """Per-launch values of both sides, in any one unit; ``a`` is the reference."""

    a: Values
    b: Values


class Difference(msgspec.Struct, frozen=True):
    """Of logarithms, b - a, with its standard error and degrees of freedom."""

    value: float
    error: float
    dof: float


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides say before any other comparison is looked at.

    `estimate` makes one of two independent samples. Of another design (variants that took turns in
    each launch) whoever knows its shift and its error makes one, and is judged by the same words.
    """

    terms: Terms
    shift: float  # of logarithms, b - a: the ratio that is shown
    difference: Difference | None  # what is tested; None: a side with a single launch
    launches: tuple[int, int]

    @property
    def exact(self) -> bool:
        """A deterministic quantity without any spread: the minimum effect alone decides."""
        return (
            self.terms.deterministic
            and self.difference is not None
            and self.difference.error == 0.0
        )

    @property
    def p_values(self) -> tuple[float, float] | None:
        """One-sided p of *worse* and of *better*; None where nothing is tested."""
        few = min(self.launches) < self.terms.minimum_launches
        if self.difference is None or few or self.exact:
            return None
        p_worse = _p_worse(self.difference, self.terms.better)
        return p_worse, 1.0 - p_worse


class Adjusted(msgspec.Struct, frozen=True):
    """One comparison's p values among all of its family's, by Benjamini and Hochberg."""

    p_worse: float
    p_better: float
    level: float  # what a p value by itself has to be below, given the others
    family: int


def compare(
    a: Values,
    b: Values,
    minimum_effect: float = 0.02,
    alpha: float = 0.01,
    better: Better = "lower",
) -> Shift:
    """Compare per-launch values ``a`` (the reference) and ``b``, in any one unit.

    Raises `NothingComparable` where a side is empty, or a value not positive and finite.
    """
    found = estimate(Question(a=a, b=b, minimum_effect=minimum_effect, better=better))
    tested = adjust([found.p_values] if found.p_values else [], alpha)
    return judge(found, tested[0] if tested else None, alpha)


def estimate(question: Question) -> Estimate:
    """The change, and what it is uncertain by. Raises as `compare` does."""
    a, b = _logs("a", question.a), _logs("b", question.b)
    difference = _welch(a, b) if min(len(a), len(b)) >= 2 else None
    shift = hodges_lehmann(a, b)
    if abs(shift) > _FURTHEST:
        raise NothingComparable("the sides lie beyond all measure apart", "look at the files")
    return Estimate(
        terms=question,
        shift=shift,
        difference=difference,
        launches=(len(a), len(b)),
    )


def adjust(p_values: Sequence[tuple[float, float]], alpha: float) -> list[Adjusted]:
    """(p of worse, p of better) of a whole family, adjusted: each direction for itself."""
    if not p_values:
        return []
    worse, better = (benjamini_hochberg(side) for side in zip(*p_values, strict=True))
    family = len(p_values)
    found = int(np.count_nonzero(worse < alpha))
    level = alpha * min(family, found + 1) / family
    return [Adjusted(float(w), float(b), level, family) for w, b in zip(worse, better, strict=True)]


def judge(found: Estimate, adjusted: Adjusted | None, alpha: float) -> Shift:
    """The verdict on one estimate; ``adjusted`` is None where `Estimate.p_values` is."""
    terms, difference = found.terms, found.difference
    verdict, reason = _judge(found, adjusted, alpha)
    single = Unavailable("a side has a single launch", f"--launches {MIN_LAUNCHES}")
    untested = Unavailable("not tested", f"--launches {MIN_LAUNCHES}")
    level = adjusted.level if adjusted else alpha
    return Shift(
        verdict=verdict,
        reason=reason,
        ratio=math.exp(found.shift),
        interval=_interval(found.shift, difference) if difference else single,
        p_worse=_p_worse(difference, terms.better) if difference else single,
        p_adjusted=min(adjusted.p_worse, adjusted.p_better) if adjusted else untested,
        detectable=_detectable(difference, terms.minimum_effect, level) if difference else single,
        launches=found.launches,
        better=terms.better,
        minimum_effect=terms.minimum_effect,
        alpha=alpha,
    )


def night_floor(minimum_effect: float, night_sd: float) -> float:
    """The minimum effect between two nights, whose levels differ with ``night_sd`` (of logs).

    A difference of two nights has sqrt(2) times that spread; three such spreads are the limit.
    """
    return max(minimum_effect, math.expm1(3.0 * math.sqrt(2.0) * night_sd))


def hodges_lehmann(a: Values, b: Values) -> float:
    """Shift from ``a`` to ``b``: median of all differences b_j - a_i (Hodges and Lehmann, 1963)."""
    return float(np.median(np.subtract.outer(np.asarray(b), np.asarray(a))))


def benjamini_hochberg(p_values: Values) -> NDArray[np.float64]:
    """P values adjusted for their number (Benjamini and Hochberg, 1995).

    Calling those below alpha discoveries keeps the expected share of false ones at most alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled))
    return adjusted


def _logs(side: str, values: Values) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise NothingComparable(f"side {side} has no launches", "give at least one value a side")
    if not np.all(np.isfinite(array) & (array > 0.0)):
        bad = array[~(np.isfinite(array) & (array > 0.0))][0]
        raise NothingComparable(f"side {side} holds {bad:g}", "only positive values have a ratio")
    return np.log(array)


def _welch(a: NDArray[np.float64], b: NDArray[np.float64]) -> Difference:
    """Of the means (Welch, 1947)."""
    # From each side's first value on, so that equal values have exactly no spread.
    from_a, from_b = a - a[0], b - b[0]
    of_a, of_b = (float(side.var(ddof=1)) / len(side) for side in (from_a, from_b))
    difference = float(b[0] - a[0] + (from_b.mean() - from_a.mean()))
    total = of_a + of_b
    if total == 0.0:
        return Difference(difference, 0.0, float(len(a) + len(b) - 2))
    dof = total**2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    return Difference(difference, math.sqrt(total), dof)


def _p_worse(difference: Difference, better: Better) -> float:
    worse = difference.value if better == "lower" else -difference.value
    if difference.error == 0.0:
        return 0.5 if worse == 0.0 else float(worse < 0.0)
    return student_t_cdf(-worse / difference.error, difference.dof)


def _interval(shift: float, difference: Difference) -> tuple[float, float]:
    half = _half_width(difference)
    return _exp(shift - half), _exp(shift + half)


def _half_width(difference: Difference) -> float:
    return student_t_ppf(_UPPER, difference.dof) * difference.error


def _detectable(difference: Difference, minimum_effect: float, alpha: float) -> float:
    """To be found in most comparisons, a change must clear both conditions by a margin: in 73 % of
    five launches a side, in 80 % of ten."""
    margin = student_t_ppf(_POWER, difference.dof)
    significant = (student_t_ppf(1.0 - alpha, difference.dof) + margin) * difference.error
    large = math.log1p(minimum_effect) + margin * difference.error
    return math.expm1(min(max(significant, large), _FURTHEST))


def _judge(found: Estimate, adjusted: Adjusted | None, alpha: float) -> tuple[Outcome, str]:
    if found.exact:
        return _without_spread(found)
    terms, difference, shift = found.terms, found.difference, found.shift
    if difference is None or adjusted is None:
        counts = f"{found.launches[0]} and {found.launches[1]} launches"
        return "inconclusive", f"{counts}; {terms.minimum_launches} a side are needed"
    limit, half = math.log1p(terms.minimum_effect), _half_width(difference)
    worse = shift if terms.better == "lower" else -shift
    beyond = f"beyond the minimum effect of {terms.minimum_effect:.3g}"
    if adjusted.p_worse < alpha and worse > limit:
        return "regressed", f"worse by {_percent(shift)}, {beyond} ({_p(adjusted.p_worse)})"
    if adjusted.p_better < alpha and worse < -limit:
        return "improved", f"better by {_percent(shift)}, {beyond} ({_p(adjusted.p_better)})"
    interval = f"the interval [{_exp(shift - half):.5g}, {_exp(shift + half):.5g}]"
    band = f"[{math.exp(-limit):.5g}, {math.exp(limit):.5g}]"
    if abs(shift) + half <= limit:
        return "unchanged", f"{interval} lies within {band}"
    detectable = 100 * _detectable(difference, terms.minimum_effect, adjusted.level)
    return "inconclusive", (
        f"{interval} is not within {band}, and no change {beyond} is proven (p < {alpha:g}); "
        f"launches this far apart show changes from {detectable:.1f} % on"
    )


def _without_spread(found: Estimate) -> tuple[Outcome, str]:
    """Every launch of a side says the same: any difference is real, and only its size counts."""
    terms, shift = found.terms, found.shift
    limit = math.log1p(terms.minimum_effect)
    worse = shift if terms.better == "lower" else -shift
    same = "the same in every launch of a side"
    if abs(shift) <= limit:
        return "unchanged", f"{same}, and within the minimum effect"
    word = "worse" if worse > 0 else "better"
    beyond = f"beyond the minimum effect of {terms.minimum_effect:.3g}"
    return ("regressed" if worse > 0 else "improved"), (
        f"{word} by {_percent(shift)}, {beyond}; {same}"
    )


def _exp(log_ratio: float) -> float:
    """Scattered launches have an interval that ends beyond what a float can hold."""
    return math.exp(max(-2 * _FURTHEST, min(log_ratio, 2 * _FURTHEST)))


def _percent(shift: float) -> str:
    """How far the shown ratio is from 1."""
    return f"{100 * abs(math.expm1(shift)):.1f} %"


def _p(value: float) -> str:
    return "p < 1e-15" if value < 1e-15 else f"p = {value:.2g}"
