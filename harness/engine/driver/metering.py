"""What a launch of a duel does for the meters: longer turns, once those of the window are over.

    turns of the window | idle | A ....... | B ....... | B ....... | A ....... | idle
                        sensors are read from here on

A meter sees the whole machine, and needs seconds of one load: stretches as long as the window of a
run that has such a meter, guards at either end. Idle is what it draws while all sides stand still.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from harness.engine.driver.rounds import SideFailed
from harness.engine.driver.signals import Interrupt
from harness.engine.driver.turns import TurnLaunch
from harness.engine.driver.watch import TICK_S, WindowPlan

MOST_LAUNCHES = 5  # of a duel, which are metered; those of fewer have several pairs each
PAIRS = 5
SHORTEST_GUARD_S = 0.5


def pairs_of(launches: int) -> int:
    """How often each side has a stretch in a launch, of so many launches at least."""
    return math.ceil(PAIRS / min(launches, MOST_LAUNCHES))


class Metering:
    """Gives ``sides``, which rest, their stretches."""

    def __init__(
        self,
        sides: Sequence[TurnLaunch],
        order: Iterator[tuple[int, ...]],
        interrupt: Interrupt,
    ) -> None:
        self._sides, self._order, self._interrupt = list(sides), order, interrupt

    def run(self, pairs: int, begin: Callable[[], None]) -> None:
        """``pairs`` stretches of each, where there is a meter, which ``begin`` is told.

        Raises `SideFailed`.
        """
        plans = [plan for side in self._sides if (plan := side.listen()) is not None]
        if len(plans) < len(self._sides):
            return
        begin()
        idle_s = max(side.idle_s for side in self._sides)
        self._idle("before", idle_s)
        for _ in range(pairs):
            for index in next(self._order):
                if not self._interrupt.requested:
                    self._stretch(self._sides[index], plans)
        self._idle("after", idle_s)
        self._rest(max(plan.settle_s for plan in plans))

    def _stretch(self, side: TurnLaunch, plans: Sequence[WindowPlan]) -> None:
        floor_s, settle_s, pause_s = (
            max(getattr(plan, name) for plan in plans)
            for name in ("floor_s", "settle_s", "pause_s")
        )
        guard_s = min(max(plan.guard_s for plan in plans), settle_s + SHORTEST_GUARD_S)
        # whole iterations alone count, and a busy machine begins late
        length_ns, guard_ns = round(1.02e9 * floor_s), round(1e9 * guard_s)
        self._step(side, partial(side.stretch, length_ns, guard_ns, pause_s))

    def _idle(self, which: str, seconds: float) -> None:
        since_ns = time.perf_counter_ns()
        self._rest(seconds)
        for side in self._sides:
            side.idled(which, since_ns, time.perf_counter_ns())

    def _rest(self, seconds: float) -> None:
        """All sides stand still, and are listened to in turn."""
        end_s, share_s = time.perf_counter() + seconds, TICK_S / len(self._sides)
        while time.perf_counter() < end_s and not self._interrupt.requested:
            for side in self._sides:
                self._step(side, partial(side.idle_for, share_s))

    def _step(self, side: TurnLaunch, step: Callable[[], None]) -> None:
        if not side.attempt(step):
            raise SideFailed(side)
