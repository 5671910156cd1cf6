"""Every sensor of one GPU at once, for showing: opened, asked and closed again."""

from __future__ import annotations

from harness.maybe import Unavailable
from harness.profiles.files import absent
from harness.profiles.nvml.activity import clock_readings, utilization_readings
from harness.profiles.nvml.device import NvmlGroups, channel_prefix
from harness.profiles.nvml.memory import memory_readings
from harness.profiles.nvml.power import NvmlPowerSource
from harness.protocols import Channel, ProfilerContext


def sensors(context: ProfilerContext) -> list[Channel]:
    """The channels of the device of ``context``, each that cannot be read with its reason."""
    name = channel_prefix(context)
    groups = NvmlGroups(
        context,
        [
            *utilization_readings(name),
            *clock_readings(name),
            *memory_readings(name, context.pid),
        ],
    )
    groups.open()
    groups.close()
    return [*_power(context, name), *groups.channels]


def _power(context: ProfilerContext, name: str) -> list[Channel]:
    source = NvmlPowerSource(context)
    answer = source.open()
    source.close()
    if not isinstance(answer, Unavailable):
        return list(source.channels)
    tag = f"energy/{name}_j"
    meter = Channel(tag, "J", "counter", tag, "gpu-board", source.name)
    return list(absent([meter], answer))
