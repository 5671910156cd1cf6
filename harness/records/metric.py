"""What can be compared: each metric's name, unit, better direction, and the change that matters.

``minimum_effect`` is a ratio: below it a change is real perhaps, but of no consequence. The values
are defaults of policy, chosen from how far identical runs lie apart (tails and energy farther than
medians, memory hardly at all); a comparison may be given its own.

``rule`` says what decides:

    launches         a test between launches (`harness.stats.two_samples`)
    deterministic    the same, but where every launch agrees the minimum effect alone
    exact            one figure that measuring does not change: the minimum effect alone
    paired           the answers to each sample of one dataset (`harness.stats.mcnemar`)
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.errors import UsageError

Better = Literal["lower", "higher"]
Rule = Literal["launches", "deterministic", "exact", "paired"]


class Metric(msgspec.Struct, frozen=True):
    name: str
    unit: str
    better: Better
    minimum_effect: float
    rule: Rule = "launches"


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
        Metric("memory_peak", "bytes", "lower", 0.01, "deterministic"),
        Metric("device_memory_peak", "bytes", "lower", 0.01, "deterministic"),
        Metric("file_size", "bytes", "lower", 0.01, "exact"),
        Metric("first_inference", "ms", "lower", 0.10),
        Metric("load", "s", "lower", 0.10),
        Metric("top1", "", "higher", 0.005, "paired"),
    )
}
# what is compared unless something else is asked for: little that follows from the rest
COMPARED = (
    "latency_median",
    "latency_p99",
    "device_median",
    "throughput",
    "energy_per_inference",
    "memory_peak",
    "device_memory_peak",
    "file_size",
    "top1",
)


def metric(name: str) -> Metric:
    """The metric called ``name``. Raises `UsageError` that lists the names."""
    try:
        return METRICS[name]
    except KeyError:
        raise UsageError(f"unknown metric {name!r}", f"one of {', '.join(METRICS)}") from None
