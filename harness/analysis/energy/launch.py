"""The energy of one launch: by the sampler's meters, or why by none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.analysis.channels import foreign_share
from harness.analysis.energy.attribute import Window, attribute
from harness.analysis.energy.meters import SourceReadings
from harness.analysis.sampled import Sampled
from harness.maybe import Maybe, Unavailable, present
from harness.records.result import Energy

NOT_SAMPLED = Unavailable("sampling was switched off", "give --sample-rate above 0")


def launch_energy(
    sampled: Sampled, window: Window, device: str, usable_cpus: int, factors: Mapping[str, str]
) -> Maybe[Energy]:
    """``factors``: of the machine, whose sockets decide whether there is a sum over them."""
    if absent := no_meter(sampled):
        return absent
    series: Mapping[str, Any] = sampled.series
    foreign = foreign_share(series, window.start_ns, window.end_ns, usable_cpus)
    return attribute(
        [SourceReadings(channel, *series[channel.name]) for channel in sampled.channels],
        window,
        device=device.partition(":")[0],
        foreign_cpu_share=present(foreign),
        sockets=_sockets(factors),
    )


def no_meter(sampled: Sampled) -> Unavailable | None:
    """Why nothing measured energy or power; None where something did."""
    meters = [channel.name for channel in sampled.channels if channel.unit in ("J", "W")]
    silent = sampled.reasons
    if any(name not in silent for name in meters):
        return None
    reasons = [silent[name] for name in (*meters, "power") if name in silent]
    return reasons[0] if reasons else Unavailable("no power meter was found", "harness doctor")


def _sockets(factors: Mapping[str, str]) -> int:
    """How many the kernel names; 1 where it names none."""
    told = factors.get("sockets", "")
    return int(told) if told.isdecimal() else 1
