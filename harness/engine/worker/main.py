"""The worker: a fresh process that loads one model and loops. The driver starts it.

Nothing else may live here: no logging, no sampling, no TensorBoard, and no thread but one per
stream in the throughput scenario, where the sessions work in the calling thread. Its environment is
set before it imports any runtime.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from harness import registry
from harness.engine.loads.closed import StreamLoop
from harness.engine.loads.pipelined import Lane, PipelinedLoop
from harness.engine.wire.messages import (
    Boot,
    Event,
    Failure,
    Go,
    Job,
    Peer,
    Spent,
    Turns,
    unverified,
)
from harness.engine.wire.timeline import STOP, Stream, Timeline
from harness.engine.worker.yardstick import yardstick_ns
from harness.errors import BackendUnavailable, HarnessError, UsageError, one_line
from harness.host.lifetime import end_with_parent
from harness.maybe import Maybe, explain
from harness.protocols import Asynchronous, Backend, DeviceMemory, Session, Unavailable

_ONE_STREAM = ("several streams cannot take turns", "leave out --concurrency")


class _Finish(Exception):
    """The driver said that what is left can be skipped."""


class Worker:
    """Walks through the phases of `harness.engine.wire.messages`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._sessions: list[Session] = []

    def run(self) -> None:
        boot, timeline_fd = self._peer.receive_with_fd(Boot)
        os.environ.update(boot.environment)
        if boot.cpus is not None:
            os.sched_setaffinity(0, boot.cpus)
        backend = registry.backend(boot.backend)
        available = backend.availability(boot.device)
        if isinstance(available, Unavailable):
            raise BackendUnavailable(
                f"{boot.backend} on {boot.device}: {explain(Unavailable(available.reason))}",
                available.remedy,
            )
        self._peer.send(Event("imported", facts=available.details))
        job = self._peer.wait_for(Job)
        timeline = Timeline(timeline_fd, boot.streams, boot.capacity)
        self._load(backend, job, boot.streams)
        self._first_inference()
        self._loop(timeline, job)
        self._verify(backend, job)
        self.close()

    def close(self) -> None:
        """Release the sessions. What they raise costs nothing: the process ends here."""
        for session in self._sessions:
            with contextlib.suppress(Exception):
                session.close()
        self._sessions.clear()

    def _pause(self, event: Event) -> None:
        self._peer.send(event)
        if self._peer.wait_for(Go).finish:
            raise _Finish

    def _load(self, backend: Backend, job: Job, streams: int) -> None:
        import numpy as np

        with np.load(job.inputs_path, allow_pickle=False) as arrays:
            inputs = dict(arrays)
        began = time.perf_counter()
        for _ in range(streams):
            self._sessions.append(backend.prepare(job.artifact, inputs, job.options))
        seconds = time.perf_counter() - began
        self._pause(
            Event("loaded", seconds, pipelined=self._pipelined, device_memory=self._device_memory())
        )

    def _first_inference(self) -> None:
        began = time.perf_counter()
        for session in self._sessions:
            session.enqueue()
            session.synchronize()
        seconds = (time.perf_counter() - began) / len(self._sessions)
        self._pause(Event("ready", seconds))

    @property
    def _pipelined(self) -> bool:
        return len(self._sessions) > 1 and all(
            isinstance(session, Asynchronous) and session.asynchronous for session in self._sessions
        )

    def _loop(self, timeline: Timeline, job: Job) -> None:
        loops = _loops(timeline, self._sessions, self._pipelined)
        loops.warm_up()
        before_ns = yardstick_ns()
        from harness.engine.worker import device_times

        armed = device_times.arm(self._sessions, timeline.streams, job)
        loops.rebind(self._sessions)
        memory = self._device_memory()
        self._pause(Event("steady", device_memory=memory, yardstick_ns=before_ns))
        if isinstance(self._sessions[0], DeviceMemory):
            self._sessions[0].reset_device_peak()
        cpu_ns = time.process_time_ns()
        if job.turns is None:
            loops.window()
        else:
            loops.take_turns(job.turns, self._peer)
        spent = Spent(time.process_time_ns() - cpu_ns, sum(map(_since_warm_up, timeline.streams)))
        # The window is over: from here on, what fails costs itself alone.
        memory, path = self._device_memory_if_it_tells(), ""
        untimed = armed if isinstance(armed, Unavailable) else None
        if armed is True:
            try:
                path = device_times.save(device_times.fetch(self._sessions, timeline.streams))
            except Exception as error:  # a runtime's own
                untimed = Unavailable(f"the device times cannot be read: {_in_words(error)}")
        self._pause(
            Event(
                "timed",
                device_memory=memory,
                device_times_path=path,
                device_untimed=untimed,
                spent=spent,
                yardstick_ns=yardstick_ns(),
            )
        )

    def _device_memory(self) -> dict[str, Maybe[int]]:
        """As the first session knows it: an allocator serves the whole process."""
        first = self._sessions[0]
        return dict(first.device_memory()) if isinstance(first, DeviceMemory) else {}

    def _device_memory_if_it_tells(self) -> dict[str, Maybe[int]]:
        try:
            return self._device_memory()
        except Exception as error:  # a runtime's own
            why = Unavailable(f"the runtime does not tell: {_in_words(error)}")
            return {"allocator_peak_bytes": why}

    def _verify(self, backend: Backend, job: Job) -> None:
        from harness.engine.worker.verify import verify

        try:
            verified = verify(backend, self._sessions[0], job)
        except Exception as error:  # whatever of it was not foreseen
            verified = unverified(
                Unavailable(f"the outputs could not be verified: {_in_words(error)}")
            )
        self._peer.send(Event("verified", verified=verified))


