"""How the driver waits for one worker: for its events, its timeline, its end, or Ctrl-C."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from harness.engine.driver.process import WorkerProcess, raised
from harness.engine.driver.signals import Interrupt
from harness.engine.driver.tick import Fresh
from harness.engine.outcome.evidence import LaunchRecord, window_bounds
from harness.engine.sampler.client import SamplerProcess
from harness.engine.wire.messages import Event
from harness.engine.wire.timeline import ABORT, STOP
from harness.errors import MeasurementFailed
from harness.records.result import ErrorInfo
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.analysis.stopping import IntervalTracker
    from harness.engine.driver.recorder import Recorder

TICK_S = 0.1
_STOP_GRACE_S = 3.0


class WindowPlan(msgspec.Struct, frozen=True):
    """What the meters on this machine ask of a window, in seconds."""

    floor_s: float = 0.0
    guard_s: float = 0.0  # of the same load afterwards
    pause_s: float = 0.0  # longest random pause between iterations
    settle_s: float = 0.0  # of reading on at the end, for what is published late


class Ended(Exception):
    """The launch is over before its end; the record says why."""


class Watch:
    """What a `harness.engine.driver.launch.Launch` listens with."""

    def __init__(
        self,
        spec: RunSpec,
        worker: WorkerProcess,
        tick: Callable[[], None],
        interrupt: Interrupt,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.spec = spec
        self.worker = worker
        self.sampler: SamplerProcess | None = None  # from the first inference on
        self.record = LaunchRecord()
        self.recorders: list[Recorder] = []  # from the warm-up on
        self.tracker: IntervalTracker | None = None  # from the warm-up on
        self.fresh: list[Fresh] = []  # since the last tick
        self.phase = "load"
        self.phase_began_ns = clock()
        self.aside = False  # leave the worker alone but for its timeline
        self.doing = "importing the runtime"
        self._tick = tick
        self._interrupt = interrupt
        self._interrupted_ns = 0
        self._beat_ns = 0
        self._clock = clock
        self._events: list[Event] = []
        self._last_progress_ns = clock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(worker.peer.sock, selectors.EVENT_READ, self._on_event)
        self._selector.register(worker.output_fd, selectors.EVENT_READ, self._on_output)

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

    def now_ns(self) -> int:
        return self._clock()

    def pump_for(self, seconds: float) -> None:
        """Listen for so long."""
        end_ns = self._clock() + round(seconds * 1e9)
        while (left_ns := end_ns - self._clock()) > 0:
            self._pump(min(TICK_S, left_ns / 1e9))

    def _pump(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data()
        self._drain()
        if not self.aside:
            if self.sampler is not None:
                self.sampler.drain()
            self._tick()
        self._check_failed()
        self._check_time()
        self._check_interrupt()

    def _drain(self) -> None:
        self.fresh = []
        if self.recorders and (beat := self.worker.timeline.beat_ns) != self._beat_ns:
            self._beat_ns, self._last_progress_ns = beat, self._clock()
        for index, recorder in enumerate(self.recorders):
            rows, timed = recorder.drain()
            count = len(rows["start"])
            if not count:
                continue
            self._last_progress_ns = self._clock()
            if self.tracker is not None:
                self.tracker.update((rows["end"] - rows[recorder.counts_from])[timed])
            bounds = sorted({0, timed.start, timed.stop, count})
            for low, high in pairwise(bounds):
                inside = timed.start <= low < timed.stop
                part = {name: column[low:high] for name, column in rows.items()}
                starts, ends = part.pop("start"), part.pop("end")
                self.fresh.append(Fresh(index, inside, starts, ends, part, recorder.counts_from))

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
        doing = self.doing
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
        raise Ended

    def _cut_short(self, why: str) -> None:
        self.record.stop_reason = self.record.stop_reason or why
        self.record.window_ns = self._window_bounds()

    def _check_time(self) -> None:
        silent_s = (self._clock() - self._last_progress_ns) / 1e9
        if silent_s > self.spec.timeout_s:
            self.worker.kill(f"no progress for {self.spec.timeout_s:g} s while {self.doing}")
            self._last_progress_ns = self._clock()

    def _check_interrupt(self) -> None:
        if not self._interrupt.requested:
            return
        if self.phase == "window" and self._interrupted_ns == 0:
            if self.worker.timeline.command < STOP:
                self.record.stop_reason = "interrupted"
            self.worker.timeline.command = ABORT
            self._interrupted_ns = self._clock()
        elif self.phase != "window" or self._clock() - self._interrupted_ns > _STOP_GRACE_S * 1e9:
            self._cut_short("interrupted")
            self._interrupted()

    def _interrupted(self) -> None:
        self.record.error = ErrorInfo(
            kind="interrupted",
            message=f"interrupted while {self.doing}",
            remedy="",
            phase=self.doing,
            stderr_tail="",
        )
        raise Ended

    def _enter(self, phase: str, doing: str) -> None:
        self.phase = phase
        self.doing = doing
        self.phase_began_ns = self._last_progress_ns = self._clock()
        self.fresh = []
        self._tick()

    def _window_bounds(self) -> tuple[int, int] | None:
        return window_bounds(self.record.recorders)
