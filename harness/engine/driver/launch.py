"""One launch: a worker's life from start to end, as the driver conducts and records it.

    import ── load ── first inference ── [idle] ── warm-up ── window ── [guard] ── [idle] ── verify
       │        │                                     │          │
    memory   memory                                memory     memory     (while the worker waits)

The driver sleeps in ``select`` and wakes ten times a second, or when somebody has something to say.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from harness import registry
from harness.engine.driver.journal import Seen
from harness.engine.driver.overhead import measure_overhead
from harness.engine.driver.process import WorkerProcess
from harness.engine.driver.signals import Interrupt
from harness.engine.driver.tick import Estimate, Tick
from harness.engine.driver.watch import TICK_S, Ended, Watch, WindowPlan
from harness.engine.sampler.client import SamplerProcess
from harness.engine.wire.messages import Event, Go, Job, unverified
from harness.engine.wire.timeline import ABORT, FOREVER, STOP, WINDOW
from harness.errors import MeasurementFailed
from harness.maybe import Maybe, Unavailable
from harness.protocols import PhaseProbe, Profiler, ProfilerContext
from harness.spec import RunSpec

ESTIMATE_EVERY_S = 0.5


class Observer(Protocol):
    """Told what happens, so that journal, terminal and TensorBoard can follow."""

    def tick(self, tick: Tick) -> None:
        """About ten times a second, and at each change of phase."""
        ...

    metered: bool  # there may be a power meter: sampling begins before the warm-up
    unmetered: Unavailable | None  # why there is none

    def start_sampler(self, pid: int) -> SamplerProcess | None:
        """Start to read the sensors; None: not at all."""
        ...

    def idle_s(self) -> float:
        """How long to idle before and after, asked when the model is ready."""
        ...

    def window_plan(self, iteration_s: float) -> WindowPlan:
        """Asked after the warm-up, which has shown how long an iteration takes."""
        ...

    def stretch_plan(self, iteration_s: float) -> WindowPlan:
        """What the meters need of a stretch, whatever the window is to be."""
        ...


class Launch(Watch):
    """Conducts one worker."""

    warm_up_tick_s = TICK_S  # how often it looks whether latencies are steady

    def __init__(
        self,
        spec: RunSpec,
        worker: WorkerProcess,
        observer: Observer,
        interrupt: Interrupt,
        index: int = 0,
    ) -> None:
        super().__init__(spec, worker, lambda: observer.tick(self.tick()), interrupt)
        self.index = index
        self.load = registry.load(spec.scenario)
        self.plan = WindowPlan()
        self._observer = observer
        self.idle_s = 0.0
        self._probes = _probes(worker.pid, spec)
        self._told_phase, self._told_ns = "", 0

    def tick(self, *, whole: bool = False) -> Tick:
        """How it stands. ``whole``: with what is left out between two changes of phase."""
        now_ns = self._clock()
        whole = whole or self.phase != self._told_phase
        estimated = whole or now_ns - self._told_ns >= ESTIMATE_EVERY_S * 1e9
        self._told_phase, self._told_ns = self.phase, now_ns if estimated else self._told_ns
        return Tick(
            launch=self.index,
            phase=self.phase,
            at_ns=now_ns,
            phase_began_ns=self.phase_began_ns,
            fresh=tuple(self.fresh),
            iterations=sum(recorder.count for recorder in self.recorders),
            estimate=self._estimate() if estimated else None,
            seen=self._seen(now_ns) if whole else None,
            window_over=self.record.window_ns is not None,
            idle_s=self.idle_s,
            floor_s=self.plan.floor_s,
        )

    def _estimate(self) -> Estimate:
        tracker = self.tracker
        if tracker is None:
            return Estimate()
        return Estimate(tracker.count, tracker.median_ms, tracker.relative_half_width)

    def _seen(self, now_ns: int) -> Seen:
        lost = self.sampler.lost if self.sampler else None
        return Seen.of(self.record, launch=self.index, doing=self.doing, at_ns=now_ns, lost=lost)

    def run(self, job: Job, *, verify: bool) -> None:
        """Conduct it to the end. Never raises for what the worker does; the record holds it."""
        try:
            self._load(job)
            if self._observer.metered:
                self._sample()
            self.idle_s = self._observer.idle_s()
            self._idle("before")
            self._warm_up()
            self._window()
            self._idle("after")
            self._rest(self.plan.settle_s)
            if not self._profile():
                return
            self._verify(verify)
        except Ended:
            self.worker.kill()
        finally:
            self._close()

    def _load(self, job: Job) -> None:
        self.record.facts = self._wait("imported").facts
        self._snapshot("imported")
        self._reset_peaks()
        self.doing = "loading the model"
        self._send(job)
        loaded = self._wait("loaded")
        self.record.load_s, self.record.pipelined = loaded.seconds, loaded.pipelined
        self.record.compile_s = loaded.compile_s
        self._snapshot("loaded", loaded)
        self.doing = "running the first inference"
        self._send(Go())
        self.record.first_inference_ms = self._wait("ready").seconds * 1e3

    def _idle(self, which: str) -> None:
        if self.idle_s <= 0:
            return
        self._enter("idle", "idling")
        began = self._clock()
        self._rest(self.idle_s)
        self.record.idle[which] = (began, self._clock())

    def _rest(self, seconds: float) -> None:
        """Listen while the worker has nothing to do, which is no lack of progress."""
        end = self._clock() + round(seconds * 1e9)
        while (now := self._clock()) < end:
            self._last_progress_ns = now
            self._pump(min(TICK_S, (end - now) / 1e9))

    def _warm_up(self) -> None:
        self._send(Go())  # first: what follows imports a good deal
        self._enter("warm-up", "warming up")
        if not self._observer.metered:
            self._sample()
        self._follow()
        from harness.analysis.steady import is_steady

        timeline = self.worker.timeline
        while timeline.command < WINDOW:
            self._pump(self.warm_up_tick_s)
            elapsed_s = (self._clock() - self.phase_began_ns) / 1e9
            starts, ends = self.record.recorders[0].all()
            if not len(ends):
                continue
            steady = is_steady(starts, ends, self.spec.warmup_s)
            unsettled = self._unsettled() if steady else ""
            if steady and not unsettled:
                self.record.warmup_end = "steady"
            elif elapsed_s >= self.spec.max_warmup_s:
                self.record.warmup_end = f"cap: {unsettled}" if unsettled else "cap"
            if self.record.warmup_end:
                timeline.command = WINDOW
        warmed_up = self._wait("steady")
        self.record.yardstick_ns = (warmed_up.yardstick_ns, 0)
        self._take_device_times(warmed_up)
        self._snapshot("warm-up", warmed_up)
        self._reset_peaks()

    def _unsettled(self) -> str:
        """Which clock or temperature of the device still moves; empty on the host, or if none."""
        if self.spec.device == "cpu" or self.sampler is None or self.sampler.lost is not None:
            return ""
        if not self.sampler.ready:
            return "the sensors have not answered yet"
        if self.sampler.rate_hz < 1:
            return ""
        from harness.analysis.settled import unsettled

        return unsettled(
            self.sampler.channels, self.sampler.series(), self._clock(), self.phase_began_ns
        )

    def _sample(self) -> None:
        self.sampler = self._observer.start_sampler(self.worker.pid)

    def _follow(self) -> None:
        """Begin to read the timeline. What that needs is imported while the worker warms up."""
        from harness.analysis.stopping import IntervalTracker
        from harness.engine.driver.recorder import Recorder

        self.tracker = IntervalTracker()
        load, streams = self.load, self.worker.timeline.streams
        self.recorders = [Recorder(s, load.counts_from, shared=load.shared) for s in streams]
        self.record.recorders = list(self.recorders)

    def _window(self) -> None:
        spec, timeline = self.spec, self.worker.timeline
        streams = timeline.streams
        self.plan = self._observer.window_plan(self.iteration_s())
        paused = self.load.pauses and not self.record.pipelined
        self.record.pause_s = self.plan.pause_s if paused else 0.0
        self._enter("window", "in the timed window")
        if spec.iterations is not None:
            each, extra = divmod(spec.iterations, len(streams))
            for index, stream in enumerate(streams):
                stream.limit = each + (index < extra)
        timeline.pause_ns = round(self.record.pause_s * 1e9)
        timeline.guard_ns = FOREVER if spec.overhead_check else round(self.plan.guard_s * 1e9)
        cap_s = max(spec.cap_s, self.plan.floor_s)
        if cap_s < float("inf"):
            timeline.deadline_ns = self._clock() + round(cap_s * 1e9)
        self._send(Go())
        while (timed := self._taken("timed")) is None:
            self._pump(TICK_S)
            if timeline.command < STOP and self._goal_reached():
                self.record.stop_reason = "interval"
                timeline.command = STOP
            if spec.overhead_check and all(stream.window_end >= 0 for stream in streams):
                self._check_overhead()
        self._snapshot("window", timed)
        self.record.spent, self.record.load_facts = timed.spent, timed.load_facts
        self.record.yardstick_ns = (self.record.yardstick_ns[0], timed.yardstick_ns)
        self._await_sampler()
        self.record.stop_reason = self.record.stop_reason or self._natural_end()
        self.record.window_ns = self._window_bounds()
        if self._interrupt.requested:
            self.record.stop_reason = "interrupted"
            self._interrupted()

    def _take_device_times(self, steady: Event) -> None:
        self.record.device_untimed = steady.device_untimed
        if steady.device_times_path:
            from harness.engine.worker.device_times import load

            try:
                self.record.device_ms = load(steady.device_times_path)
            except MeasurementFailed as error:
                self.record.device_untimed = Unavailable(error.message, error.remedy)

    def _check_overhead(self) -> None:
        """The same load goes on beyond the window, with and without everybody watching."""
        timeline = self.worker.timeline
        if timeline.command < ABORT and not self.record.overhead:
            if self.plan.guard_s:
                self.pump_for(self.plan.guard_s)
            self.record.overhead = measure_overhead(self, self.iteration_s())
            timeline.command = ABORT

    def iteration_s(self) -> float:
        """What an iteration took at the end of the warm-up."""
        starts, ends = self.record.recorders[0].warm_up()
        latest = sorted((ends - starts)[-100:].tolist())
        return latest[len(latest) // 2] / 1e9 if latest else 0.0

    def _await_sampler(self) -> None:
        """Let the sensors be read once more beyond the window's end, while the worker waits."""
        if self.sampler is None:
            return
        ended, patience_ns = self._clock(), round(3e9 / (self.sampler.rate_hz or 10))
        while (
            not self.sampler.ended
            and self.sampler.last_ns < ended
            and self._clock() - ended < patience_ns
        ):
            self._pump(TICK_S / 10)

    def _profile(self) -> bool:
        """Where operators are asked for. False where that ended the worker."""
        if not self.spec.operators:
            return True
        self._enter("profile", "profiling its operators")
        self._send(Go())
        try:
            self.record.operators = self._wait("profiled").operators
        except Ended:
            why = self._survive()
            self.record.operators = why
            self.record.verified = unverified(why)
            return False
        return True

    def _survive(self) -> Unavailable:
        """Why the worker ended after its window: what was measured in that stands."""
        error = self.record.error
        if error is None or error.kind == "interrupted":
            raise
        self.record.unverified = error.message
        self.record.error = self.record.raised = None
        return Unavailable(error.message, error.remedy)

    def _verify(self, wanted: bool) -> None:
        self._enter("verify", "verifying outputs")
        self._send(Go(finish=not wanted))
        if not wanted:
            return
        try:
            self.record.verified = self._wait("verified").verified
        except Ended:
            self.record.verified = unverified(self._survive())

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

    def _natural_end(self) -> str:
        done = sum(r.window_end - r.window_start for r in self.record.recorders)
        if self.spec.iterations is not None and done >= self.spec.iterations:
            return "iterations"
        return "duration" if self.spec.goal is None else "max_duration"

    def _send(self, message: msgspec.Struct) -> None:
        try:
            self.worker.peer.send(message)
        except OSError:  # it has died; the next wait finds out why
            return

    def _snapshot(self, phase: str, event: Event | None = None) -> None:
        if event is not None and event.device_memory:
            self.record.device_memory[phase] = event.device_memory
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
