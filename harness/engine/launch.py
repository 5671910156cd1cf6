"""One launch: a worker's life from start to end, as the driver conducts and records it.

    import ── load ── first inference ── [idle] ── warm-up ── window ── [guard] ── [idle] ── verify
       │        │                                     │          │
    memory   memory                                memory     memory     (while the worker waits)

The driver sleeps in ``select`` and wakes ten times a second, or when somebody has something to say.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import msgspec

from harness import registry
from harness.engine.messages import Event, Go, Job, Verified
from harness.engine.process import WorkerProcess, raised
from harness.engine.sampling import SamplerProcess
from harness.engine.timeline import ABORT, STOP, WINDOW
from harness.errors import HarnessError, MeasurementFailed
from harness.maybe import Maybe
from harness.protocols import PhaseProbe, Profiler, ProfilerContext
from harness.records.result import ErrorInfo
from harness.spec import RunSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.analysis.stopping import IntervalTracker
    from harness.engine.recorder import Recorder

TICK_S = 0.1
_STOP_GRACE_S = 3.0


class Interrupt:
    """Set by the driver's signal handler; looked at between two sleeps."""

    def __init__(self) -> None:
        self.requested = False


@dataclass
class LaunchRecord:
    """What one launch left behind. Times are ns on the common clock."""

    load_s: float = 0.0
    first_inference_ms: float = 0.0
    warmup_end: str = ""
    stop_reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    idle: dict[str, tuple[int, int]] = field(default_factory=dict)  # before | after
    window_ns: tuple[int, int] | None = None
    pause_s: float = 0.0  # longest random pause between iterations
    # phase just finished -> figures
    memory: dict[str, dict[str, Maybe[float]]] = field(default_factory=dict)
    verified: Verified | None = None
    error: ErrorInfo | None = None
    raised: HarnessError | None = None
    recorders: list[Recorder] = field(default_factory=list)


class WindowPlan(msgspec.Struct, frozen=True):
    """What the meters on this machine ask of a window, in seconds."""

    floor_s: float = 0.0
    guard_s: float = 0.0  # of the same load afterwards
    pause_s: float = 0.0  # longest random pause between iterations


class Observer(Protocol):
    """Told what happens, so that journal, terminal and TensorBoard can follow."""

    def tick(self, launch: Launch) -> None:
        """About ten times a second, and at each change of phase."""
        ...

    def idle_s(self) -> float:
        """How long to idle before and after, asked when the model is ready."""
        ...

    def window_plan(self, iteration_s: float) -> WindowPlan:
        """Asked after the warm-up, which has shown how long an iteration takes."""
        ...


class _Ended(Exception):
    """The launch is over before its end; the record says why."""


