"""A series by nights: the launches of one sweep are one figure, their median."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from harness.records.index.answers import Point
from harness.records.index.figures import FINISHED


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """One sweep, or one run outside of any. ``value`` is in the unit of the metric."""

    name: str  # the sweep's or the run's id
    started_at: str
    value: float
    launches: int
    run: str  # the id of one of its runs
    commit: str | None
    branch: str | None
    model_sha256: str | None = None  # of the FP32 source


def nights(points: Sequence[Point]) -> list[Night]:
    """The nights of ``points``, oldest first; runs that failed or lack the figure are left out."""
    grouped: dict[str, list[Point]] = {}
    for point in points:
        if point.value is not None and point.value > 0 and point.status in FINISHED:
            grouped.setdefault(point.sweep or point.id, []).append(point)
    found = [_night(name, group) for name, group in grouped.items()]
    return sorted(found, key=lambda night: night.started_at)


def _night(name: str, group: Sequence[Point]) -> Night:
    first = group[0]
    return Night(
        name=name,
        started_at=first.started_at,
        value=statistics.median(point.value for point in group if point.value is not None),
        launches=len(group),
        run=first.id,
        commit=first.commit,
        branch=first.branch,
        model_sha256=first.model_sha,
    )
