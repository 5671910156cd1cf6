"""A timed window cut into blocks of about a second: latency beside what disturbed it.

A window's averages hide a burst. A block's do not, and each block stands beside its own median.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis import channels as shares
from harness.analysis.channels import Series
from harness.analysis.validity import FOREIGN_LIMIT
from harness.maybe import Maybe, Unavailable
from harness.protocols import Channel
from harness.records.result import Block

BLOCK_S = 1.0
MAX_BLOCKS = 120
# In one second a tick of 10 ms is a share of 1 %: one tick alone must not count.
STEAL_LIMIT = 0.02


def blocks(
    launch: int,
    starts_ns: NDArray[np.int64],
    ends_ns: NDArray[np.int64],
    series: Series,
    channels: Sequence[Channel],
) -> tuple[Block, ...]:
    """Equal blocks from the first start to the last end; none for under half a second.

    ``starts_ns`` and ``ends_ns`` are of the timed iterations of all streams, in any order. An
    iteration counts in the block in which it ended.
    """
    first, last = int(starts_ns.min()), int(ends_ns.max())
    count = min(MAX_BLOCKS, round((last - first) / 1e9 / BLOCK_S))
    if count == 0:
        return ()
    edges = np.linspace(first, last, count + 1).astype(np.int64)
    known = {channel.name: channel for channel in channels}
    return tuple(
        _block(launch, first, int(low), int(high), starts_ns, ends_ns, series, known)
        for low, high in pairwise(edges)
    )


def _block(
    launch: int,
    first: int,
    low: int,
    high: int,
    starts_ns: NDArray[np.int64],
    ends_ns: NDArray[np.int64],
    series: Series,
    channels: Mapping[str, Channel],
) -> Block:
    inside = (ends_ns > low) & (ends_ns <= high)
    times_ns = ends_ns[inside] - starts_ns[inside]
    foreign = shares.foreign_share(series, low, high)
    steal = shares.steal_share(series, low, high)
    return Block(
        launch=launch,
        start_s=(low - first) / 1e9,
        seconds=(high - low) / 1e9,
        iterations=int(inside.sum()),
        median_ms=float(np.median(times_ns)) / 1e6
        if len(times_ns)
        else Unavailable("no iteration ended in this block"),
        foreign_share=foreign,
        steal_share=steal,
        pressure_share=_rate("pressure_cpu_s", series, low, high),
        clock_mhz=_mean(_clock(channels), series, channels, low, high),
        temperature_c=_hottest(series, channels, low, high),
        disturbed=_disturbed(foreign, steal),
    )


def _disturbed(foreign: Maybe[float], steal: Maybe[float]) -> Maybe[bool]:
    """Known to be so by either; known not to be so only by both."""
    over = [
        value > limit
        for value, limit in ((foreign, FOREIGN_LIMIT), (steal, STEAL_LIMIT))
        if not isinstance(value, Unavailable)
    ]
    if any(over):
        return True
    for value in (foreign, steal):
        if isinstance(value, Unavailable):
            return value
    return False


def _rate(name: str, series: Series, low: int, high: int) -> Maybe[float]:
    if name not in series:
        return Unavailable(f"{name} was not sampled")
    grown = shares.growth(*series[name], low, high)
    return grown if isinstance(grown, Unavailable) else grown / ((high - low) / 1e9)


def _mean(
    name: str, series: Series, channels: Mapping[str, Channel], low: int, high: int
) -> Maybe[float]:
    if name not in channels or name not in series:
        return Unavailable(f"{name} was not sampled")
    summary: Any = shares.summarise(channels[name], *series[name], low, high)
    return summary if isinstance(summary, Unavailable) else summary.mean


def _of_gpu(channels: Mapping[str, Channel], quantity: str) -> list[str]:
    """The channel of the GPU under test, where there is one: what computes is what matters."""
    return [name for name in channels if re.fullmatch(rf"gpu\d+_{quantity}", name)]


def _clock(channels: Mapping[str, Channel]) -> str:
    return next(iter(_of_gpu(channels, "sm_mhz")), "cpu_max_mhz")


def _hottest(series: Series, channels: Mapping[str, Channel], low: int, high: int) -> Maybe[float]:
    names = _of_gpu(channels, "temperature_c") or [
        name for name in channels if name.endswith("_temperature_c")
    ]
    found = [_mean(name, series, channels, low, high) for name in names]
    known = [value for value in found if not isinstance(value, Unavailable)]
    if known:
        return max(known)
    return found[0] if found else Unavailable("no temperature was sampled")
