"""Where each metric's figures lie in a result: one per launch, and one of the whole run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from harness.analysis.metrics import METRICS
from harness.maybe import Maybe, Unavailable
from harness.records.lookup import lookup
from harness.records.result import NOT_KEPT, Launch, Result

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
}
_OF_THE_RUN = {
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
    "f1": "accuracy.macro_f1",
}


def figures(results: Iterable[Result], metric: str) -> Maybe[tuple[float, ...]]:
    """Every launch's figure, over all ``results``; why there is none where no launch has one.

    A launch that was cut short has none, and one that lacks this metric is left out.
    """
    found = [_figure(result, launch, metric) for result in results for launch in _launches(result)]
    known = tuple(float(one) for one in found if not isinstance(one, Unavailable))
    if known:
        return known
    absent = [one for one in found if isinstance(one, Unavailable)]
    return absent[-1] if absent else Unavailable("no launch reached its end", "measure again")


def single(result: Result, metric: str) -> Maybe[float]:
    """The figure of the whole run."""
    path = _OF_THE_RUN.get(metric)
    found = NOT_KEPT if path is None else lookup(result, path)
    if isinstance(found, Unavailable):
        return found
    value = float(found)
    return value if math.isfinite(value) else Unavailable(f"{METRICS[metric].name} is {value:g}")


def _launches(result: Result) -> tuple[Launch, ...]:
    if isinstance(result.timing, Unavailable):
        return ()
    launches = result.timing.launches
    return tuple(launch for launch in launches if launch.stop_reason not in _UNFINISHED)


def _figure(result: Result, launch: Launch, metric: str) -> Maybe[float]:
    if metric == "throughput":
        if launch.window_s <= 0:
            return Unavailable("the window has no length", "measure again")
        return launch.iterations * result.spec.batch_size / launch.window_s
    read = _PER_LAUNCH.get(metric)
    return NOT_KEPT if read is None else read(launch)
