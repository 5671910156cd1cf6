"""What being watched costs: latencies of interleaved blocks, watched over left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.distributions import student_t_ppf
from harness.analysis.quantiles import minimum_count
from harness.maybe import Maybe, Unavailable
from harness.records.result import Overhead

MIN_ROUNDS = 3
_UPPER = 0.975
METHOD = (
    "interleaved blocks in one process; the median over rounds of the ratio of quantiles, watched "
    "over left alone; interval: Student's t between rounds on the logarithms of the ratios"
)


class Round(NamedTuple):
    """Iteration times in ns of one watched block and of the one beside it."""

    watched: NDArray[np.int64]
    alone: NDArray[np.int64]


def overhead(rounds: Sequence[Round], block_s: float) -> Maybe[Overhead]:
    """Ratios of median and p99. The estimate is a median over rounds, robust to a disturbed one;
    the interval is about the mean logarithm, and so widens with every disturbance.
    """
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
    logs = np.log([np.quantile(one.watched, q) / np.quantile(one.alone, q) for one in rounds])
    half = student_t_ppf(_UPPER, len(logs) - 1) * float(logs.std(ddof=1)) / len(logs) ** 0.5
    centre = float(logs.mean())
    return (
        float(np.exp(np.median(logs))),
        (float(np.exp(centre - half)), float(np.exp(centre + half))),
    )
