"""Warm-up detection on traces whose truth is known, and the trend tests beneath it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.analysis.steady import is_steady
from harness.stats.trend import block_medians, spearman, theil_sen_slope

FLOOR_S, CHECK_S, MS = 0.5, 0.15, 1_000_000


def steady_after_s(latencies_ns: Any) -> float | None:
    """When a driver that looks every 0.15 s would end the warm-up."""
    latencies = np.asarray(latencies_ns, dtype=np.int64)
    end = np.cumsum(latencies)
    for check in range(1, int(end[-1] / (CHECK_S * 1e9)) + 1):
        seen = int(np.searchsorted(end, check * CHECK_S * 1e9, side="right"))
        if is_steady(end[:seen] - latencies[:seen], end[:seen], FLOOR_S):
            return round(check * CHECK_S, 2)
    return None


def run_for(seconds: float, latency_s: Callable[[float], float]) -> NDArray[np.int64]:
    latencies, now = [], 0.0
    while now < seconds:
        latencies.append(latency_s(now) * 1e9)
        now += latencies[-1] / 1e9
    return np.array(latencies, dtype=np.int64)


@pytest.mark.parametrize(("latency_ns", "count"), [(10_000, 100_000), (MS, 2000), (20 * MS, 100)])
def test_constant_latency_is_steady_at_the_floor(latency_ns: int, count: int) -> None:
    assert steady_after_s(np.full(count, latency_ns)) == 0.6  # the first look past 0.5 s


def test_a_slow_model_needs_five_iterations() -> None:
    assert steady_after_s(np.full(40, 700 * MS)) == 3.6  # the fifth ends at 3.5 s


@pytest.mark.parametrize(
    ("calls_s", "expected"),
    [((1.0,), 1.5), ((1.0, 0.5, 0.5), 2.55), ((9.0,), 9.6)],
)
def test_slow_first_calls_cost_their_time_and_the_floor_only(
    calls_s: tuple[float, ...], expected: float
) -> None:
    first = np.array(calls_s) * 1e9
    assert steady_after_s(np.concatenate([first, np.full(2000, 5 * MS)])) == expected


@pytest.mark.parametrize(
    ("tau_s", "amplitude", "expected"),
    [(0.1, 0.2, 0.6), (0.1, 1.0, 0.75), (0.3, 0.2, 1.2), (0.3, 1.0, 2.1), (0.3, 5.0, 2.55)],
)
def test_an_exponential_decay_is_waited_for(
    tau_s: float, amplitude: float, expected: float
) -> None:
    def decay(now: float) -> float:
        return 0.001 * (1 + amplitude * math.exp(-now / tau_s))

    at = steady_after_s(run_for(4.0, decay))
    assert at == expected
    assert amplitude * math.exp(-at / tau_s) < 0.004


def test_a_step_is_waited_for() -> None:
    # At 0.6 s the step at 0.48 s fills most of window B (0.45 to 0.6) and none of A; at 0.75 s the
    # smaller part of A (0.375 to 0.56); at 0.9 s most of both.
    assert steady_after_s(run_for(3.0, lambda now: 0.001 if now < 0.48 else 0.0013)) == 0.9


def test_latency_that_never_settles_is_never_steady() -> None:
    assert steady_after_s(run_for(10.0, lambda now: 0.001 * (1 + 0.2 * now))) is None


def test_noise_is_no_trend() -> None:
    rng = np.random.default_rng(5)
    ends = [steady_after_s(MS * np.exp(0.1 * rng.standard_normal(3000))) for _ in range(20)]
    assert all(end is not None and end <= 1.05 for end in ends)


def test_a_clock_that_stands_still_is_steady_once_its_floor_is_zero() -> None:
    stamps = np.full(5, 7, dtype=np.int64)
    assert is_steady(stamps, stamps, 0.0)
    assert not is_steady(stamps, stamps, 0.1)
    assert not is_steady(stamps[:4], stamps[:4], 0.0)
    assert not is_steady(stamps[:0], stamps[:0], 0.0)


@given(st.lists(st.integers(1, 10**9), min_size=5, max_size=60), st.integers(2, 50))
@settings(deadline=None)
def test_the_unit_of_time_does_not_matter(latencies: list[int], factor: int) -> None:
    one = np.array(latencies, dtype=np.int64)
    end = np.cumsum(one)
    scaled = is_steady((end - one) * factor, end * factor, factor * 1e-3)
    assert scaled == is_steady(end - one, end, 1e-3)


@given(st.lists(st.integers(0, 9), min_size=3, max_size=40))
@settings(deadline=None)
def test_spearman_equals_scipy(values: list[int]) -> None:
    ours = spearman(np.array(values, dtype=np.float64))
    if len(set(values)) == 1:
        assert ours == (0.0, 1.0)
        return
    theirs = stats.spearmanr(values, np.arange(len(values)))
    assert ours.rho == pytest.approx(theirs.statistic, abs=1e-12)
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=1e-9)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30))
@settings(deadline=None)
def test_theil_sen_equals_scipy(values: list[int]) -> None:
    array = np.array(values, dtype=np.float64)
    assert theil_sen_slope(array) == pytest.approx(stats.theilslopes(array).slope, abs=1e-9)


def test_block_medians_by_hand() -> None:
    assert block_medians(np.arange(1, 10), 3).tolist() == [2.0, 5.0, 8.0]
    assert block_medians(np.array([4.0, 1.0]), 10).tolist() == [4.0, 1.0]
