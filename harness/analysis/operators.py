"""From profiled inferences to a table of operators whose rows add up.

    profiled inferences, by latency     ....|==========|....      the middle half of them
    row         mean of the operator over exactly these
    remainder   mean of what they took, less all rows
    95 %        batch means in the order of time; from five launches on, between launches

A mean over one set of inferences adds up, which medians do not, and the middle half keeps the ones
that were hit out of all rows alike. What runs on several threads beside one another does not add
up, and has no remainder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.analysis.operations import compulsory_bytes, operations
from harness.analysis.roofline import model_at_roof, placed
from harness.maybe import Maybe, Unavailable
from harness.protocols import ProfiledInferences
from harness.records.operators import (
    NO_COST,
    LaunchOperators,
    Operator,
    Operators,
    Remainder,
    Roof,
)
from harness.stats.distributions import student_t_ppf
from harness.stats.quantiles import BATCHED_FROM, batch_means
from harness.stats.two_samples import MIN_LAUNCHES

Floats = NDArray[np.float64]
_UPPER = 0.975
_FEWEST = 4  # inferences in the middle half with an interval
_OVERLAPPING = Unavailable("operators ran beside one another: their times do not add up")
_WITHIN = "within one process, blind to what differs between processes"


def of_launch(
    found: ProfiledInferences,
    plain_ms: float,
    roofs: Maybe[tuple[Roof, ...]],
    profiler_ms: Maybe[float] = NO_COST,
) -> LaunchOperators:
    """What one launch shows; ``plain_ms`` is the median of inferences without the profiler,
    ``profiler_ms`` what that adds for each operator."""
    latency = np.asarray(found.latency_ms, dtype=np.float64)
    middle = _middle(latency)
    profiled = float(latency[middle].mean())
    rest = latency[middle]
    rows = []
    for one in found.operators:
        times = np.asarray(one.ms, dtype=np.float64)[middle]
        rest = rest - times
        mean = float(times.mean())
        rows.append(
            Operator(
                name=one.name,
                type=one.type,
                precision=one.precision,
                calls=one.calls,
                ms=mean,
                ci95_ms=_within(times),
                share=mean / profiled,
                fused=Unavailable("what it came from cannot be told")
                if one.fused is None
                else one.fused,
                operations=operations(one),
                bytes=compulsory_bytes(one),
                launches_ms=(mean,),
            )
        )
    left = float(rest.mean())
    return LaunchOperators(
        profiler=found.profiler,
        inferences=len(latency),
        profiled_ms=profiled,
        plain_ms=plain_ms,
        resolution_ms=found.resolution_ms,
        overlapping=found.overlapping,
        rows=tuple(rows),
        remainder=Remainder(
            ms=left, ci95_ms=_within(rest), share=left / profiled, launches_ms=(left,)
        ),
        roofs=roofs,
        notes=found.notes,
        profiler_ms=profiler_ms,
    )


def _middle(latency: Floats) -> NDArray[np.bool_]:
    """Which inferences are neither among the fastest nor among the slowest quarter."""
    order = np.argsort(latency, kind="stable")
    cut = len(latency) // 4
    chosen = np.zeros(len(latency), dtype=np.bool_)
    chosen[order[cut : len(latency) - cut]] = True
    return chosen


def _within(times: Floats) -> Maybe[tuple[float, float]]:
    if len(times) < _FEWEST:
        return Unavailable(f"{len(times)} inferences are too few for an interval")
    return _interval(batch_means(times) if len(times) >= BATCHED_FROM else times)


def _interval(values: Floats) -> tuple[float, float]:
    half = student_t_ppf(_UPPER, len(values) - 1.0) * float(values.std(ddof=1))
    half /= math.sqrt(len(values))
    mean = float(values.mean())
    return max(0.0, mean - half), mean + half


def over_launches(found: Sequence[LaunchOperators], window_ms: Maybe[float]) -> Operators:
    """One table over ``found``, one of each launch; at least one."""
    first = found[0]
    profiled, plain = (
        float(np.mean([getattr(one, name) for one in found]))
        for name in ("profiled_ms", "plain_ms")
    )
    roofs = _fastest([one.roofs for one in found])
    merged = [_merged(row, found, profiled) for row in first.rows]
    rows = tuple(placed(row, roofs, first.resolution_ms) for row in merged)
    rest = [one.remainder.ms for one in found]
    overlapping = any(one.overlapping for one in found)
    seen = {row.name for row in first.rows}
    other = {row.name for one in found for row in one.rows} - seen
    notes = [*first.notes, *([f"{len(other)} operators ran in some launches alone"] * bool(other))]
    between = len(found) >= MIN_LAUNCHES
    return Operators(
        profiler=first.profiler,
        inferences=sum(one.inferences for one in found),
        launches=len(found),
        profiled_ms=profiled,
        plain_ms=plain,
        slowdown=profiled / plain,
        window_ms=window_ms,
        rows=rows,
        remainder=_OVERLAPPING
        if overlapping
        else Remainder(
            ms=float(np.mean(rest)),
            ci95_ms=_interval(np.asarray(rest)) if between else first.remainder.ci95_ms,
            share=float(np.mean(rest)) / profiled,
            launches_ms=tuple(rest),
        ),
        model=model_at_roof(rows, roofs),
        roofs=roofs,
        notes=tuple(notes),
        resolution_ms=first.resolution_ms,
        profiler_ms=_mean([one.profiler_ms for one in found]),
        method="means over the middle half of the profiled inferences; intervals "
        + ("between launches" if between else _WITHIN),
    )


def _mean(values: Sequence[Maybe[float]]) -> Maybe[float]:
    known = [one for one in values if not isinstance(one, Unavailable)]
    return float(np.mean(known)) if known else values[0]


def _merged(row: Operator, found: Sequence[LaunchOperators], profiled: float) -> Operator:
    import msgspec

    same = [r for one in found for r in one.rows if r.name == row.name and r.type == row.type]
    times = np.array([one.ms for one in same])
    mean = float(times.mean())
    interval = _interval(times) if len(times) >= MIN_LAUNCHES else row.ci95_ms
    return msgspec.structs.replace(
        row, ms=mean, ci95_ms=interval, share=mean / profiled, launches_ms=tuple(times.tolist())
    )


def _fastest(found: Sequence[Maybe[tuple[Roof, ...]]]) -> Maybe[tuple[Roof, ...]]:
    """Each roof as the launch that was fastest had it."""
    best: dict[str, Roof] = {}
    absent = None
    for roofs in found:
        if isinstance(roofs, Unavailable):
            absent = roofs
            continue
        for roof in roofs:
            known = best.get(roof.name)
            if known is None or roof.per_s > known.per_s:
                best[roof.name] = roof
    return tuple(best.values()) if best or absent is None else absent
