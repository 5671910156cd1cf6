"""What the checks of clocks and of the GPU under test look at, from the series of the sensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.analysis.channels import growth
from harness.analysis.sampled import Readings, Sampled
from harness.analysis.validity import GpuFacts
from harness.maybe import Maybe, Unavailable

Window = tuple[Sampled, int, int]  # what a launch's sensors said, and its window in ns
_REASONS = ("power_cap", "sw_thermal", "hw_thermal", "power_brake", "sync_boost", "hw_slowdown")
_IDLE_CLOCKS = ("cpu_mean_mhz", "cpu_min_mhz")
_MIN_SAMPLES = 6  # two in each third
_UNSAMPLED = Unavailable("nothing was sampled", "give --sample-rate above 0")


def worst_share(sampled: Sequence[Window], share: Callable[..., Maybe[float]]) -> Maybe[float]:
    """The largest that ``share`` has of the launches; the first absence where none is known."""
    if not sampled:
        return _UNSAMPLED
    return _worst([share(one.series, start_ns, end_ns) for one, start_ns, end_ns in sampled])


def cpu_clock_drift(sampled: Sequence[Window]) -> Maybe[float]:
    """Of the busiest core's clock, which tells about the worker: idle ones go as they like."""
    if not sampled:
        return _UNSAMPLED
    names = {
        channel.name
        for one, _, _ in sampled
        for channel in one.channels
        if channel.name.endswith("_mhz")
        and channel.name not in _IDLE_CLOCKS
        and not channel.name.startswith("gpu")  # a GPU's clock has a check of its own
    }
    found = [_clock_drift(name, one) for name in sorted(names) for one in sampled]
    if not found:
        return Unavailable("this machine shows no clocks", "see harness doctor")
    return _worst(found)


def gpu_facts(device: str, sampled: Sequence[Window]) -> GpuFacts | None:
    """The worst of what was sampled in each launch; None where ``device`` is no GPU."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    name = f"gpu{index or 0}"
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


def _series(name: str, sampled: Sampled) -> Maybe[Readings]:
    """Times and values of one channel."""
    if (reason := sampled.reasons.get(name)) is not None:
        return reason
    if name not in sampled.series:
        return Unavailable(f"{name} was not sampled", "see harness doctor")
    return sampled.series[name]


def _inside(name: str, timed: Window, at_least: int = 1) -> Maybe[NDArray[np.float64]]:
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


def _held_back(name: str, sampled: Sequence[Window]) -> Maybe[dict[str, tuple[float, bool]]]:
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


def _time_share(name: str, timed: Window) -> Maybe[float]:
    sampler, start_ns, end_ns = timed
    found = _series(name, sampler)
    if isinstance(found, Unavailable):
        return found
    seconds = growth(*found, start_ns, end_ns)
    return seconds if isinstance(seconds, Unavailable) else seconds / ((end_ns - start_ns) / 1e9)


def _seen_share(name: str, timed: Window) -> Maybe[float]:
    values = _inside(name, timed)
    return values if isinstance(values, Unavailable) else float(values.mean())


def _largest(name: str, timed: Window) -> Maybe[float]:
    values = _inside(name, timed)
    return values if isinstance(values, Unavailable) else float(values.max())


def _clock_drift(name: str, timed: Window) -> Maybe[float]:
    """Relative change of the mean clock from the first third of the window to the last.

    A single reading says little: under a power limit clocks jump by some per cent all the time.
    """
    values = _inside(name, timed, _MIN_SAMPLES)
    if isinstance(values, Unavailable):
        return values
    third = values.size // 3
    first, last = float(values[:third].mean()), float(values[-third:].mean())
    return abs(last / first - 1) if first else Unavailable(f"{name} reads 0", "report it")


def _silenced(sampled: Sampled) -> dict[str, Unavailable]:
    """Channels of the GPU that gave figures and then no more, with the reason."""
    reasons, series = sampled.reasons, sampled.series
    return {
        channel.name: reasons[channel.name]
        for channel in sampled.channels
        if channel.source == "nvml"
        and channel.name in reasons
        and bool(np.isfinite(series[channel.name][1]).any())
    }
