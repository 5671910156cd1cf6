"""Time left of the whole command, from launches whose clocks are set by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.engine.driver.launch import Launch
from harness.engine.driver.outlook import Left, Outlook
from harness.engine.driver.watch import WindowPlan
from harness.spec import RunSpec


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def launch(spec: RunSpec, phase: str, elapsed_s: float, **fields: Any) -> Any:
    """Of a launch that is ``elapsed_s`` into ``phase``, what an outlook looks at."""
    values = {
        "spec": spec, "phase": phase, "phase_began_ns": 0, "idle_s": 0.0, "tracker": None,
        "plan": WindowPlan(), "record": SimpleNamespace(window_ns=None),
        "now_ns": lambda: round(elapsed_s * 1e9),
    }  # fmt: skip
    found = SimpleNamespace(**values | fields)
    found.remaining_s = lambda elapsed_s: Launch.remaining_s(found, elapsed_s)
    return found


FIXED = RunSpec(duration_s=10, warmup_s=2)


@pytest.mark.parametrize(
    ("phase", "elapsed_s", "left_s"),
    [("load", 1, 12), ("warm-up", 0.5, 11.5), ("warm-up", 5, 10), ("window", 4, 6)],
)
def test_one_launch_of_fixed_length(phase: str, elapsed_s: float, left_s: float) -> None:
    assert Outlook(FIXED, Clock()).left(launch(FIXED, phase, elapsed_s)) == Left(left_s, False)


def test_idling_before_and_after_counts() -> None:
    outlook = Outlook(FIXED, Clock())
    assert outlook.left(launch(FIXED, "window", 4, idle_s=3.0)) == Left(9, False)
    over = SimpleNamespace(window_ns=(0, 1))
    assert outlook.left(launch(FIXED, "idle", 1, idle_s=3.0, record=over)) == Left(2, False)
    assert outlook.left(launch(FIXED, "verify", 1, record=over)) is None


def test_later_launches_count_as_long_as_the_first_will_have_been() -> None:
    spec, clock = RunSpec(duration_s=10, warmup_s=2, launches=5), Clock()
    outlook = Outlook(spec, clock)
    assert outlook.left(launch(spec, "load", 0)) == Left(5 * 12, False)
    clock.now_s = 6  # 3 s before its window, which is 3 s old: 7 s left, 13 s each
    assert outlook.left(launch(spec, "window", 3)) == Left(7 + 4 * 13, False)


def test_later_launches_last_as_long_as_those_before_them() -> None:
    spec, clock = RunSpec(duration_s=10, launches=3), Clock()
    outlook = Outlook(spec, clock)
    outlook.left(launch(spec, "load", 0))
    clock.now_s = 14
    outlook.launch_over()
    assert outlook.left(launch(spec, "load", 0)) == Left(28, False)
    clock.now_s = 18
    assert outlook.left(launch(spec, "warm-up", 0)) == Left(10 + 14, False)
    clock.now_s = 40  # later than expected: nothing left of it, and the last one to come
    assert outlook.left(launch(spec, "window", 0)) == Left(14, False)


def test_a_goal_bounds_until_its_interval_says_more() -> None:
    spec = RunSpec(precision_goal=0.01, warmup_s=1)
    outlook = Outlook(spec, Clock())
    assert outlook.left(launch(spec, "load", 0)) == Left(1 + 30, True)
    # twice as wide as wanted after 4 s: four times as long, since it narrows with the root
    narrowing = SimpleNamespace(count=100, relative_half_width=0.02)
    assert outlook.left(launch(spec, "window", 4, tracker=narrowing)) == Left(12, False)
    wide = SimpleNamespace(count=100, relative_half_width=0.2)
    assert outlook.left(launch(spec, "window", 4, tracker=wide)) == Left(26, False)  # the cap
    unknown = SimpleNamespace(count=3, relative_half_width=float("inf"))
    assert outlook.left(launch(spec, "window", 4, tracker=unknown)) == Left(26, True)


def test_a_count_of_iterations_is_unknown_until_it_goes() -> None:
    spec = RunSpec(iterations=1000)
    outlook = Outlook(spec, Clock())
    assert outlook.left(launch(spec, "load", 0)) is None
    counted = SimpleNamespace(count=250)
    assert outlook.left(launch(spec, "window", 2, tracker=counted)) == Left(6, False)
