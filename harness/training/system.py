"""What the machine does while a model trains, read by the harness's own profilers at call time.

No thread and no process: each call reads every sensor once (a fraction of a millisecond on a CPU).
A gauge is its value now; a counter is its rate since the call before, or its growth since the
first, by its tag, as everywhere in Harness (`harness.analysis.channels.live`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

import numpy as np

from harness import registry
from harness.analysis.channels import RATE_TAGS, live
from harness.maybe import Unavailable, coded
from harness.protocols import Channel, Profiler, ProfilerContext


class SystemMonitor:
    """Every profiler that works here. ``absent``: channel or profiler -> why it does not."""

    def __init__(self, device: str | None = None) -> None:
        context = ProfilerContext(os.getpid(), device or current_device())
        self.absent: dict[str, Unavailable] = {}
        self._profilers: list[Profiler] = []
        self._last: dict[str, tuple[int, float]] = {}
        self._grown: dict[str, float] = {}
        for name in registry.profiler_names():
            self._open(name, context)

    def _open(self, name: str, context: ProfilerContext) -> None:
        found = registry.find_profiler(name, context)
        if isinstance(found, registry.Broken):
            self.absent[name] = found.cause
            return
        try:
            answer = found.open()
        except Exception as error:  # a stranger's profiler must not end a training
            answer = _broken(error)
        if isinstance(answer, Unavailable):
            self.absent[name] = answer
            return
        self._profilers.append(found)
        for channel in found.channels:
            if channel.unavailable is not None:
                self.absent[channel.tag] = channel.unavailable

    def read(self) -> dict[str, float]:
        """tag -> value, of whatever could be read; a rate needs a second call."""
        found: dict[str, float] = {}
        for profiler in [*self._profilers]:
            try:
                values, now_ns = profiler.read(), time.perf_counter_ns()
                found |= self._figures(profiler.channels, values, now_ns)
            except Exception as error:  # as above: it is absent from now on
                self.absent[profiler.name] = _broken(error)
                self._profilers.remove(profiler)
        return found | torch_memory()

    def _figures(
        self, channels: Sequence[Channel], values: Sequence[float | None], now_ns: int
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for channel, value in zip(channels, values, strict=True):
            if value is None:
                continue
            if channel.kind == "gauge":
                found[channel.tag] = value
            else:
                found |= self._counted(channel, value, now_ns)
        return found

    def _counted(self, channel: Channel, value: float, now_ns: int) -> dict[str, float]:
        tag = channel.tag
        before, self._last[tag] = self._last.get(tag), (now_ns, value)
        if before is None:
            return {}
        times_ns = np.array([before[0], now_ns], np.int64)
        figure = live(channel, times_ns, np.array([before[1], value]))
        if figure is None or tag.endswith(RATE_TAGS):
            return {} if figure is None else {tag: figure}
        self._grown[tag] = self._grown.get(tag, 0.0) + figure
        found = {tag: self._grown[tag]}
        if channel.unit == "J" and tag.startswith("energy/"):  # its mean power since the last call
            meter = channel.meter or tag.removeprefix("energy/").removesuffix("_j")
            found[f"power/{meter}_w"] = figure / ((now_ns - before[0]) / 1e9)
        return found

    def close(self) -> None:
        for profiler in self._profilers:
            profiler.close()
        self._profilers = []


def _broken(error: Exception) -> Unavailable:
    return coded("error", f"it fails: {type(error).__name__}: {error}", "repair or uninstall it")


def torch_memory() -> dict[str, float]:
    """Bytes that torch's allocator has handed out and reserved on the current GPU, and its peaks.

    Nothing where torch computes on none.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    cuda = torch.cuda
    return {
        "memory/torch_allocated_bytes": float(cuda.memory_allocated()),
        "memory/torch_reserved_bytes": float(cuda.memory_reserved()),
        "memory/torch_allocated_peak_bytes": float(cuda.max_memory_allocated()),
        "memory/torch_reserved_peak_bytes": float(cuda.max_memory_reserved()),
    }


def current_device() -> str:
    """The GPU that torch computes on in this process, if it does; else the CPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return f"cuda:{torch.cuda.current_device()}"
    return "cpu"
