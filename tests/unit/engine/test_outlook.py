"""Time left of the whole command, from ticks whose times are set by hand."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engine.driver.outlook import Left, Outlook
from harness.engine.driver.tick import Estimate, Tick
from harness.spec import RunSpec


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def tick(phase: str, elapsed_s: float, **fields: Any) -> Tick:
    """Of a launch that is ``elapsed_s`` into ``phase``."""
    return Tick(0, phase, at_ns=round(elapsed_s * 1e9), phase_began_ns=0, **fields)


FIXED = RunSpec(duration_s=10, warmup_s=2)


@pytest.mark.parametrize(
    ("phase", "elapsed_s", "left_s"),
    [("load", 1, 12), ("warm-up", 0.5, 11.5), ("warm-up", 5, 10), ("window", 4, 6)],
)
def test_one_launch_of_fixed_length(phase: str, elapsed_s: float, left_s: float) -> None:
    assert Outlook(FIXED, Clock()).left(tick(phase, elapsed_s)) == Left(left_s, False)


def test_idling_before_and_after_counts() -> None:
    outlook = Outlook(FIXED, Clock())
    assert outlook.left(tick("window", 4, idle_s=3.0)) == Left(9, False)
    assert outlook.left(tick("idle", 1, idle_s=3.0, window_over=True)) == Left(2, False)
    assert outlook.left(tick("verify", 1, window_over=True)) is None


def test_later_launches_count_as_long_as_the_first_will_have_been() -> None:
    spec, clock = RunSpec(duration_s=10, warmup_s=2, launches=5), Clock()
    outlook = Outlook(spec, clock)
    assert outlook.left(tick("load", 0)) == Left(5 * 12, False)
    clock.now_s = 6  # 3 s before its window, which is 3 s old: 7 s left, 13 s each
    assert outlook.left(tick("window", 3)) == Left(7 + 4 * 13, False)


def test_later_launches_last_as_long_as_those_before_them() -> None:
    spec, clock = RunSpec(duration_s=10, launches=3), Clock()
    outlook = Outlook(spec, clock)
    outlook.left(tick("load", 0))
    clock.now_s = 14
    outlook.launch_over()
    assert outlook.left(tick("load", 0)) == Left(28, False)
    clock.now_s = 18
    assert outlook.left(tick("warm-up", 0)) == Left(10 + 14, False)
    clock.now_s = 40  # later than expected: nothing left of it, and the last one to come
    assert outlook.left(tick("window", 0)) == Left(14, False)


def test_a_goal_bounds_until_its_interval_says_more() -> None:
    spec = RunSpec(precision_goal=0.01, warmup_s=1)
    outlook = Outlook(spec, Clock())
    assert outlook.left(tick("load", 0)) == Left(1 + 30, True)
    # twice as wide as wanted after 4 s: four times as long, since it narrows with the root
    narrowing = Estimate(100, 1.0, 0.02)
    assert outlook.left(tick("window", 4, estimate=narrowing)) == Left(12, False)
    wide = Estimate(100, 1.0, 0.2)
    assert outlook.left(tick("window", 4, estimate=wide)) == Left(26, False)  # the cap
    unknown = Estimate(3, 1.0)
    assert outlook.left(tick("window", 4, estimate=unknown)) == Left(26, True)


def test_a_count_of_iterations_is_unknown_until_it_goes() -> None:
    spec = RunSpec(iterations=1000)
    outlook = Outlook(spec, Clock())
    assert outlook.left(tick("load", 0)) is None
    counted = Estimate(250, 1.0)
    assert outlook.left(tick("window", 2, estimate=counted)) == Left(6, False)
