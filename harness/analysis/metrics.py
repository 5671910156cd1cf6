"""What can be compared: each metric's name, unit, better direction, and the change that matters.

``minimum_effect`` is a ratio: below it a change is real perhaps, but of no consequence. The values
are defaults of policy, chosen from how far identical runs lie apart (tails and energy farther than
medians, memory hardly at all); a comparison may be given its own.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.errors import UsageError

Better = Literal["lower", "higher"]


class Metric(msgspec.Struct, frozen=True):
    name: str
    unit: str
    better: Better
    minimum_effect: float


METRICS = {
    metric.name: metric
    for metric in (
        Metric("latency_median", "ms", "lower", 0.02),
        Metric("latency_mean", "ms", "lower", 0.02),
        Metric("latency_p90", "ms", "lower", 0.03),
        Metric("latency_p95", "ms", "lower", 0.03),
        Metric("latency_p99", "ms", "lower", 0.05),
        Metric("latency_p99_9", "ms", "lower", 0.10),
        Metric("device_median", "ms", "lower", 0.02),
        Metric("throughput", "1/s", "higher", 0.02),
        Metric("energy_per_inference", "J", "lower", 0.03),
        Metric("power_average", "W", "lower", 0.03),
        Metric("memory_peak", "bytes", "lower", 0.01),
        Metric("device_memory_peak", "bytes", "lower", 0.01),
        Metric("file_size", "bytes", "lower", 0.01),
        Metric("first_inference", "ms", "lower", 0.10),
        Metric("load", "s", "lower", 0.10),
    )
}


def metric(name: str) -> Metric:
    """The metric called ``name``. Raises `UsageError` that lists the names."""
    try:
        return METRICS[name]
    except KeyError:
        raise UsageError(f"unknown metric {name!r}", f"one of {', '.join(METRICS)}") from None
