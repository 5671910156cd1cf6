"""From a RunSpec to a Result on disk, whatever happens to the workers on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from harness import machine, models, registry
from harness.engine.driver.homes import Home
from harness.engine.driver.journal import Begun, Ready, RunJournal
from harness.engine.driver.launch import Launch
from harness.engine.driver.observer import RunObserver
from harness.engine.driver.placement import booted, stand_aside
from harness.engine.driver.process import WorkerProcess
from harness.engine.driver.signals import Interrupt
from harness.engine.driver.sinks import Sink
from harness.engine.loads.load import Load
from harness.engine.outcome.evidence import Evidence, Placement
from harness.engine.wire.messages import Drawn, Job
from harness.errors import BackendUnavailable, HarnessError, MeasurementFailed, UsageError
from harness.host import scratch
from harness.maybe import Maybe, Unavailable, explain
from harness.models import Prepared
from harness.protocols import Artifact, SessionOptions
from harness.records.result import Result
from harness.records.store import RunFolder
from harness.spec import MODEL_SUFFIXES, RunSpec

INTERRUPTED_EXIT = 130
MOST_ITERATIONS = 1 << 62  # of a window that no count ends,
Sinks: TypeAlias = Callable[[Path], Sequence[Sink]]


class Outcome(msgspec.Struct, frozen=True):
    """A result, where it lies (see ``problems``), and what the process should exit with."""

    result: Result
    folder: Path
    exit_code: int
    missing: tuple[str, ...] = ()  # what --require named and is absent, each with its reason
    problems: tuple[str, ...] = ()  # what could not be saved or streamed, and why


class Conductor:
    """Conducts the launches of one run. See `harness.engine.driver.run`."""

    def __init__(
        self,
        spec: RunSpec,
        sinks: Sinks,
        placement: Placement,
        interrupt: Interrupt,
        home: Home | None = None,
    ) -> None:
        self.home = home
        self.spec = spec
        self._sinks = sinks
        self.placement = placement
        self.options = SessionOptions(
            device=spec.device,
            boundary=spec.boundary,
            threads=self.placement.threads,
            inter_threads=spec.inter_threads,
            options=spec.options,
        )
        backend = registry.backend(spec.backend)
        self.wanted = backend.wants(spec.conversion, self.options)
        self.interrupt = interrupt
        self.folder = RunFolder.create(spec.out, (short(spec.model), spec.backend, spec.precision))
        self.evidence = Evidence(
            spec=spec,
            id=self.folder.id,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            began_ns=time.perf_counter_ns(),
            placement=self.placement,
        )

        self._larger: tuple[tuple[Artifact, str], ...] = ()
        self.journal = RunJournal(self.folder.path)
        self.observer: RunObserver

    def execute(self, worker: WorkerProcess) -> Outcome:
        """Measure, with ``worker`` (booted already) for the first launch, and write the result."""
        prepared = self.prepare()
        self.interrupt.measuring = True
        with stand_aside(self.placement):
            for index in range(self.spec.launches):
                with worker if index == 0 else booted(self.spec, self.placement) as one:
                    if not self._launch(one, prepared, index):
                        break
        self.refuse_what_never_began()
        return self.finish()

    def discard(self) -> bool:
        """Leave nothing behind, unless something may have been measured: False."""
        if self.evidence.launches:
            return False
        self.journal.remove()
        self.folder.discard()
        return True

    def _begin(self) -> None:
        scratch.sweep()
        evidence = self.evidence
        self.journal.open()
        self.journal.append(
            Begun(
                id=evidence.id,
                started_at=evidence.started_at,
                began_ns=evidence.began_ns,
                spec=self.spec,
                placement=self.placement,
            )
        )

    def prepare(self) -> Prepared:
        """Begin, and make what the workers load. Raises `HarnessError`."""
        self._begin()
        self.observer = RunObserver(
            self.spec, self.folder, self._sinks(self.folder.path), self.journal, self.placement.rest
        )
        self.observer.preparing()
        if self.home is not None:
            self.observer.versions, self.observer.commit = self.home.versions, self.home.commit
        evidence = self.evidence
        prepared = evidence.prepared = models.prepare(self.spec, self.wanted)
        self._larger = self._prepare_larger()
        evidence.machine = machine.fingerprint(device=self.spec.device)
        self.journal.append(Ready(prepared=prepared, machine=evidence.machine))
        return prepared

    def _prepare_larger(self) -> tuple[tuple[Artifact, str], ...]:
        """The model at the batch sizes of ``--batching``. Raises `HarnessError`."""
        most, _ = self.spec.batch_rule or (1, 0.0)
        found = []
        for size in range(2, most + 1):
            spec = msgspec.structs.replace(self.spec, batch_size=size, dataset=None)
            try:
                made = models.prepare(spec, self.wanted)
            except HarnessError as error:
                raise UsageError(
                    f"--batching {self.spec.batching}: no batch of {size}: {error.message}",
                    error.remedy or "leave out --batching",
                ) from error
            found.append((made.artifact, made.inputs_path))
        return tuple(found)

    def refuse_what_never_began(self) -> None:
        """No runtime or no such device: an error of the command line's, and not a failed run."""
        first = self.evidence.launches[0]
        if isinstance(first.raised, BackendUnavailable) and not first.memory:
            self.journal.remove()
            self.folder.discard()
            raise first.raised

    def _launch(self, worker: WorkerProcess, prepared: Prepared, index: int) -> bool:
        """One launch. False when no other should follow."""
        launch = Launch(self.spec, worker, self.observer, self.interrupt, index)
        self.evidence.launches.append(launch.record)
        try:
            launch.run(self.job(prepared, index), verify=index == 0)
        finally:
            self.observer.launch_over(launch.tick(whole=True))
        return launch.record.error is None

    def job(self, prepared: Prepared, index: int = 0) -> Job:
        """What the worker of a launch is told."""
        load: Load = registry.load(self.spec.scenario)
        return Job(
            artifact=prepared.artifact,
            inputs_path=prepared.inputs_path,
            options=self.options,
            batch_size=self.spec.batch_size,
            load=self.spec.scenario,
            requests=load.requests(self.spec, index),
            larger=self._larger,
            # sessions of several batch sizes on a stream have no device time in common
            device_iterations=0 if self._larger else self.spec.iterations or MOST_ITERATIONS,
            reference=prepared.reference,
            evaluation_path=prepared.evaluation_path,
            evaluation_name=prepared.evaluation_name,
            evaluation_sha256=prepared.evaluation_sha256,
            drawn=None
            if prepared.drawn is None
            else Drawn(ranges=prepared.drawn, seed=self.spec.seed),
            scores=self.spec.scores,
            operators=self.spec.operators,
        )

    def finish(self) -> Outcome:
        """The result first, then its samples; what was journalled stays until both are there."""
        from harness.engine.driver.saving import Saving

        observer = self.observer
        observer.let_go()
        self.evidence.samplers, self.evidence.unsaved = observer.samplers, observer.unsaved
        self.evidence.installed = observer.installed
        saving = Saving(self.folder, self.evidence, self.journal, observer.trouble)
        try:
            result = saving.save()
        except MemoryError as error:
            raise MeasurementFailed(
                "there is not enough memory to make the result of so many iterations",
                f"they are kept: free some memory, then harness recover {self.folder.path}",
            ) from error
        absent = tuple(missing(self.spec, result))
        code = self._exit_code(result, absent) or saving.exit_code
        observer.close(result)
        result = saving.seal(result)
        return Outcome(result, self.folder.path, code, absent, tuple(observer.problems))

    def _exit_code(self, result: Result, absent: Sequence[str]) -> int:
        if result.status == "interrupted" or self.interrupt.requested:
            return INTERRUPTED_EXIT  # though all may have been measured by then
        if result.status == "failed":
            raised = next((r.raised for r in self.evidence.launches if r.raised), None)
            return (raised or MeasurementFailed("")).exit_code
        return MeasurementFailed.exit_code if absent else 0


def missing(spec: RunSpec, result: Result) -> list[str]:
    """What ``--require`` named and this result does not have, each with the reason."""
    absent: list[str] = []
    quantities: dict[str, Maybe[Any]] = {
        "energy": result.energy
        if isinstance(result.energy, Unavailable)
        else result.energy.joules_per_inference,
        "accuracy": result.accuracy,
        "memory": result.memory
        if isinstance(result.memory, Unavailable)
        else result.memory.window_peak_bytes,
    }
    for name in spec.require:
        if name == "interval":
            check = next((c for c in result.validity if c.name == "interval"), None)
            if check is None or check.verdict != "pass":
                absent.append(
                    f"--require interval: {check.reason if check else 'nothing was timed'}"
                )
        elif isinstance(value := quantities[name], Unavailable):
            absent.append(f"--require {name}: {explain(value)}")
    return absent


def short(model: str) -> str:
    """A model's name for a folder: of a path its stem, of a factory its last part."""
    name = model.replace("\\", "/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    for suffix in MODEL_SUFFIXES:
        name = name.removesuffix(suffix)
    return name
