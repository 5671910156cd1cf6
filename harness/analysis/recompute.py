"""Every figure of a result once more, from the samples and series that lie beside it.

    samples.npz ── start and end of every iteration ──> timing, throughput    must be equal
    series.npz  ── readings of every sensor         ──> channels              must be equal
                                                    ──> energy by counters    within its uncertainty
    the result itself ── answers, sizes             ──> top-1, size ratio     must be equal

The same functions make them that made the result. What rests on something that a run does not keep
is listed with the reason, and never called checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.drift import diagnose
from harness.analysis.held import Figure, held, read, sane, unknown, without
from harness.analysis.latency import latency_stats
from harness.analysis.recompute_sensors import Readings, channels, energy
from harness.analysis.throughput import launch_rate, throughput
from harness.maybe import Maybe, Unavailable
from harness.records.result import Result
from harness.records.samples import Samples

Times = NDArray[np.int64]
Streams = list[tuple[Times, Times]]
_STATS = ("mean", "std", "min", "max", "median", "p90", "p95", "p99", "p99_9", "iqr", "mad")
_DIAGNOSIS = ("autocorrelation", "effective_samples", "outliers", "drift", "between_launch_cv")
_OF_A_LAUNCH = ("median", "mean", "p90", "p95", "p99")
_ONCE = {
    "first_inference_ms": "the worker timed it once",
    "load_s": "the worker timed it once",
    "compile_s": "the runtime's adapter timed it once",
    "cpu_ms": "the worker read its clock once",
    "yardstick_ms": "the worker timed it once",
    "device_median_ms": "the device's own times are not kept",
    "memory_peak_bytes": "it is the kernel's high-water mark, of which no series is kept",
    "device_memory_peak_bytes": "it is the allocator's own mark, of which no series is kept",
    "joules_per_inference": "the energy of all launches together is recomputed",
    "average_power_w": "the energy of all launches together is recomputed",
}
_NOT_KEPT = {
    "timing.cpu_ms": "the workers read their clocks once",
    "timing.device_ms.median": "the device's own times are not kept",
    "memory.window_peak_bytes": "it is the kernel's high-water mark, of which no series is kept",
    "memory.baseline_bytes": "it was read once, and no series is kept",
    "memory.loaded_bytes": "it was read once, and no series is kept",
    "accuracy.macro_f1": "which class was answered is not kept, only whether it was right",
    "precision.file_size_bytes": "the model's file is not kept",
    "precision.fidelity": "outputs are not kept",
    "serving.achieved_per_s": "when the schedule began and ended is not kept",
}


def recompute(
    result: Result, samples: Maybe[Samples], readings: Sequence[Maybe[Readings]]
) -> list[Figure]:
    """Every figure of ``result``, held against its data. ``readings``: one entry per launch."""
    windows = samples if isinstance(samples, Unavailable) else _windows(samples)
    found = list(_timing(result, samples, windows))
    spans = (
        windows
        if isinstance(windows, Unavailable)
        else {launch: _bounds(streams) for launch, streams in windows.items()}
    )
    found += channels(result, spans, readings)
    found += energy(result, spans, readings)
    found += _of_itself(result)
    for path, why in _NOT_KEPT.items():
        recorded = read(result, path)
        if recorded is not None and not isinstance(recorded, Unavailable):
            shown = recorded if isinstance(recorded, int | float) else "present"
            found.append(unknown(path, shown, why))
    return found


def _windows(samples: Samples) -> dict[int, Streams]:
    """Launch -> its streams' timed iterations; a launch that timed nothing has no window."""
    found: dict[int, Streams] = {}
    for launch in np.unique(samples.launch):
        inside = samples.launch == launch
        streams = []
        for stream in np.unique(samples.stream[inside]):
            timed = inside & (samples.stream == stream) & (samples.timed == 1)
            streams.append((samples.start_ns[timed], samples.end_ns[timed]))
        if samples.due_ns is not None:  # one that shares a schedule may have got nothing
            streams = [(starts, ends) for starts, ends in streams if len(starts)]
        if streams and all(len(starts) for starts, _ in streams):
            found[int(launch)] = streams
    return found


