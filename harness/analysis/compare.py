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
interleaved, or raise ``minimum_effect`` to 3 sqrt(2) times the day's spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.analysis.distributions import student_t_cdf, student_t_ppf
from harness.analysis.latency import MIN_LAUNCHES
from harness.analysis.metrics import Better
from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable

Outcome = Literal["improved", "regressed", "unchanged", "inconclusive"]
Values = Sequence[float] | NDArray[Any]

_UPPER = 0.975
_POWER = 0.80


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """b over a. Ratios above 1 mean b is larger, whichever direction is better."""

    verdict: Outcome
    reason: str
    ratio: float
    interval: Maybe[tuple[float, float]]  # 95 %
    p_worse: Maybe[float]  # one-sided; uniform where nothing changed, so fit for many comparisons
    detectable: Maybe[float]  # smallest worsening found in 80 % of such comparisons, ratio - 1
    launches: tuple[int, int]
    better: Better
    minimum_effect: float
    alpha: float


class _Welch(msgspec.Struct, frozen=True):
    """Difference of log means, its standard error and degrees of freedom (Welch, 1947)."""

    difference: float
    error: float
    dof: float


def compare(
    a: Values,
    b: Values,
    minimum_effect: float = 0.02,
    alpha: float = 0.01,
    better: Better = "lower",
) -> Comparison:
    """Compare per-launch values ``a`` (the reference) and ``b``, in any one unit.

    Raises `NothingComparable` where a side is empty, or a value not positive and finite.
    """
    log_a, log_b = _logs("a", a), _logs("b", b)
    shift = hodges_lehmann(log_a, log_b)
    enough = min(len(log_a), len(log_b)) >= 2
    welch = _welch(log_a, log_b) if enough else None
    verdict, reason = _judge(shift, welch, (len(log_a), len(log_b)), minimum_effect, alpha, better)
    single = Unavailable("a side has a single launch", f"--launches {MIN_LAUNCHES}")
    return Comparison(
        verdict=verdict,
        reason=reason,
        ratio=math.exp(shift),
        interval=_interval(shift, welch) if welch else single,
        p_worse=_p_worse(welch, better) if welch else single,
        detectable=_detectable(welch, minimum_effect, alpha) if welch else single,
        launches=(len(log_a), len(log_b)),
        better=better,
        minimum_effect=minimum_effect,
        alpha=alpha,
    )


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


def _welch(a: NDArray[np.float64], b: NDArray[np.float64]) -> _Welch:
    # From each side's first value on, so that equal values have exactly no spread.
    from_a, from_b = a - a[0], b - b[0]
    of_a, of_b = (float(side.var(ddof=1)) / len(side) for side in (from_a, from_b))
    difference = float(b[0] - a[0] + (from_b.mean() - from_a.mean()))
    total = of_a + of_b
    if total == 0.0:
        return _Welch(difference, 0.0, float(len(a) + len(b) - 2))
    dof = total**2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    return _Welch(difference, math.sqrt(total), dof)


def _p_worse(welch: _Welch, better: Better) -> float:
    worse = welch.difference if better == "lower" else -welch.difference
    if welch.error == 0.0:
        return 0.5 if worse == 0.0 else float(worse < 0.0)
    return student_t_cdf(-worse / welch.error, welch.dof)


def _interval(shift: float, welch: _Welch) -> tuple[float, float]:
    half = _half_width(welch)
    return math.exp(shift - half), math.exp(shift + half)


def _half_width(welch: _Welch) -> float:
    return student_t_ppf(_UPPER, welch.dof) * welch.error


def _detectable(welch: _Welch, minimum_effect: float, alpha: float) -> float:
    """To be found in about 80 % of comparisons, a change must clear both conditions by a margin."""
    margin = student_t_ppf(_POWER, welch.dof)
    significant = (student_t_ppf(1.0 - alpha, welch.dof) + margin) * welch.error
    large = math.log1p(minimum_effect) + margin * welch.error
    return math.expm1(max(significant, large))


def _judge(
    shift: float,
    welch: _Welch | None,
    launches: tuple[int, int],
    minimum_effect: float,
    alpha: float,
    better: Better,
) -> tuple[Outcome, str]:
    if welch is None or min(launches) < MIN_LAUNCHES:
        few = f"{launches[0]} and {launches[1]} launches; {MIN_LAUNCHES} a side are needed"
        return "inconclusive", few
    limit, p_worse = math.log1p(minimum_effect), _p_worse(welch, better)
    worse = shift if better == "lower" else -shift
    half = _half_width(welch)
    interval = f"the interval [{math.exp(shift - half):.4f}, {math.exp(shift + half):.4f}]"
    band = f"[{math.exp(-limit):.4f}, {math.exp(limit):.4f}]"
    beyond = f"beyond the minimum effect of {minimum_effect:.3g}"
    if p_worse < alpha and worse > limit:
        return "regressed", f"worse by {_percent(worse)}, {beyond} (p = {p_worse:.2g})"
    if 1.0 - p_worse < alpha and worse < -limit:
        return "improved", f"better by {_percent(-worse)}, {beyond} (p = {1.0 - p_worse:.2g})"
    if abs(shift) + half <= limit:
        return "unchanged", f"{interval} lies within {band}"
    detectable = 100 * _detectable(welch, minimum_effect, alpha)
    return "inconclusive", (
        f"{interval} is not within {band}, and no change {beyond} is proven (p < {alpha:g}); "
        f"launches this far apart show changes from {detectable:.1f} % on"
    )


def _percent(log_change: float) -> str:
    return f"{100 * math.expm1(log_change):.1f} %"
