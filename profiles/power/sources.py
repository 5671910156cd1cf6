"""Power and energy, from whichever meters the machine has.

A *source* is a profiler of its own (powercap, hwmon, ...); `PowerProfiler` opens those that
``context.power_source`` names and reads them one after the other. Channels say which meter they are
of (`harness.protocols.Channel.meter`), and are called after it: ``energy/<meter>_j`` (counter,
joules since opening) and ``power/<meter>_w`` (gauge, watts).

There is no estimate among the sources: without a meter there is no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from harness.errors import UsageError
from harness.maybe import Unavailable, code_of, coded
from harness.profiles.power.external import PREFIX, ExternalSource, parse_path
from harness.profiles.power.hwmon import HwmonSource
from harness.profiles.power.jetson import JetsonSource
from harness.profiles.power.powercap import PowercapSource
from harness.profiles.power.pyrapl import PyRaplSource
from harness.protocols import Available, Channel, Profiler, ProfilerContext


def _nvml(context: ProfilerContext) -> Profiler:
    """Imported where it is asked for: a run on the CPU starts 20 ms sooner without it."""
    from harness.profiles.nvml.power import NvmlPowerSource

    return NvmlPowerSource(context)


SOURCES: Mapping[str, Callable[[ProfilerContext], Profiler]] = {
    "nvml": _nvml,
    "powercap": PowercapSource,
    "hwmon": HwmonSource,
    "jetson": JetsonSource,
    "pyrapl": PyRaplSource,
    "external": ExternalSource,
}
AUTO = ("powercap", "hwmon", "jetson")
# The device under test first: the host's meters are shown beside it, and never added.
AUTO_CUDA = ("nvml", *AUTO)
# What each can tell about: scopes, and how to ask for it. Its channels say more once it is open.
COVERS: Mapping[str, tuple[str, str]] = {
    "nvml": ("gpu-board, gpu-module", "by default with --device cuda"),
    "powercap": ("cpu-package, dram, psys", "by default"),
    "hwmon": ("by chip", "by default"),
    "jetson": ("soc, rail", "by default"),
    "pyrapl": ("cpu-package, dram", "--power-source pyrapl"),
    "external": ("wall", f"--power-source {PREFIX}FILE.csv"),
}
CHOICES = ("auto", "none", "nvml", "powercap", "hwmon", "jetson", "pyrapl", f"{PREFIX}FILE.csv")


def sources_of(power_source: str, device: str = "cpu") -> tuple[str, ...]:
    """The sources that ``--power-source`` asks for. Raises `UsageError` for an unknown one."""
    if power_source == "auto":
        return AUTO_CUDA if device.startswith("cuda") else AUTO
    if power_source == "none":
        return ()
    if power_source.startswith(PREFIX):
        parse_path(power_source)
        return ("external",)
    if power_source in SOURCES and power_source != "external":
        return (power_source,)
    raise UsageError(f"--power-source is {power_source!r}", f"choose one of {', '.join(CHOICES)}")


class PowerProfiler:
    """Every meter asked for that is there. Raises `UsageError` for an unknown source."""

    name = "power"

    def __init__(self, context: ProfilerContext) -> None:
        names = sources_of(context.power_source, context.device)
        self._sources = [SOURCES[name](context) for name in names]
        self._on_gpu = context.device.startswith("cuda")
        self._open: list[Profiler] = []
        self._missing: list[Channel] = []

    def open(self) -> Available | Unavailable:
        """Available where at least one source is; the others' reasons are among the details.

        A source that exists but cannot be read keeps a place among the channels, with its reason.
        """
        self.close()
        if not self._sources:
            return coded("not_present", "switched off by --power-source none", "leave it out")
        details, reasons = {}, []
        for source in self._sources:
            answer = source.open()
            if isinstance(answer, Unavailable):
                details[source.name] = answer.reason
                reasons.append((source.name, answer))
            else:
                details[source.name] = next(iter(answer.details.values()), "available")
                self._open.append(source)
        if not self._open:
            return reasons[0][1]
        self._missing = [_placeholder(name, why) for name, why in reasons if _matters(name, why)]
        return Available(details)

    @property
    def channels(self) -> Sequence[Channel]:
        """Number and order are fixed after `open`; a meter that broke since carries its reason."""
        found = (self._placed(c) for source in self._open for c in source.channels)
        return [*found, *self._missing]

    def _placed(self, channel: Channel) -> Channel:
        """Where the run is on a GPU, the scope ``gpu-board`` is that GPU's, and no other's."""
        if not self._on_gpu or channel.source == "nvml" or not channel.scope.startswith("gpu"):
            return channel
        return msgspec.structs.replace(channel, scope=f"other-{channel.scope}")

    def read(self) -> Sequence[float | None]:
        values = [value for source in self._open for value in source.read()]
        return [*values, *(None for _ in self._missing)]

    def close(self) -> None:
        for source in self._open:
            source.close()
        self._open, self._missing = [], []


def _matters(source: str, reason: Unavailable) -> bool:
    """Whether its absence is news. The GPU's always is: it was not asked for on another device."""
    return source == "nvml" or code_of(reason) not in ("not_present", "not_supported")


def _placeholder(source: str, reason: Unavailable) -> Channel:
    tag = f"energy/{source}_j"
    scope = {"powercap": "cpu-package", "nvml": "gpu-board"}.get(source, source)
    return Channel(
        name=tag,
        unit="J",
        kind="counter",
        tag=tag,
        scope=scope,
        source=source,
        unavailable=reason,
        meter=source,
    )
