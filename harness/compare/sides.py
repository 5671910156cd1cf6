"""What one run, or all runs of one cell, have to say of a metric: its figures, value and interval.

figures    one per launch; one in all where measuring does not change it (file size, accuracy)
value      of a run as its result states it, absent where it is absent there; of several runs the
           median of the figures
interval   95 %, of one run; runs are pooled by `harness.stats.two_samples`, which has its own
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from harness.compare.match import FINISHED, Side, group
from harness.maybe import Maybe, Unavailable
from harness.records.figures import all_figures, interval, value
from harness.records.metric import COMPARED, METRICS, Metric
from harness.records.result import Result

_POOLED = Unavailable("several runs are pooled", "harness compare gives intervals between sets")


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
