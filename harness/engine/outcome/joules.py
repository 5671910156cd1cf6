"""The energy of each launch: of its window, or of its stretches where that consisted of turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.analysis.energy.attribute import Window
from harness.analysis.energy.launch import NOT_SAMPLED, launch_energy, no_meter
from harness.analysis.energy.pool import pool
from harness.analysis.latency import in_order
from harness.analysis.sampled import Sampled
from harness.engine.outcome.evidence import Evidence, LaunchRecord, Metered, timed_launches
from harness.maybe import Maybe, Unavailable
from harness.records import result as records
from harness.records.primary import settled

_UNMETERED = Unavailable("no stretch of this launch was metered")


def latencies(record: LaunchRecord) -> NDArray[np.int64]:
    """Latencies in ns over all streams, in the order in which they ended."""
    return in_order([recorder.counted() for recorder in record.recorders])


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
    return _UNMETERED if sampler is None else no_meter(sampler) or _UNMETERED


def _of_window(
    evidence: Evidence, record: LaunchRecord, sampler: Sampled | None
) -> Maybe[records.Energy]:
    if sampler is None:
        return NOT_SAMPLED
    assert record.window_ns is not None
    start_ns, end_ns = record.window_ns
    spec = evidence.spec
    loads = [recorder.all() for recorder in record.recorders if recorder.count]
    began_ns, last_ns = int(loads[0][0][0]), max(int(ends[-1]) for _, ends in loads)
    window = Window(
        start_ns,
        end_ns,
        iterations=sum(len(recorder.window()[0]) for recorder in record.recorders),
        batch_size=spec.batch_size,
        concurrency=spec.concurrency,
        guard_before_s=(start_ns - began_ns) / 1e9,
        guard_after_s=(last_ns - end_ns) / 1e9,
        idle_before=record.idle.get("before"),
        idle_after=record.idle.get("after"),
        load=(began_ns, start_ns),
        random_phase=record.pause_s > 0,
        latency_s=float(latencies(record).mean()) / 1e9,
    )
    return _attributed(evidence, sampler, window)


def _of_stretch(
    evidence: Evidence, record: LaunchRecord, sampler: Sampled | None, stretch: Metered
) -> Maybe[records.Energy]:
    if sampler is None:
        return _UNMETERED
    window = Window(
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


def _attributed(evidence: Evidence, sampler: Sampled, window: Window) -> Maybe[records.Energy]:
    found = evidence.machine
    return launch_energy(
        sampler,
        window,
        evidence.spec.device,
        evidence.placement.usable,
        found.factors if found else {},
    )
