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
import time

from harness import registry
from harness.engine.loads.load import Drive
from harness.engine.loads.throughput import is_pipelined
from harness.engine.wire.messages import (
    Boot,
    Event,
    Failure,
    Go,
    Job,
    Peer,
    Spent,
    unverified,
)
from harness.engine.wire.timeline import Timeline
from harness.engine.worker.yardstick import yardstick_ns
from harness.errors import BackendUnavailable, HarnessError, one_line
from harness.host.lifetime import end_with_parent
from harness.maybe import Maybe, explain
from harness.protocols import Backend, CompilesAtLoad, DeviceMemory, Session, Unavailable
from harness.records.operators import LaunchOperators


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
        if job.turns is not None:
            from harness.engine.loads.turns import stay_on

            stay_on(job.turns.cpus)
        timeline = Timeline(timeline_fd, boot.streams, boot.capacity, boot.columns)
        self._load(backend, job, boot.streams)
        self._first_inference()
        self._loop(timeline, job)
        self._profile(backend, job)
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

        made = []
        for artifact, path in ((job.artifact, job.inputs_path), *job.larger):
            with np.load(path, allow_pickle=False) as arrays:
                made.append((artifact, dict(arrays)))
        began = time.perf_counter()
        for _ in range(streams):
            for artifact, inputs in made:
                self._sessions.append(backend.prepare(artifact, inputs, job.options))
        seconds = time.perf_counter() - began
        pipelined = is_pipelined(self._sessions)
        self._pause(
            Event(
                "loaded",
                seconds,
                compile_s=self._compile_s,
                pipelined=pipelined,
                device_memory=self._device_memory(),
            )
        )

    def _first_inference(self) -> None:
        began = time.perf_counter()
        for session in self._sessions:
            session.enqueue()
            session.synchronize()
        seconds = (time.perf_counter() - began) / len(self._sessions)
        self._pause(Event("ready", seconds))

    @property
    def _compile_s(self) -> float | None:
        told = [one.compile_s for one in self._sessions if isinstance(one, CompilesAtLoad)]
        return sum(told) if told else None

    def _loop(self, timeline: Timeline, job: Job) -> None:
        drive: Drive = registry.load(job.load).drive(timeline, self._sessions, job, self._peer)
        drive.warm_up()
        before_ns = yardstick_ns()
        path, untimed = self._device_times(timeline, job)
        drive.rebind(self._sessions)
        self._pause(
            Event(
                "steady",
                device_memory=self._device_memory(),
                device_times_path=path,
                device_untimed=untimed,
                yardstick_ns=before_ns,
            )
        )
        if isinstance(self._sessions[0], DeviceMemory):
            self._sessions[0].reset_device_peak()
        before = [stream.written for stream in timeline.streams]
        cpu_ns = time.process_time_ns()
        drive.window()
        cpu_ns = time.process_time_ns() - cpu_ns
        spent = Spent(cpu_ns, sum(one.written for one in timeline.streams) - sum(before))
        # The window is over: from here on, what fails costs itself alone.
        memory = self._device_memory_if_it_tells()
        self._pause(
            Event(
                "timed",
                device_memory=memory,
                spent=spent,
                load_facts=dict(drive.facts),
                yardstick_ns=yardstick_ns(),
            )
        )

    def _device_times(self, timeline: Timeline, job: Job) -> tuple[str, Unavailable | None]:
        """The file that holds them, or why there is none where there should have been one."""
        from harness.engine.worker import device_times

        try:
            times = device_times.measure(self._sessions, timeline.streams, job.device_iterations)
            if isinstance(times, Unavailable):
                return "", times
            return (device_times.save(times) if times else ""), None
        except Exception as error:  # a runtime's own
            return "", Unavailable(f"the device times cannot be had: {_in_words(error)}")

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

    def _profile(self, backend: Backend, job: Job) -> None:
        if not job.operators:
            return
        from harness.engine.worker.operators import profile

        found: Maybe[LaunchOperators]
        try:
            found = profile(backend, self._sessions[0], job)
        except Exception as error:  # whatever of it was not foreseen
            found = Unavailable(f"the operators could not be profiled: {_in_words(error)}")
        self._pause(Event("profiled", operators=found))

    def _verify(self, backend: Backend, job: Job) -> None:
        from harness.engine.worker.verify import verify

        try:
            verified = verify(backend, self._sessions[0], job)
        except Exception as error:  # whatever of it was not foreseen
            verified = unverified(
                Unavailable(f"the outputs could not be verified: {_in_words(error)}")
            )
        self._peer.send(Event("verified", verified=verified))


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
