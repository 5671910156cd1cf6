"""How far an operator is from what the machine can do (Williams, Waterman, Patterson, 2009).

    rate ^        ____________ operations a second: the fastest product or convolution
         |      /
         |    /   bytes a second: the fastest copy of at least half as many bytes as the operator's
         |  /
         +------------------> intensity: operations a byte

Roofs are measured through the same runtime at the same threads right after the operators, so what
throttles one throttles the other. An operator takes at least as long as its operations at the one
roof and its bytes at the other. Copies of several sizes are measured, since what fits into a cache
is limited by the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.records.operators import (
    AtRoof,
    Bound,
    ModelAtRoof,
    Operations,
    Operator,
    Operators,
    Roof,
)
from harness.records.result import Check

_NO_COMPUTE = "no roof was measured in {}"
_RESOLVED = 10.0  # times the profiler's resolution; below, a time is mostly rounding
Roofs = Maybe[tuple[Roof, ...]]


def placed(row: Operator, roofs: Roofs, resolution_ms: float) -> Operator:
    """``row`` with its place under ``roofs``."""
    return msgspec.structs.replace(row, roof=_at_roof(row, roofs, resolution_ms))


def _at_roof(row: Operator, roofs: Roofs, resolution_ms: float) -> Maybe[AtRoof]:
    if isinstance(roofs, Unavailable):
        return roofs
    if isinstance(row.operations, Unavailable):
        return row.operations
    if isinstance(row.bytes, Unavailable):
        return row.bytes
    if row.ms <= _RESOLVED * resolution_ms:
        return Unavailable("too short for the profiler's clock")
    return place(row.operations, row.bytes, row.precision, row.ms, roofs)


def place(
    done: Operations, moved: int, precision: str, ms: float, roofs: Sequence[Roof]
) -> Maybe[AtRoof]:
    """Work of ``done`` operations and ``moved`` bytes that took ``ms``."""
    compute = [r.per_s for r in roofs if r.bound == "compute" and r.precision == precision]
    if done.total and not compute:
        return Unavailable(_NO_COMPUTE.format(precision))
    memory = [r for r in roofs if r.bound == "memory"]
    if not memory:
        return Unavailable(_NO_COMPUTE.format("copies"))
    largest = max(roof.bytes for roof in memory)
    near = [roof.per_s for roof in memory if roof.bytes >= min(moved / 2, largest)]
    compute_ms = 1e3 * done.total / max(compute) if done.total else 0.0
    memory_ms = 1e3 * moved / max(near)
    least = max(compute_ms, memory_ms)
    bound = "compute" if compute_ms >= memory_ms else "memory"
    return AtRoof(
        bound="compute" if bound == "compute" else "memory",
        ms=least,
        share=least / ms,
        intensity=done.total / moved if moved else 0.0,
        per_s=(done.total if bound == "compute" else moved) / ms * 1e3,
    )


def roof_check(found: Maybe[Operators]) -> tuple[Check, ...]:
    """Whether anything went faster than the machine can: then one of our figures is wrong."""
    if isinstance(found, Unavailable) or isinstance(found.roofs, Unavailable):
        return ()
    above = [
        (row.roof.ms / _longest(row), row)
        for row in found.rows
        if isinstance(row.roof, AtRoof) and row.roof.ms > _longest(row)
    ]
    limit = "no operator above its roof, beyond its interval"
    if not above:
        return (Check(name="roof", verdict="pass", reason="", threshold=limit),)
    share, worst = max(above, key=lambda one: one[0])
    reason = (
        f"{worst.name} reached {share:.0%} of what was measured as the most: its operations, its "
        "bytes or the roof are wrong; report this line"
    )
    return (Check(name="roof", verdict="fail", reason=reason, threshold=limit),)


def _longest(row: Operator) -> float:
    """The upper end of the operator's interval, in ms."""
    return row.ms if isinstance(row.ci95_ms, Unavailable) else row.ci95_ms[1]


def model_at_roof(rows: Sequence[Operator], roofs: Roofs) -> Maybe[ModelAtRoof]:
    """All operators that are counted; at the roof each takes what it takes at its own."""
    counted = [
        row
        for row in rows
        if not isinstance(row.operations, Unavailable) and not isinstance(row.bytes, Unavailable)
    ]
    total = sum(row.ms for row in rows)
    if not counted or not total:
        return Unavailable("no operator of it is counted")
    done = Operations(0, 0)
    moved = 0
    for row in counted:
        assert isinstance(row.operations, Operations)
        done = Operations(
            done.integer + row.operations.integer, done.floating + row.operations.floating
        )
        moved += row.bytes if isinstance(row.bytes, int) else 0
    ms = sum(row.ms for row in counted)
    return ModelAtRoof(
        covered=ms / total, operations=done, bytes=moved, ms=ms,
        roof=_together(counted, done, moved, roofs),
    )  # fmt: skip


