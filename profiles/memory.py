"""Host memory of the worker: sampled resident bytes, and exact figures at phase boundaries.

    load        warm-up      window
    ──┬───────────┬────────────┬──
      │ reset     │ reset      │        reset_peaks() at the start of a phase,
      └─ peak ────┴─ peak ─────┘ peak   snapshot() at its end

The peak is the kernel's own high-water mark (``VmHWM``): no poll can miss it, and writing 5 to
``clear_refs`` restarts it. ``ru_maxrss`` is never used: a child inherits its parent's across exec.

Recent kernels keep RSS in per-CPU parts, so the cheap counter of ``statm`` lags by up to a few
dozen pages per CPU. ``smaps_rollup`` walks the page tables instead: exact, but milliseconds for a
large process, hence for `MemoryProfiler.snapshot` alone. All figures are in bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.maybe import Maybe, Unavailable, coded
from harness.procfs import fields, why
from harness.profiles.files import (
    AbsentGroup,
    FileGroup,
    Group,
    GroupProfiler,
    Values,
    process_missing,
)
from harness.protocols import Channel, ProfilerContext

_KIB = 1024
_REMEDY = "the largest sampled RSS stands in; run on Linux as the worker's owner"
_GONE = "see why it ended"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PRIVATE = ("Private_Clean", "Private_Dirty", "Private_Hugetlb")


def _channel(name: str, scope: str = "process", source: str = "") -> Channel:
    return Channel(name, "bytes", "gauge", f"memory/{name}", scope, source)


def _statm(text: bytes) -> Values:
    pages = int(text.split()[1])
    # a live process has at least one page; 0 is a zombie, whose memory is already gone
    return [float(pages * _PAGE_BYTES) if pages else None]


def _status(text: bytes) -> Values:
    return [_kib(text, b"VmHWM:"), _kib(text, b"VmSwap:")]


def _meminfo(text: bytes) -> Values:
    return [_kib(text, b"MemAvailable:")]


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

    @property
    def kind(self) -> str:
        """How the peaks came about, for ``memory.kind`` of a result.

        ``host_rss_hwm``: the kernel's high-water mark of each phase. ``host_rss_sampled``: that
        mark could not be restarted or read, so a phase's peak is the largest RSS sampled in it.
        """
        return "host_rss_sampled" if isinstance(self._peak(), Unavailable) else "host_rss_hwm"

    def groups(self) -> list[Group]:
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
        the time since the last `reset_peaks`, or the process's life before the first.
        """
        figures = self._rollup()
        if isinstance(figures["rss_bytes"], Unavailable):
            figures["rss_bytes"] = self._counted_rss()
        return {**figures, "peak_bytes": self._peak()}

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

    def _rollup(self) -> dict[str, Maybe[float]]:
        path = self._process / "smaps_rollup"
        names = ("rss_bytes", "pss_bytes", "uss_bytes")
        try:
            lines = fields(path.read_text())
        except OSError as error:
            missing = coded("not_present", f"there is no {path}", "use a kernel from 4.14 on")
            reason = why(error, path, missing)
            return dict.fromkeys(names, reason)
        kib = {key: int(value.split()[0]) for key, value in lines.items() if value.endswith("kB")}
        if "Rss" not in kib or "Pss" not in kib:
            reason = coded("not_present", f"{path} is empty: the process is over", _GONE)
            return dict.fromkeys(names, reason)
        private = sum(kib.get(key, 0) for key in _PRIVATE)
        return dict(
            zip(names, (float(n * _KIB) for n in (kib["Rss"], kib["Pss"], private)), strict=True)
        )

    def _counted_rss(self) -> Maybe[float]:
        group = self.groups()[0]
        group.open()
        value = group.read()[0]
        group.close()
        if value is not None:
            return value
        return group.channels[0].unavailable or process_missing(self.context)

    def _peak(self) -> Maybe[float]:
        if self._reset is not None:
            return self._reset
        path = self._process / "status"
        try:
            value = _kib(path.read_bytes(), b"VmHWM:")
        except OSError as error:
            return why(error, path, process_missing(self.context))
        if value is None:
            return coded("not_supported", f"{path} gives no VmHWM", _REMEDY)
        return value


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
