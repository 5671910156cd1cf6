"""What the validity checks of the GPU under test look at, from the sampler's series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.channels import growth
from harness.analysis.validity import GpuFacts
from harness.engine.outcome.evidence import LaunchRecord
from harness.engine.sampler.client import SamplerProcess
from harness.maybe import Maybe, Unavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

Timed = tuple[SamplerProcess, int, int]  # a launch's sampler and its window
Readings = tuple["NDArray[np.int64]", "NDArray[np.float64]"]
_REASONS = ("power_cap", "sw_thermal", "hw_thermal", "power_brake", "sync_boost", "hw_slowdown")
_MIN_SAMPLES = 6  # two in each third
_UNSAMPLED = Unavailable("nothing was sampled", "give --sample-rate above 0")


def gpu_facts(
    device: str, timed: Sequence[tuple[LaunchRecord, SamplerProcess | None]]
) -> GpuFacts | None:
    """Of the launches that timed anything; None where ``device`` is no GPU."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    name = f"gpu{index or 0}"
    sampled: list[Timed] = [
        (sampler, *record.window_ns)
        for record, sampler in timed
        if sampler is not None and record.window_ns is not None
    ]
    if not sampled:
        return GpuFacts(
            held_back=_UNSAMPLED,
            clock_drift=_UNSAMPLED,
            other_processes=_UNSAMPLED,
            silenced=_UNSAMPLED,
        )
    return GpuFacts(
        held_back=_held_back(name, sampled),
        clock_drift=_worst([_clock_drift(f"{name}_sm_mhz", one) for one in sampled]),
        other_processes=_worst([_largest(f"{name}_other_processes", one) for one in sampled]),
        silenced={n: why for one in sampled for n, why in _silenced(one[0]).items()},
    )


def _worst(found: Sequence[Maybe[float]]) -> Maybe[float]:
    """The largest that is known, else the first reason."""
    known = [value for value in found if not isinstance(value, Unavailable)]
    return max(known) if known else found[0]


def _series(name: str, sampler: SamplerProcess) -> Maybe[Readings]:
    """Times and values of one channel."""
    if (reason := sampler.unavailable().get(name)) is not None:
        return reason
    if name not in (series := sampler.series()):
        return Unavailable(f"{name} was not sampled", "see harness doctor")
    return series[name]


def _inside(name: str, timed: Timed, at_least: int = 1) -> Maybe[NDArray[np.float64]]:
    """The readings of one channel in the window."""
    sampler, start_ns, end_ns = timed
    found = _series(name, sampler)
    if isinstance(found, Unavailable):
        return found
    times_ns, values = found
    inside = values[(times_ns >= start_ns) & (times_ns <= end_ns) & np.isfinite(values)]
    if inside.size < at_least:
        reason = f"{name} has {inside.size} readings in the window"
        return Unavailable(reason, "lengthen --duration")
    return inside


def _held_back(name: str, sampled: Sequence[Timed]) -> Maybe[dict[str, tuple[float, bool]]]:
    """Reason -> worst share of a window. Counted time is preferred to what samples caught."""
    found: dict[str, tuple[float, bool]] = {}
    absent: Unavailable | None = None
    for reason in _REASONS:
        counted = _worst([_time_share(f"{name}_{reason}_s", one) for one in sampled])
        if not isinstance(counted, Unavailable):
            found[reason] = (counted, True)
            continue
        seen = _worst([_seen_share(f"{name}_{reason}", one) for one in sampled])
        if isinstance(seen, Unavailable):
            absent = absent or seen
        else:
            found[reason] = (seen, False)
    return found or absent or _UNSAMPLED


def _time_share(name: str, timed: Timed) -> Maybe[float]:
    sampler, start_ns, end_ns = timed
    found = _series(name, sampler)
    if isinstance(found, Unavailable):
        return found
    seconds = growth(*found, start_ns, end_ns)
    return seconds if isinstance(seconds, Unavailable) else seconds / ((end_ns - start_ns) / 1e9)


def _seen_share(name: str, timed: Timed) -> Maybe[float]:
    values = _inside(name, timed)
    return values if isinstance(values, Unavailable) else float(values.mean())


def _largest(name: str, timed: Timed) -> Maybe[float]:
    values = _inside(name, timed)
    return values if isinstance(values, Unavailable) else float(values.max())


def _clock_drift(name: str, timed: Timed) -> Maybe[float]:
    """Relative change of the mean clock from the first third of the window to the last.

    A single reading says little: under a power limit clocks jump by some per cent all the time.
    """
    values = _inside(name, timed, _MIN_SAMPLES)
    if isinstance(values, Unavailable):
        return values
    third = values.size // 3
    first, last = float(values[:third].mean()), float(values[-third:].mean())
    return abs(last / first - 1) if first else Unavailable("the GPU's clock stood still", "report")


def _silenced(sampler: SamplerProcess) -> dict[str, Unavailable]:
    """Channels of the GPU that gave figures and then no more, with the reason."""
    reasons, series = sampler.unavailable(), sampler.series()
    return {
        channel.name: reasons[channel.name]
        for channel in sampler.channels
        if channel.source == "nvml"
        and channel.name in reasons
        and bool(np.isfinite(series[channel.name][1]).any())
    }
