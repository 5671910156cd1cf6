"""What making an artifact took: time, processor time and memory of the process that made it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from harness.host.procfs import fields
from harness.maybe import Maybe, Unavailable
from harness.protocols import Quantization, QuantizationCost

_RESTART = "5"  # of the kernel's high-water mark, when written into clear_refs
_SELF = Path("/proc/self")


def metered(make: Callable[[], Quantization]) -> Quantization:
    """What ``make`` returns, with its cost. Kept with the artifact, so a cached one tells of when
    it was made."""
    restarted = _restart()
    began_s, began_cpu_s = time.perf_counter(), _cpu_s()
    made = make()
    cost = QuantizationCost(
        duration_s=time.perf_counter() - began_s,
        cpu_s=_cpu_s() - began_cpu_s,
        peak_rss_bytes=_peak_bytes() if restarted is None else restarted,
    )
    return msgspec.structs.replace(made, cost=cost)


def _cpu_s() -> float:
    """Of this process and the children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _restart() -> Unavailable | None:
    """Let the high-water mark begin anew; why that cannot be."""
    try:
        (_SELF / "clear_refs").write_text(_RESTART)
    except OSError as error:
        return Unavailable(f"the peak of the memory cannot be restarted: {error.strerror}")
    return None


def _peak_bytes() -> Maybe[int]:
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        return int(fields((_SELF / "status").read_text())["VmHWM"].split()[0]) * 1024
    return Unavailable("/proc/self/status tells no peak of the memory")
