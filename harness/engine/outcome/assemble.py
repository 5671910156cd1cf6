"""From what a run gathered to its Result: every figure comes out of `harness.analysis`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness import machine
from harness.analysis import processor
from harness.analysis.blocks import blocks
from harness.analysis.drift import Diagnosis, diagnose
from harness.analysis.energy.pool import pool
from harness.analysis.latency import interval_methods, latency_stats
from harness.analysis.operators import over_launches
from harness.analysis.overhead import Round, overhead
from harness.analysis.profiles import merge
from harness.analysis.roofline import roof_check
from harness.analysis.sampled import Sampled
from harness.analysis.sampled import profiles as summaries
from harness.analysis.throughput import throughput
from harness.analysis.validity import checks, lacking, worst
from harness.engine.outcome.device_figures import (
    device_median_ms,
    device_memory,
    device_method,
    device_ms,
    device_peak_bytes,
)
from harness.engine.outcome.evidence import Evidence, LaunchRecord, load_of, taken
from harness.engine.outcome.facts import Pair, validity_facts
from harness.engine.outcome.joules import latencies, launch_energies, metered, timed_launches
from harness.maybe import Maybe, Unavailable
from harness.records import result as records
from harness.records.operators import NOT_PROFILED, Operators
from harness.records.primary import average_power_w, settled
from harness.records.result import IN_TURNS, NOT_ASKED, NOT_REACHED, UNWATCHED, Result
from harness.spec import RunSpec

CLOCK = "time.perf_counter_ns (CLOCK_MONOTONIC on Linux), read in the worker around each inference"
T = TypeVar("T")


def assemble(evidence: Evidence) -> Result:
    """The Result of one run, complete or not."""
    timed = _timed(evidence)
    windows = [latencies(record) for record, _ in timed]
    energies = settled(launch_energies(evidence), evidence.spec.device)
    diagnosis = diagnose(windows) if windows else None
    timing = _timing(evidence, windows, diagnosis, energies) if diagnosis else NOT_REACHED
    profiles = _merged_profiles(timed)
    verified = next((r.verified for r in evidence.launches if r.verified), None)
    spec, of_launches = evidence.spec, [record for record, _ in timed]
    load, windows_taken = load_of(spec, of_launches), taken(of_launches)
    profiled = _operators(evidence, timing)
    validity = (
        *checks(validity_facts(evidence, timed, timing, diagnosis, profiles)),
        *load.checks(spec, windows_taken),
        *roof_check(profiled),
    )
    result = Result(
        id=evidence.id,
        status=_status(evidence, worst(validity)),
        started_at=evidence.started_at,
        duration_s=((evidence.ended_ns or time.perf_counter_ns()) - evidence.began_ns) / 1e9,
        spec=spec,
        model=evidence.prepared.model if evidence.prepared else NOT_REACHED,
        precision=_precision(evidence),
        accuracy=(verified.accuracy if verified else None) or NOT_REACHED,
        machine=evidence.machine or machine.fingerprint(device=spec.device),
        software=msgspec.structs.replace(
            evidence.installed.software
            if evidence.installed
            else machine.software(backends=[spec.backend]),
            runtime=verified.description.runtime if verified else _facts_of(evidence),
        ),
        timing=timing,
        throughput=_throughput(evidence, timed),
        energy=pool(metered(evidence, energies)) if timed else NOT_REACHED,
        memory=_memory(evidence),
        profiles=profiles,
        validity=validity,
        overhead=_overhead(evidence),
        operators=profiled,
        error=_error(evidence),
        tags=spec.tags,
    )
    own = load.figures(spec, windows_taken) if windows_taken else {}
    return with_files(msgspec.structs.replace(result, **own), evidence)


def _throughput(evidence: Evidence, timed: Sequence[Pair]) -> Maybe[records.Throughput]:
    """Of loads whose streams go their own ways; others state it themselves."""
    spec, launches = evidence.spec, [record for record, _ in timed]
    if not timed or load_of(spec, launches).shared:
        return NOT_REACHED
    if _in_turns(evidence):
        return IN_TURNS
    pipelined = any(record.pipelined for record in launches)
    return throughput(_bounds(timed), spec.batch_size, spec.concurrency, pipelined=pipelined)


def with_files(result: Result, evidence: Evidence) -> Result:
    """``result`` with the files that there are now, and a word on iterations that none holds."""
    kept = tuple(check for check in result.validity if check.name != "samples")
    validity = (*kept, *([lacking(evidence.unsaved)] if evidence.unsaved else []))
    return msgspec.structs.replace(
        result,
        validity=validity,
        status=_status(evidence, worst(validity)),
        artifacts=evidence.files,
    )


def _timed(evidence: Evidence) -> list[Pair]:
    """The launches that timed anything, each with its sampler; of turns none watched the window."""
    return [
        (record, None if record.turns else sampler) for record, sampler in timed_launches(evidence)
    ]


def _bounds(timed: Sequence[Pair]) -> list[list[tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    return [_streams(record) for record, _ in timed]


def _streams(record: LaunchRecord) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return [recorder.window() for recorder in record.recorders]


def _timing(
    evidence: Evidence,
    windows: Sequence[NDArray[np.int64]],
    diagnosis: Diagnosis,
    energies: Sequence[Maybe[records.Energy]],
) -> records.Timing:
    spec = evidence.spec
    timed = _timed(evidence)
    launches = tuple(
        _launch(pair, window, energy, spec)
        for pair, window, energy in zip(timed, windows, energies, strict=True)
    )
    of_launches = [record for record, _ in timed]
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
        device_ms=device_ms(of_launches, spec.device),
        cpu_ms=_cpu_ms(of_launches),
        autocorrelation=diagnosis.autocorrelation,
        effective_samples=diagnosis.effective_samples,
        outliers=diagnosis.outliers,
        outlier_rule=diagnosis.outlier_rule,
        drift=diagnosis.drift,
        launches=launches,
        between_launch_cv=diagnosis.between_launch_cv,
        method={**interval_methods(len(windows)), **device_method(of_launches)},
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


def _in_turns(evidence: Evidence) -> bool:
    return any(record.turns for record in evidence.launches)


_COMPILES_NOTHING = Unavailable("this runtime does not say what it compiles when it loads")


def _launch(
    pair: Pair, window: NDArray[np.int64], energy: Maybe[records.Energy], spec: RunSpec
) -> records.Launch:
    record, sampler = pair
    assert record.window_ns is not None
    stats = latency_stats([window])
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
        device_median_ms=device_median_ms(record, spec.device),
        joules_per_inference=_of(energy, _joules_per_inference),
        average_power_w=_of(energy, average_power_w),
        memory_peak_bytes=_peak(record, sampler, "window")[1],
        device_memory_peak_bytes=device_peak_bytes(record, spec.device),
        inferences_per_s=IN_TURNS
        if record.turns
        else load_of(spec, [record]).rate(spec, taken([record])[0]),
        cpu_ms=_cpu_ms([record]),
        yardstick_ms=processor.yardstick_ms(record.yardstick_ns),
    )


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


def _precision(evidence: Evidence) -> Maybe[records.PrecisionInfo]:
    prepared = evidence.prepared
    if prepared is None:
        return NOT_REACHED
    verified = next((r.verified for r in evidence.launches if r.verified), None)
    artifact, reference = prepared.artifact, prepared.reference
    no_reference = Unavailable("this run is the FP32 reference")
    return records.PrecisionInfo(
        requested=evidence.spec.precision,
        quantization=artifact.quantization,
        operators=verified.description.operators if verified else NOT_REACHED,
        fidelity=(verified.fidelity if verified else None) or NOT_REACHED,
        file_size_bytes=artifact.size_bytes,
        fp32_file_size_bytes=reference.size_bytes if reference else no_reference,
        size_ratio=reference.size_bytes / artifact.size_bytes if reference else no_reference,
        layers=verified.description.layers if verified else NOT_REACHED,
        overflows=verified.overflows if verified else NOT_REACHED,
    )


def _merged_profiles(timed: Sequence[Pair]) -> Maybe[records.Profiles]:
    if not timed:
        return NOT_REACHED
    found = [
        _profiles(index, record, sampler)
        for index, (record, sampler) in enumerate(timed)
        if sampler is not None
    ]
    if any(record.turns for record, _ in timed):
        return UNWATCHED
    if not found:
        return Unavailable("sampling was switched off", "give --sample-rate above 0")
    return merge(found)


def _profiles(index: int, record: LaunchRecord, sampler: Sampled) -> records.Profiles:
    assert record.window_ns is not None
    windows = [recorder.counted() for recorder in record.recorders]
    starts, ends = windows[0]
    if len(windows) > 1:
        starts = np.concatenate([starts for starts, _ in windows])
        ends = np.concatenate([ends for _, ends in windows])
    cut = blocks(index, starts, ends, sampler.series, sampler.channels)
    return msgspec.structs.replace(summaries(sampler, *record.window_ns), blocks=cut)


def _overhead(evidence: Evidence) -> Maybe[records.Overhead]:
    """Of the first launch that was checked."""
    record = next((record for record in evidence.launches if record.overhead), None)
    if record is None:
        return NOT_ASKED
    starts, ends = (
        np.concatenate(parts) for parts in zip(*(r.all() for r in record.recorders), strict=True)
    )
    rounds = []
    for pair in zip(record.overhead[::2], record.overhead[1::2], strict=False):
        inside = {
            block.watched: (starts >= block.start_ns) & (ends <= block.end_ns) for block in pair
        }
        rounds.append(Round(*((ends - starts)[inside[watched]] for watched in (True, False))))
    first = record.overhead[0]
    return overhead(rounds, (first.end_ns - first.start_ns) / 1e9)


def _operators(evidence: Evidence, timing: Maybe[records.Timing]) -> Maybe[Operators]:
    """Over all launches that have any."""
    if not evidence.spec.operators:
        return NOT_PROFILED
    told = [record.operators for record in evidence.launches if record.operators is not None]
    found = [one for one in told if not isinstance(one, Unavailable)]
    if not found:
        return next((one for one in told if isinstance(one, Unavailable)), NOT_REACHED)
    window_ms = timing if isinstance(timing, Unavailable) else timing.latency_ms.median
    return over_launches(found, window_ms)


def _memory(evidence: Evidence) -> Maybe[records.Memory]:
    """Of the first launch: the others repeat it."""
    if not evidence.launches or not evidence.launches[0].memory:
        return NOT_REACHED
    record, sampler = evidence.launches[0], evidence.samplers[0]
    (_, warmup_peak), (kind, window_peak) = (
        _peak(record, sampler, phase) for phase in ("warm-up", "window")
    )
    return records.Memory(
        kind=kind,
        baseline_bytes=_figure(record, "imported", "rss_bytes"),
        loaded_bytes=_figure(record, "loaded", "rss_bytes"),
        warmup_peak_bytes=warmup_peak,
        window_peak_bytes=window_peak,
        window_uss_bytes=_figure(record, "window", "uss_bytes"),
        window_pss_bytes=_figure(record, "window", "pss_bytes"),
        device=device_memory(record, evidence.spec.device),
    )


def _peak(record: LaunchRecord, sampler: Sampled | None, phase: str) -> tuple[str, Maybe[int]]:
    """What kind of peak a phase has, and the peak in bytes."""
    peak = _figure(record, phase, "peak_bytes")
    if isinstance(peak, Unavailable) and phase in record.memory:
        return "host_rss_sampled", _sampled_peak(record, sampler, phase) or peak
    return "host_rss_hwm", peak


def _figure(record: LaunchRecord, phase: str, name: str) -> Maybe[int]:
    value = record.memory.get(phase, {}).get(name, NOT_REACHED)
    return value if isinstance(value, Unavailable) else round(value)


def _sampled_peak(record: LaunchRecord, sampler: Sampled | None, phase: str) -> int | None:
    """The largest RSS that the sampler saw in a phase: a lower bound of the peak."""
    if sampler is None or record.window_ns is None:
        return None
    times_ns, values = sampler.series.get("rss_bytes", (np.empty(0), np.empty(0)))
    start_ns, end_ns = record.window_ns
    inside = (times_ns >= start_ns) & (times_ns <= end_ns)
    if phase == "warm-up":
        inside = times_ns < start_ns
    seen = values[inside & np.isfinite(values)]
    return round(float(seen.max())) if len(seen) else None


def _facts_of(evidence: Evidence) -> dict[str, str]:
    return evidence.launches[0].facts if evidence.launches else {}


def _error(evidence: Evidence) -> records.ErrorInfo | None:
    return next((record.error for record in evidence.launches if record.error), None)


def _status(evidence: Evidence, verdict: records.CheckVerdict) -> records.Status:
    error = _error(evidence)
    if error is not None:
        return "interrupted" if error.kind == "interrupted" else "failed"
    if verdict == "fail":
        return "failed"
    return "degraded" if verdict == "warn" else "complete"
