"""Where each metric's figures lie in a result: one of the whole run, and one per launch.

value     what a run says, on every page and in every file; of several runs the median of theirs
          launches
figures   one per launch, for tests between launches; a run without a figure of its own has none,
          since the launches that do have one are not the run
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from harness.maybe import Maybe, Unavailable
from harness.records.lookup import lookup
from harness.records.metric import METRICS
from harness.records.primary import average_power_w
from harness.records.result import NOT_KEPT, Launch, Result

_WHOLE_RUN = ("exact", "paired")  # rules of metrics that a launch does not repeat
_UNFINISHED = ("interrupted", "failed")

_PER_LAUNCH: dict[str, Callable[[Launch], Maybe[float]]] = {
    "latency_median": lambda launch: launch.median_ms,
    "latency_mean": lambda launch: launch.mean_ms,
    "latency_p90": lambda launch: launch.p90_ms,
    "latency_p95": lambda launch: launch.p95_ms,
    "latency_p99": lambda launch: launch.p99_ms,
    "device_median": lambda launch: launch.device_median_ms,
    "energy_per_inference": lambda launch: launch.joules_per_inference,
    "power_average": lambda launch: launch.average_power_w,
    "memory_peak": lambda launch: launch.memory_peak_bytes,
    "device_memory_peak": lambda launch: launch.device_memory_peak_bytes,
    "first_inference": lambda launch: launch.first_inference_ms,
    "load": lambda launch: launch.load_s,
    "throughput": lambda launch: launch.inferences_per_s,
}
_PATHS = {
    "latency_median": "timing.latency_ms.median",
    "latency_mean": "timing.latency_ms.mean",
    "latency_p90": "timing.latency_ms.p90",
    "latency_p95": "timing.latency_ms.p95",
    "latency_p99": "timing.latency_ms.p99",
    "latency_p99_9": "timing.latency_ms.p99_9",
    "device_median": "timing.device_ms.median",
    "throughput": "throughput.inferences_per_s",
    "energy_per_inference": "energy.joules_per_inference.value",
    "memory_peak": "memory.window_peak_bytes",
    "file_size": "precision.file_size_bytes",
    "top1": "accuracy.top1",
    "f1": "accuracy.macro_f1",  # shown beside top1, and no metric that is judged
}


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


def single(result: Result, metric: str) -> Maybe[float]:
    """The figure of the whole run."""
    found = _OF_THE_RUN[metric](result) if metric in _OF_THE_RUN else lookup(result, _PATHS[metric])
    if isinstance(found, Unavailable):
        return found
    number = float(found)
    return number if math.isfinite(number) else Unavailable(f"{metric} is {number:g}")


def _of_whole_runs(runs: Iterable[Result], metric: str) -> Maybe[tuple[float, ...]]:
    found = [single(run, metric) for run in runs]
    known = tuple(one for one in found if not isinstance(one, Unavailable))
    absent = [one for one in found if isinstance(one, Unavailable)]
    return known or absent[-1]


def _average_power(result: Result) -> Maybe[float]:
    energy = result.energy
    return energy if isinstance(energy, Unavailable) else average_power_w(energy)


def _device_memory(result: Result) -> Maybe[float]:
    """The allocator's peak; where there is none, what the process held at the window's end."""
    peak = lookup(result, "memory.device.allocator_peak_bytes")
    held = lookup(result, "memory.device.process_bytes")
    found: Maybe[float] = (
        held if isinstance(peak, Unavailable) and not isinstance(held, Unavailable) else peak
    )
    return found


def _median_of_launches(metric: str) -> Callable[[Result], Maybe[float]]:
    """Of what each process does once."""

    def read(result: Result) -> Maybe[float]:
        if isinstance(result.timing, Unavailable):
            return result.timing
        found = [_PER_LAUNCH[metric](launch) for launch in result.timing.launches]
        known = [one for one in found if not isinstance(one, Unavailable)]
        return statistics.median(known) if known else NOT_KEPT

    return read


_OF_THE_RUN: dict[str, Callable[[Result], Maybe[float]]] = {
    "power_average": _average_power,
    "device_memory_peak": _device_memory,
    "first_inference": _median_of_launches("first_inference"),
    "load": _median_of_launches("load"),
}


def _of_launches(result: Result, metric: str) -> list[Maybe[float]]:
    if isinstance(result.timing, Unavailable):
        return []
    launches = [one for one in result.timing.launches if one.stop_reason not in _UNFINISHED]
    whole = single(result, metric) if launches else NOT_KEPT
    if isinstance(whole, Unavailable):
        return [whole] if launches else []
    return [_figure(result, launch, metric) for launch in launches]


def _figure(result: Result, launch: Launch, metric: str) -> Maybe[float]:
    read = _PER_LAUNCH.get(metric)
    found = NOT_KEPT if read is None else read(launch)
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
