"""From what a run gathered to its Result: every figure comes out of `harness.analysis`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np

from harness import machine
from harness.analysis.blocks import blocks
from harness.analysis.drift import diagnose
from harness.analysis.energy.launch import NOT_SAMPLED
from harness.analysis.energy.pool import pool
from harness.analysis.memory import memory
from harness.analysis.operators import over_launches
from harness.analysis.overhead import overhead, rounds_of
from harness.analysis.profiles import merge
from harness.analysis.roofline import roof_check
from harness.analysis.sampled import Sampled
from harness.analysis.sampled import profiles as summaries
from harness.analysis.validity import checks, lacking, worst
from harness.engine.outcome import timing as times
from harness.engine.outcome.evidence import (
    Evidence,
    LaunchRecord,
    Pair,
    load_of,
    taken,
    watched,
)
from harness.engine.outcome.facts import validity_facts
from harness.engine.outcome.joules import latencies, launch_energies, metered
from harness.maybe import Maybe, Unavailable
from harness.records import result as records
from harness.records.operators import NOT_PROFILED, Operators
from harness.records.primary import settled
from harness.records.result import NOT_ASKED, NOT_REACHED, UNWATCHED, Result


def assemble(evidence: Evidence) -> Result:
    """The Result of one run, complete or not."""
    timed = watched(evidence)
    windows = [latencies(record) for record, _ in timed]
    energies = settled(launch_energies(evidence), evidence.spec.device)
    diagnosis = diagnose(windows) if windows else None
    timing = times.timing(evidence, windows, diagnosis, energies) if diagnosis else NOT_REACHED
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
        throughput=times.rate(evidence, timed),
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
        return NOT_SAMPLED
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
    first = record.overhead[0]
    blocks = [(block.start_ns, block.end_ns, block.watched) for block in record.overhead]
    return overhead(rounds_of(blocks, starts, ends), (first.end_ns - first.start_ns) / 1e9)


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
    if not evidence.launches:
        return NOT_REACHED
    seen = times.memory_seen(evidence.launches[0], evidence.samplers[0])
    return memory(seen, evidence.spec.device)


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
