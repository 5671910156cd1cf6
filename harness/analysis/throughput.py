"""Inferences per second over the timed windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.analysis.latency import launch_estimate
from harness.maybe import Maybe, Unavailable
from harness.records.result import Throughput
from harness.stats.distributions import student_t_ppf
from harness.stats.quantiles import BATCHED_FROM, batch_means
from harness.stats.two_samples import MIN_LAUNCHES

# One (starts, ends) pair of int64 ns arrays per stream.
Streams = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
_UPPER = 0.975


def throughput(
    launches: Sequence[Streams], batch_size: int, concurrency: int, *, pipelined: bool = False
) -> Throughput:
    """Finished inferences per second of wall time, gaps between iterations included.

    Each launch counts the iterations that ended while all of its streams were running: from the
    last stream's first start to the first stream's last end. Five launches or more give an interval
    between launches, one launch gives one from batches of its inter-completion times. ``pipelined``
    says that one thread kept an inference in flight on every stream.
    """
    rates = [launch_rate(streams, batch_size) for streams in launches]
    method = "iterations ended while all streams ran, over that time, x batch size"
    if pipelined:
        method = f"{concurrency} inferences in flight, one a stream, by one thread; {method}"
    interval: Maybe[tuple[float, float]]
    if len(rates) >= MIN_LAUNCHES:
        value, interval = launch_estimate(rates)
        method += f"; interval: Student's t between {len(rates)} launches"
    else:
        value = float(np.mean(rates))
        interval = _within(launches, value)
        method += "; interval: Student's t on batches within launches, blind to their spread"
    return Throughput(
        inferences_per_s=value,
        ci95=interval,
        batch_size=batch_size,
        concurrency=concurrency,
        method=method,
    )


def launch_rate(streams: Streams, batch_size: int) -> float:
    """Inferences per second of one launch."""
    opened = max(int(starts[0]) for starts, _ in streams)
    closed = min(int(ends[-1]) for _, ends in streams)
    if closed <= opened:  # too short to overlap: the whole span, then
        opened = min(int(starts[0]) for starts, _ in streams)
        closed = max(int(ends[-1]) for _, ends in streams)
    count = sum(int(((ends > opened) & (ends <= closed)).sum()) for _, ends in streams)
    return count / ((closed - opened) / 1e9) * batch_size


def _within(launches: Sequence[Streams], value: float) -> Maybe[tuple[float, float]]:
    """``value`` with the relative uncertainty of the mean time between two completions."""
    gaps = [_gaps(streams) for streams in launches]
    series = np.concatenate(gaps).astype(np.float64)
    if len(series) < BATCHED_FROM:
        return Unavailable(
            f"{len(series) + 1} iterations are too few for an interval",
            f"measure at least {BATCHED_FROM + 1}",
        )
    means = batch_means(series)
    mean = float(means.mean())
    half = student_t_ppf(_UPPER, len(means) - 1) * float(means.std(ddof=1)) / len(means) ** 0.5
    relative = half / mean
    if relative >= 1:
        return Unavailable(
            f"the mean time between completions is known to {relative:.0%} alone",
            "measure longer, or on a quieter machine",
        )
    return value / (1 + relative), value / (1 - relative)


def _gaps(streams: Streams) -> NDArray[np.int64]:
    """Times between two completions in ns."""
    ends = np.concatenate([ends for _, ends in streams])
    ends.sort()
    return np.diff(ends)
