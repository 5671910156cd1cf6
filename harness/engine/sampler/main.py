"""The sampler process: reads the sensors on a fixed grid of deadlines, beside the worker.

    python -m harness.engine.sampler.main        (a job on stdin, frames to the job's descriptor)

    deadline   0        1        2        3        4        5
               │─read─┐ │─read─┐ │─ slow read ─────┐ │       │      missed deadlines are skipped,
               ▼      ▼ ▼      ▼ ▼                 ▼ ▼       ▼      never made up for in a bunch

One thread that sleeps until the next deadline or until stdin closes: the driver is done, or dead.
Either way it takes a last reading and leaves. Ctrl-C is the driver's to handle. It imports no
framework, and a profiler that raises is given up while the others go on.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from harness import registry
from harness.engine.wire.frames import (
    Failed,
    Frame,
    Header,
    Opened,
    Reading,
    SamplerJob,
    Tick,
    pack,
)
from harness.errors import UsageError
from harness.host.lifetime import end_with_parent
from harness.maybe import Unavailable
from harness.protocols import Profiler, ProfilerContext

RATE_HZ, FAST_RATE_HZ = 10.0, 20.0
_WALL_EVERY_NS = 1_000_000_000


def next_deadline_ns(start_ns: int, period_ns: int, now_ns: int) -> int:
    """The first point after ``now_ns`` of the grid that begins at ``start_ns``."""
    return start_ns + ((now_ns - start_ns) // period_ns + 1) * period_ns


def default_rate_hz(opened: Sequence[Opened]) -> float:
    """10 Hz, or 20 Hz where a power or energy sensor renews itself more often than that."""
    periods = [
        channel.period_s
        for one in opened
        if one.unavailable is None
        for channel in one.channels
        if channel.unit in ("J", "W") and channel.unavailable is None
    ]
    fast = any(period_s is not None and period_s < 1 / RATE_HZ for period_s in periods)
    return FAST_RATE_HZ if fast else RATE_HZ


class Sampler:
    """Opens the profilers of a job and reads them, handing frames to ``send``."""

    def __init__(
        self,
        job: SamplerJob,
        send: Callable[[Frame], None],
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._job = job
        self._send = send
        self._clock = clock
        self._opened: list[Opened] = []
        self._profilers: dict[int, Profiler] = {}
        self._wall_due_ns = 0
        self.rate_hz = 0.0  # decided when the profilers are open

    def open(self) -> None:
        """Open every profiler and send the `Header`."""
        self._opened = [self._open(i, name) for i, name in enumerate(self._job.profilers)]
        self.rate_hz = self._job.rate_hz or default_rate_hz(self._opened)
        self._send(Header(tuple(self._opened), self.rate_hz))

    def run(self, wait: Callable[[float], bool]) -> None:
        """Tick on the grid until ``wait(seconds)`` says that it is over; then once more.

        The `Header` goes out again at the end: a profiler may have learned facts about its
        channels, or lost one.
        """
        start_ns = self._clock()
        period_ns = round(1e9 / self.rate_hz)
        over = False
        while not over:
            self.tick()
            now_ns = self._clock()
            due_ns = next_deadline_ns(start_ns, period_ns, now_ns)
            over = wait((due_ns - now_ns) / 1e9)
        self.tick()
        for index, profiler in self._profilers.items():
            channels = tuple(profiler.channels)
            self._opened[index] = msgspec.structs.replace(self._opened[index], channels=channels)
        self._send(Header(tuple(self._opened), self.rate_hz))

    def tick(self) -> None:
        """Read every profiler once and send what they gave."""
        t_ns = self._clock()
        readings = [self._read(i, profiler) for i, profiler in list(self._profilers.items())]
        wall_ns = None
        if t_ns >= self._wall_due_ns:
            wall_ns = time.time_ns() - (self._clock() - t_ns)
            self._wall_due_ns = t_ns + _WALL_EVERY_NS
        known = tuple(reading for reading in readings if reading is not None)
        self._send(Tick(t_ns, time.process_time_ns(), wall_ns, known))

    def close(self) -> None:
        """Release every profiler, whatever it raises: the process ends here."""
        for profiler in self._profilers.values():
            with contextlib.suppress(Exception):
                profiler.close()

    def _open(self, index: int, name: str) -> Opened:
        try:
            profiler = registry.find_profiler(name, self._context())
            if isinstance(profiler, registry.Broken):
                return Opened(name, (), profiler.cause)
            found = profiler.open()
            channels = tuple(profiler.channels)
        except UsageError as error:
            return Opened(name, (), Unavailable(error.message, error.remedy))
        except Exception as error:  # whatever a stranger's profiler raises
            return Opened(name, (), _raised("opening", error))
        if isinstance(found, Unavailable):
            profiler.close()
            return Opened(name, channels, found)
        self._profilers[index] = profiler
        return Opened(name, channels, None, found.details)

    def _context(self) -> ProfilerContext:
        """The job's, with the processes that are Harness's own beside the worker."""
        own = {"own_pids": f"{os.getppid()},{os.getpid()}"}
        context = self._job.context
        return msgspec.structs.replace(context, options={**own, **context.options})

    def _read(self, index: int, profiler: Profiler) -> Reading | None:
        try:
            before_ns = self._clock()
            values = profiler.read()
            after_ns = self._clock()
            if len(values) != len(profiler.channels):
                raise ValueError(f"{len(values)} values for {len(profiler.channels)} channels")
            finite = tuple(_finite(value) for value in values)
        except Exception as error:  # whatever a stranger's profiler raises
            del self._profilers[index]
            with contextlib.suppress(Exception):
                profiler.close()
            self._send(Failed(index, _raised("reading", error)))
            return None
        return Reading(index, (before_ns + after_ns) // 2, finite)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _raised(doing: str, error: Exception) -> Unavailable:
    reason = f"{doing} it raised {type(error).__name__}: {error}"
    return Unavailable(reason, "report it to the profiler's authors")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def main() -> int:
    """Serve the job on stdin. Returns 0 when the driver closed it or went away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()  # even while a sensor's read hangs
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    job = msgspec.json.decode(line, type=SamplerJob)
    if job.cpus is not None:
        with contextlib.suppress(OSError, AttributeError):  # a wish: elsewhere is good enough
            os.sched_setaffinity(0, job.cpus)
    stdin = sys.stdin.fileno()
    sampler = Sampler(job, lambda frame: _write_all(job.fd, pack(frame)))
    try:
        sampler.open()
        sampler.run(lambda timeout_s: bool(select.select([stdin], [], [], timeout_s)[0]))
    except BrokenPipeError:  # the driver is gone
        return 0
    finally:
        sampler.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
