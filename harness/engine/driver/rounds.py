"""The rounds of one launch of a duel: in each, every side has the turn once."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from harness.analysis.turns import TRIAL_TURNS, block_ns, cold_iterations, trial_ns
from harness.compare.paired import Rounds, ratio_of
from harness.engine.driver.signals import Interrupt
from harness.engine.driver.turns import Taken, TurnLaunch
from harness.maybe import Unavailable
from harness.stats.paired import MIN_ROUNDS

FOLLOW_EVERY_S = 0.5
_LONGEST_TRIAL_S = 2.0  # of one side
_FEWEST_TRIALS = 3


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a duel ends. Seconds are of the turns of one launch, all variants together."""

    goal: float | None  # relative half-width of the ratio's 95 % interval; None: fixed
    floor_s: float
    cap_s: float
    least_launches: int
    most_launches: int


class Turned(msgspec.Struct, frozen=True):
    """The length of a turn, and the iterations at its beginning that do not count."""

    block_ns: int
    left_out: int


class SideFailed(Exception):
    """A worker did not come to the end of its turn; its record says why."""

    def __init__(self, side: TurnLaunch) -> None:
        super().__init__()
        self.side = side


class Recorded:
    """The rounds so far."""

    def __init__(self, sides: int) -> None:
        self.latency: list[list[float]] = [[] for _ in range(sides)]
        self.cold: list[list[float]] = [[] for _ in range(sides)]
        self.cpu: list[list[float]] = [[] for _ in range(sides)]

    @property
    def count(self) -> int:
        return len(self.latency[0])

    def add(self, taken: Sequence[Taken], left_out: int) -> None:
        """One whole round, in the order of the sides."""
        for index, one in enumerate(taken):
            self.latency[index].append(statistics.median(one.latencies[left_out:].tolist()))
            self.cold[index].append(float(one.latencies[0]))
            self.cpu[index].append(one.cpu_ns)

    def frozen(self, sides: Sequence[TurnLaunch]) -> Rounds:
        turns = [side.record.turns for side in sides]
        return Rounds(
            latency=tuple(map(tuple, self.latency)),
            cold=tuple(map(tuple, self.cold)),
            cpu=tuple(map(tuple, self.cpu)),
            resting=tuple(one.resting_share if one else 0.0 for one in turns),
        )


def orders(sides: int, seed: int) -> Iterator[tuple[int, ...]]:
    """A random order and its reverse, again and again: no side is first more often."""
    draw = random.Random(seed)
    while True:
        order = tuple(draw.sample(range(sides), sides))
        yield order
        yield order[::-1]


class Taking:
    """Gives ``sides``, which are warm and rest, the turn by turns."""

    def __init__(
        self,
        sides: Sequence[TurnLaunch],
        order: Iterator[tuple[int, ...]],
        interrupt: Interrupt,
        follow: Callable[[Rounds], None],
    ) -> None:
        self.recorded = Recorded(len(sides))
        self._sides, self._order = list(sides), order
        self._interrupt, self._follow = interrupt, follow
        self._followed_s = 0.0

    def try_out(self) -> Turned:
        """How long turns are to be here, from some on trial, which belong to the warm-up.

        Raises `SideFailed`.
        """
        slowest_ns = 1e9 * max(side.iteration_s() for side in self._sides)
        length_ns = trial_ns(slowest_ns)
        count = int(max(_FEWEST_TRIALS, min(TRIAL_TURNS, _LONGEST_TRIAL_S * 1e9 / length_ns)))
        taken: list[list[Taken]] = [[] for _ in self._sides]
        for _ in range(count):
            for index in next(self._order):
                taken[index].append(self._turn(index, length_ns, 2, -1))
        colds = [cold_iterations([one.latencies for one in turns]) for turns in taken]
        left_out = max(colds)
        return Turned(block_ns(slowest_ns, left_out), left_out)

    def run(self, turned: Turned, rules: Rules) -> str:
        """Rounds until the rules end this launch; which of them did. Raises `SideFailed`."""
        for side in self._sides:
            side.begin(turned.block_ns, turned.left_out)
        began_s = time.perf_counter()
        while True:
            taken: dict[int, Taken] = {}
            for index in next(self._order):
                number = self.recorded.count
                taken[index] = self._turn(index, turned.block_ns, turned.left_out + 1, number)
            if self._interrupt.requested:  # a turn may have been cut short
                return "interrupted"
            self.recorded.add([taken[i] for i in range(len(self._sides))], turned.left_out)
            elapsed_s = time.perf_counter() - began_s
            if why := self._over(elapsed_s, rules):
                return why
            if time.perf_counter() - self._followed_s >= FOLLOW_EVERY_S:
                self._followed_s = time.perf_counter()
                self._follow(self.recorded.frozen(self._sides))

    def _turn(self, index: int, length_ns: int, at_least: int, number: int) -> Taken:
        side, found = self._sides[index], []
        if not side.attempt(lambda: found.append(side.turn(length_ns, at_least, number))):
            raise SideFailed(side)
        return found[0]

    def _over(self, elapsed_s: float, rules: Rules) -> str:
        if self.recorded.count < MIN_ROUNDS or elapsed_s < rules.floor_s:
            return ""
        if elapsed_s >= rules.cap_s:
            return "duration" if rules.goal is None else "max_duration"
        if rules.goal is None or self.recorded.count % 2:
            return ""
        launch = [self.recorded.frozen(self._sides)]
        found = [ratio_of(launch, index) for index in range(1, len(self._sides))]
        # More launches tell more than longer ones, as far as they differ: the least number of
        # launches such as this one is known to the goal.
        enough = rules.goal * math.sqrt(rules.least_launches)
        narrow = all(not isinstance(one, Unavailable) and one.half_width <= enough for one in found)
        return "interval" if narrow else ""
