"""Clocks, throttling and temperature of the CPU, and of the GPU where the run is on one.

Frequencies are the kernel's ``scaling_cur_freq`` over the cores that the worker may use
(``options["cpus"]``; all by default): mean, lowest and highest, in MHz. The highest is the busiest
core's. /proc/cpuinfo's ``cpu MHz`` is never used: in a virtual machine it is a constant.

Throttle events are Intel's; each core repeats its package's count, which is taken once per package.
Temperatures are per package, from the CPU's own sensor in hwmon, else from its thermal zone. The
GPU's channels are explained in `nvml_activity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.host.procfs import cpu_list, is_virtual, read_text
from harness.maybe import Unavailable, coded
from harness.profiles.files import AbsentGroup, FileGroup, Group, GroupProfiler, Values
from harness.protocols import Channel

_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_LABELS = ("Package id", "Tdie", "Tctl")  # the die itself first: Tctl may carry an offset
_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "cpu")


class ClocksProfiler(GroupProfiler):
    """Frequency, throttle counts and temperatures of the CPU; the same of the GPU under test."""

    name = "clocks"

    def groups(self) -> list[Group]:
        """One group for the clocks, one for the throttle counts, one per temperature; the GPU."""
        gpu: list[Group] = []
        if self.context.device.startswith("cuda"):
            from harness.profiles.nvml.activity import clock_readings
            from harness.profiles.nvml.device import NvmlGroups, channel_prefix

            gpu = [NvmlGroups(self.context, clock_readings(channel_prefix(self.context)))]
        return [self._frequency(), *self._throttling(), *self._temperatures(), *gpu]

    @property
    def _sys(self) -> Path:
        return Path(self.context.root) / "sys"

    def _hidden(self, what: str, bare: str, remedy: str) -> Unavailable:
        """The reason for an absence: the hypervisor's on a virtual machine, else ``bare``."""
        if is_virtual(self.context.root):
            reason = f"the virtual machine hides {what}"
            return coded("virtualized", reason, "measure on the bare machine")
        return coded("not_present", bare, remedy)

    def _frequency(self) -> Group:
        names = ("cpu_mean_mhz", "cpu_min_mhz", "cpu_max_mhz")
        channels = [Channel(name, "MHz", "gauge", f"clocks/{name}", "machine") for name in names]
        missing = self._hidden(
            "the CPU's frequency",
            "the kernel has no frequency driver for this CPU",
            "load one (intel_pstate, amd_pstate, acpi-cpufreq)",
        )
        wanted = set(cpu_list(self.context.options.get("cpus")))
        policies = sorted((self._sys / "devices/system/cpu/cpufreq").glob("policy*"))
        chosen = [policy for policy in policies if not wanted or wanted & _cpus(policy)]
        if not chosen:
            return AbsentGroup(channels, missing)
        return FileGroup([p / "scaling_cur_freq" for p in chosen], channels, _mhz, missing)

    def _throttling(self) -> list[Group]:
        cpus = sorted((self._sys / "devices/system/cpu").glob("cpu[0-9]*"))
        packages = {read_text(str(c), "topology/physical_package_id") or "0": c for c in cpus}
        sources = (("core_throttles", cpus), ("package_throttles", list(packages.values())))
        return [self._throttle_group(name, folders) for name, folders in sources]

    def _throttle_group(self, name: str, folders: Sequence[Path]) -> Group:
        channel = Channel(name, "count", "counter", f"clocks/{name}", "machine")
        missing = self._hidden(
            "throttle counts",
            "this CPU counts no throttle events",
            "none: only Intel's do; watch the clocks and the temperature instead",
        )
        if not folders:
            return AbsentGroup([channel], missing)
        file = f"thermal_throttle/{name.removesuffix('s')}_count"
        return FileGroup([folder / file for folder in folders], [channel], _total, missing)

    def _temperatures(self) -> list[Group]:
        missing = self._hidden(
            "the CPU's temperature",
            "no CPU temperature sensor is known to the kernel",
            "load its driver (modprobe coretemp, or k10temp)",
        )
        paths = list(self._hwmon()) or list(self._zones())
        if not paths:
            return [AbsentGroup([_temperature(0)], missing)]
        return [
            FileGroup([path], [_temperature(number, source)], _celsius, missing)
            for number, (source, path) in enumerate(paths)
        ]

    def _hwmon(self) -> Iterator[tuple[str, Path]]:
        for chip in sorted((self._sys / "class/hwmon").glob("hwmon*")):
            name = read_text(str(chip), "name") or ""
            inputs = sorted(chip.glob("temp*_input"))
            if name in _CHIPS and inputs:
                yield name, min(inputs, key=_preference)

    def _zones(self) -> Iterator[tuple[str, Path]]:
        for zone in sorted((self._sys / "class/thermal").glob("thermal_zone*")):
            kind = read_text(str(zone), "type") or ""
            if kind in _ZONES:
                yield kind, zone / "temp"


def _cpus(policy: Path) -> set[int]:
    text = read_text(str(policy), "affected_cpus") or ""
    return {int(cpu) for cpu in text.split() if cpu.isdigit()}


def _preference(path: Path) -> int:
    label = read_text(str(path.parent), path.name.replace("_input", "_label")) or ""
    ranks = [rank for rank, start in enumerate(_LABELS) if label.startswith(start)]
    return min(ranks, default=len(_LABELS))


def _temperature(number: int, source: str = "") -> Channel:
    name = f"cpu{number}_temperature_c"
    tag = f"temperature/cpu{number}_c"
    return Channel(name, "°C", "gauge", tag, "cpu-package", source)


def _mhz(*texts: bytes) -> Values:
    values = [int(text) / 1000 for text in texts]
    return [sum(values) / len(values), min(values), max(values)]


def _total(*texts: bytes) -> Values:
    return [float(sum(int(text) for text in texts))]


def _celsius(text: bytes) -> Values:
    return [int(text) / 1000]
