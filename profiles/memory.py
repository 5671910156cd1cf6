"""Memory of the worker: sampled resident bytes, and exact figures at phase boundaries.

    load        warm-up      window
    ──┬───────────┬────────────┬──
      │ reset     │ reset      │        reset_peaks() at the start of a phase,
      └─ peak ────┴─ peak ─────┘ peak   snapshot() at its end

The peak is the kernel's own high-water mark (``VmHWM``): no poll can miss it, and writing 5 to
``clear_refs`` restarts it. ``ru_maxrss`` is never used: a child inherits its parent's across exec.

Recent kernels keep RSS in per-CPU parts, so the cheap counter of ``statm`` lags by up to a few
dozen pages per CPU. ``smaps_rollup`` walks the page tables instead: exact, but milliseconds for a
large process, hence for `MemoryProfiler.snapshot` alone. All figures are in bytes. What is read of
the device, where the run is on one, stands in `nvml_memory`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.host.procfs import why
from harness.maybe import Maybe, Unavailable, coded
from harness.profiles.files import (
    AbsentGroup,
    FileGroup,
    Group,
    GroupProfiler,
    Values,
    process_missing,
)
from harness.protocols import Channel, ProfilerContext

if TYPE_CHECKING:
    from harness.profiles.nvml.memory import DeviceMemoryProbe

_KIB = 1024
_REMEDY = "the largest sampled RSS stands in; run on Linux as the worker's owner"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PRIVATE = (b"\nPrivate_Clean:", b"\nPrivate_Dirty:", b"\nPrivate_Hugetlb:")


def _channel(name: str, scope: str = "process", source: str = "") -> Channel:
    return Channel(name, "bytes", "gauge", f"memory/{name}", scope, source)


def _statm(text: bytes) -> Values:
    pages = int(text.split()[1])
    # a live process has at least one page; 0 is a zombie, whose memory is already gone
    return [float(pages * _PAGE_BYTES) if pages else None]


def _status(text: bytes) -> Values:
    return [_kib(text, b"\nVmHWM:"), _kib(text, b"\nVmSwap:")]


def _high_water(text: bytes) -> Values:
    return [_kib(text, b"\nVmHWM:")]


def _rollup(text: bytes) -> Values:
    private = [_kib(text, key) for key in _PRIVATE]
    unique = [value for value in private if value is not None]
    return [_kib(text, b"\nRss:"), _kib(text, b"\nPss:"), sum(unique) if unique else None]


def _meminfo(text: bytes) -> Values:
    return [_kib(text, b"\nMemAvailable:")]


def _kib(text: bytes, key: bytes) -> float | None:
    """The bytes of a ``Key:   123 kB`` line."""
    _, found, rest = text.partition(key)
    return float(int(rest.split(None, 1)[0]) * _KIB) if found else None


class MemoryProfiler(GroupProfiler):
    """Samples RSS, peak and swapped bytes; a `PhaseProbe` for the exact figures."""

    name = "memory"

    def __init__(self, context: ProfilerContext) -> None:
        super().__init__(context)
        self._process = Path(context.root) / "proc" / str(context.pid)
        self._reset: Unavailable | None = None
        self._has_peaks = True
        self._on_device = context.device.startswith("cuda")
        self._device = self._device_probe() if self._on_device else None

    @property
    def kind(self) -> str:
        """How the peaks came about, for ``memory.kind`` of a result.

        ``host_rss_hwm``: the kernel's high-water mark of each phase. ``host_rss_sampled``: that
        mark could not always be restarted and read, so a peak is the largest RSS sampled.
        """
        return "host_rss_hwm" if self._has_peaks else "host_rss_sampled"

    def groups(self) -> list[Group]:
        """The host's, then the device's where the run is on one."""
        return [*self._host_groups(), *(self._device_groups() if self._on_device else [])]

    def _device_probe(self) -> DeviceMemoryProbe:
        from harness.profiles.nvml.memory import DeviceMemoryProbe

        return DeviceMemoryProbe(self.context)

    def _device_groups(self) -> list[Group]:
        from harness.profiles.nvml.device import NvmlGroups, channel_prefix
        from harness.profiles.nvml.memory import memory_readings

        readings = memory_readings(channel_prefix(self.context), self.context.pid)
        return [NvmlGroups(self.context, readings)]

    def _host_groups(self) -> list[Group]:
        """statm, status and meminfo; without a /proc, psutil's RSS."""
        rss, available = _channel("rss_bytes"), _channel("available_bytes", "machine")
        peaks = [_channel("peak_rss_bytes"), _channel("swapped_bytes")]
        missing = process_missing(self.context)
        if self.context.root == "/" and not sys.platform.startswith("linux"):
            return [
                _PsutilGroup(self.context.pid),
                AbsentGroup([*peaks, available], missing),
            ]
        meminfo = Path(self.context.root) / "proc/meminfo"
        no_meminfo = coded("not_supported", f"there is no {meminfo}", "mount /proc of a Linux")
        return [
            FileGroup([self._process / "statm"], [rss], _statm, missing),
            FileGroup([self._process / "status"], peaks, _status, missing),
            FileGroup([meminfo], [available], _meminfo, no_meminfo),
        ]

    def snapshot(self) -> Mapping[str, Maybe[float]]:
        """``rss_bytes``, ``pss_bytes``, ``uss_bytes`` and ``peak_bytes`` now. Needs no `open`.

        RSS is the page-table walk where it can be had, else the kernel's counter. The peak covers
        the time since the last `reset_peaks`, or the process's life before the first. On a GPU
        also ``device_process_bytes`` and ``device_used_bytes``.
        """
        names = ("rss_bytes", "pss_bytes", "uss_bytes")
        figures = self._look("smaps_rollup", [_channel(name) for name in names], _rollup)
        if isinstance(figures["rss_bytes"], Unavailable):
            figures.update(self._look("statm", [_channel("rss_bytes")], _statm))
        peak = self._peak()
        self._has_peaks &= not isinstance(peak, Unavailable)
        device = self._device.snapshot() if self._device else {}
        return {**figures, "peak_bytes": peak, **device}

    def close(self) -> None:
        super().close()
        if self._device:
            self._device.close()

    def reset_peaks(self) -> None:
        """Restart the kernel's high-water mark; where that fails, `snapshot` has no peak."""
        path = self._process / "clear_refs"
        try:
            fd = os.open(path, os.O_WRONLY)  # write-only by its mode, and not to be created
            try:
                os.write(fd, b"5")
            finally:
                os.close(fd)
            self._reset = None
        except OSError as error:
            missing = coded("not_supported", f"{path} is missing: no peak can restart", _REMEDY)
            self._reset = why(error, path, missing)

    def _peak(self) -> Maybe[float]:
        if self._reset is not None:
            return self._reset
        return self._look("status", [_channel("peak_bytes")], _high_water)["peak_bytes"]

    def _look(
        self, file: str, channels: list[Channel], parse: Callable[[bytes], Values]
    ) -> dict[str, Maybe[float]]:
        path = self._process / file
        missing = coded("not_supported", f"this kernel has no {path}", "measure on a recent Linux")
        if not self._process.is_dir():
            missing = process_missing(self.context)
        return FileGroup([path], channels, parse, missing).look()


class _PsutilGroup:
    """RSS where there is no /proc."""

    def __init__(self, pid: int) -> None:
        self.channels = (_channel("rss_bytes", source="psutil"),)
        self._pid = pid

    def open(self) -> None:
        """Nothing to acquire."""

    def read(self) -> Values:
        import psutil

        try:
            return [float(psutil.Process(self._pid).memory_info().rss)]
        except psutil.Error:  # the process is gone, or not ours to look at
            return [None]

    def close(self) -> None:
        """Nothing to release."""
