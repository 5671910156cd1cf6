"""A fixed piece of work in which no framework has a part: how fast is this machine just now?

Timed before the window and after it, never within. It corrects nothing; where it changed, what was
measured in between is doubted. A virtual processor has two speeds at least, as its core's other
thread works for somebody else or not; these last for milliseconds to minutes, so no quantile of a
yardstick is steadier than its median.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEPS = 1_000  # of one piece: a third of a millisecond, so that most pieces are not preempted
PIECES = 65
COLD_PIECES = 5  # the first, which are slower after a rest or a large model
LONGEST_NS = 40_000_000  # of all of them, on a machine that is slow or busy


def yardstick_ns(clock: Callable[[], int] = time.perf_counter_ns) -> int:
    """The median time of equal pieces of work, but for the first ones, in ns."""
    began = now = clock()
    taken: list[int] = []
    while len(taken) < COLD_PIECES + PIECES and now - began < LONGEST_NS:
        before = now
        _work()
        now = clock()
        taken.append(now - before)
    warm = sorted(taken[COLD_PIECES:] or taken)
    return warm[len(warm) // 2]


def _work() -> None:
    value = 1
    for _ in range(STEPS):
        value = (value * 1_103_515_245 + 12_345) & 0x7FFFFFFF
