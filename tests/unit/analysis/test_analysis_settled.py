"""Whether a device's clock and temperature have come to rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.analysis.settled import unsettled
from harness.maybe import Unavailable
from harness.protocols import Channel

CLOCK = Channel("gpu_sm_mhz", "MHz", "gauge", "clocks/gpu0_sm_mhz")
HEAT = Channel("gpu_c", "C", "gauge", "temperature/gpu0_c")
NOW_NS = 100_000_000_000


def series(channel: Channel, values: Any, seconds: float = 4.0) -> dict[str, Any]:
    """Readings that end now, evenly spaced."""
    times = NOW_NS - np.linspace(seconds, 0, len(values)) * 1e9
    return {channel.name: (times.astype(np.int64), np.array(values, dtype=np.float64))}


def steps(before: float, after: float, count: int = 40) -> list[float]:
    return [before] * (count // 2) + [after] * (count // 2)


@pytest.mark.parametrize(
    ("channel", "before", "after", "words"),
    [
        (CLOCK, 1980, 1980, ""),
        (CLOCK, 1980, 1950, ""),
        (CLOCK, 1980, 1905, "the SM clock went from 1980 to 1905 MHz in 2 s"),
        (CLOCK, 345, 1980, "the SM clock went from 345 to 1980 MHz in 2 s"),
        (HEAT, 40, 41, ""),
        (HEAT, 60, 45, ""),  # it cools: nothing will throttle
        (HEAT, 40, 42, "the temperature rose from 40 to 42 C in 2 s"),
    ],
)
def test_halves_are_compared(channel: Channel, before: float, after: float, words: str) -> None:
    assert unsettled([channel], series(channel, steps(before, after)), NOW_NS) == words


def test_what_is_older_than_the_span_is_forgotten() -> None:
    readings = series(CLOCK, [345.0] * 60 + [1980.0] * 45, seconds=10.4)
    assert unsettled([CLOCK], readings, NOW_NS) == ""


def test_a_device_at_rest_before_the_work_tells_nothing() -> None:
    """A program that holds the device keeps its clock up: steady readings, and no load yet."""
    readings = series(CLOCK, [1980.0] * 40)
    since_ns = NOW_NS - 700_000_000
    told = "clocks/gpu0_sm_mhz has too few readings yet"
    assert unsettled([CLOCK], readings, NOW_NS, since_ns) == told
    assert unsettled([CLOCK], readings, NOW_NS + 3_000_000_000, since_ns) == told
    longer = series(CLOCK, [1980.0] * 60, seconds=6.0)
    assert unsettled([CLOCK], longer, NOW_NS, NOW_NS - 4_000_000_000) == ""


@pytest.mark.parametrize(("count", "seconds"), [(0, 4.0), (3, 4.0), (40, 2.5)])
def test_too_few_readings_hold_it_up(count: int, seconds: float) -> None:
    readings = series(CLOCK, [1980.0] * count, seconds)
    assert unsettled([CLOCK], readings, NOW_NS) == "clocks/gpu0_sm_mhz has too few readings yet"


def test_what_cannot_be_read_or_is_no_gpu_holds_nothing_up() -> None:
    absent = Channel("m", "MHz", "gauge", CLOCK.tag, unavailable=Unavailable("no permission"))
    cpu = Channel("cpu", "MHz", "gauge", "clocks/cpu_max_mhz")
    failing = series(CLOCK, [np.nan] * 40)
    moving = series(cpu, steps(800, 3000))
    assert unsettled([absent, cpu], {**moving, "m": moving["cpu"]}, NOW_NS) == ""
    assert unsettled([CLOCK], failing, NOW_NS) == ""
    assert unsettled([CLOCK], {}, NOW_NS) == ""


def test_a_reading_that_failed_now_and_then_is_left_out() -> None:
    values = steps(1980, 1980)
    values[::5] = [float("nan")] * len(values[::5])
    assert unsettled([CLOCK], series(CLOCK, values), NOW_NS) == ""


def test_the_first_that_moves_is_named() -> None:
    readings = {**series(CLOCK, steps(1980, 1980)), **series(HEAT, steps(40, 50))}
    assert unsettled([CLOCK, HEAT], readings, NOW_NS).startswith("the temperature rose")
