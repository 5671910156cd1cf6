"""Times and rates of a run's launches, from what each left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.analysis import processor
from harness.analysis.device_times import DeviceTimes, device_median_ms, device_method, device_ms
from harness.analysis.drift import Diagnosis
from harness.analysis.latency import interval_methods, latency_stats
from harness.analysis.memory import Seen, device_peak_bytes, peak
from harness.analysis.sampled import Sampled
from harness.analysis.throughput import throughput
from harness.engine.outcome.evidence import (
    Evidence,
    LaunchRecord,
    Pair,
    load_of,
    taken,
    watched,
)
from harness.maybe import Maybe, Unavailable
from harness.records import result as records
from harness.records.primary import average_power_w
from harness.records.result import IN_TURNS, NOT_REACHED
from harness.spec import RunSpec

CLOCK = "time.perf_counter_ns (CLOCK_MONOTONIC on Linux), read in the worker around each inference"
_COMPILES_NOTHING = Unavailable("this runtime does not say what it compiles when it loads")
T = TypeVar("T")


def timing(
    evidence: Evidence,
    windows: Sequence[NDArray[np.int64]],
    diagnosis: Diagnosis,
    energies: Sequence[Maybe[records.Energy]],
) -> records.Timing:
    spec = evidence.spec
    timed = watched(evidence)
    launches = tuple(
        _launch(pair, window, energy, spec)
        for pair, window, energy in zip(timed, windows, energies, strict=True)
    )
    of_launches = [record for record, _ in timed]
    times = [_device_times(record) for record in of_launches]
    return records.Timing(
        scenario=spec.scenario,
        boundary=spec.boundary,
        clock=CLOCK,
        mode=_mode(evidence),
        warmup_end=_common([launch.warmup_end for launch in launches]),
        stop_reason=_common([launch.stop_reason for launch in launches]),
        iterations=sum(launch.iterations for launch in launches),
        window_s=sum(launch.window_s for launch in launches),
        latency_ms=latency_stats(windows),
        device_ms=device_ms(times, spec.device),
        cpu_ms=_cpu_ms(of_launches),
        autocorrelation=diagnosis.autocorrelation,
        effective_samples=diagnosis.effective_samples,
        outliers=diagnosis.outliers,
        outlier_rule=diagnosis.outlier_rule,
        drift=diagnosis.drift,
        launches=launches,
        between_launch_cv=diagnosis.between_launch_cv,
        method={**interval_methods(len(windows)), **device_method(times)},
    )


def _mode(evidence: Evidence) -> str:
    pause_s = max(record.pause_s for record in evidence.launches)
    paused = (
        f", random pauses of up to {pause_s * 1e3:.1f} ms between iterations for the power meter"
    )
    turns = next((record.turns for record in evidence.launches if record.turns), None)
    taken = (
        f", in turns of {turns.block_ns / 1e6:g} ms, of each the first {turns.left_out} left out"
        if turns
        else ""
    )
    mode = load_of(evidence.spec, evidence.launches).mode(evidence.spec)
    return mode + (paused if pause_s else "") + taken


def _launch(
    pair: Pair, window: NDArray[np.int64], energy: Maybe[records.Energy], spec: RunSpec
) -> records.Launch:
    record, sampler = pair
    assert record.window_ns is not None
    stats, seen = latency_stats([window]), memory_seen(record, sampler)
    return records.Launch(
        iterations=len(window),
        warmup_iterations=sum(len(recorder.warm_up()[0]) for recorder in record.recorders),
        warmup_end=record.warmup_end,
        stop_reason=record.stop_reason,
        window_s=(record.window_ns[1] - record.window_ns[0]) / 1e9,
        median_ms=stats.median,
        first_inference_ms=record.first_inference_ms,
        load_s=record.load_s,
        compile_s=_COMPILES_NOTHING if record.compile_s is None else record.compile_s,
        mean_ms=stats.mean,
        p90_ms=stats.p90,
        p95_ms=stats.p95,
        p99_ms=stats.p99,
        device_median_ms=device_median_ms(_device_times(record), spec.device),
        joules_per_inference=_of(energy, _joules_per_inference),
        average_power_w=_of(energy, average_power_w),
        memory_peak_bytes=peak(seen, "window")[1],
        device_memory_peak_bytes=device_peak_bytes(seen, spec.device),
        inferences_per_s=IN_TURNS
        if record.turns
        else load_of(spec, [record]).rate(spec, taken([record])[0]),
        cpu_ms=_cpu_ms([record]),
        yardstick_ms=processor.yardstick_ms(record.yardstick_ns),
    )


def memory_seen(record: LaunchRecord, sampled: Sampled | None) -> Seen:
    return Seen(record.memory, record.device_memory, record.window_ns, sampled)


def _device_times(record: LaunchRecord) -> DeviceTimes:
    return DeviceTimes(record.device_ms, record.device_untimed)


def _cpu_ms(of_launches: Sequence[LaunchRecord]) -> Maybe[float]:
    spent = [record.spent for record in of_launches]
    return processor.cpu_ms([(one.cpu_ns, one.iterations) if one else None for one in spent])


def _of(energy: Maybe[records.Energy], read: Callable[[records.Energy], Maybe[T]]) -> Maybe[T]:
    return energy if isinstance(energy, Unavailable) else read(energy)


def _joules_per_inference(energy: records.Energy) -> Maybe[float]:
    found = energy.joules_per_inference
    return found if isinstance(found, Unavailable) else found.value


def _common(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else "mixed: " + ", ".join(dict.fromkeys(values))


def rate(evidence: Evidence, timed: Sequence[Pair]) -> Maybe[records.Throughput]:
    """Of loads whose streams go their own ways; others state it themselves."""
    spec, launches = evidence.spec, [record for record, _ in timed]
    if not timed or load_of(spec, launches).shared:
        return NOT_REACHED
    if any(record.turns for record in evidence.launches):
        return IN_TURNS
    streams = [[recorder.window() for recorder in record.recorders] for record in launches]
    pipelined = any(record.pipelined for record in launches)
    return throughput(streams, spec.batch_size, spec.concurrency, pipelined=pipelined)