def _since_warm_up(stream: Stream) -> int:
    return stream.written - stream.window_start


class _Loops(Protocol):
    """The streams of a worker, however many threads drive them."""

    def warm_up(self) -> None: ...

    def window(self) -> None: ...

    def take_turns(self, turns: Turns, peer: Peer) -> None:
        """The window, where others have the turn in between."""
        ...

    def rebind(self, sessions: Sequence[Session]) -> None:
        """Ask the sessions for their calls anew."""


class _InTurn:
    """One thread for all streams, whose sessions only start work in `enqueue`."""

    def __init__(self, timeline: Timeline, sessions: Sequence[Session]) -> None:
        self._streams = timeline.streams
        self._loop = PipelinedLoop(timeline, self._lanes(sessions))

    def _lanes(self, sessions: Sequence[Session]) -> list[Lane]:
        pairs = zip(self._streams, sessions, strict=True)
        return [Lane(stream, session.enqueue, session.synchronize) for stream, session in pairs]

    def warm_up(self) -> None:
        self._loop.warm_up()

    def window(self) -> None:
        self._loop.window()

    def take_turns(self, turns: Turns, peer: Peer) -> None:
        raise UsageError(*_ONE_STREAM)

    def rebind(self, sessions: Sequence[Session]) -> None:
        self._loop.rebind(self._lanes(sessions))


class _Threads:
    """One thread a stream; a single stream needs none of its own."""

    def __init__(self, timeline: Timeline, sessions: Sequence[Session]) -> None:
        self._timeline = timeline
        self._loops = [
            StreamLoop(timeline, stream, session.enqueue, session.synchronize)
            for stream, session in zip(timeline.streams, sessions, strict=True)
        ]

    def warm_up(self) -> None:
        self._run([loop.warm_up for loop in self._loops])

    def window(self) -> None:
        self._run([loop.window for loop in self._loops])

    def take_turns(self, turns: Turns, peer: Peer) -> None:
        from harness.engine.loads.turns import pin_busiest, take_turns

        if len(self._loops) > 1:
            raise UsageError(*_ONE_STREAM)
        pin_busiest(turns)
        take_turns(self._loops[0], self._timeline.streams[0], peer)

    def rebind(self, sessions: Sequence[Session]) -> None:
        for loop, session in zip(self._loops, sessions, strict=True):
            loop.rebind(session.enqueue, session.synchronize)

    def _run(self, calls: list[Callable[[], None]]) -> None:
        if len(calls) == 1:
            calls[0]()
        else:
            _in_threads(calls, self._timeline)


def _loops(timeline: Timeline, sessions: Sequence[Session], pipelined: bool) -> _Loops:
    return (_InTurn if pipelined else _Threads)(timeline, sessions)


def _in_threads(calls: list[Callable[[], None]], timeline: Timeline) -> None:
    """One thread a stream, started together; an error in one stops the others and is raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def body(call: Callable[[], None]) -> None:
        try:
            barrier.wait()
            call()
        except BaseException as error:
            errors.append(error)
            timeline.command = STOP

    threads = [threading.Thread(target=body, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _in_words(error: Exception) -> str:
    if isinstance(error, HarnessError):
        return error.message
    return " ".join(f"{type(error).__name__}: {error}".split())


def _failure(error: BaseException) -> Failure:
    if isinstance(error, HarnessError):
        return Failure(type(error).__name__, error.message, error.remedy, "")
    import traceback

    from harness.host.cuda_errors import cuda_failure

    text = f"{type(error).__name__}: {error}"
    known = cuda_failure(text, "the timed loop ended") if "cuda" in text.lower() else None
    if known is not None:
        return Failure(type(known).__name__, known.message, known.remedy, "")
    return Failure("", one_line(text), "", traceback.format_exc()[-8000:])


def main(argv: list[str]) -> int:
    """``worker CONTROL_FD``."""
    gc.disable()  # for good: a pause in an iteration costs more than garbage
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver owns Ctrl-C
    peer = Peer(socket.socket(fileno=int(argv[0])))
    worker = Worker(peer)
    try:
        worker.run()
    except (_Finish, EOFError, BrokenPipeError, ConnectionResetError):
        worker.close()
    except BaseException as error:
        return _report(peer, error)
    return 0


def _report(peer: Peer, error: BaseException) -> int:
    try:
        peer.send(Event("failed", failure=_failure(error)))
    except OSError:  # no driver to tell
        return 1
    return 1


def start() -> None:
    """The process's whole life: ``argv[1]`` is its end of the socket."""
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Frameworks may crash while they unload; what was measured is already with the driver.
    os._exit(code)
