"""What the sensors said in the life of one worker, as data, and how well a window was sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.analysis.channels import summarise
from harness.maybe import Maybe, Unavailable
from harness.protocols import Channel
from harness.records.result import ChannelSummary, Profiles, Sampler

Times = NDArray[np.int64]
Readings = tuple[Times, NDArray[np.float64]]  # ns of the common clock, NaN where a reading failed
STAMPS = "time/"  # tags of a meter's own time stamps: for attribution, not for showing


def _no_times() -> Times:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Sampled:
    """``ticks_ns`` and ``cpu_ns``: when the sampler read, and its own CPU time by then."""

    channels: tuple[Channel, ...] = ()  # of every profiler, those that cannot be read included
    series: Mapping[str, Readings] = field(default_factory=dict)  # by channel
    # channel, or profiler that offers none -> why it has no further readings
    reasons: Mapping[str, Unavailable] = field(default_factory=dict)
    rate_hz: float = 0.0
    ticks_ns: Times = field(default_factory=_no_times)
    cpu_ns: Times = field(default_factory=_no_times)
    lost: Unavailable | None = None  # why the sampler ended before it was told to
    profilers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # their channels' names
    walls_ns: Times = field(default_factory=_no_times)  # [N, 2]: common clock, since 1970


def profiles(sampled: Sampled, start_ns: int, end_ns: int) -> Profiles:
    """Every channel's summary over the window, or its reason, and how well it was sampled."""
    reasons = dict(sampled.reasons)
    summaries: dict[str, Maybe[ChannelSummary]] = {}
    for channel in sampled.channels:
        if channel.tag.startswith(STAMPS):
            continue
        times_ns, values = sampled.series[channel.name]
        reason = reasons.pop(channel.name, None)
        if reason is None or (len(times_ns) and times_ns[-1] >= end_ns):
            summaries[channel.name] = summarise(channel, times_ns, values, start_ns, end_ns)
        else:
            summaries[channel.name] = reason
    summaries.update(reasons)
    return Profiles(sampler=report(sampled, start_ns, end_ns), channels=summaries)


def report(sampled: Sampled, start_ns: int, end_ns: int) -> Maybe[Sampler]:
    """How well the window was sampled. ``gap_max_s`` counts the window's edges too."""
    inside = (sampled.ticks_ns >= start_ns) & (sampled.ticks_ns <= end_ns)
    times_ns, cpu_ns = sampled.ticks_ns[inside], sampled.cpu_ns[inside]
    if len(times_ns) < 2:
        return sampled.lost or Unavailable(
            f"the sampler took {len(times_ns)} readings in the window", "lengthen --duration"
        )
    elapsed_s = float(times_ns[-1] - times_ns[0]) / 1e9
    gaps_ns = np.diff(np.concatenate([[start_ns], times_ns, [end_ns]]))
    return Sampler(
        requested_rate_hz=sampled.rate_hz,
        achieved_rate_hz=(len(times_ns) - 1) / elapsed_s,
        gap_max_s=float(gaps_ns.max()) / 1e9,
        cpu_share=float(cpu_ns[-1] - cpu_ns[0]) / 1e9 / elapsed_s,
    )
