"""Time by the device's own clock: what a run states of it, and how it was had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.latency import latency_stats
from harness.maybe import Maybe, Unavailable
from harness.records.result import LatencyStats
from harness.stats.quantiles import quantile

_NS_PER_MS = 1e6
_HOST = Unavailable("the device is the host", "none needed: latency_ms is the figure")
_NO_EVENTS = Unavailable("this backend records no device events")


class DeviceTimes(NamedTuple):
    """Of one launch: ms of each iteration that had events, an array a stream.

    ``untimed``: why there are none, where there should be.
    """

    streams: Sequence[NDArray[np.float64]]
    untimed: Unavailable | None = None

    @property
    def ms(self) -> NDArray[np.float64]:
        return np.concatenate(self.streams) if self.streams else np.empty(0)


def device_ms(launches: Sequence[DeviceTimes], device: str) -> Maybe[LatencyStats]:
    """Statistics of the device times of all launches."""
    times = [launch.ms for launch in launches]
    if not any(map(len, times)):
        return _why_untimed(launches, device)
    return latency_stats([ms * _NS_PER_MS for ms in times])


def device_median_ms(launch: DeviceTimes, device: str) -> Maybe[float]:
    times = launch.ms
    return quantile(np.sort(times), 0.5) if len(times) else _why_untimed([launch], device)


def _why_untimed(launches: Sequence[DeviceTimes], device: str) -> Unavailable:
    said = next((launch.untimed for launch in launches if launch.untimed), None)
    return said or (_HOST if device == "cpu" else _NO_EVENTS)


def device_method(launches: Sequence[DeviceTimes]) -> dict[str, str]:
    """How the device times were had, and of how many iterations; nothing where there are none."""
    timed = sum(len(launch.ms) for launch in launches)
    if not timed:
        return {}
    text = (
        f"device events around the work of each of {timed} inferences on its own stream, in a "
        "stretch between warm-up and window: recording them takes the host time"
    )
    if any(len(launch.streams) > 1 for launch in launches):
        text += "; of several streams, each with the device to itself"
    return {"device_ms": text}
