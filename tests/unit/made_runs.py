"""Made-up results with known launches, for tests of comparisons."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec

from harness.maybe import Unavailable
from harness.records.result import Result
from harness.testing.results import fake_failure, fake_result

_ids = count(1)
NOT_HERE = Unavailable("no meter")
# five launches, half a percent apart; their median is the middle one
SPREAD = (0.995, 1.005, 1.0, 0.9975, 1.0025)


def made(
    median_ms: float | Sequence[float] = 1.0,
    *,
    correct: str | None = None,
    memory: Sequence[int] | None = None,
    started_at: str = "2026-11-21T02:00:00Z",
    fingerprint: str | None = None,
    factors: dict[str, str] | None = None,
    size_bytes: int = 98_304,
    tags: dict[str, str] | None = None,
    status: str = "complete",
    **spec: Any,
) -> Result:
    """A complete run whose launches have these medians (of one number: spread a little around it).

    Throughput is that of the median; energy and device figures are absent.
    """
    base = fake_result()
    values = [median_ms * s for s in SPREAD] if isinstance(median_ms, float) else list(median_ms)
    peaks = memory or [67_108_864] * len(values)
    launches = tuple(
        msgspec.structs.replace(
            base.timing.launches[0],
            median_ms=value,
            p99_ms=1.4 * value,
            window_s=2000 * value / 1000,
            memory_peak_bytes=peak,
        )
        for value, peak in zip(values, peaks, strict=True)
    )
    middle = statistics.median(values)
    whole = msgspec.structs.replace(base.timing.latency_ms, median=middle, p99=1.4 * middle)
    accuracy = base.accuracy if correct is not None else Unavailable("no labelled data")
    if correct is not None:
        top1 = correct.count("1") / len(correct)
        accuracy = msgspec.structs.replace(
            accuracy, correct=correct, top1=top1, samples=len(correct)
        )
    machine = msgspec.structs.replace(
        base.machine,
        fingerprint=fingerprint or base.machine.fingerprint,
        factors={**base.machine.factors, **(factors or {})},
    )
    return msgspec.structs.replace(
        base,
        id=f"20261121T020000Z-made-{next(_ids):06d}",
        status=status,
        started_at=started_at,
        duration_s=10.0,
        spec=msgspec.structs.replace(
            base.spec, **{"precision": "fp32", "tags": tags or {}, **spec}
        ),
        timing=msgspec.structs.replace(base.timing, launches=launches, latency_ms=whole),
        precision=msgspec.structs.replace(base.precision, file_size_bytes=size_bytes),
        throughput=msgspec.structs.replace(base.throughput, inferences_per_s=1000 / middle),
        memory=msgspec.structs.replace(
            base.memory, window_peak_bytes=round(statistics.median(peaks))
        ),
        energy=NOT_HERE,
        accuracy=accuracy,
        machine=machine,
        validity=base.validity if status == "degraded" else (),
        tags=tags or {},
    )


def failed(**spec: Any) -> Result:
    """A run of the same cell whose worker was killed."""
    gone = fake_failure()
    return msgspec.structs.replace(
        gone,
        id=f"20261121T020000Z-gone-{next(_ids):06d}",
        spec=msgspec.structs.replace(gone.spec, **{"precision": "fp32", **spec}),
    )
