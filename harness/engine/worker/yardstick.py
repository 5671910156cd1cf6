"""A fixed piece of work in which no framework has a part: how fast is this machine just now?

Timed before the window and after it, never within. It corrects nothing; where it changed, what was
measured in between is doubted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEPS = 1_000  # of one piece: a third of a millisecond, so that most pieces are not preempted
PIECES = 65
LONGEST_NS = 40_000_000  # of all of them, on a machine that is slow or busy


def yardstick_ns(clock: Callable[[], int] = time.perf_counter_ns) -> int:
    """The median time of equal pieces of work, in ns."""
    began = now = clock()
    taken: list[int] = []
    while len(taken) < PIECES and now - began < LONGEST_NS:
        before = now
        _work()
        now = clock()
        taken.append(now - before)
    return sorted(taken)[len(taken) // 2]


def _work() -> None:
    value = 1
    for _ in range(STEPS):
        value = (value * 1_103_515_245 + 12_345) & 0x7FFFFFFF
