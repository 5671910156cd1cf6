"""From a RunSpec to a Result on disk, whatever happens to the workers on the way."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import msgspec

from harness import machine, models, registry
from harness.engine.evidence import Evidence
from harness.engine.launch import Launch
from harness.engine.messages import Drawn, Job
from harness.engine.observer import RunObserver
from harness.engine.placement import Placement, booted, stand_aside
from harness.engine.process import WorkerProcess
from harness.engine.watch import Interrupt
from harness.errors import BackendUnavailable, MeasurementFailed, ResultError
from harness.maybe import Maybe, Unavailable, explain
from harness.models import Prepared
from harness.protocols import SessionOptions, Sink
from harness.records.result import Result
from harness.records.store import RunFolder
from harness.spec import RunSpec

INTERRUPTED_EXIT = 130
MOST_ITERATIONS = 1 << 62  # of a window that no count ends,
MOST_S = 86_400.0  # and of one that no time does
IMPATIENT_S = 5.0  # until then a further Ctrl-C is the same one
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

    def __init__(self, spec: RunSpec, sinks: Sinks, placement: Placement) -> None:
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
        self.format = backend.artifact_format(spec.precision, self.options)
        self.interrupt = Interrupt()
        self.folder = RunFolder.create(spec.out, (_short(spec.model), spec.backend, spec.precision))
        self.evidence = Evidence(
            spec=spec,
            id=self.folder.id,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            began_ns=time.perf_counter_ns(),
            placement=self.placement,
        )

    def execute(self, worker: WorkerProcess) -> Outcome:
        """Measure, with ``worker`` (booted already) for the first launch, and write the result."""
        observer = RunObserver(
            self.spec, self.folder, self._sinks(self.folder.path), self.placement.rest
        )
        observer.preparing()
        try:
            prepared = self.evidence.prepared = models.prepare(self.spec, self.format)
        except BaseException:
            self.folder.discard()
            raise
        self.evidence.machine = machine.fingerprint(device=self.spec.device)
        with _interruptible(self.interrupt), stand_aside(self.placement):
            for index in range(self.spec.launches):
                with worker if index == 0 else booted(self.spec, self.placement) as one:
                    if not self._launch(one, prepared, observer, index):
                        break
        self._refuse_what_never_began()
        return self._finish(observer)

    def _refuse_what_never_began(self) -> None:
        """No runtime or no such device: an error of the command line's, and not a failed run."""
        first = self.evidence.launches[0]
        if isinstance(first.raised, BackendUnavailable) and not first.memory:
            self.folder.discard()
            raise first.raised

    def _launch(
        self, worker: WorkerProcess, prepared: Prepared, observer: RunObserver, index: int
    ) -> bool:
        """One launch. False when no other should follow."""
        launch = Launch(self.spec, worker, observer, self.interrupt)
        self.evidence.launches.append(launch.record)
        try:
            launch.run(self._job(prepared), verify=index == 0)
        finally:
            observer.launch_over(launch)
        return launch.record.error is None

    def _job(self, prepared: Prepared) -> Job:
        return Job(
            artifact=prepared.artifact,
            inputs_path=prepared.inputs_path,
            options=self.options,
            batch_size=self.spec.batch_size,
            arm_iterations=self.spec.iterations or MOST_ITERATIONS,
            arm_s=min(self.spec.cap_s, MOST_S),
            reference=prepared.reference,
            evaluation_path=prepared.evaluation_path,
            evaluation_name=prepared.evaluation_name,
            evaluation_sha256=prepared.evaluation_sha256,
            drawn=None
            if prepared.drawn is None
            else Drawn(ranges=prepared.drawn, seed=self.spec.seed),
        )

    def _finish(self, observer: RunObserver) -> Outcome:
        from harness.engine.assemble import assemble

        self.evidence.samplers = observer.samplers
        self.evidence.files = {**observer.save_samples(), **self._events()}
        result = assemble(self.evidence)
        absent = tuple(missing(self.spec, result))
        code = self._exit_code(result, absent)
        try:
            self.folder.write_result(result)
        except ResultError as error:  # a full disk, say: whoever called still has the result
            observer.problems.append(str(error))
            code = code or error.exit_code
        observer.close(result)
        return Outcome(result, self.folder.path, code, absent, tuple(observer.problems))

    def _events(self) -> dict[str, str]:
        found = self.folder.path.glob("events.out.tfevents.*")
        return {path.name: "TensorBoard events" for path in found}

    def _exit_code(self, result: Result, absent: Sequence[str]) -> int:
        if result.status == "interrupted":
            return INTERRUPTED_EXIT
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


def _short(model: str) -> str:
    """A model's name for a folder: of a path its stem, of a factory its last part."""
    name = model.replace("\\", "/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    for suffix in (".onnx", ".pt2"):
        name = name.removesuffix(suffix)
    return name


@contextmanager
def _interruptible(interrupt: Interrupt) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a request, so that what was measured is written.

    A second one, a while later, is the ordinary KeyboardInterrupt. Off the main thread, signals
    stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first_s = [0.0]

    def request(signum: int, frame: FrameType | None) -> None:
        if not interrupt.requested:
            interrupt.requested, first_s[0] = True, time.monotonic()
        elif time.monotonic() - first_s[0] > IMPATIENT_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
