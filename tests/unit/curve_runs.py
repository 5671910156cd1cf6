"""Runs with a capacity around them, and with profiled operators, made up with known figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from board_runs import put
from made_runs import made

from harness.analysis.operators import of_launch, over_launches
from harness.maybe import Unavailable
from harness.protocols import OperatorTimes, ProfiledInferences, TensorSpec
from harness.records.capacity import (
    CAPACITY_NAME,
    CapacityFound,
    Held,
    Measured,
    Predicted,
)
from harness.records.operators import Operators, Roof
from harness.records.result import Capacity, Result

NO_ENERGY = Unavailable("no meter")
ROOFS = (
    Roof(name="product 384", bound="compute", precision="fp32", per_s=1e10, bytes=100, ms=1.0),
    Roof(name="product 96", bound="compute", precision="fp32", per_s=8e9, bytes=100, ms=1.0),
    Roof(name="copy 256 KiB", bound="memory", precision="fp32", per_s=5e9, bytes=2**18, ms=1.0),
    Roof(name="copy 128 MiB", bound="memory", precision="fp32", per_s=1e9, bytes=2**27, ms=1.0),
)


def profiled(roofs: Any = ROOFS, speed: float = 1.0) -> Operators:
    """``wide``: 524,288 operations and 49,152 bytes in 1 ms; ``narrow``: 8,192 and 12,800 in
    0.25 ms; ``moved`` moves 32,768 bytes in 0.25 ms and does nothing."""
    square, row = TensorSpec("", "float32", (64, 64)), TensorSpec("", "float32", (1, 64))

    def operator(name: str, kind: str, ms: float, inputs: Any, output: TensorSpec) -> OperatorTimes:
        return OperatorTimes(name=name, type=kind, precision="fp32", ms=(ms / speed,) * 4,
                             inputs=inputs, outputs=(output,), fused=(name,))  # fmt: skip

    times = ProfiledInferences(
        profiler="by hand",
        operators=(
            operator("wide", "MatMul", 1.0, (square, square), square),
            operator("narrow", "MatMul", 0.25, (row, square), row),
            operator("moved", "Transpose", 0.25, (square,), square),
        ),
        latency_ms=(2.0 / speed,) * 4,
    )
    return over_launches([of_launch(times, 1.9, roofs)], 1.9)


def capacity(
    folder: str = "20261121T020000Z-capacity-digits-1f2e3d",
    *,
    per_s: float = 400.0,
    ci95: Any = (380.0, 420.0),
    joules: Sequence[float | None] = (None, None, None),
    bounds: tuple[str, ...] = ("p99=10ms",),
    **spec: Any,
) -> tuple[CapacityFound, Result]:
    """The record of three probes, near ``per_s``, and its closed loop."""
    rates = (0.94 * per_s, per_s, 1.03 * per_s)
    probes = tuple(
        Measured(
            run=f"probe-{at}", rate_per_s=rate, p50_ms=2.0 + at, p99_ms=8.0 + 2 * at,
            utilization=0.7 + 0.1 * at, lateness_ms=0.05, stationary=at < 2,
            joules_per_request=NO_ENERGY if spent is None else spent,
            held=tuple(Held(bound=bound, late=0.01 * at, quantile_ms=8.0 + 2 * at, effective=500,
                            verdict=("pass", "undecided", "fail")[at]) for bound in bounds),
        )
        for at, (rate, spent) in enumerate(zip(rates, joules, strict=True))
    )  # fmt: skip
    predicted = tuple(
        Predicted(rate_per_s=of * per_s, p50_ms=1.5 + of, p99_ms=3.0 + 6 * of, utilization=0.8 * of)
        for of in (0.3, 0.7, 1.0)
    )
    answer = Capacity(
        per_s=per_s, ci95=ci95, bounds=bounds, limited_by=bounds[0], predicted_per_s=410.0, probes=3
    )
    loop = made(2.0, tags={"capacity": folder}, latency_bound=bounds, **spec)
    loop = msgspec.structs.replace(loop, capacity=answer)
    found = CapacityFound(
        id=folder, ended="known", spec=loop.spec, capacity=answer, limit=bounds[0], scale=1.0,
        saturation_per_s=500.0, probes=probes, predicted=predicted, monotone=(),
    )  # fmt: skip
    return found, loop


def put_capacity(results: Path, found: CapacityFound, loop: Result) -> Path:
    """As `harness capacity` leaves it; returns the folder of the closed loop."""
    put(results / found.id, [loop])
    (results / found.id / CAPACITY_NAME).write_bytes(msgspec.json.encode(found))
    return results / found.id / loop.id
