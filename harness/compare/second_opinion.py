"""Processor time as a second opinion on latency: what preempts a process does not count in it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.compare.verdicts import MetricVerdict
from harness.maybe import Maybe, Unavailable

_LATENCY, _CPU = "latency_median", "cpu_per_inference"
Interval = Maybe[tuple[float, float]]


def with_second_opinion(rows: Sequence[MetricVerdict]) -> list[MetricVerdict]:
    """The ``rows`` of one cell; that of the latency with a doubt where the two disagree."""
    by_name = {row.metric: row for row in rows}
    latency, cpu = by_name.get(_LATENCY), by_name.get(_CPU)
    if latency is None or cpu is None:
        return list(rows)
    why = disagreement(latency.interval, cpu.ratio, cpu.interval)
    doubt = "; ".join(filter(None, (latency.doubt, why)))
    doubted = msgspec.structs.replace(latency, doubt=doubt)
    return [doubted if row is latency else row for row in rows]


def disagreement(latency: Interval, cpu_ratio: Maybe[float], cpu: Interval) -> str:
    """Where B's latency and processor time over A's, by their 95 % intervals, are both certain and
    of opposite directions."""
    if isinstance(latency, Unavailable) or isinstance(cpu, Unavailable):
        return ""
    slower, costlier = latency[0] > 1.0, cpu[0] > 1.0
    faster, cheaper = latency[1] < 1.0, cpu[1] < 1.0
    if not ((slower and cheaper) or (faster and costlier)):
        return ""
    word = "less" if cheaper else "more"
    return (
        f"it takes {word} processor time an inference ({cpu_ratio:.4g} of A's), not the other way"
    )
