"""The curves that belong to an entry: a capacity's, and the roofline of its operators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from harness.analysis.capacity import bound_of
from harness.analysis.roofline import roofline
from harness.compare.sides import Side
from harness.compression.model import CapacityCurve, CurvePoint, Entry, LatencyBound
from harness.errors import ResultError
from harness.maybe import Unavailable, explain, present
from harness.records.capacity import CapacityFound, Measured, Predicted, read_capacity
from harness.records.result import Result

_DRAWN = {0.5: "p50_ms", 0.99: "p99_ms"}


def with_curves(
    entry: Entry, side: Side, folders: Mapping[str, Path], problems: list[str]
) -> Entry:
    """``entry`` with what its newest runs have of them. ``folders``: where runs lie, by their ids;
    a record that cannot be read is named in ``problems``."""
    newest = [*reversed(side.finished), *reversed(side.failed)]
    pictures = (roofline(run.operators) for run in newest)
    curves = (_curve(run, folders, problems) for run in newest)
    return msgspec.structs.replace(
        entry,
        roofline=next(filter(None, pictures), None),
        capacity=next(filter(None, curves), None),
    )


def _curve(run: Result, folders: Mapping[str, Path], problems: list[str]) -> CapacityCurve | None:
    """Of the closed loop that a capacity began with; its probes are runs of other cells."""
    capacity, folder = run.tags.get("capacity"), folders.get(run.id)
    if capacity is None or folder is None or run.spec.scenario == "server":
        return None
    try:
        found = read_capacity(folder.parent)
    except ResultError as error:
        problems.append(f"{error}")
        return None
    return curve(found) if found is not None and found.id == capacity else None


def curve(found: CapacityFound) -> CapacityCurve:
    """The record as it is drawn, by rising rate."""
    answer, interval = found.capacity, found.capacity.ci95
    low, high = (None, None) if isinstance(interval, Unavailable) else interval
    return CapacityCurve(
        run=found.id,
        per_s=answer.per_s,
        low=low,
        high=high,
        why_no_interval=explain(interval) if isinstance(interval, Unavailable) else "",
        bounds=tuple(map(_bound, answer.bounds)),
        limit=found.limit,
        ended=found.ended,
        measured=tuple(sorted(map(_measured, (*found.probes, *found.curve)), key=_rate)),
        predicted=tuple(sorted(map(_predicted, found.predicted), key=_rate)),
    )


def _bound(text: str) -> LatencyBound:
    bound = bound_of(text)
    return LatencyBound(text, bound.limit_ms, _DRAWN.get(bound.q, ""))


def _measured(one: Measured) -> CurvePoint:
    verdicts = dict.fromkeys(held.verdict for held in one.held)
    worst = next((v for v in ("fail", "undecided", "pass") if v in verdicts), "")
    return CurvePoint(
        rate_per_s=one.rate_per_s, p50_ms=present(one.p50_ms), p99_ms=present(one.p99_ms),
        utilization=one.utilization, joules=present(one.joules_per_request),
        verdict=worst if one.stationary else f"{worst}, not stationary",
    )  # fmt: skip


def _predicted(one: Predicted) -> CurvePoint:
    return CurvePoint(
        rate_per_s=one.rate_per_s, p50_ms=one.p50_ms, p99_ms=one.p99_ms,
        utilization=one.utilization,
    )  # fmt: skip


def _rate(point: CurvePoint) -> float:
    return point.rate_per_s
