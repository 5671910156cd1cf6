"""The growing sample: exact small cases, agreement with the final interval, the rule's coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter

from harness.analysis.latency import latency_stats
from harness.analysis.stopping import IntervalTracker

MS = 1_000_000


def test_nothing_yet() -> None:
    tracker = IntervalTracker()
    tracker.update(np.empty(0, dtype=np.int64))
    assert tracker.count == 0
    assert math.isnan(tracker.median_ms)
    assert tracker.relative_half_width == math.inf


def test_five_iterations_have_a_median_and_no_interval() -> None:
    tracker = IntervalTracker()
    tracker.update(np.array([5, 1, 2, 4, 3]) * MS)
    assert (tracker.count, tracker.median_ms) == (5, 3.0)
    assert tracker.relative_half_width == math.inf


def test_ten_iterations_by_hand() -> None:
    tracker = IntervalTracker()
    tracker.update(np.arange(1, 11) * MS)  # interval 2 to 9 around 5.5
    assert tracker.relative_half_width == pytest.approx(3.5 / 5.5)


def test_a_fake_clock_is_known_exactly() -> None:
    tracker = IntervalTracker()
    tracker.update(np.full(6, MS))
    assert (tracker.median_ms, tracker.relative_half_width) == (1.0, 0.0)


def test_a_clock_too_coarse_for_the_median_gives_no_width() -> None:
    tracker = IntervalTracker()
    tracker.update(np.tile([0, 0, 0, 5 * MS], 2))
    assert (tracker.median_ms, tracker.relative_half_width) == (0.0, math.inf)


@given(st.lists(st.integers(1, 10**9), min_size=6, max_size=200), st.data())
@settings(deadline=None)
def test_it_equals_the_final_interval_however_it_is_fed(
    values: list[int], data: st.DataObject
) -> None:
    samples = np.array(values, dtype=np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    tracker = IntervalTracker()
    for piece in np.split(samples, cuts):
        tracker.update(piece)
        assert tracker.count == 0 or tracker.median_ms > 0  # asking does not disturb
    final = latency_stats([samples])
    assert tracker.median_ms == pytest.approx(final.median)
    interval = final.ci95["median"]
    if isinstance(interval, tuple):
        half = (interval[1] - interval[0]) / 2 / final.median
        assert tracker.relative_half_width == pytest.approx(half, rel=1e-9, abs=1e-12)
    else:
        assert tracker.relative_half_width == math.inf


def test_thinning_keeps_count_median_and_interval() -> None:
    rng = np.random.default_rng(3)
    samples = _autocorrelated(rng, 300_000)
    tracker = IntervalTracker(capacity=10_000)
    for piece in np.split(samples, 300):
        tracker.update(piece)
    final = latency_stats([samples])
    low, high = final.ci95["median"]  # type: ignore[misc]
    half = (high - low) / 2 / final.median
    assert tracker.count == 300_000
    assert abs(tracker.median_ms - final.median) < half * final.median
    assert half * 0.8 < tracker.relative_half_width < half * 1.5


def test_thinning_does_not_fall_in_step_with_the_workload() -> None:
    # Two streams in turn, 1 ms and 3 ms: any fixed stride of 2 would see only one of them.
    tracker = IntervalTracker(capacity=1000)
    for _ in range(100):
        tracker.update(np.tile([MS, 3 * MS], 500))
    assert tracker.relative_half_width > 0.3


def _autocorrelated(rng: np.random.Generator, n: int, rho: float = 0.9) -> NDArray[Any]:
    shocks = rng.standard_normal(n)
    shocks[1:] *= math.sqrt(1 - rho**2)
    return MS * np.exp(0.1 * lfilter([1.0], [1.0, -rho], shocks))


@pytest.mark.parametrize(
    ("rho", "goal", "look_every", "floor", "pinned"),
    [(0.0, 0.01, 100, 0, 0.97), (0.9, 0.02, 200, 0, 0.89), (0.9, 0.02, 200, 4000, 0.94)],
)
def test_coverage_of_the_whole_rule(
    rho: float, goal: float, look_every: int, floor: int, pinned: float
) -> None:
    """Look every so often, stop at the goal: how often is the true median inside?"""
    rng, hits = np.random.default_rng(4), []
    for _ in range(400):
        samples = _autocorrelated(rng, 30_000, rho)
        tracker = IntervalTracker()
        while tracker.count < len(samples):
            tracker.update(samples[tracker.count : tracker.count + look_every])
            if tracker.count >= floor and tracker.relative_half_width <= goal:
                break
        low, high = latency_stats([samples[: tracker.count]]).ci95["median"]  # type: ignore[misc]
        hits.append(low <= 1.0 <= high)
    assert np.mean(hits) == pytest.approx(pinned, abs=0.015)
