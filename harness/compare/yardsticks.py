"""How much the machine itself changed between two sides that were measured one after the other."""

from __future__ import annotations

import math
import statistics

from harness.compare.sides import Side
from harness.maybe import Unavailable

# what the processor's speed moves; a device of its own keeps its own time
_HOST_TIMES = ("latency_", "throughput", "cpu_", "first_inference", "load")


def speed_shift(a: Side, b: Side) -> float:
    """The logarithm of what B's yardstick took over what A's took: above 0, B's machine was slower.
    0 where a side has none."""
    sides = [_yardsticks_ms(side) for side in (a, b)]
    if not all(sides):
        return 0.0
    before, after = (statistics.median(found) for found in sides)
    return math.log(after / before)


def doubt(metric: str, shift: float, effect: float) -> str:
    """Why a change is not to be believed: the machine itself changed by more. ``shift`` as of
    `speed_shift`, ``effect`` a logarithm too; empty where there is no such doubt."""
    if not metric.startswith(_HOST_TIMES) or abs(shift) <= abs(effect):
        return ""
    slower = "slower" if shift > 0 else "faster"
    return (
        f"the machine itself was {math.expm1(abs(shift)):.1%} {slower} while B was measured, which "
        "is more than what is seen; let both take turns: harness duel"
    )


def _yardsticks_ms(side: Side) -> list[float]:
    """One per launch, the mean of before and after."""
    timings = [run.timing for run in side.finished if not isinstance(run.timing, Unavailable)]
    found = [launch.yardstick_ms for timing in timings for launch in timing.launches]
    return [sum(one) / 2 for one in found if not isinstance(one, Unavailable)]
