"""What the CPUs did: the worker's time, switches and faults, and what disturbed it from outside.

All are counters, so that a window's share is a difference and no sample can miss a burst; the
kernel's percentages of some past interval are never used. CPU times come in ticks of 10 ms
(``facts["resolution"]``): over a window of one second that is a share of 1 %. A GPU's busy share,
where the run is on one, is all that its driver gives, and no counter (see `nvml_activity`).

Sources: /proc/PID/stat (time and faults of all threads, ended ones included),
/proc/PID/task/*/status (context switches are counted per thread), /proc/stat, /proc/pressure, the
cgroup's cpu.stat.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.host.procfs import KernelFile, cgroup_chain, cpu_quota_of, read_text, why
from harness.maybe import Unavailable, coded
from harness.profiles.files import (
    AbsentGroup,
    FileGroup,
    Group,
    GroupProfiler,
    Values,
    absent,
    process_missing,
)
from harness.protocols import Channel, ProfilerContext

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_CORE_LINE_BYTES = 160  # ten counters of a /proc/stat line at their longest


def _counter(name: str, unit: str, tag: str, scope: str = "process") -> Channel:
    facts = {"resolution": _TICK_S} if unit == "s" else {}
    return Channel(name, unit, "counter", f"utilization/{tag}", scope, facts=facts)


class UtilizationProfiler(GroupProfiler):
    """CPU seconds, switches, faults, steal, pressure and throttling.

    ``options["own_pids"]`` (comma separated) names Harness's other processes: their CPU time is
    what the measuring itself costs, and no foreign load.
    """

    name = "utilization"

    def groups(self) -> list[Group]:
        """One group per kernel file."""
        proc = Path(self.context.root) / "proc"
        worker = proc / str(self.context.pid)
        return [
            FileGroup(
                [worker / "stat"],
                [
                    _counter("worker_cpu_s", "s", "worker_cpu_percent"),
                    _counter("minor_faults", "count", "minor_faults_per_s"),
                    _counter("major_faults", "count", "major_faults_per_s"),
                ],
                _worker,
                process_missing(self.context),
            ),
            _SwitchGroup(worker / "task", self.context),
            *self._harness(proc),
            _machine(proc),
            *[_pressure(proc, resource) for resource in ("cpu", "memory", "io")],
            _throttling(self.context),
            *self._gpu(),
        ]

    def _gpu(self) -> list[Group]:
        if not self.context.device.startswith("cuda"):
            return []
        from harness.profiles.nvml.activity import utilization_readings
        from harness.profiles.nvml.device import NvmlGroups, channel_prefix

        return [NvmlGroups(self.context, utilization_readings(channel_prefix(self.context)))]

    def _harness(self, proc: Path) -> list[Group]:
        pids = [pid for pid in self.context.options.get("own_pids", "").split(",") if pid]
        channel = _counter("harness_cpu_s", "s", "harness_cpu_percent", "harness")
        gone = coded("not_present", "a process of Harness is gone", "see why it ended")
        paths = [proc / pid / "stat" for pid in pids]
        return [FileGroup(paths, [channel], _cpu_total, gone)] if pids else []


def _stat_fields(text: bytes) -> list[bytes]:
    """/proc/PID/stat from its third field on: the second is a name that may hold anything."""
    return text.rpartition(b")")[2].split()


def _cpu_s(stat: list[bytes]) -> float:
    return (int(stat[11]) + int(stat[12])) * _TICK_S


def _worker(text: bytes) -> Values:
    stat = _stat_fields(text)
    return [_cpu_s(stat), float(stat[7]), float(stat[9])]


def _cpu_total(*texts: bytes) -> Values:
    return [sum(_cpu_s(_stat_fields(text)) for text in texts)]


class _SwitchGroup:
    """Context switches summed over the worker's threads.

    Files stay open per thread. When a thread ends its last counts stay in the sum, which therefore
    never falls; what it did after its last reading is lost.
    """

    def __init__(self, folder: Path, context: ProfilerContext) -> None:
        self.channels: Sequence[Channel] = (
            _counter("voluntary_switches", "count", "voluntary_switches_per_s"),
            _counter("involuntary_switches", "count", "involuntary_switches_per_s"),
        )
        self._folder = folder
        self._context = context
        self._files: dict[str, KernelFile] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self._ended = (0, 0)

    def open(self) -> None:
        try:
            self._refresh()
        except OSError as error:
            self._lose(why(error, self._folder, process_missing(self._context)))
        else:
            if not self._counts:
                reason = f"{self._folder} counts no context switches"
                self._lose(coded("not_supported", reason, "use a kernel that counts them"))

    def read(self) -> Values:
        if self.channels[0].unavailable is not None:
            return [None, None]
        try:
            self._refresh()
        except OSError:  # the process is gone
            return [None, None]
        counts = [self._ended, *self._counts.values()]
        return [float(sum(count[i] for count in counts)) for i in (0, 1)]

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def _refresh(self) -> None:
        alive = [thread.name for thread in self._folder.iterdir()]
        for thread in alive:
            self._read_thread(thread)
        for thread in self._counts.keys() - set(alive):
            self._end(thread)

    def _read_thread(self, thread: str) -> None:
        try:
            if thread not in self._files:
                self._files[thread] = KernelFile(self._folder / thread / "status")
            self._counts[thread] = _switches(self._files[thread].read())
        except (FileNotFoundError, ProcessLookupError):
            self._end(thread)  # it ended between the listing and the reading
        except (ValueError, IndexError):
            return  # this kernel writes no such lines

    def _end(self, thread: str) -> None:
        if thread in self._files:
            self._files.pop(thread).close()
        last = self._counts.pop(thread, (0, 0))
        self._ended = (self._ended[0] + last[0], self._ended[1] + last[1])

    def _lose(self, reason: Unavailable) -> None:
        self.close()
        self.channels = absent(self.channels, reason)


def _switches(text: bytes) -> tuple[int, int]:
    tail = text[text.rindex(b"\nvoluntary_ctxt_switches:") :].split()
    return int(tail[1]), int(tail[3])


def _machine(proc: Path) -> Group:
    channels = [
        _counter("machine_busy_s", "s", "machine_busy_percent", "machine"),
        _counter("machine_steal_s", "s", "machine_steal_percent", "machine"),
    ]
    cores = _core_names(proc)
    channels += [_counter(f"{core}_busy_s", "s", f"{core}_percent", "core") for core in cores]
    size_bytes = _CORE_LINE_BYTES * (len(cores) + 1)
    missing = coded("not_supported", f"there is no {proc / 'stat'}", "mount /proc of a Linux")
    parse = partial(_machine_values, cores=cores)
    return FileGroup([proc / "stat"], channels, parse, missing, size_bytes)


def _core_names(proc: Path) -> list[str]:
    lines = (read_text(str(proc), "stat") or "").splitlines()  # the group gives the reason
    return [line.split(" ", 1)[0] for line in lines if re.match(r"cpu\d", line)]


def _machine_values(text: bytes, cores: Sequence[str]) -> Values:
    lines = {
        line.split(b" ", 1)[0]: line.split()[1:] for line in text.splitlines()[: 1 + len(cores)]
    }
    total = [int(field) for field in lines[b"cpu"]]
    if not any(total):  # gVisor has the file, with nothing but zeros in it
        return [None] * (2 + len(cores))
    steal = total[7] * _TICK_S if len(total) > 7 else None
    busy = [lines.get(core.encode()) for core in cores]  # a core that went offline has no line
    return [_busy_s(total), steal, *[None if core is None else _busy_s(core) for core in busy]]


def _busy_s(line: Sequence[bytes | int]) -> float:
    """User, nice, system, irq and softirq; idle, iowait and steal are not work done here.

    Time of guests that this machine hosts is already within user and nice.
    """
    return sum(int(line[i]) for i in (0, 1, 2, 5, 6)) * _TICK_S


def _pressure(proc: Path, resource: str) -> Group:
    name = f"pressure_{resource}_s"
    channel = _counter(name, "s", f"pressure_{resource}_percent", "machine")
    missing = coded("not_present", "this kernel counts no pressure", "boot Linux with psi=1")
    return FileGroup([proc / "pressure" / resource], [channel], _stall_s, missing)


def _stall_s(text: bytes) -> Values:
    some = text.split(b"\n", 1)[0]
    return [int(some.rpartition(b"total=")[2]) / 1e6]


def _throttling(context: ProfilerContext) -> Group:
    channels = [
        _counter("cgroup_throttled_s", "s", "cgroup_throttled_percent", "cgroup"),
        _counter("cgroup_throttles", "count", "cgroup_throttles_per_s", "cgroup"),
    ]
    version, chain = cgroup_chain(context.root, "cpu", context.pid)
    limited = [folder for folder in chain if cpu_quota_of(folder) is not None]
    if not limited:
        return AbsentGroup(
            channels,
            Unavailable("no CPU quota limits the worker", "none needed: nothing throttles"),
        )
    path = limited[0] / "cpu.stat"
    missing = coded("not_present", f"there is no {path}", "mount the cgroup file system")
    return FileGroup([path], channels, partial(_throttled, version=version), missing)


def _throttled(text: bytes, version: int) -> Values:
    words = text.split()
    counts = dict(zip(words[::2], words[1::2], strict=False))
    key, per_s = (b"throttled_usec", 1e6) if version == 2 else (b"throttled_time", 1e9)
    if key not in counts or b"nr_throttled" not in counts:
        return [None, None]
    return [int(counts[key]) / per_s, float(counts[b"nr_throttled"])]
