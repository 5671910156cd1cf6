"""Where each metric's figures lie in a result: one of the whole run, and one per launch.

value     what a run says, on every page and in every file; of several runs the median of theirs
          launches
interval  95 %, of one run's value
figures   one per launch, for tests between launches; a run without a figure of its own has none,
          since the launches that do have one are not the run
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from harness.maybe import Maybe, Unavailable
from harness.records.lookup import NOT_MEASURED, lookup
from harness.records.metric import FIGURES, METRICS, Metric
from harness.records.result import NOT_KEPT, Launch, Result, Spread

_WHOLE_RUN = ("exact", "paired")  # rules of metrics that a launch does not repeat
_UNFINISHED = ("interrupted", "failed")


def value(runs: Sequence[Result], metric: str) -> Maybe[float]:
    """The figure of one run as it states it; of several, the median of `all_figures`."""
    if len(runs) == 1:
        return single(runs[0], metric)
    found = all_figures(runs, metric)
    return found if isinstance(found, Unavailable) else statistics.median(found)


def all_figures(runs: Sequence[Result], metric: str) -> Maybe[tuple[float, ...]]:
    """The finite ones of `figures`; of what measuring does not change, the newest run's alone.

    Files of before there was a figure per launch have one per run. ``runs``: oldest first.
    """
    if METRICS[metric].rule in _WHOLE_RUN:
        return _of_whole_runs(runs[-1:], metric)
    found = figures(runs, metric)
    if isinstance(found, Unavailable):
        return _of_whole_runs(runs, metric)
    finite = tuple(one for one in found if math.isfinite(one))
    return finite or Unavailable(f"{metric} is no finite number", "measure again")


def figures(results: Iterable[Result], metric: str) -> Maybe[tuple[float, ...]]:
    """Every launch's figure, over all ``results``; why there is none where no launch has one.

    A launch that was cut short has none, and one that lacks this metric is left out, as are all of
    a run that has none as a whole.
    """
    found = [one for result in results for one in _of_launches(result, metric)]
    known = tuple(float(one) for one in found if not isinstance(one, Unavailable))
    if known:
        return known
    absent = [one for one in found if isinstance(one, Unavailable)]
    return absent[-1] if absent else Unavailable("no launch reached its end", "measure again")


def single(result: Result, name: str) -> Maybe[float]:
    """The figure of the whole run; also of what is shown and not judged."""
    return of_run(result, FIGURES[name])


def of_run(run: Any, metric: Metric) -> Maybe[float]:
    """The figure of ``run``, which has a Result's fields at the places of ``metric`` at least."""
    found = _first(run, metric.of_run) if metric.of_run else _median_of_launches(run, metric)
    if found is NOT_MEASURED and metric.because:
        why = lookup(run, metric.because)
        return why if isinstance(why, Unavailable) else found
    if isinstance(found, Unavailable):
        return found
    number = float(found)
    return number if math.isfinite(number) else Unavailable(f"{metric.name} is {number:g}")


def interval(result: Result, name: str) -> Maybe[tuple[float, float]]:
    """The 95 % interval of the run's own figure, in the metric's unit."""
    path = FIGURES[name].interval
    found = lookup(result, path) if path else NOT_KEPT
    if isinstance(found, Spread):  # twice a standard uncertainty covers about 95 %
        return found.value - 2 * found.comparative, found.value + 2 * found.comparative
    bounds: Maybe[tuple[float, float]] = found
    return bounds


def _first(run: Any, paths: Sequence[str]) -> Any:
    """What stands at the first place that has a figure; else the reason of the first of all."""
    if len(paths) == 1:
        return lookup(run, paths[0])
    found = [lookup(run, path) for path in paths]
    return next((one for one in found if not isinstance(one, Unavailable)), found[0])


def _median_of_launches(run: Any, metric: Metric) -> Maybe[float]:
    """Of what each process does once."""
    launches = lookup(run, "timing.launches")
    if isinstance(launches, Unavailable):
        return launches
    found = [getattr(launch, metric.of_launch) for launch in launches]
    known = [one for one in found if one is not None and not isinstance(one, Unavailable)]
    return statistics.median(known) if known else NOT_KEPT


def _of_whole_runs(runs: Iterable[Result], metric: str) -> Maybe[tuple[float, ...]]:
    found = [single(run, metric) for run in runs]
    known = tuple(one for one in found if not isinstance(one, Unavailable))
    absent = [one for one in found if isinstance(one, Unavailable)]
    return known or absent[-1]


def _of_launches(result: Result, metric: str) -> list[Maybe[float]]:
    if isinstance(result.timing, Unavailable):
        return []
    launches = [one for one in result.timing.launches if one.stop_reason not in _UNFINISHED]
    whole = single(result, metric) if launches else NOT_KEPT
    if isinstance(whole, Unavailable):
        return [whole] if launches else []
    return [_figure(result, launch, metric) for launch in launches]


def _figure(result: Result, launch: Launch, metric: str) -> Maybe[float]:
    field = METRICS[metric].of_launch
    found: Maybe[float] = getattr(launch, field) if field else NOT_KEPT
    if metric == "throughput" and found == NOT_KEPT:
        return _rate_before(result, launch)
    return found


def _rate_before(result: Result, launch: Launch) -> Maybe[float]:
    """Files of before a launch said its rate: known of a single launch, or of a single stream,
    whose iterations fill the window."""
    if not isinstance(result.timing, Unavailable) and len(result.timing.launches) == 1:
        return single(result, "throughput")
    if result.spec.concurrency > 1 or launch.window_s <= 0:
        return NOT_KEPT
    return launch.iterations * result.spec.batch_size / launch.window_s
