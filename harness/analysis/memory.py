"""Memory of one launch: on the host by the kernel's books, on the device by two witnesses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from harness.analysis.sampled import Sampled
from harness.maybe import Maybe, Unavailable
from harness.records.result import NOT_REACHED, Memory

# what the driver says (`harness.profiles.memory`) -> as it stands in `Memory.device`
_DRIVER = {"device_process_bytes": "process_bytes", "device_used_bytes": "device_used_bytes"}
_PEAK = "allocator_peak_bytes"
# a phase that has ended -> as a key of `Memory.device` begins
_PHASES = {"imported": "baseline_", "loaded": "loaded_", "warm-up": "warmup_", "window": ""}


class Seen(NamedTuple):
    """What one launch was seen to hold, by the phase that had just ended.

    ``window_ns`` and ``sampled`` are for a kernel without peaks of its own.
    """

    phases: Mapping[str, Mapping[str, Maybe[float]]]
    allocated: Mapping[str, Mapping[str, Maybe[int]]]  # by the framework, on the device
    window_ns: tuple[int, int] | None
    sampled: Sampled | None


def memory(seen: Seen, device: str) -> Maybe[Memory]:
    """Absent where not one phase has ended."""
    if not seen.phases:
        return NOT_REACHED
    (_, warmup_peak), (kind, window_peak) = (peak(seen, phase) for phase in ("warm-up", "window"))
    return Memory(
        kind=kind,
        baseline_bytes=_figure(seen, "imported", "rss_bytes"),
        loaded_bytes=_figure(seen, "loaded", "rss_bytes"),
        warmup_peak_bytes=warmup_peak,
        window_peak_bytes=window_peak,
        window_uss_bytes=_figure(seen, "window", "uss_bytes"),
        window_pss_bytes=_figure(seen, "window", "pss_bytes"),
        device=device_memory(seen, device),
    )


def peak(seen: Seen, phase: str) -> tuple[str, Maybe[int]]:
    """What kind of peak a phase has, and the peak in bytes."""
    highest = _figure(seen, phase, "peak_bytes")
    if isinstance(highest, Unavailable) and phase in seen.phases:
        return "host_rss_sampled", _sampled_peak(seen, phase) or highest
    return "host_rss_hwm", highest


def _figure(seen: Seen, phase: str, name: str) -> Maybe[int]:
    value = seen.phases.get(phase, {}).get(name, NOT_REACHED)
    return value if isinstance(value, Unavailable) else round(value)


def _sampled_peak(seen: Seen, phase: str) -> int | None:
    """The largest RSS that the sampler saw in a phase: a lower bound of the peak."""
    if seen.sampled is None or seen.window_ns is None:
        return None
    times_ns, values = seen.sampled.series.get("rss_bytes", (np.empty(0), np.empty(0)))
    start_ns, end_ns = seen.window_ns
    inside = (times_ns >= start_ns) & (times_ns <= end_ns)
    if phase == "warm-up":
        inside = times_ns < start_ns
    known = values[inside & np.isfinite(values)]
    return round(float(known.max())) if len(known) else None


def device_memory(seen: Seen, device: str) -> Maybe[dict[str, Maybe[int]]]:
    """Bytes on the device at the end of each phase, in all and by this process, and what the
    framework allocated. The window's figures carry no prefix; the peak is of the window alone."""
    figures: dict[str, Maybe[int]] = {}
    for phase, prefix in _PHASES.items():
        for name, key in _DRIVER.items():
            if name in seen.phases.get(phase, {}):
                figures[prefix + key] = _figure(seen, phase, name)
        for name, amount in seen.allocated.get(phase, {}).items():
            figures[prefix + name] = amount
    if figures:
        return figures
    if device == "cpu":
        return Unavailable("the model ran on the CPU", "none needed")
    return Unavailable("this backend has no view of device memory")


def device_peak_bytes(seen: Seen, device: str) -> Maybe[int]:
    """The allocator's peak in the window; where there is none, what the process held at its end.

    An arena gives nothing back, so that its level at the end is its peak.
    """
    figures = device_memory(seen, device)
    if isinstance(figures, Unavailable):
        return figures
    highest = figures.get(_PEAK, NOT_REACHED)
    return figures.get("process_bytes", highest) if isinstance(highest, Unavailable) else highest
