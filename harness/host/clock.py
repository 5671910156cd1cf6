"""What reading the clock costs."""

from __future__ import annotations

import time
from collections.abc import Callable


def clock_cost_ms(reads: int = 1000) -> float:
    """What one clock reading adds to a measured interval, in ms: the least of several trials."""
    clock = time.perf_counter_ns
    best = min(_trial(clock, reads) for _ in range(5))
    return best / reads / 1e6


def _trial(clock: Callable[[], int], reads: int) -> int:
    began = clock()
    for _ in range(reads):
        clock()
    return clock() - began
