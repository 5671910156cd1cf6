"""What a run says of its device: time by the device's own clock, and memory by two witnesses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.analysis.latency import latency_stats
from harness.engine.outcome.evidence import LaunchRecord
from harness.maybe import Maybe, Unavailable
from harness.records.result import NOT_REACHED, LatencyStats
from harness.stats.quantiles import quantile

_NS_PER_MS = 1e6
_HOST = Unavailable("the device is the host", "none needed: latency_ms is the figure")
_NO_EVENTS = Unavailable("this backend records no device events")
# what the driver says (`harness.profiles.memory`) -> as it stands in `Memory.device`
_DRIVER = {"device_process_bytes": "process_bytes", "device_used_bytes": "device_used_bytes"}
_PEAK = "allocator_peak_bytes"
# as `LaunchRecord.memory` names a phase -> as a key of `Memory.device` begins
_PHASES = {"imported": "baseline_", "loaded": "loaded_", "warm-up": "warmup_", "window": ""}


def device_ms(records: Sequence[LaunchRecord], device: str) -> Maybe[LatencyStats]:
    """Statistics of the device times of all launches."""
    launches = [_times(record) for record in records]
    if not any(map(len, launches)):
        return _why_untimed(records, device)
    return latency_stats([times * _NS_PER_MS for times in launches])


def device_median_ms(record: LaunchRecord, device: str) -> Maybe[float]:
    times = _times(record)
    if not len(times):
        return _why_untimed([record], device)
    return quantile(np.sort(times), 0.5)


def _why_untimed(records: Sequence[LaunchRecord], device: str) -> Unavailable:
    said = next((record.device_untimed for record in records if record.device_untimed), None)
    return said or (_HOST if device == "cpu" else _NO_EVENTS)


def device_method(records: Sequence[LaunchRecord]) -> dict[str, str]:
    """How the device times were had, and of how many iterations; nothing where there are none."""
    timed = sum(len(_times(record)) for record in records)
    if not timed:
        return {}
    text = (
        f"device events around the work of each of {timed} inferences on its own stream, in a "
        "stretch between warm-up and window: recording them takes the host time"
    )
    if any(len(record.device_ms) > 1 for record in records):
        text += "; of several streams, each with the device to itself"
    return {"device_ms": text}


def _times(record: LaunchRecord) -> NDArray[np.float64]:
    return np.concatenate(record.device_ms) if record.device_ms else np.empty(0)


def device_memory(record: LaunchRecord, device: str) -> Maybe[dict[str, Maybe[int]]]:
    """Bytes on the device at the end of each phase, in all and by this process, and what the
    framework allocated. The window's figures carry no prefix; the peak is of the window alone."""
    found: dict[str, Maybe[int]] = {}
    for phase, prefix in _PHASES.items():
        seen = record.memory.get(phase, {})
        for name, key in _DRIVER.items():
            if name in seen:
                figure = seen[name]
                found[prefix + key] = figure if isinstance(figure, Unavailable) else round(figure)
        for name, amount in record.device_memory.get(phase, {}).items():
            found[prefix + name] = amount
    if found:
        return found
    if device == "cpu":
        return Unavailable("the model ran on the CPU", "none needed")
    return Unavailable("this backend has no view of device memory")


def device_peak_bytes(record: LaunchRecord, device: str) -> Maybe[int]:
    """The allocator's peak in the window; where there is none, what the process held at its end.

    An arena gives nothing back, so that its level at the end is its peak.
    """
    found = device_memory(record, device)
    if isinstance(found, Unavailable):
        return found
    peak = found.get(_PEAK, NOT_REACHED)
    return found.get("process_bytes", peak) if isinstance(peak, Unavailable) else peak
