"""One side of a comparison: the runs of a cell on a machine, and what they have to say of a metric.

figures    one per launch; one in all where measuring does not change it (file size, accuracy)
value      of a run as its result states it, absent where it is absent there; of several runs the
           median of the figures
interval   95 %, of one run; runs are pooled by `harness.stats.two_samples`, which has its own

A sweep leaves one result per launch and ``harness run --launches K`` one of K launches: both pool,
since the launch is what is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.records.cell import cell_of
from harness.records.figures import all_figures, interval, value
from harness.records.metric import COMPARED, METRICS, Metric
from harness.records.result import Result

FINISHED = ("complete", "degraded")
NIGHT_S = 6 * 3600.0  # sides that lie farther apart than this were measured in different nights
_POOLED = Unavailable("several runs are pooled", "harness compare gives intervals between sets")


class Side(msgspec.Struct, frozen=True):
    """The runs of one cell on one machine. ``failed`` were interrupted or have an error."""

    finished: tuple[Result, ...] = ()
    failed: tuple[Result, ...] = ()

    @property
    def first(self) -> Result:
        """The run that speaks for the side's conditions: of one cell they are all alike."""
        return (self.finished or self.failed)[0]


Group = dict[tuple[str, str], Side]  # (cell key, machine fingerprint)


def group(results: Iterable[Result]) -> Group:
    """Runs by cell and machine, oldest first.

    A run that died before its machine was known in full joins the others of its cell.
    """
    found: dict[tuple[str, str], list[Result]] = {}
    for result in sorted(results, key=lambda one: (one.started_at, one.id)):
        key = (cell_of(result).key, result.machine.fingerprint)
        found.setdefault(key, []).append(result)
    sides = {key: _side(runs) for key, runs in found.items()}
    for key in [key for key, side in sides.items() if not side.finished]:
        alike = [other for other in sides if other[0] == key[0] and sides[other].finished]
        if len(alike) == 1:
            host, lost = sides[alike[0]], sides.pop(key)
            sides[alike[0]] = Side(host.finished, host.failed + lost.failed)
    return sides


def _side(runs: Sequence[Result]) -> Side:
    finished: dict[object, Result] = {}
    for run in runs:
        if run.status in FINISHED and not isinstance(run.timing, Unavailable):
            finished.setdefault(attempt(run), run)  # the first that finished counts
    failed = tuple(run for run in runs if run.status not in FINISHED)
    return Side(tuple(finished.values()), failed)


def attempt(run: Result) -> object:
    """The same for two runs that must not both count: one file twice, or one launch of a sweep.

    Every cell of a sweep has a launch 1, so the cell is a part of it.
    """
    sweep, launch = run.tags.get("sweep"), run.tags.get("launch")
    if sweep and launch:
        return sweep, launch, cell_of(run).key
    medians = () if isinstance(run.timing, Unavailable) else run.timing.launches
    return run.id, tuple(launch.median_ms for launch in medians)


def same_night(a: Side, b: Side) -> bool:
    """Measured in one sweep, or with at most six hours between the two."""
    sweeps = [{run.tags.get("sweep") for run in side.finished} for side in (a, b)]
    if (sweeps[0] & sweeps[1]) - {None}:
        return True
    (start_a, end_a), (start_b, end_b) = _span(a), _span(b)
    return max(start_a, start_b) - min(end_a, end_b) <= NIGHT_S


def _span(side: Side) -> tuple[float, float]:
    """From the first start to the last end, in seconds of wall time."""
    starts = [_seconds(run.started_at) for run in side.finished]
    ends = [start + run.duration_s for start, run in zip(starts, side.finished, strict=True)]
    return min(starts), max(ends)


def _seconds(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:  # a file from elsewhere
        return 0.0


def doubts(side: Side) -> str:
    """``2 of 5 runs degraded (cpu steal)``; empty where every run is complete."""
    degraded = [run for run in side.finished if run.status == "degraded"]
    if not degraded:
        return ""
    checks = [check.name for run in degraded for check in run.validity if check.verdict == "warn"]
    causes = ", ".join(dict.fromkeys(checks)) or "no check says why"
    many = len(side.finished) > 1
    return f"{f'{len(degraded)} of {len(side.finished)} runs ' if many else ''}degraded ({causes})"


def failure(failed: Sequence[Result]) -> str:
    if not failed:
        return "holds no figures"
    run = failed[-1]
    why = f": {run.error.message}" if run.error else ""
    return f"{run.status}{why} ({run.id})"


def hardware_name(run: Result) -> str:
    """What a person calls the machine: its accelerator if one was used, else its processor."""
    factors = run.machine.factors
    gpu = next((v for k, v in factors.items() if k.startswith("gpu") and "name" in k), "")
    return gpu if gpu and run.spec.device != "cpu" else factors.get("cpu", "unknown hardware")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, of one run or of a cell. All in the metric's unit."""

    metric: Metric
    figures: Maybe[tuple[float, ...]]
    value: Maybe[float]
    interval: Maybe[tuple[float, float]]


def sides_of(results: Iterable[Result]) -> list[Side]:
    """Each cell on each machine; a run that claims to have finished without timing has failed."""
    return list(group(_honest(result) for result in results).values())


def _honest(run: Result) -> Result:
    if run.status in FINISHED and isinstance(run.timing, Unavailable):
        return msgspec.structs.replace(run, status="failed")
    return run


def measured(runs: Sequence[Result], name: str) -> Measured:
    """The metric called ``name`` over ``runs``, which are of one cell and machine, oldest first."""
    return Measured(
        metric=METRICS[name],
        figures=all_figures(runs, name),
        value=value(runs, name),
        interval=interval(runs[0], name) if len(runs) == 1 else _POOLED,
    )


def metrics_of(run: Result) -> tuple[str, ...]:
    """What is worth stating of such a run: on a CPU nothing of a device."""
    return tuple(name for name in COMPARED if _worth_stating(METRICS[name], run))


def _worth_stating(metric: Metric, run: Result) -> bool:
    if metric.device_only and run.spec.device == "cpu":
        return False
    return not (metric.asked_only and isinstance(value([run], metric.name), Unavailable))