def _timing(
    result: Result, samples: Maybe[Samples], windows: Maybe[dict[int, Streams]]
) -> Iterator[Figure]:
    timing = result.timing
    if isinstance(timing, Unavailable):
        return
    if isinstance(windows, Unavailable) or isinstance(samples, Unavailable):
        yield from without("timing.latency_ms", timing.latency_ms, _STATS, windows)
        return
    lacking = next((check for check in result.validity if check.name == "samples"), None)
    if lacking is not None or not windows:
        why = Unavailable(lacking.reason if lacking else "the file holds no timed iteration")
        yield from without("timing.latency_ms", timing.latency_ms, _STATS, why)
        return
    values: Maybe[dict[str, Any]] = sane(partial(_recomputed, result, samples, windows))
    if isinstance(values, Unavailable):
        yield from without("timing.latency_ms", timing.latency_ms, _STATS, values)
        return
    for path, value in values.items():
        yield held(path, read(result, path), value)
    for index, launch in enumerate(timing.launches):
        for name, reason in _ONCE.items():
            recorded = getattr(launch, name)
            if not isinstance(recorded, Unavailable):
                yield unknown(f"timing.launches.{index}.{name}", recorded, reason)


def _recomputed(result: Result, samples: Samples, windows: dict[int, Streams]) -> dict[str, Any]:
    spec = result.spec
    of = {launch: _latencies(samples, launch) for launch in windows}
    latencies = list(of.values())
    stats, diagnosis = latency_stats(latencies), diagnose(latencies)
    rate = throughput(list(windows.values()), spec.batch_size, spec.concurrency)
    found: dict[str, Any] = {
        "timing.iterations": sum(map(len, latencies)),
        "timing.window_s": sum(_seconds(streams) for streams in windows.values()),
        **{f"timing.latency_ms.{name}": getattr(stats, name) for name in _STATS},
        **{f"timing.latency_ms.ci95.{name}": value for name, value in stats.ci95.items()},
        **{f"timing.{name}": getattr(diagnosis, name) for name in _DIAGNOSIS},
    }
    if not spec.scheduled:
        found["throughput.inferences_per_s"] = rate.inferences_per_s
        found["throughput.ci95"] = rate.ci95
    for index, (launch, streams) in enumerate(windows.items()):
        own = latency_stats([of[launch]])
        figures = {
            "iterations": len(of[launch]),
            "warmup_iterations": _warm_up(samples, launch),
            "window_s": _seconds(streams),
            **(
                {}
                if spec.scheduled
                else {"inferences_per_s": launch_rate(streams, spec.batch_size)}
            ),
            **{f"{name}_ms": getattr(own, name) for name in _OF_A_LAUNCH},
        }
        found |= {f"timing.launches.{index}.{name}": value for name, value in figures.items()}
    return found


def _latencies(samples: Samples, launch: int) -> Times:
    """Of the timed iterations, stream by stream, then in the order in which they ended."""
    timed = np.flatnonzero((samples.launch == launch) & (samples.timed == 1))
    timed = timed[np.argsort(samples.stream[timed], kind="stable")]
    ordered: Times = samples.latency_ns[timed][np.argsort(samples.end_ns[timed], kind="stable")]
    return ordered


def _bounds(streams: Streams) -> tuple[int, int]:
    return min(int(s[0]) for s, _ in streams), max(int(e[-1]) for _, e in streams)


def _seconds(streams: Streams) -> float:
    start, end = _bounds(streams)
    return (end - start) / 1e9


def _warm_up(samples: Samples, launch: int) -> int:
    """Iterations before the first timed one of their stream."""
    inside = samples.launch == launch
    count = 0
    for stream in np.unique(samples.stream[inside]):
        timed = samples.timed[inside & (samples.stream == stream)] == 1
        count += int(np.argmax(timed)) if timed.any() else len(timed)
    return count


def _of_itself(result: Result) -> Iterator[Figure]:
    accuracy, precision = result.accuracy, result.precision
    if not isinstance(accuracy, Unavailable) and accuracy.correct:
        again = accuracy.correct.count("1") / len(accuracy.correct)
        yield held("accuracy.top1", accuracy.top1, again)
        yield held("accuracy.samples", accuracy.samples, len(accuracy.correct))
    if isinstance(precision, Unavailable):
        return
    ratio, before = precision.size_ratio, precision.fp32_file_size_bytes
    if not isinstance(ratio, Unavailable) and not isinstance(before, Unavailable):
        now = before / precision.file_size_bytes if precision.file_size_bytes else math.nan
        yield held("precision.size_ratio", ratio, now)