def _together(
    counted: Sequence[Operator], done: Operations, moved: int, roofs: Roofs
) -> Maybe[AtRoof]:
    if isinstance(roofs, Unavailable):
        return roofs
    under = [row for row in counted if isinstance(row.roof, AtRoof)]
    if not under:
        return Unavailable("no operator of it has a place under a roof")
    took = sum(row.ms for row in under)
    least = {"compute": 0.0, "memory": 0.0}
    for row in under:
        assert isinstance(row.roof, AtRoof)
        least[row.roof.bound] += row.roof.ms
    ms = sum(least.values())
    return AtRoof(
        bound="compute" if least["compute"] >= least["memory"] else "memory",
        ms=ms,
        share=ms / took,
        intensity=done.total / moved if moved else 0.0,
        per_s=done.total / took * 1e3,
    )


# --- as a picture ---------------------------------------------------------------------------------

MOST_POINTS = 200  # operators of a picture, the slowest
_ROOM = 2.0  # times the outermost intensities, that the roofs are drawn


class RoofLine(msgspec.Struct, frozen=True, kw_only=True):
    """One roof from end to end: (operations a byte, operations a second) of both ends."""

    name: str
    bound: Bound
    precision: str
    per_s: float  # as in `Roof`
    start: tuple[float, float]
    end: tuple[float, float]


class RoofPoint(msgspec.Struct, frozen=True, kw_only=True):
    """An operator, or the ``whole`` model, under its roof. ``per_s``: operations a second."""

    name: str
    type: str
    precision: str
    intensity: float
    per_s: float
    share: float  # of its roof
    bound: Bound
    ms: float
    of_model: float  # its share of the profiled inference
    whole: bool = False


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """``left_out``: how many operators have no place in the picture, and why."""

    lines: tuple[RoofLine, ...]
    points: tuple[RoofPoint, ...]
    left_out: tuple[str, ...] = ()


def roofline(found: Maybe[Operators]) -> Roofline | None:
    """The picture of ``found``; None where no operator has a place under a measured roof."""
    if isinstance(found, Unavailable) or isinstance(found.roofs, Unavailable):
        return None
    why: Counter[str] = Counter()
    placed_rows: list[RoofPoint] = []
    for row in sorted(found.rows, key=lambda one: -one.ms):
        point = _point(row)
        if isinstance(point, Unavailable):
            why[point.reason] += 1
        elif len(placed_rows) == MOST_POINTS:
            why["faster than those that are drawn"] += 1
        else:
            placed_rows.append(point)
    lines = _lines(found.roofs, [point.intensity for point in placed_rows])
    if not lines or not placed_rows:
        return None
    whole = [] if isinstance(found.model, Unavailable) else _whole(found.model)
    left = tuple(f"{times} ({reason})" for reason, times in why.items())
    return Roofline(lines=lines, points=(*placed_rows, *whole), left_out=left)


def _point(row: Operator) -> Maybe[RoofPoint]:
    if isinstance(row.roof, Unavailable):
        return row.roof
    if isinstance(row.operations, Unavailable) or not row.operations.total:
        return Unavailable("they only move data")
    return RoofPoint(
        name=row.name, type=row.type, precision=row.precision, intensity=row.roof.intensity,
        per_s=row.operations.total / row.ms * 1e3, share=row.roof.share, bound=row.roof.bound,
        ms=row.ms, of_model=row.share,
    )  # fmt: skip


def _whole(model: ModelAtRoof) -> list[RoofPoint]:
    at = model.roof
    if isinstance(at, Unavailable) or not at.intensity:
        return []
    done = model.operations
    precision = "" if done.integer and done.floating else "int8" if done.integer else "fp32"
    return [RoofPoint(
        name="the whole model", type="", precision=precision, intensity=at.intensity,
        per_s=at.per_s, share=at.share, bound=at.bound, ms=model.ms, of_model=model.covered,
        whole=True,
    )]  # fmt: skip


def _lines(roofs: Sequence[Roof], intensities: Sequence[float]) -> tuple[RoofLine, ...]:
    """The fastest product of each precision; of the copies the fastest, and the largest."""
    best: dict[str, Roof] = {}
    for roof in sorted(roofs, key=_rate):
        if roof.bound == "compute":
            best[roof.precision] = roof
    copies = [roof for roof in roofs if roof.bound == "memory"]
    if not best or not copies or not intensities:
        return ()
    fastest, largest = max(copies, key=_rate), max(copies, key=lambda roof: roof.bytes)
    top = max(roof.per_s for roof in best.values())
    ridges = [top / largest.per_s, *(roof.per_s / fastest.per_s for roof in best.values())]
    left = min(*intensities, *ridges) / _ROOM
    right = max(*intensities, *ridges) * _ROOM
    flat = [
        _line(roof, (roof.per_s / fastest.per_s, roof.per_s), (right, roof.per_s))
        for roof in best.values()
    ]
    steep = [
        _line(roof, (left, left * roof.per_s), (top / roof.per_s, top))
        for roof in dict.fromkeys((fastest, largest))
    ]
    return (*flat, *steep)


def _rate(roof: Roof) -> float:
    return roof.per_s


def _line(roof: Roof, start: tuple[float, float], end: tuple[float, float]) -> RoofLine:
    return RoofLine(
        name=roof.name, bound=roof.bound, precision=roof.precision, per_s=roof.per_s, start=start,
        end=end,
    )  # fmt: skip
