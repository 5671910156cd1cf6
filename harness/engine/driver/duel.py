"""Several variants of a run take turns on the same processors: their ratio, whatever drifts.

    launch 1   A up ── B up ── trial turns ── A B | B A | B A | A B | ...  ── verify
    launch 2   fresh processes                A B | B A | ...
    ...        until the ratio is known, five launches at least

All workers of a launch are alive, loaded and warm; one has the turn, the others rest. Each variant
leaves a run folder of its own inside the duel's, which also holds ``comparison.json``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from harness.compare.comparison import Comparison
from harness.compare.duel import COMPARISON_NAME, of_duel
from harness.compare.paired import DESIGN, Design, Ended, Paired, Rounds, paired, ratio_of
from harness.compare.paired_energy import with_energy
from harness.engine.driver.ahead import Ahead
from harness.engine.driver.conductor import INTERRUPTED_EXIT, Conductor, Outcome, short
from harness.engine.driver.homes import Home
from harness.engine.driver.metering import MOST_LAUNCHES as MOST_METERED
from harness.engine.driver.metering import Metering, pairs_of
from harness.engine.driver.placement import booted, place, stand_aside
from harness.engine.driver.process import WorkerProcess
from harness.engine.driver.room import Room
from harness.engine.driver.rounds import Rules, SideFailed, Taking, Turned, orders
from harness.engine.driver.signals import Interrupt, interruptible
from harness.engine.driver.sinks import Sink
from harness.engine.driver.turns import TurnLaunch
from harness.engine.outcome.joules import stretch_energies
from harness.engine.wire.messages import Job, Turns
from harness.errors import BackendUnavailable, HarnessError, MeasurementFailed, UsageError
from harness.host.files import write_atomically
from harness.host.memory import available_bytes
from harness.machine import one_cpu_a_core, usable_cpus
from harness.maybe import Unavailable
from harness.models import Prepared
from harness.records.store import RunFolder
from harness.spec import DEFAULT_GOAL, RunSpec
from harness.stats.paired import MIN_ROUNDS


class RunSinks(Protocol):
    """Asked for the sinks of one variant's run, given its folder."""

    def __call__(self, folder: Path, spec: RunSpec) -> Sequence[Sink]: ...


