"""The stop rule's view of a growing sample: its median, and how well that is known.

The median's interval is the one of `harness.stats.quantiles`, so what the rule sees and what
the result reports agree. To stay cheap at ten million iterations, at most 131,072 of them are kept:
when the store is full, one of each neighbouring pair is dropped at random, and from then on one of
every two (four, eight, ...) new iterations is kept, also at random. Evenly spread over time, the
kept ones show the same slow correlation as all; drawn at random, they cannot fall in step with a
period of the workload. The interval of a thinned sample is, if anything, wider.

A rule that looks often and stops at the first narrow interval favours the moments when chance made
it narrow (Chow and Robbins, 1965, prove such rules right in the limit only). The simulation that
the tests pin, of nominal 95 %: 97 % for independent iterations; for an autocorrelation of 0.9 and a
look every 200 iterations, 89 %, but 94 % where a floor outlasts the first narrow interval. So a
window has a floor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.stats.quantiles import bounding_ranks, effective_count

CAPACITY = 131_072
_NS_PER_MS = 1e6


class IntervalTracker:
    """Feed it iteration times in nanoseconds, in order; ask it now and then for the median."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.count = 0
        self._capacity = capacity
        self._stride = 1
        self._kept: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._waiting: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._random = np.random.default_rng(0)
        self._answer: tuple[float, float] | None = None

    def update(self, latencies_ns: NDArray[Any]) -> None:
        """Take in the iterations since the last call, as a 1-D array that may be empty."""
        if len(latencies_ns) == 0:
            return
        self.count += len(latencies_ns)
        self._answer = None
        self._waiting = np.concatenate([self._waiting, latencies_ns])
        kept, self._waiting = self._thin(self._waiting, self._stride)
        self._kept = np.concatenate([self._kept, kept])
        while len(self._kept) > self._capacity:
            self._stride *= 2
            self._kept, _ = self._thin(self._kept, 2)

    @property
    def median_ms(self) -> float:
        """Median so far; nan before the first iteration."""
        return self._median_and_half_width()[0] / _NS_PER_MS

    @property
    def relative_half_width(self) -> float:
        """Half the width of the median's 95 % interval over the median; inf while there is none."""
        return self._median_and_half_width()[1]

    def _thin(
        self, samples: NDArray[np.int64], step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """One at random of every ``step`` samples, and the remainder that fills no step."""
        groups = len(samples) // step
        used = samples[: groups * step].reshape(groups, step)
        if step == 1:
            return used[:, 0], samples[groups:]
        chosen = used[np.arange(groups), self._random.integers(step, size=groups)]
        return chosen, samples[groups * step :]

    def _median_and_half_width(self) -> tuple[float, float]:
        if self._answer is None:
            self._answer = _measure(self._kept)
        return self._answer


def _measure(samples: NDArray[np.int64]) -> tuple[float, float]:
    """Median in the unit of ``samples``, and its relative half-width."""
    n = len(samples)
    if n == 0:
        return math.nan, math.inf
    median = float(np.median(samples))
    ranks = bounding_ranks(n, effective_count(samples, median, 0.5), 0.5)
    if ranks is None:
        return median, math.inf
    edges = np.partition(samples, (ranks.low - 1, ranks.high - 1))
    width = float(edges[ranks.high - 1] - edges[ranks.low - 1])
    if width == 0.0:
        return median, 0.0
    return median, width / 2.0 / median if median > 0.0 else math.inf
