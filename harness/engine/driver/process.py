"""The worker as its driver sees it: a process, a socket, a timeline, and the end of its stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness import errors
from harness.engine.driver.spawn import take
from harness.engine.wire.messages import Boot, Event, Failure, Peer
from harness.engine.wire.timeline import CAPACITY, COLUMNS, Timeline
from harness.errors import HarnessError, MeasurementFailed
from harness.host import child
from harness.host.scratch import Scratch
from harness.maybe import decode
from harness.records.result import ErrorInfo

if TYPE_CHECKING:
    from harness.engine.driver.homes import Home

_STDERR_TAIL_CHUNKS = 64
_EXIT_WAIT_S = 5.0
_CPU_CLOCK = 2  # with a process id's complement, Linux's number of that process's clock


class WorkerProcess:
    """An interpreter that has been started; `boot` tells it what for."""

    def __init__(self, home: Home | None = None) -> None:
        """``home``: the environment it is of; None: this one."""
        self._oom_kills = _oom_kills()
        self._timeline: Timeline | None = None
        interpreter = take() if home is None else home.interpreter()
        self._process = interpreter.process
        self.peer = Peer(interpreter.sock)
        assert self._process.stdout is not None
        self.output_fd = self._process.stdout.fileno()
        os.set_blocking(self.output_fd, False)
        self._tail: deque[bytes] = deque(maxlen=_STDERR_TAIL_CHUNKS)
        self._killed_for: str | None = None
        self._closed = False
        self._scratch: Scratch | None = None

    def boot(
        self,
        backend: str,
        device: str,
        environment: Mapping[str, str],
        *,
        streams: int = 1,
        cpus: tuple[int, ...] | None = None,
        capacity: int = CAPACITY,
        columns: Sequence[str] = COLUMNS,
    ) -> None:
        """Have it import the runtime of ``backend``."""
        self._timeline = Timeline.create(streams, capacity, columns)
        # Temporary files of a worker that is killed go with this folder.
        self._scratch = Scratch()
        environment = {**environment, "TMPDIR": self._scratch.path}
        boot = Boot(backend, device, environment, cpus, streams, capacity, tuple(columns))
        with contextlib.suppress(OSError):  # dead already: whoever waits for it finds out why
            self.peer.send_with_fd(boot, self._timeline.fd)

    @property
    def timeline(self) -> Timeline:
        """Where it writes its clock readings, once booted."""
        assert self._timeline is not None
        return self._timeline

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_output(self) -> bool:
        """Take in all that the worker has printed. False once its output is closed."""
        while True:
            try:
                data = os.read(self.output_fd, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._tail.append(data)

    def events(self) -> list[Event] | None:
        """What it said since the last call; call when `peer` is readable. None: it is gone."""
        try:
            lines = self.peer.receive()
        except ConnectionResetError:
            lines = None
        if lines is None:
            return None
        return [decode(line, Event) for line in lines]

    def stop(self) -> None:
        """Have all its threads stand still until `carry_on`, whatever they are at."""
        try:
            os.killpg(self.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        except (ProcessLookupError, ChildProcessError):  # it has died; whoever waits finds out
            return

    def carry_on(self) -> None:
        """After `stop`. Does no harm otherwise."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)

    def cpu_ns(self) -> int | None:
        """Its processor time so far by the kernel's clock; None where that is not told."""
        try:
            return time.clock_gettime_ns((~self.pid << 3) | _CPU_CLOCK)
        except OSError:
            return None

    def kill(self, why: str | None = None) -> None:
        """End it now, with every process that it started."""
        if self._process.poll() is None:
            self._killed_for = why
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait for its end (or force it) and free what is shared with it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self._process.wait(_EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.read_output()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.peer.sock.close()
        if self._timeline is not None:
            self._timeline.close()
        if self._scratch is not None:
            self._scratch.remove()

    def stderr_tail(self) -> str:
        text = b"".join(self._tail).decode(errors="replace")
        return "\n".join(text.splitlines()[-40:])

    def death(self, phase: str) -> ErrorInfo:
        """Why a worker that left without a word did so. Call after `close`."""
        code = self._process.returncode
        tail = self.stderr_tail()
        if self._killed_for is not None:
            return ErrorInfo(
                kind="timeout",
                message=self._killed_for,
                remedy=f"raise --timeout{_SLOW.get(phase, '')}, or look at the worker's stderr",
                phase=phase,
                stderr_tail=tail,
            )
        if code is not None and code < 0:
            name = child.signal_name(-code)
            out_of_memory = name == "SIGKILL" and _oom_kills() > self._oom_kills
            why = "; the kernel ran out of memory meanwhile" if out_of_memory else ""
            return ErrorInfo(
                kind="signal",
                message=f"the worker {child.ending(code)} while {phase}{why}",
                remedy=_SIGNAL_REMEDIES.get(name, "look at the worker's stderr"),
                phase=phase,
                stderr_tail=tail,
            )
        return ErrorInfo(
            kind="exit",
            message=f"the worker {child.ending(code)} while {phase}",
            remedy="look at the worker's stderr",
            phase=phase,
            stderr_tail=tail,
        )


_BUILDING = " (building an engine or compiling a model takes minutes)"
_SLOW = {"loading the model": _BUILDING, "verifying outputs": _BUILDING}
_SIGNAL_REMEDIES = {
    "SIGKILL": "if memory was short, lower --batch-size or --concurrency",
    "SIGSEGV": "a native library crashed: look at the worker's stderr, try another version",
    "SIGILL": "a native library was built for another processor: install one for this machine",
    "SIGABRT": "a native library gave up: look at the worker's stderr",
}


def raised(failure: Failure, phase: str, stderr_tail: str) -> tuple[HarnessError, ErrorInfo]:
    """The error that the worker reported, as ours and as it goes into the result."""
    kind = getattr(errors, failure.kind, None) if failure.kind else None
    error: HarnessError
    if isinstance(kind, type) and issubclass(kind, HarnessError):
        error = kind(failure.message, failure.remedy)
    else:
        error = MeasurementFailed(f"the worker raised {failure.message} while {phase}")
    info = ErrorInfo(
        kind="exception",
        message=error.message,
        remedy=error.remedy,
        phase=phase,
        stderr_tail="\n".join(part for part in (stderr_tail, failure.traceback) if part),
    )
    return error, info


def _oom_kills() -> int:
    """How many processes this kernel has killed for want of memory; 0 where it does not say."""
    try:
        with open("/proc/vmstat", "rb") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
