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

from collections.abc import Sequence

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.records.operators import (
    AtRoof,
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
