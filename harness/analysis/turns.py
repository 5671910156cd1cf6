"""How long a turn lasts and which of its iterations count, found from a few turns on trial.

After a rest the caches hold what the others left there, so the first iterations of a turn are
slower: a fact about the model, and no part of its steady latency. They are left out from the first
turn on, up to where the latency of a position no longer differs from that of the turn's later half
by more than its own scatter or `_LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Latencies = NDArray[np.int64]  # of one turn, in ns, in order

SHORTEST_NS = 20_000_000
TRIAL_TURNS = 10
_TRIAL_NS = 20_000_000
_TRIAL_ITERATIONS = 8
_LONGEST_TRIAL_NS = 500_000_000
_LEVEL = 0.01
_SURE = 2.5  # standard errors of a median
_ERROR_OF_MEDIAN = 1.858  # times the MAD, over the root of the count; of normal scatter
_KEPT = 4  # times as many iterations as are left out, at least
_LONGEST_NS = 400_000_000  # a launch has several rounds, however slow the model


def trial_ns(latency_ns: float) -> int:
    """The length of a turn on trial, for the slowest variant's latency."""
    return round(max(_TRIAL_NS, min(_TRIAL_ITERATIONS * latency_ns, _LONGEST_TRIAL_NS)))


def cold_iterations(turns: Sequence[Latencies]) -> int:
    """How many iterations at a turn's beginning are slow from the rest before it; at least 1."""
    length = min((len(turn) for turn in turns), default=0)
    if length < 4:
        return 1
    table = np.array([turn[:length] for turn in turns], np.float64)
    relative = table / np.median(table[:, length // 2 :], axis=1, keepdims=True)
    positions = np.median(relative, axis=0)
    scatter = np.median(np.abs(relative - positions), axis=0)
    limits = np.maximum(_LEVEL, _SURE * _ERROR_OF_MEDIAN * scatter / math.sqrt(len(turns)))
    warm = np.abs(positions - 1.0) <= limits
    settled = warm[:-1] & warm[1:]  # two in a row: one may be chance
    first = int(np.argmax(settled)) if settled.any() else length // 2
    return max(1, min(first, length // 2))


def block_ns(latency_ns: float, left_out: int) -> int:
    """The length of a turn: short, so that what drifts cancels, and long enough that most of its
    iterations count. ``latency_ns``: of the slowest variant."""
    wanted = (1 + _KEPT) * left_out * latency_ns
    return round(max(SHORTEST_NS, min(wanted, _LONGEST_NS)))
