"""Summaries of readings whose true values can be derived by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.channels import (
    foreign_share,
    growth,
    live,
    steal_share,
    summarise,
    worker_share,
)
from harness.maybe import Maybe, Unavailable
from harness.protocols import Channel
from harness.records.result import ChannelSummary

S = 1_000_000_000
GAUGE = Channel("g", "W", "gauge", "power/g_w")
COUNTER = Channel("c", "s", "counter", "utilization/c_percent")


def series(*pairs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, value) pairs, far from the clock's zero as in real life."""
    times_ns = np.array([round(t * S) for t, _ in pairs], dtype=np.int64) + 10**15
    return times_ns, np.array([value for _, value in pairs], dtype=np.float64)


def over(channel: Channel, readings: object, start: float, end: float) -> Maybe[ChannelSummary]:
    times_ns, values = readings  # type: ignore[misc]
    return summarise(channel, times_ns, values, 10**15 + round(start * S), 10**15 + round(end * S))


def found(summary: Maybe[ChannelSummary]) -> ChannelSummary:
    assert not isinstance(summary, Unavailable), summary
    return summary


def test_a_gauge_holds_until_its_next_reading() -> None:
    readings = series((0, 10), (1, 20), (2, 40), (3, 100))
    summary = found(over(GAUGE, readings, 0.5, 3))
    assert summary.mean == pytest.approx((0.5 * 10 + 1 * 20 + 1 * 40) / 2.5)
    assert (summary.min, summary.max) == (10, 40)
    assert (summary.first, summary.last) == (10, 40)
    assert summary.samples == 3


def test_a_burst_of_readings_weighs_as_much_as_the_time_it_took() -> None:
    calm = [(0.05 * i, 0.0) for i in range(18)]
    readings = series(*calm, (0.9, 100), (0.91, 100), (0.92, 100), (1.0, 0), (1.1, 0))
    assert found(over(GAUGE, readings, 0, 1)).mean == pytest.approx(10)


def test_failed_readings_are_left_out() -> None:
    readings = series((0, 10), (1, np.nan), (2, 30), (3, 30), (4, 30))
    assert found(over(GAUGE, readings, 0, 4)).mean == pytest.approx((2 * 10 + 2 * 30) / 4)


def test_a_gauge_that_went_silent_is_stale_not_constant() -> None:
    readings = series(*[(0.1 * i, 50.0) for i in range(11)])
    assert found(over(GAUGE, readings, 0, 1)).mean == 50
    assert isinstance(over(GAUGE, readings, 0, 10), Unavailable)
    assert isinstance(over(GAUGE, readings, 20, 21), Unavailable)


def test_a_counter_is_interpolated_at_both_edges() -> None:
    readings = series((0, 100), (1, 101), (2, 103), (3, 103), (4, 107), (5, 108))
    summary = found(over(COUNTER, readings, 0.5, 4.5))
    assert (summary.first, summary.last) == pytest.approx((100.5, 107.5))
    assert summary.mean == pytest.approx(7 / 4)
    assert (summary.min, summary.max) == pytest.approx((0, 4))


def test_a_reading_on_the_edge_needs_no_neighbour() -> None:
    readings = series((1, 5), (2, 7), (3, 9))
    assert found(over(COUNTER, readings, 1, 3)).mean == pytest.approx(2)


@pytest.mark.parametrize("window", [(-0.1, 2), (1, 4.1), (1.2, 1.4), (2, 2)])
def test_a_counter_is_never_extrapolated(window: tuple[float, float]) -> None:
    assert isinstance(over(COUNTER, series((0, 0), (1, 1), (2, 2), (4, 4)), *window), Unavailable)


def test_a_counter_that_fell_has_no_growth_unless_it_wraps() -> None:
    readings = series((0, 90), (1, 98), (2, 6), (3, 14))
    assert isinstance(over(COUNTER, readings, 0, 3), Unavailable)
    facts = {"wrap_range_j": 99.0, "resolution_j": 1.0}  # its values are 0 to 99
    wrapping = Channel("c", "J", "counter", "energy/c_j", facts=facts)
    summary = found(over(wrapping, readings, 0, 3))
    assert summary.mean == pytest.approx((98 - 90 + 106 - 98 + 114 - 106) / 3)
    assert growth(*readings, 10**15, 10**15 + 3 * S, wrap=100) == pytest.approx(24)


