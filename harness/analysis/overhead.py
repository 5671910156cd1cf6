"""What being watched costs: latencies of interleaved blocks, watched over left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.maybe import Maybe, Unavailable
from harness.records.result import Overhead
from harness.stats.quantiles import bounding_ranks, minimum_count

MIN_ROUNDS = minimum_count(0.5)
METHOD = (
    "interleaved blocks in one process; the median over rounds of the ratio of quantiles, watched "
    "over left alone; interval: order statistics of the rounds"
)


Block = tuple[int, int, bool]  # start and end in ns, and whether all were watching


class Round(NamedTuple):
    """Iteration times in ns of one watched block and of the one beside it."""

    watched: NDArray[np.int64]
    alone: NDArray[np.int64]


def rounds_of(
    blocks: Sequence[Block], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> list[Round]:
    """Each two blocks, with the iterations (``starts`` and ``ends``) that lie wholly in them."""
    latencies = ends - starts
    inside = [
        (watched, latencies[(starts >= start_ns) & (ends <= end_ns)])
        for start_ns, end_ns, watched in blocks
    ]
    pairs = (dict(pair) for pair in zip(inside[::2], inside[1::2], strict=False))
    return [Round(watched=pair[True], alone=pair[False]) for pair in pairs]


def overhead(rounds: Sequence[Round], block_s: float) -> Maybe[Overhead]:
    """Ratios of median and p99: medians over rounds, so that a disturbed round does not decide."""
    full = [one for one in rounds if len(one.watched) and len(one.alone)]
    if len(full) < MIN_ROUNDS:
        return Unavailable(
            f"{len(full)} rounds were finished, and {MIN_ROUNDS} are needed", "do not interrupt"
        )
    median, median_ci95 = _ratio(full, 0.5)
    shortest = min(min(len(one.watched), len(one.alone)) for one in full)
    tail: Maybe[float]
    tail_ci95: Maybe[tuple[float, float]]
    if shortest >= minimum_count(0.99):
        tail, tail_ci95 = _ratio(full, 0.99)
    else:
        tail = tail_ci95 = Unavailable(
            f"a block had {shortest} iterations; p99 needs {minimum_count(0.99)}",
            "use a faster model or a smaller batch",
        )
    return Overhead(
        rounds=len(full),
        block_s=block_s,
        median=median,
        median_ci95=median_ci95,
        p99=tail,
        p99_ci95=tail_ci95,
        method=METHOD,
    )


def _ratio(rounds: Sequence[Round], q: float) -> tuple[float, tuple[float, float]]:
    ratios = np.sort([np.quantile(one.watched, q) / np.quantile(one.alone, q) for one in rounds])
    ranks = bounding_ranks(len(ratios), len(ratios), 0.5)
    assert ranks is not None
    return (
        float(np.median(ratios)),
        (float(ratios[ranks.low - 1]), float(ratios[ranks.high - 1])),
    )
