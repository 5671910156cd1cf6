"""The few distributions that intervals and tests need, so that scipy is not a run-time dependency.

Scalars in, scalars out. Accuracy against scipy is pinned in the tests: 1e-10 for probabilities,
1e-9 relative for quantiles.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_STANDARD_NORMAL = NormalDist()
_TINY = 1e-300
_CONVERGED = 1e-15
_MAX_NEWTON_STEPS = 200


def normal_cdf(x: float) -> float:
    """P(Z <= x) of the standard normal, from the complementary error function."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_ppf(p: float) -> float:
    """Quantile of the standard normal (Wichura, AS 241, 1988, as the standard library has it).

    Raises ValueError unless 0 < p < 1.
    """
    if not 0.0 < p < 1.0:
        raise ValueError(f"p is {p}, not within (0, 1)")
    return _STANDARD_NORMAL.inv_cdf(p)


def regularized_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for a, b > 0 and 0 <= x <= 1.

    Continued fraction of NIST DLMF 8.17.22, evaluated by Lentz's method as modified by Thompson and
    Barnett (1986). It converges fast below the mean a / (a + b); above it the reflection
    I_x(a, b) = 1 - I_{1-x}(b, a) is used.
    """
    if not (a > 0 and b > 0 and 0.0 <= x <= 1.0):
        raise ValueError(f"I_x(a, b) needs a, b > 0 and x in [0, 1], not {a}, {b}, {x}")
    if x in (0.0, 1.0):
        return x
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    front = math.exp(log_front)
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Lentz's two running ratios; about sqrt(max(a, b)) steps are needed."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, 200 + 10 * math.isqrt(math.ceil(max(a, b)))):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _CONVERGED:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def student_t_cdf(t: float, dof: float) -> float:
    """P(T <= t) of Student's t (Abramowitz and Stegun 26.7.1); ``dof`` may be a fraction."""
    if math.isinf(t):
        return 0.0 if t < 0 else 1.0
    square = t * t
    # Near zero x is close to 1, where the complement keeps the digits.
    if square < dof:
        tail = 0.5 * (1.0 - regularized_beta(0.5, dof / 2.0, square / (dof + square)))
    else:
        tail = 0.5 * regularized_beta(dof / 2.0, 0.5, dof / (dof + square))
    return tail if t < 0 else 1.0 - tail


@lru_cache(maxsize=1024)
def student_t_ppf(p: float, dof: float) -> float:
    """Quantile of Student's t, by Newton's method in a bracket. Raises as `normal_ppf` does."""
    if not 0.0 < p < 1.0:
        raise ValueError(f"p is {p}, not within (0, 1)")
    if p == 0.5:
        return 0.0
    if p > 0.5:
        return -student_t_ppf(1.0 - p, dof)
    low, high = -1.0, 0.0
    while student_t_cdf(low, dof) > p:
        low, high = 2.0 * low, low
    t = 0.5 * (low + high)
    for _ in range(_MAX_NEWTON_STEPS):  # about ten in practice; rounding must not make it endless
        error = student_t_cdf(t, dof) - p
        low, high = (t, high) if error < 0.0 else (low, t)
        step = t - error / _student_t_pdf(t, dof)
        following = step if low < step < high else 0.5 * (low + high)
        if abs(following - t) <= 4e-16 * abs(t):
            return following
        t = following
    return t


def _student_t_pdf(t: float, dof: float) -> float:
    log_scale = math.lgamma((dof + 1.0) / 2.0) - math.lgamma(dof / 2.0)
    tail = (dof + 1.0) / 2.0 * math.log1p(t * t / dof)
    return math.exp(log_scale - tail) / math.sqrt(dof * math.pi)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of Binomial(n, p), through I_{1-p}(n - k, k + 1) (DLMF 8.17.5)."""
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    return regularized_beta(n - k, k + 1.0, 1.0 - p)


def binomial_ppf(probability: float, n: int, p: float) -> int:
    """The smallest k with P(X <= k) >= ``probability``."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_cdf(middle, n, p) >= probability:
            high = middle
        else:
            low = middle
    return high
