"""Rounds, and what pytest-benchmark states of them: its definitions, figure by figure.

A round is one timed iteration. Of more than `MOST_ROUNDS` every k-th is taken, in order of time and
over all launches alike, so that data and statistics belong together and a file stays small:

    iterations   0 1 2 3 4 5 6 7 8 9 10 11 ...        k = ceil(iterations / MOST_ROUNDS)
    rounds       ^       ^       ^                    here 4

Quartiles are the mean of the two that Tukey's hinges give, with the median in both halves and in
neither; whiskers reach to the last datum within 1.5 interquartile ranges.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import ResultError

if TYPE_CHECKING:
    from harness.records.samples import Samples

MOST_ROUNDS = 10_000


class Rounds(NamedTuple):
    """``seconds``: one latency a round. ``every``: of so many iterations one is a round."""

    seconds: tuple[float, ...]
    iterations: int
    every: int


def rounds_of(runs: Sequence[Samples]) -> Rounds:
    """The timed iterations of ``runs``, one after another.

    Raises `ResultError` for samples that do not fit together.
    """
    if not all(one.fit_together for one in runs):
        raise ResultError("the samples do not fit together: their columns differ in length")
    taken = [one.latency_ns[one.timed == 1] for one in runs]
    nanoseconds = [value for latencies in taken for value in latencies.tolist()]
    every = max(1, math.ceil(len(nanoseconds) / MOST_ROUNDS))
    seconds = tuple(value / 1e9 for value in nanoseconds[::every])
    return Rounds(seconds, len(nanoseconds), every)


def statistics_of(data: Sequence[float]) -> dict[str, float | int | str]:
    """All that pytest-benchmark keeps of ``data``, which holds at least one number."""
    ordered = sorted(data)
    mean, total = statistics.mean(data), math.fsum(data)
    stddev = statistics.stdev(data) if len(data) > 1 else 0.0
    low, high = _hinge(ordered), -_hinge([-value for value in reversed(ordered)])
    fences = (low - 1.5 * (high - low), high + 1.5 * (high - low))
    beyond = (_outside(ordered, mean - stddev, mean + stddev), _outside(ordered, *fences))
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": len(ordered),
        "median": statistics.median(ordered),
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": beyond[1],
        "stddev_outliers": beyond[0],
        "outliers": f"{beyond[0]};{beyond[1]}",
        "ld15iqr": ordered[bisect_left(ordered, fences[0])],
        "hd15iqr": ordered[bisect_right(ordered, fences[1]) - 1],
        "ops": len(ordered) / total if total else 0,
        "total": total,
        "iterations": 1,
    }


def _hinge(ordered: Sequence[float]) -> float:
    """The lower quartile."""
    half = len(ordered) // 2
    if not half:
        return ordered[0]
    without, with_it = ordered[:half], ordered[: len(ordered) - half]
    return (statistics.median(without) + statistics.median(with_it)) / 2


def _outside(ordered: Sequence[float], low: float, high: float) -> int:
    return bisect_left(ordered, low) + len(ordered) - bisect_right(ordered, high)
