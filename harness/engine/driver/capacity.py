"""``harness capacity``: the highest rate that holds bounds, from one closed loop and a few probes.

results/...-capacity-digits-.../
    capacity.json      harness.capacity/1: the answer, every probe, the curve, the prediction
    ...-fp32-...       the closed loop, whose result has the answer (`capacity`)
    ...                a server run a probe, and one a point of the curve below the answer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from harness.analysis.capacity import (
    Answer,
    Floats,
    Probe,
    System,
    answer,
    bound_of,
    held,
    isotonic,
    quantile_of,
    search,
)
from harness.analysis.serving import in_order_of_arrival
from harness.engine import driver
from harness.engine.driver.conductor import INTERRUPTED_EXIT, Outcome, short
from harness.engine.driver.sinks import Sink
from harness.errors import MeasurementFailed, UsageError
from harness.host.files import write_atomically
from harness.maybe import Maybe, Unavailable
from harness.records.capacity import (
    CAPACITY_NAME,
    NOT_KEPT,
    CapacityFound,
    Held,
    Measured,
    Monotone,
    Predicted,
)
from harness.records.result import Capacity, Energy, Result, Spread
from harness.records.samples import read_samples
from harness.records.store import RunFolder
from harness.spec import RunSpec

PROBE_S = 5.0
_CURVE = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05)  # of the answer, predicted
_OF_GENERATOR = 0.1  # of a bound: lateness beyond it is what limits


class CapacityOutcome(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path
    found: CapacityFound
    base: Result
    exit_code: int
    problems: tuple[str, ...] = ()


Sinks = Callable[[Path, RunSpec], Sequence[Sink]]
Follow = Callable[[Path, CapacityFound], None]


def capacity(
    spec: RunSpec,
    most: int,
    sinks: Sinks = lambda folder, spec: (),
    follow: Follow = lambda folder, found: None,
    points: int = 0,
) -> CapacityOutcome:
    """Find it for ``spec``, a server run with bounds, in ``most`` probes at most; then measure
    ``points`` of the curve below it.

    Raises a `HarnessError` for what is wrong, and `MeasurementFailed` where no rate holds a bound.
    """
    _refuse(spec)
    folder = RunFolder.create(spec.out, ("capacity", short(spec.model)))
    try:
        return _Search(spec, most, folder, sinks, follow).execute(points)
    finally:
        if not any(folder.path.iterdir()):
            folder.discard()


def _refuse(spec: RunSpec) -> None:
    if not spec.latency_bound:
        raise UsageError("which bound shall hold?", "give --latency-bound, such as p99=10ms")
    if spec.trace is not None:
        raise UsageError(
            f"--arrivals {spec.arrivals} has a rate of its own",
            "give poisson, constant or gamma:CV",
        )
    if spec.batching is not None:
        raise UsageError(
            f"--batching {spec.batching}: capacity predicts from single inferences", "leave it out"
        )


class _Search:
    def __init__(
        self, spec: RunSpec, most: int, folder: RunFolder, sinks: Sinks, follow: Follow
    ) -> None:
        tags = {**spec.tags, "capacity": folder.id}
        self._spec = msgspec.structs.replace(spec, out=str(folder.path), tags=tags, rate=None)
        self._bounds = [bound_of(text) for text in spec.latency_bound or ()]
        self._most, self._folder, self._sinks, self._follow = most, folder, sinks, follow
        self._seconds = spec.duration_s or PROBE_S
        self._probes: list[Measured] = []
        self._points: list[Measured] = []
        self._problems: list[str] = []
        self._exit_code = 0
        self._system: System

    def execute(self, points: int) -> CapacityOutcome:
        base = self._closed_loop()
        self._system = System(
            _services_s(base), self._spec.concurrency, self._spec.arrivals or "", self._spec.seed
        )
        predicted = [answer(self._system, one, i, []) for i, one in enumerate(self._bounds)]
        self._possible(predicted)
        first = min(one.per_s for one in predicted)
        _, answers = search(
            self._system, self._bounds, self._probe, self._most,
            lambda answers: self._write("going on", answers, first),
        )  # fmt: skip
        best, most = min(one.per_s for one in answers), len(self._probes) >= self._most
        for index in range(points):
            if self._exit_code or not self._point(best * (index + 1) / (points + 1)):
                break
            self._write("going on", answers, first)
        ended = {0: "known", INTERRUPTED_EXIT: "interrupted"}.get(self._exit_code, "failed")
        if not self._exit_code and most:
            ended = "most probes"
        found = self._write(ended, answers, first)
        result = msgspec.structs.replace(base.result, capacity=found.capacity)
        RunFolder(base.folder).write_result(result)
        return CapacityOutcome(
            folder=self._folder.path, found=found, base=result, exit_code=self._exit_code,
            problems=tuple(dict.fromkeys(self._problems)),
        )  # fmt: skip

    def _closed_loop(self) -> Outcome:
        several = self._spec.concurrency > 1
        base = msgspec.structs.replace(
            self._spec, scenario="throughput" if several else "latency", duration_s=self._seconds
        )
        outcome = self._run(base)
        if outcome.exit_code or isinstance(outcome.result.timing, Unavailable):
            error = outcome.result.error
            raise MeasurementFailed(
                f"the closed loop before the probes: {error.message if error else 'it failed'}",
                error.remedy if error else "",
            )
        return outcome

    def _run(self, spec: RunSpec) -> Outcome:
        outcome = driver.run(spec, lambda folder: self._sinks(folder, spec))
        self._problems += outcome.problems
        return outcome

    def _possible(self, predicted: Sequence[Answer]) -> None:
        """Raises `MeasurementFailed` for a bound that no rate holds."""
        for bound, one in zip(self._bounds, predicted, strict=True):
            if one.per_s <= 0:
                alone = float((self._system.services_s * 1e3 > bound.limit_ms).mean())
                raise MeasurementFailed(
                    f"--latency-bound {bound.text} holds at no rate: {alone:.1%} of the inferences "
                    f"take longer by themselves, and {bound.allowed:.3g} may",
                    "raise the bound",
                )

    def _probe(self, rate: float) -> Probe | None:
        rate = _plain(rate)
        outcome = self._served(rate, "a probe")
        if outcome is None:
            return None
        measured = self._measured(outcome, rate)
        self._probes.append(measured)
        return _as_probe(outcome, measured.held)

    def _point(self, rate: float) -> bool:
        rate = _plain(rate)
        outcome = self._served(rate, "a point of the curve")
        self._points += [] if outcome is None else [self._measured(outcome, rate)]
        return outcome is not None

    def _measured(self, outcome: Outcome, rate: float) -> Measured:
        return _measured(outcome, rate, self._system.at(rate, 1.0, self._seconds))

    def _served(self, rate: float, what: str) -> Outcome | None:
        """One server run; None where it came to nothing, which then has set the exit code."""
        spec = msgspec.structs.replace(
            self._spec, scenario="server", rate=rate, duration_s=self._seconds, launches=1,
            iterations=None,
        )  # fmt: skip
        outcome = self._run(spec)
        if outcome.exit_code or isinstance(outcome.result.serving, Unavailable):
            self._exit_code = outcome.exit_code or MeasurementFailed.exit_code
            error = outcome.result.error
            self._problems += [f"{what} at {rate:.4g} /s: {error.message}"] if error else []
            return None
        return outcome

    def _write(self, ended: str, answers: Sequence[Answer], predicted: float) -> CapacityFound:
        """What is known so far, so that a kill leaves it."""
        tightest = min(answers, key=lambda one: one.per_s)
        found = CapacityFound(
            id=self._folder.id, ended=ended, spec=self._spec,
            capacity=Capacity(
                per_s=tightest.per_s, ci95=tightest.interval,
                bounds=tuple(one.text for one in self._bounds), limited_by=tightest.bound,
                predicted_per_s=predicted, probes=len(self._probes),
            ),
            limit=self._limit(tightest), scale=tightest.scale,
            saturation_per_s=tightest.scale * self._system.saturation_per_s,
            probes=tuple(self._probes),
            predicted=tuple(_predicted(self._system, tightest.per_s * of) for of in _CURVE
                            if tightest.per_s * of < self._system.saturation_per_s),
            monotone=tuple(_monotone(bound.text, i, self._probes)
                           for i, bound in enumerate(self._bounds)),
            curve=tuple(self._points),
        )  # fmt: skip
        write_atomically(self._folder.path / CAPACITY_NAME, msgspec.json.encode(found))
        self._follow(self._folder.path, found)
        return found

    def _limit(self, tightest: Answer) -> str:
        bound = bound_of(tightest.bound)
        late = [one.lateness_ms for one in self._probes]
        known = [one for one in late if not isinstance(one, Unavailable)]
        if known and float(np.median(known)) > _OF_GENERATOR * bound.limit_ms:
            return f"{bound.text}, and starts that were late by themselves on this machine"
        if tightest.per_s >= 0.98 * tightest.scale * self._system.saturation_per_s:
            return f"saturation: every server is busy before {bound.text} is reached"
        return bound.text


def _services_s(base: Outcome) -> Floats:
    samples = read_samples(base.folder)
    found: Floats = samples.latency_ns[samples.timed == 1] / 1e9
    return found


def _measured(outcome: Outcome, rate: float, predicted_s: Floats) -> Measured:
    """``predicted_s``: what the service times say of the latencies on its schedule."""
    result, samples = outcome.result, read_samples(outcome.folder)
    serving, timing = result.serving, result.timing
    assert not isinstance(serving, Unavailable) and not isinstance(timing, Unavailable)
    assert samples.due_ns is not None
    timed = samples.timed == 1
    rows = {"due": samples.due_ns[timed], "end": samples.end_ns[timed]}
    latencies_ms = in_order_of_arrival([[rows]])
    late = serving.lateness_ms
    ci95 = timing.latency_ms.ci95
    come = len(predicted_s) > 0
    return Measured(
        run=result.id, rate_per_s=rate, p50_ms=timing.latency_ms.median,
        p99_ms=timing.latency_ms.p99, utilization=serving.utilization,
        joules_per_request=_joules(result.energy),
        lateness_ms=late if isinstance(late, Unavailable) else late.median,
        stationary=serving.stationary,
        held=tuple(held(bound_of(one), latencies_ms, stationary=serving.stationary)
                   for one in result.spec.latency_bound or ()),
        net_joules_per_request=_joules(result.energy, net=True),
        p50_ci95_ms=ci95.get("median", NOT_KEPT), p99_ci95_ms=ci95.get("p99", NOT_KEPT),
        predicted_p50_ms=quantile_of(predicted_s, 0.5) * 1e3 if come else NOT_KEPT,
        predicted_p99_ms=quantile_of(predicted_s, 0.99) * 1e3 if come else NOT_KEPT,
    )  # fmt: skip


def _joules(energy: Maybe[Energy], *, net: bool = False) -> Maybe[float]:
    if isinstance(energy, Unavailable):
        return energy
    found: Maybe[Spread] = energy.joules_per_inference
    if net and not isinstance(found, Unavailable):
        found = energy.sources[energy.primary].net_j_per_inference
    return found if isinstance(found, Unavailable) else found.value


def _plain(rate: float) -> float:
    """Four digits: one that a person could give, and read in the names of its runs."""
    return float(f"{rate:.4g}")


def _as_probe(outcome: Outcome, seen: tuple[Held, ...]) -> Probe:
    """The requests of the schedule, those before the window included: they led to its queue."""
    samples = read_samples(outcome.folder)
    assert samples.due_ns is not None
    timed = samples.timed == 1
    # of the warm-up, an inference was due when it started
    rows = np.flatnonzero(timed | (samples.due_ns < samples.start_ns))
    rows = rows[np.argsort(samples.due_ns[rows], kind="stable")]
    inside = np.flatnonzero(timed[rows])
    rows = rows[: inside[-1] + 1]  # without the guard band's
    due_s = (samples.due_ns[rows] - samples.due_ns[rows[0]]) / 1e9
    services_s = (samples.end_ns[rows] - samples.start_ns[rows]) / 1e9
    return Probe(seen, due_s, services_s, int(inside[0]))


def _predicted(system: System, rate: float) -> Predicted:
    times = system.at(rate, 1.0, None)
    return Predicted(
        rate_per_s=rate,
        p50_ms=quantile_of(times, 0.5) * 1e3,
        p99_ms=quantile_of(times, 0.99) * 1e3,
        utilization=rate / system.saturation_per_s,
    )  # fmt: skip


def _monotone(bound: str, index: int, probes: Sequence[Measured]) -> Monotone:
    ordered = sorted(probes, key=lambda one: one.rate_per_s)
    late = isotonic(
        [one.held[index].late for one in ordered], [one.held[index].effective for one in ordered]
    )
    return Monotone(bound=bound, rate_per_s=tuple(o.rate_per_s for o in ordered), late=tuple(late))
