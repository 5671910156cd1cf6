"""The energy of each launch: of its window, or of its stretches where that consisted of turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.analysis import channels as shares
from harness.analysis.energy import attribute as joules
from harness.analysis.energy.pool import pool
from harness.analysis.sampled import Sampled
from harness.engine.outcome.evidence import Evidence, LaunchRecord, Metered
from harness.maybe import Maybe, Unavailable, present
from harness.records import result as records
from harness.records.primary import settled

_UNMETERED = Unavailable("no stretch of this launch was metered")
Pair = tuple[LaunchRecord, Sampled | None]


def timed_launches(evidence: Evidence) -> list[Pair]:
    """Those that timed anything, each with its sampler."""
    pairs = zip(evidence.launches, evidence.samplers, strict=True)
    return [(record, sampler) for record, sampler in pairs if record.window_ns is not None]


def latencies(record: LaunchRecord) -> NDArray[np.int64]:
    """Latencies in ns over all streams, in the order in which they ended."""
    windows = [recorder.counted() for recorder in record.recorders]
    if len(windows) == 1:
        ((starts, ends),) = windows
        return ends - starts
    order = np.argsort(np.concatenate([ends for _, ends in windows]), kind="stable")
    return np.concatenate([ends - starts for starts, ends in windows])[order]


def launch_energies(evidence: Evidence) -> list[Maybe[records.Energy]]:
    """One a launch that timed anything."""
    return [_of_launch(evidence, *pair) for pair in timed_launches(evidence)]


def metered(
    evidence: Evidence, energies: Sequence[Maybe[records.Energy]]
) -> list[Maybe[records.Energy]]:
    """Those of ``energies`` that answer for the run: of a duel, whose first launches alone have
    stretches, theirs."""
    timed = [record for record, _ in timed_launches(evidence)]
    of_stretches = [one for one, record in zip(energies, timed, strict=True) if record.metered]
    return of_stretches or list(energies)


def stretch_energies(evidence: Evidence) -> list[list[Maybe[records.Energy]]]:
    """Of each launch that timed anything, in order, one a stretch."""
    return [
        [_of_stretch(evidence, record, sampler, one) for one in record.metered]
        for record, sampler in timed_launches(evidence)
    ]


def _of_launch(
    evidence: Evidence, record: LaunchRecord, sampler: Sampled | None
) -> Maybe[records.Energy]:
    if record.turns is None:
        return _of_window(evidence, record, sampler)
    found = [_of_stretch(evidence, record, sampler, one) for one in record.metered]
    if found:
        return pool(settled(found, evidence.spec.device))
    if record.unmetered is not None:
        return record.unmetered
    return _UNMETERED if sampler is None else _why_not(sampler) or _UNMETERED


def _of_window(
    evidence: Evidence, record: LaunchRecord, sampler: Sampled | None
) -> Maybe[records.Energy]:
    if sampler is None:
        return Unavailable("sampling was switched off", "give --sample-rate above 0")
    assert record.window_ns is not None
    start_ns, end_ns = record.window_ns
    starts, _ = record.recorders[0].all()
    spec = evidence.spec
    last_ns = max(int(one.all()[1][-1]) for one in record.recorders if one.count)
    window = joules.Window(
        start_ns,
        end_ns,
        iterations=sum(len(recorder.window()[0]) for recorder in record.recorders),
        batch_size=spec.batch_size,
        concurrency=spec.concurrency,
        guard_before_s=(start_ns - int(starts[0])) / 1e9,
        guard_after_s=(last_ns - end_ns) / 1e9,
        idle_before=record.idle.get("before"),
        idle_after=record.idle.get("after"),
        load=(int(starts[0]), start_ns),
        random_phase=record.pause_s > 0,
        latency_s=float(latencies(record).mean()) / 1e9,
    )
    return _attributed(evidence, sampler, window)


def _of_stretch(
    evidence: Evidence, record: LaunchRecord, sampler: Sampled | None, stretch: Metered
) -> Maybe[records.Energy]:
    if sampler is None:
        return _UNMETERED
    window = joules.Window(
        stretch.start_ns,
        stretch.end_ns,
        iterations=stretch.iterations,
        batch_size=evidence.spec.batch_size,
        guard_before_s=(stretch.start_ns - stretch.began_ns) / 1e9,
        guard_after_s=(stretch.ended_ns - stretch.end_ns) / 1e9,
        idle_before=record.idle.get("before"),
        idle_after=record.idle.get("after"),
        load=(stretch.began_ns, stretch.ended_ns),
        random_phase=stretch.paused,
        latency_s=stretch.latency_ns / 1e9,
    )
    return _attributed(evidence, sampler, window)


def _attributed(
    evidence: Evidence, sampler: Sampled, window: joules.Window
) -> Maybe[records.Energy]:
    if why := _why_not(sampler):
        return why
    series = sampler.series
    foreign = shares.foreign_share(
        series, window.start_ns, window.end_ns, evidence.placement.usable
    )
    return joules.attribute(
        [joules.SourceReadings(c, *series[c.name]) for c in sampler.channels],  # type: ignore[arg-type]
        window,
        device=evidence.spec.device.partition(":")[0],
        foreign_cpu_share=present(foreign),
        sockets=_sockets(evidence.machine),
    )


def _why_not(sampler: Sampled) -> Unavailable | None:
    """Why no meter was read; None where one was."""
    meters = [channel for channel in sampler.channels if channel.unit in ("J", "W")]
    silent = sampler.reasons
    if any(channel.name not in silent for channel in meters):
        return None
    reasons = [silent[c.name] for c in meters if c.name in silent] or [
        silent[name] for name in ("power",) if name in silent
    ]
    return reasons[0] if reasons else Unavailable("no power meter was found", "harness doctor")


def _sockets(found: records.Machine | None) -> int:
    """How many the kernel names; 1 where it names none."""
    told = found.factors.get("sockets", "") if found else ""
    return int(told) if told.isdecimal() else 1
