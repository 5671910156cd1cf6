"""The sampler as its driver sees it: a process, a pipe to drain, and the series so far.

Whatever happens to the process, what it had sent stays; its channels then say why they end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Collection
from typing import IO, TYPE_CHECKING

import msgspec

from harness.engine.wire.frames import (
    Failed,
    Frame,
    Header,
    Opened,
    Reading,
    SamplerJob,
    Tick,
    unpack,
)
from harness.host import child
from harness.maybe import Unavailable
from harness.protocols import Channel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.analysis.sampled import Sampled

    Series = dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]

_PIPE_BYTES = 1 << 20  # minutes of frames, for a driver that is busy elsewhere
_TAIL_BYTES = 2000
_F_SETPIPE_SZ = 1031  # Linux; fcntl names it from 3.10 on, but not on every platform
_HUNG = Unavailable("the sampler hung and was killed", "look for a sensor that does not answer")
_MISSING = Unavailable("the sampler had not answered", "see whether the machine is overloaded")


class _Column:
    """The readings of one profiler. Channels are renamed where a name is taken already."""

    def __init__(self, opened: Opened, taken: Collection[str]) -> None:
        self.name = opened.name
        self.unavailable = opened.unavailable
        self._taken = taken
        self.channels: tuple[Channel, ...] = ()
        self.describe(opened.channels)
        self.times_ns = array("q")
        self.values = [array("d") for _ in self.channels]

    def describe(self, channels: tuple[Channel, ...]) -> None:
        """What the profiler says of its channels now; their number and order never change."""
        self.channels = tuple(
            msgspec.structs.replace(channel, name=f"{self.name}.{channel.name}")
            if channel.name in self._taken
            else channel
            for channel in channels
        )

    def add(self, reading: Reading) -> None:
        self.times_ns.append(reading.t_ns)
        for values, value in zip(self.values, reading.values, strict=True):
            values.append(float("nan") if value is None else value)


class SamplerProcess:
    """Starts, drains and ends the sampler. For one thread; only `stop` and `wait_ready` wait."""

    def __init__(self) -> None:
        self.lost: Unavailable | None = None  # why the process ended before it was told to
        self._columns: list[_Column] | None = None
        self._requested: tuple[str, ...] = ()
        self._rate_hz = 0.0
        self._ticks_ns = array("q")
        self._cpu_ns = array("q")
        self._walls: list[tuple[int, int]] = []
        self._buffer = bytearray()
        self.unsaved = bytearray()  # frames as they came, for whoever keeps a journal to take
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._fd = -1
        self._at_end = False
        self._stopping = False

    @classmethod
    def replayed(
        cls, frames: bytes, requested: tuple[str, ...], lost: Unavailable | None
    ) -> SamplerProcess:
        """What a sampler had said in its life; a last frame may be cut short, or make no sense."""
        sampler = cls()
        sampler._requested, sampler._at_end, sampler.lost = requested, True, lost
        try:
            for frame in unpack(bytearray(frames)):
                sampler._take(frame)
        except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
            sampler.lost = lost or Unavailable("what the sampler wrote is damaged from there on")
        return sampler

    # -- the process ----------------------------------------------------------------------------

    def start(self, job: SamplerJob) -> None:
        """Start it at once and return; it answers when its profilers are open (see `ready`).

        The kernel ends it with the *thread* that calls this, so call from one that lasts.
        A process that cannot be started is `lost`, not raised.
        """
        self._requested = job.profilers
        self._fd, theirs = os.pipe()
        os.set_blocking(self._fd, False)
        with contextlib.suppress(OSError):  # over the user's limit, or not Linux: 64 KiB will do
            fcntl.fcntl(self._fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                # -P: a file in the user's folder must not shadow a module of ours
                [sys.executable, "-P", "-m", "harness.engine.sampler.main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs,),
                start_new_session=True,
            )
            assert self._process.stdin is not None
            line = msgspec.json.encode(msgspec.structs.replace(job, fd=theirs)) + b"\n"
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died at once: the next drain finds out why
        except OSError as error:
            self.lost = Unavailable(
                f"the sampler did not start: {error}", "see the system's limits"
            )
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def ready(self) -> bool:
        """Whether every profiler has been opened or refused, and read once."""
        return len(self._ticks_ns) > 0

    @property
    def rate_hz(self) -> float:
        """How often it tries to read; 0 until its profilers are open."""
        return self._rate_hz

    @property
    def last_ns(self) -> int:
        """When its newest readings began; 0 before the first."""
        return self._ticks_ns[-1] if self._ticks_ns else 0

    def fileno(self) -> int:
        """The pipe, for a selector. Readable once it ended, too: unregister when `ended`."""
        return self._fd

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._at_end or self.lost is not None

    def drain(self) -> list[tuple[str, Reading]]:
        """Take in what has come since the last call: (profiler, reading). Never waits for more."""
        fresh: list[tuple[str, Reading]] = []
        while not self.ended:
            try:
                data = os.read(self._fd, _PIPE_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._at_end = True
                self.lost = None if self._stopping else self._death()
                break
            self._buffer += data
            self.unsaved += data
            for frame in unpack(self._buffer):
                fresh.extend(self._take(frame))
        return fresh

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until `ready`, at most ``timeout_s``; False where it is not."""
        self._drain_until(lambda: self.ready, timeout_s)
        return self.ready

    def wait_sampled(self, span_s: float, timeout_s: float) -> None:
        """Wait until its readings span so many seconds, at most ``timeout_s``."""

        def enough() -> bool:
            return self.ready and self._ticks_ns[-1] - self._ticks_ns[0] >= span_s * 1e9

        self._drain_until(enough, timeout_s)

    def pause(self, stopped: bool) -> None:
        """Stop the process as Ctrl-Z would, or let it go on."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Have it take a last reading and leave; kill it after ``timeout_s``. Idempotent."""
        process, self._stopping = self._process, True
        if process is not None and self._fd >= 0:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            self._drain_until(lambda: False, timeout_s)
            if not self.ended:
                process.kill()
                self.lost = _HUNG
            process.wait()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def _drain_until(self, enough: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        pipe = select.poll()
        pipe.register(self._fd, select.POLLIN)
        while not (self.ended or enough()) and (left_s := deadline - time.monotonic()) > 0:
            pipe.poll(left_s * 1000)
            self.drain()

    def _death(self) -> Unavailable:
        if self._process is None:
            return _MISSING
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)  # the pipe closes just before the process is gone
        last = self._stderr_tail().splitlines()[-1:]
        text = ": ".join([f"the sampler {child.ending(self._process.poll())}", *last])
        return Unavailable(text, "run again; if it repeats, --sample-rate 0 does without")

    def _stderr_tail(self) -> str:
        if self._stderr is None:
            return ""
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return tail.decode(errors="replace").strip()

    def _take(self, frame: Frame) -> list[tuple[str, Reading]]:
        if isinstance(frame, Header):
            self._rate_hz = frame.rate_hz
            self._describe(frame)
            return []
        columns = self._columns or []
        if isinstance(frame, Failed):
            columns[frame.profiler].unavailable = frame.reason
            return []
        self._tick(frame)
        for reading in frame.readings:
            columns[reading.profiler].add(reading)
        return [(columns[reading.profiler].name, reading) for reading in frame.readings]

    def _describe(self, header: Header) -> None:
        if self._columns is not None:
            for column, opened in zip(self._columns, header.opened, strict=True):
                column.describe(opened.channels)
            return
        self._columns = []
        for opened in header.opened:
            taken = {channel.name for channel in self.channels}
            self._columns.append(_Column(opened, taken))

    def _tick(self, tick: Tick) -> None:
        self._ticks_ns.append(tick.t_ns)
        self._cpu_ns.append(tick.cpu_ns)
        if tick.wall_ns is not None:
            self._walls.append((tick.t_ns, tick.wall_ns))

    # -- what it read ---------------------------------------------------------------------------

    @property
    def channels(self) -> list[Channel]:
        """Every channel of every profiler, unavailable ones included; empty until `ready`."""
        return [channel for column in self._columns or [] for channel in column.channels]

    def unavailable(self) -> dict[str, Unavailable]:
        """Channel (or profiler that offers none) -> why it has no further readings."""
        reasons: dict[str, Unavailable] = {}
        if self._columns is None:
            return dict.fromkeys(self._requested, self.lost or _MISSING)
        for column in self._columns:
            whole = column.unavailable or self.lost
            if whole is not None and not column.channels:
                reasons[column.name] = whole
            for channel in column.channels:
                if reason := channel.unavailable or whole:
                    reasons[channel.name] = reason
        return reasons

    def series(self) -> Series:
        """Channel -> (times in ns of the common clock, values; NaN where a reading failed)."""
        import numpy as np

        found: Series = {}
        for column in self._columns or []:
            times_ns = np.array(column.times_ns, dtype=np.int64)
            for channel, values in zip(column.channels, column.values, strict=True):
                found[channel.name] = (times_ns, np.array(values, dtype=np.float64))
        return found

    def live(self) -> dict[str, float]:
        """Tag -> newest figure, for progress and TensorBoard (see `channels.live`)."""
        import numpy as np

        from harness.analysis.channels import live
        from harness.analysis.sampled import STAMPS

        found: dict[str, float] = {}
        for column in self._columns or []:
            if column.unavailable is not None or self.lost is not None:
                continue
            for channel, values in zip(column.channels, column.values, strict=True):
                if channel.tag.startswith(STAMPS):
                    continue
                used = self._recent(channel)
                times_ns = np.array(column.times_ns[used], dtype=np.int64)
                value = live(channel, times_ns, np.array(values[used], dtype=np.float64))
                if value is not None:
                    found[channel.tag] = value
        return found

    def _recent(self, channel: Channel) -> slice:
        """What `live` needs: of a day's readings the last seconds, but for a growing sum all."""
        from harness.analysis.channels import RATE_TAGS

        whole = channel.kind == "counter" and not channel.tag.endswith(RATE_TAGS)
        return slice(None) if whole else slice(-max(10, round(5 * self._rate_hz)), None)

    def sampled(self) -> Sampled:
        """All of it so far, as data."""
        import numpy as np

        from harness.analysis.sampled import Sampled

        columns = self._columns or []
        return Sampled(
            channels=tuple(self.channels),
            series=self.series(),
            reasons=self.unavailable(),
            rate_hz=self._rate_hz,
            ticks_ns=np.array(self._ticks_ns, dtype=np.int64),
            cpu_ns=np.array(self._cpu_ns, dtype=np.int64),
            lost=self.lost,
            profilers={one.name: tuple(c.name for c in one.channels) for one in columns},
            walls_ns=np.array(self._walls, dtype=np.int64).reshape(-1, 2),
        )
