"""Inferences per second of iterations whose every start and end is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.throughput import throughput
from harness.maybe import Unavailable

MS = 1_000_000
Stream = tuple[np.ndarray, np.ndarray]
T_4 = 2.776445105197793  # Student's t, 97.5 %, 4 degrees of freedom


def stream(count: int, period_ms: float, latency_ms: float, first_ms: float = 0.0) -> Stream:
    starts = (first_ms + period_ms * np.arange(count)) * MS
    return starts.astype(np.int64), (starts + latency_ms * MS).astype(np.int64)


def test_one_stream_counts_its_gaps() -> None:
    # 4 iterations of 5 ms, 10 ms apart, from 0 to 35 ms
    found = throughput([[stream(4, 10, 5)]], batch_size=8, concurrency=1)
    assert found.inferences_per_s == pytest.approx(8 * 4 / 0.035)
    assert (found.batch_size, found.concurrency) == (8, 1)


def test_staggered_streams_count_while_both_run() -> None:
    # The second stream begins at 25 ms, the first ends at 100 ms. In between (75 ms) the first ends
    # iterations at 30, 40 ... 100 ms: 8; the second at 45, 65, 85 ms: 3.
    both = [stream(10, 10, 10), stream(6, 20, 20, first_ms=25)]
    found = throughput([both], batch_size=1, concurrency=2)
    assert found.inferences_per_s == pytest.approx(11 / 0.075)


def test_streams_that_never_overlap_count_over_the_whole_span() -> None:
    both = [stream(1, 10, 10), stream(1, 10, 10, first_ms=20)]  # 0 to 10 ms, 20 to 30 ms
    found = throughput([both], batch_size=1, concurrency=2)
    assert found.inferences_per_s == pytest.approx(2 / 0.030)


def test_a_single_iteration_is_a_rate_without_an_interval() -> None:
    found = throughput([[stream(1, 10, 10)]], batch_size=1, concurrency=1)
    assert found.inferences_per_s == pytest.approx(100)
    assert found.ci95 == Unavailable(
        "1 iterations are too few for an interval", "measure at least 21"
    )


@pytest.mark.parametrize(("count", "known"), [(20, False), (21, True)])
def test_an_interval_needs_twenty_gaps(count: int, known: bool) -> None:
    found = throughput([[stream(count, 10, 10)]], batch_size=4, concurrency=1)
    assert isinstance(found.ci95, Unavailable) is not known
    if not isinstance(found.ci95, Unavailable):
        assert found.ci95 == pytest.approx((400, 400))  # each gap is the same


def test_an_interval_within_a_launch_holds_its_own_rate() -> None:
    rng = np.random.default_rng(1)
    ends = np.cumsum(rng.integers(8 * MS, 12 * MS, 2000))
    starts = np.concatenate(([0], ends[:-1]))
    found = throughput([[(starts, ends)]], batch_size=2, concurrency=1)
    assert not isinstance(found.ci95, Unavailable)
    low, high = found.ci95
    assert low < found.inferences_per_s < high
    # uniform gaps of 10 ms have a relative standard error of (4 / sqrt 12) / 10 / sqrt 2000
    expected = 2 * 1.96 * (4 / math.sqrt(12)) / 10 / math.sqrt(2000)
    assert (high - low) / found.inferences_per_s == pytest.approx(expected, rel=0.5)
    assert "blind to their spread" in found.method


def test_five_launches_give_an_interval_between_them() -> None:
    # rates of 98, 99, 100, 101 and 102 per second: their standard deviation is sqrt 2.5
    launches = [[stream(40, 1000 / rate, 1000 / rate)] for rate in (98, 99, 100, 101, 102)]
    found = throughput(launches, batch_size=1, concurrency=1)
    assert found.inferences_per_s == pytest.approx(100, rel=1e-6)
    half = T_4 * math.sqrt(2.5) / math.sqrt(5)
    assert found.ci95 == pytest.approx((100 - half, 100 + half), rel=1e-5)
    assert "between 5 launches" in found.method


def test_four_launches_are_averaged_without_one() -> None:
    launches = [[stream(5, 1000 / rate, 1000 / rate)] for rate in (90, 110, 90, 110)]
    found = throughput(launches, batch_size=3, concurrency=1)
    assert found.inferences_per_s == pytest.approx(300, rel=1e-6)
    assert isinstance(found.ci95, Unavailable)  # 16 gaps in all


def test_an_interval_without_an_upper_end_is_none() -> None:
    """One gap of 20 s among 100 of 1 ms: nobody knows that the mean gap is above 0."""
    starts = np.cumsum([0] + [MS] * 50 + [20_000 * MS] + [MS] * 50)
    found = throughput([[(starts, starts + MS // 2)]], batch_size=1, concurrency=1)
    assert isinstance(found.ci95, Unavailable)
    assert "is known to" in found.ci95.reason and "alone" in found.ci95.reason