def test_an_unavailable_channel_keeps_its_reason() -> None:
    reason = Unavailable("hidden", "look elsewhere")
    channel = Channel("g", "W", "gauge", "power/g_w", unavailable=reason)
    assert over(channel, series((0, 1), (1, 1)), 0, 1) == reason


@given(st.lists(st.floats(0, 100), min_size=3, max_size=30), st.floats(0.4, 0.6))
def test_growth_over_adjacent_windows_adds_up(steps: list[float], cut: float) -> None:
    times_ns, values = series(*enumerate(np.cumsum(steps)))
    first, last = int(times_ns[0]), int(times_ns[-1])
    cuts = [first, first + round((last - first) * cut), last]
    parts = [growth(times_ns, values, *window) for window in pairwise(cuts)]
    if not any(isinstance(part, Unavailable) for part in parts):
        assert sum(p for p in parts if not isinstance(p, Unavailable)) == pytest.approx(
            values[-1] - values[0]
        )


def cpu(**totals: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Counters that grow evenly from 7 by ``totals`` over ten seconds."""
    return {
        f"{name}_s": series(*[(t, 7 + total * t / 10) for t in range(11)])
        for name, total in totals.items()
    }


def test_foreign_time_is_what_is_busy_and_not_ours() -> None:
    counters = cpu(machine_busy=12, worker_cpu=9, harness_cpu=0.5)
    window = (10**15 + S, 10**15 + 9 * S)
    assert foreign_share(counters, *window) == pytest.approx(0.25)
    assert foreign_share(counters, *window, cpus=2) == pytest.approx(0.125)
    assert worker_share(counters, *window, cpus=2) == pytest.approx(0.45)
    assert steal_share(cpu(machine_steal=0.3), *window) == pytest.approx(0.03)


def test_tick_accounting_may_miss_a_little_but_not_much() -> None:
    window = (10**15, 10**15 + 10 * S)
    assert foreign_share(cpu(machine_busy=9.8, worker_cpu=10, harness_cpu=0), *window) == 0
    hidden = foreign_share(cpu(machine_busy=1, worker_cpu=10, harness_cpu=0), *window)
    assert isinstance(hidden, Unavailable)


def test_shares_without_their_counters_name_the_one_that_is_missing() -> None:
    share = foreign_share(cpu(machine_busy=1, worker_cpu=1), 10**15, 10**15 + 10 * S)
    assert isinstance(share, Unavailable) and "harness_cpu_s" in share.reason


def test_live_figures_follow_the_tag() -> None:
    times_ns, values = series((0, 5), (1, 6), (2, 6.25), (2.5, 6.5))
    for tag, figure in {
        "utilization/x_percent": 100 * (6.5 - 6.25) / 0.5,
        "utilization/x_per_s": (6.5 - 6.25) / 0.5,
        "energy/x_j": 1.5,
    }.items():
        channel = Channel("x", "s", "counter", tag)
        assert live(channel, times_ns, values) == pytest.approx(figure), tag
    assert live(GAUGE, times_ns, values) == 6.5
    assert live(COUNTER, times_ns[:1], values[:1]) is None
    assert live(GAUGE, times_ns[:0], values[:0]) is None


@pytest.mark.parametrize(
    ("every_s", "silent_s", "shown"),
    [(0.1, 1.0, True), (0.1, 1.1, False), (1.0, 5.0, True), (1.0, 5.1, False)],
)
@pytest.mark.parametrize("channel", [GAUGE, COUNTER])
def test_a_sensor_that_went_silent_is_shown_no_more(
    channel: Channel, every_s: float, silent_s: float, shown: bool
) -> None:
    known = [(every_s * index, 7.0 + index) for index in range(6)]
    last_s = known[-1][0]
    times_ns, values = series(*known, (last_s + silent_s / 2, np.nan), (last_s + silent_s, np.nan))
    assert (live(channel, times_ns, values) is not None) is shown
