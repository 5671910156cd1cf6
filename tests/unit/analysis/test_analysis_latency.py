"""Quantiles, their intervals and `LatencyStats`: exact small cases, properties, real coverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter

from harness.analysis.latency import QUANTILES, interval_methods, latency_stats
from harness.errors import MeasurementFailed
from harness.maybe import Unavailable
from harness.stats.quantiles import (
    Ranks,
    bounding_ranks,
    effective_count,
    label,
    minimum_count,
    quantile,
    quantile_interval,
)

MS = 1_000_000
latencies = st.lists(st.integers(1, 10**10), min_size=1, max_size=120)


def test_minimum_counts() -> None:
    assert [minimum_count(q) for q in QUANTILES] == [6, 36, 72, 368, 3688]
    assert [label(q) for q in QUANTILES] == ["median", "p90", "p95", "p99", "p99_9"]


@pytest.mark.parametrize("q", QUANTILES)
def test_ranks_exist_from_the_minimum_count_on(q: float) -> None:
    needed = minimum_count(q)
    assert bounding_ranks(needed - 1, needed - 1, q) is None
    ranks = bounding_ranks(needed, needed, q)
    assert ranks is not None
    assert ranks.high == needed


def test_ranks_of_the_textbook_median() -> None:
    # n = 10: P(X <= 1) = 11/1024 = 1.07 %, P(X <= 2) = 5.5 %, hence x_(2) and x_(9)
    assert bounding_ranks(10, 10, 0.5) == Ranks(2, 9)
    # the same interval seen through 100 samples that count as 10
    assert bounding_ranks(100, 10, 0.5) == Ranks(20, 81)


@pytest.mark.parametrize("q", QUANTILES)
def test_large_counts_agree_with_the_exact_binomial(q: float) -> None:
    exact, normal = bounding_ranks(10_000, 10_000, q), bounding_ranks(10_001, 10_001, q)
    assert exact is not None
    assert normal is not None
    width = exact.high - exact.low
    assert abs(normal.low - exact.low) <= max(2, 0.02 * width)
    assert abs(normal.high - exact.high) <= max(3, 0.02 * width)


def test_latency_stats_by_hand() -> None:
    stats = latency_stats([np.arange(1, 11) * MS])
    assert stats.mean == 5.5
    assert stats.std == pytest.approx(math.sqrt(82.5 / 9))
    assert (stats.min, stats.max, stats.median) == (1.0, 10.0, 5.5)
    assert stats.iqr == 4.5  # 7.75 - 3.25
    assert stats.mad == 2.5
    assert stats.ci95["median"] == (2.0, 9.0)
    assert stats.p90 == Unavailable(
        "10 iterations; a 95 % interval of p90 needs at least 36", "measure at least 36 iterations"
    )
    assert stats.ci95["p90"] == stats.p90
    mean = stats.ci95["mean"]
    assert isinstance(mean, Unavailable)
    assert mean.reason == "10 iterations; an interval of the mean needs at least 20"


def test_one_iteration_has_a_median_and_no_interval() -> None:
    stats = latency_stats([np.array([3 * MS])])
    assert (stats.median, stats.mean, stats.std, stats.mad) == (3.0, 3.0, 0.0, 0.0)
    assert all(isinstance(interval, Unavailable) for interval in stats.ci95.values())


def test_no_iteration_is_an_error() -> None:
    with pytest.raises(MeasurementFailed, match="no iteration was timed"):
        latency_stats([np.array([], dtype=np.int64)])


def test_a_fake_clock_gives_intervals_of_width_zero() -> None:
    stats = latency_stats([np.full(4000, 2 * MS)])
    assert set(stats.ci95.values()) == {(2.0, 2.0)}
    assert (stats.median, stats.p99_9, stats.std, stats.iqr) == (2.0, 2.0, 0.0, 0.0)


def test_five_launches_are_the_unit() -> None:
    # each launch constant: 10, 11, 12, 13, 14 ms; sd = sqrt(2.5), t(4) = 2.776445
    stats = latency_stats([np.full(400, value * MS) for value in (10, 11, 12, 13, 14)])
    half = 2.7764451052 * math.sqrt(2.5 / 5)
    for name in ("median", "p90", "p95", "p99", "mean"):
        assert getattr(stats, name) == 12.0
        assert stats.ci95[name] == pytest.approx((12 - half, 12 + half))
    assert stats.p99_9 == Unavailable(
        "the shortest launch has 400 iterations; p99_9 of a launch needs at least 3688",
        "measure at least 3688 iterations a launch",
    )
    assert (stats.min, stats.max) == (10.0, 14.0)


def test_a_launch_interval_never_goes_below_zero() -> None:
    stats = latency_stats([np.full(50, value * MS) for value in (1, 1, 1, 1, 100)])
    interval = stats.ci95["median"]
    assert isinstance(interval, tuple)
    assert interval[0] == 0.0


def test_the_method_names_every_interval_and_its_blind_spot() -> None:
    for launches in (1, 4, 5):
        assert interval_methods(launches).keys() == latency_stats([np.ones(1)]).ci95.keys()
    assert all("blind to the spread between" in text for text in interval_methods(1).values())
    assert all("4 degrees of freedom" in text for text in interval_methods(5).values())


def test_effective_count_of_a_slow_half() -> None:
    # Ten batches of shares 1 1 1 1 1 0 0 0 0 0: var = 10/36, inflation = (10/36) 100 / (1/4) = 111;
    # times (2.2622 / 1.96)^2 = 148, so 1000 samples count as 6.
    samples = np.repeat([1.0, 2.0], 500)
    assert effective_count(samples, at=1.0, q=0.5) == 6
    # alternating, every batch is alike
    assert effective_count(np.tile([1.0, 2.0], 500), at=1.0, q=0.5) == 1000


def test_too_much_autocorrelation_leaves_no_interval_and_says_so() -> None:
    samples = np.arange(1000.0)  # nothing but trend
    interval = quantile_interval(samples, np.sort(samples), 0.9)
    assert isinstance(interval, Unavailable)
    assert interval.reason == (
        "1000 autocorrelated iterations count as 6 independent ones; "
        "a 95 % interval of p90 needs 36"
    )


@given(latencies)
@settings(deadline=None)
def test_quantiles_equal_numpy_and_rise(values: list[int]) -> None:
    ordered = np.sort(np.array(values, dtype=np.float64))
    ours = [quantile(ordered, q) for q in (0.0, 0.25, *QUANTILES, 1.0)]
    assert ours == pytest.approx(np.quantile(ordered, (0.0, 0.25, *QUANTILES, 1.0)), rel=1e-12)
    assert all(low <= high * (1 + 1e-15) for low, high in pairwise(ours))


@given(latencies, st.integers(1, 7))
@settings(deadline=None)
def test_intervals_hold_the_estimate(values: list[int], launches: int) -> None:
    stats = latency_stats([np.roll(values, k) for k in range(launches)])
    for name, interval in stats.ci95.items():
        if not isinstance(interval, Unavailable):
            assert interval[0] <= getattr(stats, name) * (1 + 1e-12)
            assert getattr(stats, name) <= interval[1] * (1 + 1e-12)


@given(latencies, st.integers(2, 1000))
@settings(deadline=None)
def test_scaling_latencies_scales_every_statistic(values: list[int], factor: int) -> None:
    one = latency_stats([np.array(values, dtype=np.int64)])
    many = latency_stats([np.array(values, dtype=np.int64) * factor])
    assert many.median == pytest.approx(one.median * factor, rel=1e-12)
    assert many.std == pytest.approx(one.std * factor, rel=1e-6, abs=1e-9)
    for name, interval in one.ci95.items():
        if isinstance(interval, tuple):
            scaled = tuple(edge * factor for edge in interval)
            assert many.ci95[name] == pytest.approx(scaled, rel=1e-6, abs=1e-9)


Draw = Callable[[np.random.Generator, int], NDArray[Any]]


def _lognormal(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return np.exp(0.1 * rng.standard_normal(n))


def _autocorrelated(rng: np.random.Generator, n: int, rho: float = 0.9) -> NDArray[Any]:
    shocks = rng.standard_normal(n)
    shocks[1:] *= math.sqrt(1 - rho**2)
    return np.exp(0.1 * lfilter([1.0], [1.0, -rho], shocks))


def _bimodal(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return np.where(rng.random(n) < 0.3, 2.0, 1.0) * np.exp(0.02 * rng.standard_normal(n))


def _drifting(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return np.linspace(1.0, 1.05, n) * np.exp(0.02 * rng.standard_normal(n))


@pytest.mark.parametrize(
    ("draw", "q", "n", "pinned"),
    [
        (_lognormal, 0.5, 10, 0.98),
        (_lognormal, 0.5, 2000, 0.97),
        (_lognormal, 0.95, 400, 0.98),
        (_lognormal, 0.99, 2000, 0.97),
        (_autocorrelated, 0.5, 400, 0.93),
        (_autocorrelated, 0.5, 2000, 0.95),
        (_autocorrelated, 0.95, 2000, 0.94),
        (_bimodal, 0.5, 400, 0.97),
        (_bimodal, 0.95, 2000, 0.97),
        # a trend is spread between batches too: the interval is wide on purpose
        (_drifting, 0.5, 400, 1.0),
        (_drifting, 0.95, 2000, 1.0),
    ],
)
def test_coverage_within_a_launch(draw: Draw, q: float, n: int, pinned: float) -> None:
    rng = np.random.default_rng(20)
    truth = np.quantile(np.concatenate([draw(rng, max(n, 1000)) for _ in range(400)]), q)
    hits = []
    for _ in range(1500):
        samples = draw(rng, n)
        interval = quantile_interval(samples, np.sort(samples), q)
        if isinstance(interval, tuple):
            hits.append(interval[0] <= truth <= interval[1])
    assert len(hits) >= 1450  # an interval that is rarely given would flatter its coverage
    coverage = np.mean(hits)
    assert coverage >= 0.90
    assert coverage == pytest.approx(pinned, abs=0.015)


@pytest.mark.parametrize(("q", "pinned"), [(0.5, 0.95), (0.99, 0.95)])
@pytest.mark.parametrize("iteration_sd", [0.02, 0.002])
def test_coverage_between_launches(q: float, pinned: float, iteration_sd: float) -> None:
    """Launches 1 % apart, at both more and less than the iterations' own spread."""
    rng = np.random.default_rng(21)

    def launches(count: int) -> NDArray[Any]:
        level = np.exp(0.01 * rng.standard_normal((count, 1)))
        values: NDArray[Any] = level * np.exp(iteration_sd * rng.standard_normal((count, 400)))
        return values

    truth = np.quantile(launches(4000), q, axis=1).mean()
    hits = []
    for _ in range(500):
        interval = latency_stats(list(launches(5) * MS)).ci95[label(q)]
        assert isinstance(interval, tuple)
        hits.append(interval[0] <= truth <= interval[1])
    assert np.mean(hits) == pytest.approx(pinned, abs=0.02)
