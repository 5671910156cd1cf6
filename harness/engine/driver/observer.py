"""What the driver does beside conducting: the sampler, the journals on disk, and the sinks.

A disk or sink that fails is a problem, told once, and not an end: what could not be journalled
stays in memory and is tried again each second.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness import machine, registry
from harness.engine.driver.journal import RunJournal
from harness.engine.driver.outlook import Left, Outlook
from harness.engine.driver.sinks import Sink
from harness.engine.driver.tick import Estimate, Tick
from harness.engine.driver.watch import WindowPlan
from harness.engine.outcome.evidence import Installed
from harness.engine.sampler.client import SamplerProcess
from harness.engine.wire.frames import SamplerJob
from harness.errors import ResultError
from harness.maybe import Unavailable
from harness.protocols import Channel, ProfilerContext, Progress
from harness.records.result import Result
from harness.records.store import JOURNAL_SUFFIX, RunFolder, series_name, why_not
from harness.spec import RunSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.analysis.sampled import Sampled
    from harness.records.samples import SamplesJournal, Stretch

FLUSH_EVERY_S = 1.0
SAMPLER_READY_S = 10.0
GUARD_S = 1.5
UNKNOWN_PERIOD_S = 0.5
_ENERGY_UNITS = ("J", "W")
_SWITCHED_OFF = Unavailable("sampling was switched off", "give --sample-rate above 0")


class RunObserver:
    """Follows every launch of one run."""

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        sinks: Sequence[Sink],
        run_journal: RunJournal,
        cpus: tuple[int, ...] | None = None,
    ) -> None:
        """``cpus``: where the sampler may run, None for no choice."""
        self.spec = spec
        self.sinks = list(sinks)
        self.launch_index = 0
        # why there is no power meter here; None: there may be one
        self.unmetered = _SWITCHED_OFF if spec.sample_rate_hz == 0 else _no_meter(spec)
        self.metered = self.unmetered is None
        self.problems: list[str] = []
        self.samplers: list[Sampled | None] = []  # of the launches that are over
        self.sampler: SamplerProcess | None = None  # the current launch's, once started
        self._folder = folder
        self._cpus = cpus
        self.installed: Installed | None = None  # from the first warm-up on
        self.versions: dict[str, str] = {}  # of a worker that has an environment of its own
        self.commit: str | None = None  # of its code, where it runs in a checkout of its own
        self._run_journal = run_journal
        self._journal: SamplesJournal | None = None  # from the first iterations on
        self._pending: list[Stretch] = []
        self._fresh_ms: list[NDArray[np.float64]] = []
        self._flushed_s = 0.0
        self._outlook = Outlook(spec)

    def preparing(self) -> None:
        """The model is about to be built, exported or quantized, which may take minutes."""
        progress = Progress("build", 0, self.spec.launches, 0.0, None, 0, wall_time_s=time.time())
        for sink in list(self.sinks):
            self._told(sink, partial(sink.update, progress))

    # -- one launch -----------------------------------------------------------------------------

    def start_sampler(self, pid: int) -> SamplerProcess | None:
        """Start the sampler for one worker. It comes up while the worker warms up."""
        if self.spec.sample_rate_hz == 0:
            return None
        sampler = self.sampler = SamplerProcess()
        context = ProfilerContext(pid, self.spec.device, power_source=self.spec.power_source)
        sampler.start(
            SamplerJob(
                profilers=tuple(registry.profiler_names()),
                context=context,
                rate_hz=self.spec.sample_rate_hz,
                cpus=self._cpus,
            )
        )
        return sampler

    def idle_s(self) -> float:
        """How long to idle before and after: what the meters found here need for a baseline."""
        if self.sampler is None:
            return self.spec.idle_s or 0.0  # nothing to wait for: the warm-up can begin
        self.sampler.wait_ready(SAMPLER_READY_S)
        from harness.analysis.energy.attribute import idle_floor_s

        meters = self._meters()
        needed_s = idle_floor_s(_period_s(meters)) if meters else 0.0
        idle_s = needed_s if self.spec.idle_s is None else self.spec.idle_s
        if idle_s and meters:  # a stretch begins between two updates of every meter, not before
            self.sampler.wait_sampled(_settle_s(meters), SAMPLER_READY_S)
        return idle_s

    def window_plan(self, iteration_s: float) -> WindowPlan:
        """How long to measure and guard, and whether to pause: what those meters need."""
        plan = self.stretch_plan(iteration_s)
        fixed = self.spec.duration_s is not None or self.spec.iterations is not None
        return msgspec.structs.replace(plan, floor_s=0.0) if fixed else plan

    def stretch_plan(self, iteration_s: float) -> WindowPlan:
        """`window_plan` of a stretch that nothing but those meters gives its length."""
        from harness.analysis.energy.attribute import resonance_delay, window_floor_s

        if self.sampler is not None:
            self.sampler.wait_ready(SAMPLER_READY_S)
        meters = self._meters()
        if not meters:
            return WindowPlan()
        counted = {channel.scope for channel in meters if channel.kind == "counter"}
        sampled = [channel for channel in meters if channel.scope not in counted]
        return WindowPlan(
            floor_s=window_floor_s(_period_s(meters), iteration_s),
            guard_s=GUARD_S,
            pause_s=resonance_delay(iteration_s, _period_s(sampled) or 0.1) if sampled else 0.0,
            settle_s=_settle_s(meters),
        )

    def _meters(self) -> list[Channel]:
        """The energy and power channels that can be read here."""
        if self.sampler is None:
            return []
        silent = self.sampler.unavailable()
        found = (channel for channel in self.sampler.channels if channel.name not in silent)
        return [channel for channel in found if channel.unit in _ENERGY_UNITS]

    def tick(self, tick: Tick) -> None:
        """Take in what is new; about twice a second pass it on, once a second save it."""
        from harness.records.samples import Stretch

        for one in tick.fresh:
            self._pending.append(
                Stretch(tick.launch, one.stream, one.timed, one.starts, one.ends, others=one.others)
            )
            if one.timed:
                self._fresh_ms.append(one.latencies / 1e6)
        now_s = time.perf_counter()
        if tick.seen is not None or now_s - self._flushed_s >= FLUSH_EVERY_S:
            self._flushed_s = now_s
            self._flush()  # first: a line that knows of a window needs the iterations of it
        self._remember(tick)
        if tick.estimate is not None:
            self._publish(tick, tick.estimate)

    def launch_over(self, tick: Tick) -> None:
        """The worker is gone: publish and save the rest, and stop the sampler."""
        self._publish(tick, tick.estimate or Estimate())
        if self.sampler is not None:
            self.sampler.stop()
        self._outlook.launch_over()
        self._flush()
        self._remember(tick)
        self.samplers.append(self.sampler.sampled() if self.sampler else None)
        self.sampler = None
        self.launch_index += 1

    # -- the end --------------------------------------------------------------------------------

    @property
    def unsaved(self) -> int:
        """Iterations that the journal lacks; those of the window and around it."""
        return sum(len(one.start_ns) for one in self._pending)

    def let_go(self) -> None:
        """Journal what is left, and leave the journals alone."""
        self._flush()
        if self._journal is not None:
            self._journal.close()

    def close(self, result: Result | None) -> None:
        for sink in list(self.sinks):
            self._told(sink, partial(sink.close, result))
            problem = getattr(sink, "problem", None)
            if problem is not None:
                self.problems.append(problem)

    # -- inside ---------------------------------------------------------------------------------

    def _guarded(self, write: Callable[[], object]) -> bool:
        """Whether it could be written; why not is kept as a problem."""
        try:
            write()
        except (ResultError, OSError, MemoryError) as error:
            self.trouble(why_not(error, self._folder.path))
            return False
        return True

    def trouble(self, text: str) -> None:
        """Keep a problem, once."""
        if text not in self.problems:
            self.problems.append(text)

    def _remember(self, tick: Tick) -> None:
        """Note what is known by now, in the run's journal."""
        if tick.seen is None:
            return
        if tick.phase == "warm-up" and self.installed is None:
            from harness.host.clock import clock_cost_ms

            software = machine.software(backends=[self.spec.backend])
            versions = {**software.versions, **self.versions}
            commit = self.commit or software.commit
            self.installed = Installed(
                software=msgspec.structs.replace(software, versions=versions, commit=commit),
                clock_cost_ms=clock_cost_ms(),
            )
            self._run_journal.append(self.installed)
        self._run_journal.append(tick.seen)
        if self._run_journal.problem is not None:
            self.trouble(self._run_journal.problem)

    def _flush(self) -> None:
        """Journal what waits; the rest stays where the disk refuses some of it."""
        self._guarded(self._flush_series)
        while self._pending and self._guarded(self._flush_one):
            del self._pending[0]

    def _flush_one(self) -> None:
        if self._journal is None:
            self._journal = self._folder.journal()
        one = self._pending[0]
        self._journal.append(
            one.launch,
            one.start_ns,
            one.end_ns,
            stream=one.stream,
            timed=one.timed,
            others=one.others,
        )

    def _flush_series(self) -> None:
        if self.sampler is None or not self.sampler.unsaved:
            return
        with self._series_journal(self.launch_index).open("ab", buffering=0) as file:
            while self.sampler.unsaved:
                del self.sampler.unsaved[: file.write(self.sampler.unsaved)]

    def _series_journal(self, launch: int) -> Path:
        return self._folder.path / series_name(launch, JOURNAL_SUFFIX)

    def _publish(self, tick: Tick, estimate: Estimate) -> None:
        fresh, self._fresh_ms = self._fresh_ms, []
        left, readings = self._outlook.left(tick), self.sampler.live() if self.sampler else {}
        progress = _progress(self.spec, tick, estimate, fresh, left, readings)
        for sink in list(self.sinks):
            self._told(sink, partial(sink.update, progress))

    def _told(self, sink: Sink, tell: Callable[[], None]) -> None:
        """Tell ``sink``, which is left out from then on where its terminal or pipe is gone."""
        try:
            tell()
        except OSError as error:
            self.sinks.remove(sink)
            self.trouble(f"{type(sink).__name__} was given up: {error.strerror or error}")


