"""Device memory as the driver accounts it: of the whole device, and of the worker.

``used`` is what is allocated on the device under test, by whomever, without what the driver keeps
for itself where NVML tells the two apart. ``process`` is the worker's part: context, libraries'
kernels, allocator and all. Only the driver sees all of these; a framework sees its own allocator.

The driver knows processes by the host's numbers. In a container of its own PID namespace the
worker is found in the driver's list only where that list is translated, which is taken to be so
where every process on it exists here; otherwise its part is unknown, and never guessed from a
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.maybe import Maybe, Unavailable, coded
from harness.profiles.nvml.device import (
    SOURCE,
    Gpu,
    Reading,
    in_first_pid_namespace,
    open_gpu,
)
from harness.profiles.nvml.errors import NvmlFailure
from harness.protocols import Channel, ProfilerContext

PROCESSES_EVERY_S = 1.0  # the driver walks its clients for it
_LISTS = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
_NAMESPACE = coded(
    "not_supported",
    "the driver lists processes by the host's numbers, which this container does not see",
    "start the container with --pid=host",
)


def memory_readings(name: str, pid: int) -> list[Reading]:
    """Channels of the device called ``name``, for worker ``pid``."""
    used = _bytes(f"{name}_used_bytes", f"memory/{name}_used_bytes", "gpu")
    process = _bytes(f"{name}_process_bytes", f"memory/{name}_process_bytes", "process")
    tag = f"utilization/{name}_other_processes"
    others = Channel(f"{name}_other_processes", "count", "gauge", tag, "gpu", SOURCE)

    def processes(gpu: Gpu) -> Sequence[Maybe[float]]:
        found = clients(gpu)
        return [process_bytes(found, pid), other_processes(found, pid)]

    return [
        Reading([used], lambda gpu: [used_bytes(gpu)]),
        Reading([process, others], processes, late=True, every_s=PROCESSES_EVERY_S),
    ]


def _bytes(name: str, tag: str, scope: str) -> Channel:
    return Channel(name, "bytes", "gauge", tag, scope, SOURCE)


def used_bytes(gpu: Gpu) -> float:
    """Bytes in use on the device. Raises `NvmlFailure`."""
    what = "device memory"
    version = getattr(gpu.library, "nvmlMemory_v2", None)
    if version is not None:
        found = gpu.try_ask(what, "nvmlDeviceGetMemoryInfo", version, part=True)
        if not isinstance(found, Unavailable):
            return float(found.used)
    return float(gpu.ask(what, "nvmlDeviceGetMemoryInfo", part=True).used)


class Client:
    """A process that the driver lists, and its bytes; None where the driver does not tell them."""

    def __init__(self, pid: int, used: int | None) -> None:
        self.pid, self.used = pid, used


def clients(gpu: Gpu) -> dict[int, Client]:
    """Every process with a context on the device, compute and graphics. Raises `NvmlFailure`."""
    found: dict[int, Client] = {}
    listed: list[Any] = list(gpu.ask("its processes", _LISTS[0], part=True))
    graphics = gpu.try_ask("its processes", _LISTS[1], part=True)
    if gpu.gone is not None:
        raise NvmlFailure(gpu.gone, gone=True)
    listed += [] if isinstance(graphics, Unavailable) else list(graphics)
    for one in listed:  # a process with both kinds of context is listed twice with the same sum
        found[int(one.pid)] = Client(int(one.pid), one.usedGpuMemory)
    return found


def process_bytes(found: Mapping[int, Client], pid: int) -> Maybe[float]:
    """The bytes of ``pid``: absent until it has a context."""
    mine = found.get(pid)
    if not Path(f"/proc/{pid}").exists():
        return coded("not_present", f"there is no process {pid}", "see why it ended")
    if not _same_numbers(found):
        return _NAMESPACE
    if mine is None:
        reason = f"process {pid} has no context on the device"
        return coded("not_present", reason, "none needed before the model is loaded")
    if mine.used is None:
        reason = "the driver does not tell the memory of one process"
        return coded("not_supported", reason, "none under Windows' WDDM")
    return float(mine.used)


def other_processes(found: Mapping[int, Client], pid: int) -> Maybe[float]:
    """How many processes other than ``pid`` have a context on the device."""
    if _same_numbers(found):
        return float(len(found.keys() - {pid}))
    # By whatever numbers: the worker is one of them at most.
    return float(len(found) - 1) if len(found) > 1 else _NAMESPACE


def _same_numbers(found: Mapping[int, Client]) -> bool:
    """Whether the driver's process numbers are ours."""
    if in_first_pid_namespace():
        return True
    return bool(found) and all(Path(f"/proc/{pid}").exists() for pid in found)


class DeviceMemoryProbe:
    """Device memory at phase boundaries, for `harness.profiles.memory`.

    There is no high-water mark in the driver: the peak of a phase is the largest of its samples and
    of the figures at its boundaries.
    """

    def __init__(self, context: ProfilerContext) -> None:
        self._context = context
        self._gpu: Gpu | Unavailable | None = None

    def snapshot(self) -> Mapping[str, Maybe[float]]:
        """``device_process_bytes`` and ``device_used_bytes`` now. Needs no `open`."""
        if self._gpu is None:
            self._gpu = open_gpu(self._context)
        gpu = self._gpu
        if isinstance(gpu, Unavailable):
            return dict.fromkeys(("device_process_bytes", "device_used_bytes"), gpu)
        return {
            "device_process_bytes": _answer(lambda: process_bytes(clients(gpu), self._context.pid)),
            "device_used_bytes": _answer(lambda: used_bytes(gpu)),
        }

    def reset_peaks(self) -> None:
        """The driver keeps no peak."""

    def close(self) -> None:
        """Let go of NVML. Idempotent; a later `snapshot` opens it again."""
        if isinstance(self._gpu, Gpu):
            self._gpu.close()
        self._gpu = None


def _answer(call: Callable[[], Maybe[float]]) -> Maybe[float]:
    try:
        return call()
    except NvmlFailure as failure:
        return failure.reason