LEAST_LAUNCHES, MOST_LAUNCHES = 5, 20
WRITE_EVERY_S = 2.0
FLOOR_S, CAP_S = 0.5, 8.0  # of the turns of one launch, all variants together


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known while a duel goes: names of the variants, the launches so far."""

    names: tuple[str, ...]
    launch: int  # from 0
    rules: Rules
    launches: tuple[Rounds, ...]
    phase: str  # preparing | warming up | taking turns | metering


class DuelOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """``folder`` holds ``comparison.json`` and the folders of the ``runs``."""

    folder: Path
    paired: Paired
    comparison: Comparison  # what ``comparison.json`` holds
    runs: tuple[Outcome, ...]
    launches: tuple[Rounds, ...]
    exit_code: int
    problems: tuple[str, ...] = ()


def rules_of(spec: RunSpec, launches: int | None) -> Rules:
    """Those that ``spec`` asks for; ``launches``: exactly so many. Raises `UsageError`."""
    if spec.scheduled:
        raise UsageError(
            "--scenario server in a duel, whose variants take turns", "harness compare two runs"
        )
    if spec.iterations is not None:
        raise UsageError(
            f"--iterations {spec.iterations} in a duel, which counts rounds",
            "give --duration, the seconds of a launch's turns",
        )
    fixed = spec.duration_s is not None and spec.precision_goal is None
    fixed = fixed and spec.max_duration_s is None
    floor_s = spec.duration_s or min(FLOOR_S, spec.max_duration_s or FLOOR_S)
    return Rules(
        goal=None if fixed else spec.precision_goal or DEFAULT_GOAL,
        floor_s=floor_s,
        cap_s=floor_s if fixed else max(floor_s, spec.max_duration_s or CAP_S),
        least_launches=launches or LEAST_LAUNCHES,
        most_launches=launches or (LEAST_LAUNCHES if fixed else MOST_LAUNCHES),
    )


def duel(
    specs: Sequence[RunSpec],
    names: Sequence[str],
    rules: Rules,
    sinks: RunSinks = lambda folder, spec: (),
    follow: Callable[[Path, Standing], None] = lambda folder, standing: None,
    homes: Sequence[Home | None] = (),
) -> DuelOutcome:
    """Measure ``specs``, called ``names``, in turns; the first is the reference.

    ``follow`` is told how the duel stands, between two turns. ``homes``: the environments of the
    variants' workers, where they are not of this one. Raises a `HarnessError` for what is
    wrong before anything can be measured; afterwards what failed stands in the outcome.
    """
    for spec in specs:
        if spec.concurrency > 1:
            raise UsageError(
                f"--concurrency {spec.concurrency} in a duel, where one inference at a time runs",
                "leave it out",
            )
    interrupt = Interrupt()
    with interruptible(interrupt):
        going = _Duel(specs, names, rules, sinks, follow, interrupt, homes)
        try:
            return going.execute()
        except BaseException:
            going.discard()
            raise


class _Duel:
    def __init__(
        self,
        specs: Sequence[RunSpec],
        names: Sequence[str],
        rules: Rules,
        sinks: RunSinks,
        follow: Callable[[Path, Standing], None],
        interrupt: Interrupt,
        homes: Sequence[Home | None],
    ) -> None:
        self._names, self._rules, self._interrupt = tuple(names), rules, interrupt
        self._tell = follow
        self._alike = len(set(map(str, specs))) == 1  # twins fail as one
        self._seed = specs[0].seed
        self._asked_for_cpus, self._cpus = specs[0].cpus is not None, _processors(specs)
        self._ahead = Ahead(self._boot)
        self.folder = RunFolder.create(specs[0].out, ("duel", short(specs[0].model)))
        self._conductors: list[Conductor] = []
        self._prepared: list[Prepared] = []
        self._launches: list[Rounds] = []
        self._turned: Turned | None = None  # from the first launch on
        self._order = orders(len(specs), self._seed)
        self._problem = ""
        self._written_s = time.monotonic()
        try:
            for spec, name, home in zip(specs, names, homes or [None] * len(specs), strict=True):
                mine = self._of_this_duel(spec, name)
                own = partial(sinks, spec=mine)
                with self._named(name):
                    self._conductors.append(Conductor(mine, own, place(mine), interrupt, home))
        except HarnessError:
            self.discard()
            raise

    def _of_this_duel(self, spec: RunSpec, name: str) -> RunSpec:
        tags = {"duel": self.folder.id, "duel_variant": name, "design": DESIGN}
        return msgspec.structs.replace(
            spec,
            out=str(self.folder.path),
            cpus=self._cpus,
            launches=self._rules.least_launches,
            tags={**spec.tags, **tags},
        )

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Says which variant it is that something is wrong with."""
        try:
            yield
        except HarnessError as error:
            if not self._alike:
                error.message = f"{name}: {error.message}"
            raise

    def _boot(self) -> list[WorkerProcess]:
        """Workers that import side by side; a job tells each where it runs from then on."""
        asked = self._conductors[0].spec.cpus if self._asked_for_cpus else None
        return [
            booted(one.spec, msgspec.structs.replace(one.placement, cpus=asked), one.home)
            for one in self._conductors
        ]

    def execute(self) -> DuelOutcome:
        self._follow(0, "preparing")
        for name, conductor in zip(self._names, self._conductors, strict=True):
            with self._named(name):
                self._prepared.append(conductor.prepare())
        self._room.before_any(available_bytes())
        self._interrupt.measuring = True
        try:
            with stand_aside(self._conductors[0].placement), self._ahead:
                ended = self._measure()
        except UsageError:  # the first that was loaded showed that they do not all fit
            self._leave_nothing()
            raise
        self._refuse_what_never_began()
        return self._finish(ended)

    def discard(self) -> None:
        """Leave nothing behind, unless something may have been measured."""
        if all(conductor.discard() for conductor in self._conductors):
            self.folder.discard()

    @property
    def _room(self) -> Room:
        artifacts = [one.artifact for one in self._prepared]
        return Room(self._names, artifacts, self._conductors[0].spec.device)

    # -- launches -------------------------------------------------------------------------------

    def _measure(self) -> Ended:
        for index in range(self._rules.most_launches):
            ended = self._launch(index)
            self._write(ended or "going on")
            self._follow(index, "taking turns")
            if ended is not None:
                return ended
            if index + 1 >= self._rules.least_launches and self._narrow():
                return "interval"
        fixed = self._rules.least_launches == self._rules.most_launches
        return "launches" if fixed else "most launches"

    def _narrow(self) -> bool:
        """Whether every ratio is known as well as asked for."""
        found = [ratio_of(self._launches, i) for i in range(1, len(self._names))]
        goal = self._rules.goal
        return goal is not None and all(
            not isinstance(one, Unavailable) and one.half_width <= goal for one in found
        )

    def _launch(self, index: int) -> Ended | None:
        """One launch of fresh processes. What ended the duel, if it did."""
        self._follow(index, "warming up")
        with ExitStack() as stack:
            sides: list[TurnLaunch] = []
            for conductor, worker in zip(self._conductors, self._ahead.take(), strict=True):
                side = TurnLaunch(
                    conductor.spec,
                    stack.enter_context(worker),
                    conductor.observer,
                    self._interrupt,
                    index,
                )
                conductor.evidence.launches.append(side.record)
                sides.append(side)
            try:
                return self._conduct(sides, index)
            finally:
                for conductor, side in zip(self._conductors, sides, strict=True):
                    side.close()
                    conductor.observer.launch_over(side.tick(whole=True))

    def _conduct(self, sides: Sequence[TurnLaunch], index: int) -> Ended | None:
        taking = Taking(
            sides,
            self._order,
            self._interrupt,
            partial(self._so_far, index),
        )
        try:
            for number, side in enumerate(sides):
                if not index and number == 1:
                    self._room.after_the_first(sides[0].record, available_bytes())
                if index or number:  # those of the first launch import at first
                    self._ahead.start(wanted=index + 1 < self._rules.most_launches)
                self._step(side, partial(side.come_up, self._job(number)))
            self._ahead.stop()
            if self._turned is None:
                self._turned = taking.try_out()
            stopped = taking.run(self._turned, self._rules)
            if stopped != "interrupted" and index < MOST_METERED:
                begin = partial(self._follow, index, "metering", taking.recorded.frozen(sides))
                pairs = pairs_of(self._rules.least_launches)
                Metering(sides, self._order, self._interrupt).run(pairs, begin)
            if self._interrupt.requested:
                return self._broken(sides, None)
            for side in sides:
                self._step(side, partial(side.close_window, stopped))
                self._step(side, partial(side.finish, verify=index == 0))
        except SideFailed as failed:
            return self._broken(sides, failed.side)
        finally:
            if taking.recorded.count:
                self._launches.append(taking.recorded.frozen(sides))
        return None

    def _step(self, side: TurnLaunch, step: Callable[[], None]) -> None:
        if not side.attempt(step):
            raise SideFailed(side)

    def _job(self, number: int) -> Job:
        conductor = self._conductors[number]
        turns = Turns(conductor.placement.threads, self._cpus or ())
        job = conductor.job(self._prepared[number])
        return msgspec.structs.replace(job, load="turns", turns=turns)

    def _broken(self, sides: Sequence[TurnLaunch], failed: TurnLaunch | None) -> Ended:
        """End a launch early: of one that failed the others keep what they have."""
        error = failed.record.error if failed is not None else None
        interrupted = self._interrupt.requested and (error is None or error.kind == "interrupted")
        if interrupted:
            for side in sides:
                side.break_off("interrupted", f"interrupted while {side.doing}")
            return "interrupted"
        name = self._names[list(sides).index(failed)] if failed is not None else ""
        self._problem = f"{name}: {error.message if error else 'it failed'}"
        for side in sides:
            if side is not failed:
                side.break_off("other side failed", f"the duel ended: {self._problem}")
        return "failed"

    # -- what it is told and leaves -------------------------------------------------------------

    def _follow(self, index: int, phase: str, current: Rounds | None = None) -> None:
        standing = Standing(
            names=self._names,
            launch=index,
            rules=self._rules,
            launches=(*self._launches, *([current] if current is not None else [])),
            phase=phase,
        )
        self._tell(self.folder.path, standing)

    def _so_far(self, index: int, current: Rounds) -> None:
        """Between two turns; now and then what a kill of this process would leave is written."""
        self._follow(index, "taking turns", current)
        enough = len(current.latency[0]) >= MIN_ROUNDS
        if enough and time.monotonic() - self._written_s >= WRITE_EVERY_S:
            self._write("going on", current)

    def _record(self, ended: Ended, *current: Rounds) -> Paired:
        turned = self._turned or Turned(0, 0)
        design = Design(
            block_ms=turned.block_ns / 1e6,
            left_out=turned.left_out,
            seed=self._seed,
            goal=self._rules.goal,
            cpus=self._cpus or (),
        )
        runs = [conductor.folder.id for conductor in self._conductors]
        launches = [*self._launches, *current]
        return paired(self._names, runs, design, launches, ended, self._problem)

    def _write(self, ended: Ended, *current: Rounds) -> None:
        """What is known so far, so that a kill leaves it."""
        self._written_s = time.monotonic()
        found = of_duel(self._record(ended, *current), ())
        write_atomically(self.folder.path / COMPARISON_NAME, _encoded(found))

    def _refuse_what_never_began(self) -> None:
        """No runtime or no such device: an error of the command line's, and not a failed run."""
        if self._launches:
            return
        for name, conductor in zip(self._names, self._conductors, strict=True):
            first = conductor.evidence.launches[0]
            if isinstance(first.raised, BackendUnavailable) and not first.memory:
                self._leave_nothing()
                with self._named(name):
                    raise first.raised

    def _leave_nothing(self) -> None:
        for one in self._conductors:
            one.observer.let_go()
            one.journal.close()
        shutil.rmtree(self.folder.path, ignore_errors=True)

    def _finish(self, ended: Ended) -> DuelOutcome:
        runs = tuple(conductor.finish() for conductor in self._conductors)
        found = with_energy(
            self._record(ended),
            [stretch_energies(one.evidence) for one in self._conductors],
            [run.result for run in runs],
        )
        comparison = of_duel(found, [run.result for run in runs])
        write_atomically(self.folder.path / COMPARISON_NAME, _encoded(comparison))
        codes = {run.exit_code for run in runs} - {0, INTERRUPTED_EXIT}
        code = min(codes, default=0)
        if ended == "interrupted" or self._interrupt.requested:
            code = INTERRUPTED_EXIT
        elif ended == "failed":
            code = MeasurementFailed.exit_code
        return DuelOutcome(
            folder=self.folder.path,
            paired=found,
            comparison=comparison,
            runs=runs,
            launches=tuple(self._launches),
            exit_code=code,
            problems=tuple(dict.fromkeys(text for run in runs for text in run.problems)),
        )


def _processors(specs: Sequence[RunSpec]) -> tuple[int, ...] | None:
    """Where all variants run: what the user named, else a physical core a thread."""
    named = specs[0].cpus
    if named is not None:
        return named
    threads = max(place(spec).threads for spec in specs)
    cores = one_cpu_a_core()
    return cores[-threads:] if threads <= len(cores) else usable_cpus()


def _encoded(record: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
