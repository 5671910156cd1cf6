"""How much longer the whole command takes, from what this launch has shown and earlier ones took.

load ── [idle] ── warm-up ── window ── [idle] ── verify │ launch 2 │ launch 3 ...
                       now ^        what is left here   │ each as long as those before
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from harness.engine.driver.tick import Estimate, Tick
from harness.spec import RunSpec


class Left(NamedTuple):
    seconds: float
    at_most: bool  # a bound that a goal may end sooner, no estimate


class Outlook:
    """Follows the launches of one run."""

    def __init__(self, spec: RunSpec, clock: Callable[[], float] = time.perf_counter) -> None:
        self._spec = spec
        self._clock = clock
        self._began_s: float | None = None  # the current launch
        self._lasted_s: list[float] = []

    def launch_over(self) -> None:
        if self._began_s is not None:
            self._lasted_s.append(self._clock() - self._began_s)
        self._began_s = None

    def left(self, tick: Tick) -> Left | None:
        """None where nothing bounds it, as for a count of iterations not yet begun."""
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s
        here_s = now_s - self._began_s
        later = self._spec.launches - len(self._lasted_s) - 1
        if self._lasted_s:
            each_s = sum(self._lasted_s) / len(self._lasted_s)
            return Left(max(each_s - here_s, 0.0) + later * each_s, False)
        window = self._first(tick)
        return window and Left(window.seconds * (1 + later) + here_s * later, window.at_most)

    def _first(self, tick: Tick) -> Left | None:
        """What is left of the first launch, which has none before it."""
        spec = self._spec
        elapsed_s, idle_s = tick.elapsed_s, tick.idle_s
        if tick.window_over:
            if tick.phase == "idle":
                return Left(max(0.0, idle_s - elapsed_s), False)
            return (
                None if spec.launches == 1 else Left(0.0, False)
            )  # who knows what verifying takes
        if tick.phase == "window":
            left_s, at_most = _window_s(spec, tick)
            return None if left_s is None else Left(left_s + idle_s, at_most)
        if spec.iterations is not None:
            return None
        before_s = max(spec.warmup_s - elapsed_s, 0.0) if tick.phase == "warm-up" else 0.0
        if tick.phase in ("load", "idle"):
            before_s = spec.warmup_s + idle_s
        if spec.cap_s == float("inf"):
            return None
        return Left(before_s + spec.cap_s + idle_s, spec.goal is not None)


def _window_s(spec: RunSpec, tick: Tick) -> tuple[float | None, bool]:
    """(seconds left of the window, whether that is a bound alone)."""
    elapsed_s, estimate = tick.elapsed_s, tick.estimate or Estimate()
    bound_s = _bound_s(spec, tick, estimate.count)
    if bound_s is None or spec.goal is None or not estimate.count:
        return bound_s, False
    half = estimate.relative_half_width
    if half == float("inf"):
        return bound_s, True
    # an interval narrows with the root of the time
    needed_s = elapsed_s * (half / spec.goal) ** 2
    needed_s = max(needed_s, spec.floor_s, tick.floor_s)
    return min(max(needed_s - elapsed_s, 0.0), bound_s), False


def _bound_s(spec: RunSpec, tick: Tick, count: int) -> float | None:
    """How long the window will last at most; None where nothing bounds it."""
    elapsed_s = tick.elapsed_s
    left = max(spec.cap_s, tick.floor_s) - elapsed_s
    if spec.iterations is not None and count:
        left = min(left, elapsed_s * (spec.iterations - count) / count)
    return max(0.0, left) if left < float("inf") else None