def _no_meter(spec: RunSpec) -> Unavailable | None:
    """Why a look at this machine leaves no hope for a power meter, before the sampler answers."""
    if set(registry.profiler_names()) - set(registry.PROFILERS):
        return None  # a stranger's profiler may be one
    context = ProfilerContext(os.getpid(), spec.device, power_source=spec.power_source)
    profiler = registry.find_profiler("power", context)
    if isinstance(profiler, registry.Broken):
        return profiler.cause
    try:
        opened = profiler.open()
        return opened if isinstance(opened, Unavailable) else None
    finally:
        profiler.close()


def _period_s(meters: Sequence[Channel]) -> float:
    """The longest update period of ``meters``; 0 where none states one."""
    return max((channel.period_s or 0.0 for channel in meters), default=0.0)


def _settle_s(meters: Sequence[Channel]) -> float:
    """How long it takes until each of ``meters`` has shown something new twice."""
    return 2 * (_period_s(meters) or UNKNOWN_PERIOD_S)


def _progress(
    spec: RunSpec,
    tick: Tick,
    estimate: Estimate,
    fresh_ms: list[NDArray[np.float64]],
    left: Left | None,
    readings: Mapping[str, float],
) -> Progress:
    timed = estimate.count if tick.phase in ("window", "idle", "profile", "verify") else 0
    median, half = estimate.median_ms, estimate.relative_half_width
    rate = timed * spec.batch_size / max(tick.elapsed_s, 1e-9)
    return Progress(
        phase=tick.phase,
        launch=tick.launch,
        launches=spec.launches,
        elapsed_s=tick.elapsed_s,
        remaining_s=None if left is None else left.seconds,
        at_most=left is not None and left.at_most,
        iterations=timed or tick.iterations,
        median_ms=median if timed else None,
        ci95_ms=(median * (1 - half), median * (1 + half)) if timed and half < math.inf else None,
        wall_time_s=time.time(),  # an event's stamp, never a duration
        new_latencies_ms=[ms for block in fresh_ms for ms in block.tolist()],
        throughput_per_s=rate if timed and tick.phase == "window" else None,
        readings=readings,
    )
