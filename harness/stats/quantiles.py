"""Quantiles of latency samples, with 95 % intervals that allow for autocorrelation.

An order-statistic interval needs no model of the latencies: how many of n independent samples lie
below the true quantile is Binomial(n, q), so two ranks bound it (David and Nagaraja, *Order
Statistics*, 2003, section 7.1). Latencies are not independent, though: a slow stretch is one event,
not a thousand. So n gives way to an effective count:

    samples in time order    x_1 ............................................ x_n
    below the quantile?      1 0 1 1 | 1 1 1 0 | 0 0 0 1 | ...      10 or 20 contiguous batches
    share s per batch          .75   |   .75   |   .25   | ...
    inflation                variance of s x batch length / (mean s x (1 - mean s))
    effective count          n / inflation, at most n; Binomial(effective, q) gives the ranks

This is the method of batch means (Schmeiser, 1982) applied to the indicator of the quantile
(Heidelberger and Lewis, 1984). The inflation is itself estimated, from few batches, hence a
further factor (t / z)^2. A sample too short for two bounds has no interval, and no tail quantile
either: the maximum of 50 iterations is not their p99.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.maybe import Maybe, Unavailable
from harness.stats.distributions import binomial_ppf, normal_ppf, student_t_ppf

Samples = NDArray[Any]
Interval = tuple[float, float]

CONFIDENCE = 0.95
_TAIL = (1.0 - CONFIDENCE) / 2.0
_Z = normal_ppf(1.0 - _TAIL)
# Fewer batches are longer, so they hide less of the correlation; more of them are steadier.
# Chosen by simulated coverage (tests): 10 batches below 2000 samples, 20 from there on.
_FEW_BATCHES, _MANY_BATCHES, _MANY_FROM = 10, 20, 2000
# Below this, batches would hold one sample each: independence is assumed, and the method says so.
BATCHED_FROM = 2 * _FEW_BATCHES
# Above this count the normal approximation of the binomial is off by less than one rank in 100.
_EXACT_UP_TO = 10_000


class Ranks(NamedTuple):
    """One-based ranks in the sorted samples that bound a quantile."""

    low: int
    high: int


def minimum_count(q: float) -> int:
    """The fewest independent samples with a two-sided 95 % interval for quantile ``q``.

    The upper bound exists once q^n <= 2.5 %: 36 for p90, 72 for p95, 368 for p99, 3688 for p99.9;
    the median needs 6.
    """
    return math.ceil(math.log(_TAIL) / math.log(max(q, 1.0 - q)))


def quantile(ordered: Samples, q: float) -> float:
    """Quantile of sorted samples, interpolated linearly (Hyndman and Fan, 1996, type 7)."""
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = float(ordered[below]), float(ordered[above])
    return low + (position - below) * (high - low)


def batch_count(n: int) -> int:
    """How many contiguous batches ``n`` samples are cut into."""
    return _MANY_BATCHES if n >= _MANY_FROM else _FEW_BATCHES


def batch_means(samples: Samples) -> NDArray[np.float64]:
    """Means of equal contiguous batches; the oldest few samples that fill none are left out."""
    batches = batch_count(len(samples))
    length = len(samples) // batches
    used = samples[len(samples) - batches * length :]
    means: NDArray[np.float64] = used.reshape(batches, length).mean(axis=1)
    return means


def effective_count(samples: Samples, at: float, q: float) -> int:
    """How many independent samples would place quantile ``q``, found ``at``, as well as these.

    ``samples`` in time order. At least 1, at most their number.
    """
    n = len(samples)
    if n < BATCHED_FROM:
        return n
    shares = batch_means(samples <= at)
    length = n // len(shares)
    # Not q: where latencies are tied (a coarse clock) the share below is far from it.
    share = float(shares.mean())
    if share in (0.0, 1.0):
        return n
    inflation = float(shares.var(ddof=1)) * length / (share * (1.0 - share))
    doubt = student_t_ppf(1.0 - _TAIL, len(shares) - 1) / _Z
    return max(1, math.floor(n / max(1.0, inflation * doubt**2)))


@lru_cache(maxsize=4096)
def bounding_ranks(n: int, effective: int, q: float) -> Ranks | None:
    """Ranks among ``n`` samples that bound quantile ``q`` with 95 %; None if a bound is missing.

    Found among ``effective`` independent samples, then stretched to ``n``, alike for q and 1 - q.
    """
    if effective <= _EXACT_UP_TO:
        low = binomial_ppf(_TAIL, effective, q)
        high = binomial_ppf(1.0 - _TAIL, effective, q) + 1
    else:
        half = _Z * math.sqrt(effective * q * (1.0 - q))
        low = math.floor(effective * q - half)
        high = math.ceil(effective * q + half) + 1
    if low < 1 or high > effective:
        return None
    return Ranks(low * n // effective, n + 1 - (effective + 1 - high) * n // effective)


def quantile_interval(samples: Samples, ordered: Samples, q: float) -> Maybe[Interval]:
    """95 % interval of quantile ``q``; ``samples`` in time order, ``ordered`` the same, sorted."""
    n, needed = len(samples), minimum_count(q)
    if n < needed:
        return too_few(n, q)
    effective = effective_count(samples, quantile(ordered, q), q)
    ranks = bounding_ranks(n, effective, q)
    if ranks is None:
        return Unavailable(
            f"{n} autocorrelated iterations count as {effective} independent ones; "
            f"a 95 % interval of {label(q)} needs {needed}",
            "measure longer",
        )
    return float(ordered[ranks.low - 1]), float(ordered[ranks.high - 1])


def too_few(n: int, q: float) -> Unavailable:
    """Why ``n`` iterations have no quantile ``q``."""
    return Unavailable(
        f"{n} iterations; a 95 % interval of {label(q)} needs at least {minimum_count(q)}",
        f"measure at least {minimum_count(q)} iterations",
    )


def label(q: float) -> str:
    """``median``, ``p99``, ``p99_9``: the quantile's name in a result."""
    return "median" if q == 0.5 else f"p{100 * q:g}".replace(".", "_")