class Launch:
    """Conducts one worker. Public attributes are for observers."""

    def __init__(
        self,
        spec: RunSpec,
        worker: WorkerProcess,
        sampler: SamplerProcess | None,
        observer: Observer,
        interrupt: Interrupt,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.spec = spec
        self.worker = worker
        self.sampler = sampler
        self.record = LaunchRecord()
        self.tracker: IntervalTracker | None = None  # from the warm-up on
        # (stream, timed, starts, ends) that came since the last tick
        self.fresh: list[tuple[int, bool, NDArray[np.int64], NDArray[np.int64]]] = []
        self.phase_began_ns = clock()
        self.plan = WindowPlan()
        self._idle_s = 0.0
        self.phase = "load"
        self._doing = "importing the runtime"
        self._observer = observer
        self._interrupt = interrupt
        self._interrupted_ns = 0
        self._clock = clock
        self._events: list[Event] = []
        self._last_progress_ns = clock()
        self._probes = _probes(worker.pid, spec)
        self._selector = selectors.DefaultSelector()
        self._selector.register(worker.peer.sock, selectors.EVENT_READ, self._on_event)
        self._selector.register(worker.output_fd, selectors.EVENT_READ, self._on_output)

    def run(self, job: Job, *, verify: bool) -> None:
        """Conduct it to the end. Never raises for what the worker does; the record holds it."""
        try:
            self._load(job)
            self._idle_s = self._observer.idle_s()
            self._idle("before")
            self._warm_up()
            self._window()
            self._idle("after")
            self._verify(verify)
        except _Ended:
            self.worker.kill()
        finally:
            self._close()

    # -- phases ---------------------------------------------------------------------------------

    def _load(self, job: Job) -> None:
        self.record.facts = self._wait("imported").facts
        self._snapshot("imported")
        self._reset_peaks()
        self._doing = "loading the model"
        self._send(job)
        self.record.load_s = self._wait("loaded").seconds
        self._snapshot("loaded")
        self._doing = "running the first inference"
        self._send(Go())
        self.record.first_inference_ms = self._wait("ready").seconds * 1e3

    def _idle(self, which: str) -> None:
        if self._idle_s <= 0:
            return
        self._enter("idle", "idling")
        began = self._clock()
        end = began + round(self._idle_s * 1e9)
        while (now := self._clock()) < end:
            self._last_progress_ns = now
            self._pump(min(TICK_S, (end - now) / 1e9))
        self.record.idle[which] = (began, self._clock())

    def _warm_up(self) -> None:
        self._enter("warm-up", "warming up")
        self._send(Go())
        self._follow()
        from harness.analysis.steady import is_steady

        timeline = self.worker.timeline
        while timeline.command < WINDOW:
            self._pump(TICK_S)
            elapsed_s = (self._clock() - self.phase_began_ns) / 1e9
            starts, ends = self.record.recorders[0].all()
            if len(ends) and is_steady(starts, ends, self.spec.warmup_s):
                self.record.warmup_end = "steady"
            elif elapsed_s >= self.spec.max_warmup_s and len(ends):
                self.record.warmup_end = "cap"
            if self.record.warmup_end:
                timeline.command = WINDOW
        self._wait("steady")
        self._snapshot("warm-up")
        self._reset_peaks()

    def _follow(self) -> None:
        """Begin to read the timeline. What that needs is imported while the worker warms up."""
        from harness.analysis.stopping import IntervalTracker
        from harness.engine.recorder import Recorder

        self.tracker = IntervalTracker()
        self.record.recorders = [Recorder(stream) for stream in self.worker.timeline.streams]

    def _window(self) -> None:
        spec, timeline = self.spec, self.worker.timeline
        streams = timeline.streams
        self._enter("window", "in the timed window")
        if spec.iterations is not None:
            each, extra = divmod(spec.iterations, len(streams))
            for index, stream in enumerate(streams):
                stream.limit = each + (index < extra)
        self.plan = self._observer.window_plan(self._iteration_s())
        self.record.pause_s = self.plan.pause_s
        timeline.pause_ns = round(self.plan.pause_s * 1e9)
        timeline.guard_ns = round(self.plan.guard_s * 1e9)
        cap_s = max(spec.cap_s, self.plan.floor_s)
        if cap_s < float("inf"):
            timeline.deadline_ns = self._clock() + round(cap_s * 1e9)
        self._send(Go())
        while not self._taken("timed"):
            self._pump(TICK_S)
            if timeline.command < STOP and self._goal_reached():
                self.record.stop_reason = "interval"
                timeline.command = STOP
        self._snapshot("window")
        self._await_sampler()
        self.record.stop_reason = self.record.stop_reason or self._natural_end()
        self.record.window_ns = self._window_bounds()
        if self._interrupt.requested:
            self.record.stop_reason = "interrupted"
            self._interrupted()

    def _iteration_s(self) -> float:
        """What an iteration took at the end of the warm-up."""
        starts, ends = self.record.recorders[0].warm_up()
        latest = sorted((ends - starts)[-100:].tolist())
        return latest[len(latest) // 2] / 1e9 if latest else 0.0

    def _await_sampler(self) -> None:
        """Let the sensors be read once more beyond the window's end, while the worker waits."""
        if self.sampler is None:
            return
        ended, patience_ns = self._clock(), round(3e9 / self.spec.sample_rate_hz)
        while (
            not self.sampler.ended
            and self.sampler.last_ns < ended
            and self._clock() - ended < patience_ns
        ):
            self._pump(TICK_S / 10)

    def _verify(self, wanted: bool) -> None:
        self._enter("verify", "verifying outputs")
        self._send(Go(finish=not wanted))
        if wanted:
            self.record.verified = self._wait("verified").verified

    def _goal_reached(self) -> bool:
        goal = self.spec.goal
        elapsed_s = (self._clock() - self.phase_began_ns) / 1e9
        if (
            goal is None
            or self.tracker is None
            or elapsed_s < max(self.spec.floor_s, self.plan.floor_s)
        ):
            return False
        return self.tracker.relative_half_width <= goal

    def remaining_s(self, elapsed_s: float) -> float | None:
        """How long this phase will last at most; None where nothing bounds it."""
        spec, done = self.spec, self.tracker.count if self.tracker else 0
        if self.phase == "idle":
            return max(0.0, self._idle_s - elapsed_s)
        if self.phase != "window":
            return None
        left = [max(spec.cap_s, self.plan.floor_s) - elapsed_s]
        if spec.iterations is not None and done:
            left.append(elapsed_s * (spec.iterations - done) / done)
        return max(0.0, min(left)) if min(left) < float("inf") else None

    def _natural_end(self) -> str:
        done = sum(r.window_end - r.window_start for r in self.record.recorders)
        if self.spec.iterations is not None and done >= self.spec.iterations:
            return "iterations"
        return "duration" if self.spec.goal is None else "max_duration"

    def _window_bounds(self) -> tuple[int, int] | None:
        windows = [recorder.window() for recorder in self.record.recorders]
        if not windows or not all(len(starts) for starts, _ in windows):
            return None
        return min(int(s[0]) for s, _ in windows), max(int(e[-1]) for _, e in windows)

    # -- listening ------------------------------------------------------------------------------

    def _wait(self, phase: str) -> Event:
        while (event := self._taken(phase)) is None:
            self._pump(TICK_S)
        return event

    def _taken(self, phase: str) -> Event | None:
        for index, event in enumerate(self._events):
            if event.phase == phase:
                del self._events[: index + 1]
                return event
        return None

    def _pump(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data()
        if self.sampler is not None:
            self.sampler.drain()
        self._drain()
        self._observer.tick(self)
        self._check_failed()
        self._check_time()
        self._check_interrupt()

    def _drain(self) -> None:
        self.fresh = []
        for index, recorder in enumerate(self.record.recorders):
            starts, ends, timed = recorder.drain()
            if not len(starts):
                continue
            self._last_progress_ns = self._clock()
            if self.tracker is not None:
                self.tracker.update((ends - starts)[timed])
            bounds = sorted({0, timed.start, timed.stop, len(starts)})
            for low, high in pairwise(bounds):
                inside = timed.start <= low < timed.stop
                self.fresh.append((index, inside, starts[low:high], ends[low:high]))

    def _on_event(self) -> None:
        events = self.worker.events()
        if events is None:
            self._selector.unregister(self.worker.peer.sock)
            self._events.append(Event("gone"))
            return
        self._last_progress_ns = self._clock()
        self._events.extend(events)

    def _on_output(self) -> None:
        if not self.worker.read_output():
            self._selector.unregister(self.worker.output_fd)

    # -- what can go wrong ----------------------------------------------------------------------

    def _check_failed(self) -> None:
        for event in self._events:
            if event.failure is not None:
                self._end(event)
            if event.phase == "gone" and not any(e.phase == "verified" for e in self._events):
                self._end(None)

    def _end(self, event: Event | None) -> None:
        doing = self._doing
        self.worker.close()
        self._cut_short("failed")
        if event is not None and event.failure is not None:
            tail = self.worker.stderr_tail()
            self.record.raised, self.record.error = raised(event.failure, doing, tail)
        else:
            self.record.error = self.worker.death(doing)
            self.record.raised = MeasurementFailed(
                self.record.error.message, self.record.error.remedy
            )
        raise _Ended

    def _cut_short(self, why: str) -> None:
        self.record.stop_reason = self.record.stop_reason or why
        self.record.window_ns = self._window_bounds()

    def _check_time(self) -> None:
        silent_s = (self._clock() - self._last_progress_ns) / 1e9
        if silent_s > self.spec.timeout_s:
            self.worker.kill(f"no progress for {self.spec.timeout_s:g} s while {self._doing}")
            self._last_progress_ns = self._clock()

    def _check_interrupt(self) -> None:
        if not self._interrupt.requested:
            return
        if self.phase == "window" and self.worker.timeline.command < STOP:
            self.worker.timeline.command = ABORT
            self.record.stop_reason = "interrupted"
            self._interrupted_ns = self._clock()
        elif self.phase != "window" or self._clock() - self._interrupted_ns > _STOP_GRACE_S * 1e9:
            self._cut_short("interrupted")
            self._interrupted()

    def _interrupted(self) -> None:
        self.record.error = ErrorInfo(
            kind="interrupted",
            message=f"interrupted while {self._doing}",
            remedy="",
            phase=self._doing,
            stderr_tail="",
        )
        raise _Ended

    # -- small things ---------------------------------------------------------------------------

    def _enter(self, phase: str, doing: str) -> None:
        self.phase = phase
        self._doing = doing
        self.phase_began_ns = self._last_progress_ns = self._clock()
        self.fresh = []
        self._observer.tick(self)

    def _send(self, message: msgspec.Struct) -> None:
        try:
            self.worker.peer.send(message)
        except OSError:  # it has died; the next wait finds out why
            return

    def _snapshot(self, phase: str) -> None:
        figures: dict[str, Maybe[float]] = {}
        for _, probe in self._probes:
            figures.update(probe.snapshot())
        self.record.memory[phase] = figures

    def _reset_peaks(self) -> None:
        for _, probe in self._probes:
            probe.reset_peaks()

    def _close(self) -> None:
        if self.sampler is not None:
            self.sampler.drain()
        for profiler, _ in self._probes:
            profiler.close()
        self._selector.close()
        self.worker.close()


def _probes(pid: int, spec: RunSpec) -> list[tuple[Profiler, PhaseProbe]]:
    """The profilers with figures too slow to sample, opened on the worker."""
    context = ProfilerContext(pid, spec.device, power_source="none")
    probes: list[tuple[Profiler, PhaseProbe]] = []
    for name in registry.profiler_names():
        profiler = registry.find_profiler(name, context)
        if not isinstance(profiler, registry.Broken) and isinstance(profiler, PhaseProbe):
            profiler.open()
            probes.append((profiler, profiler))
    return probes
