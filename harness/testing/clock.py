"""A clock that a test turns by hand, so that timing code gives exact numbers."""

from __future__ import annotations

from collections.abc import Iterable


class ManualClock:
    """Stands in for ``time.perf_counter_ns``: each call returns the time in ns, then moves it on.

    ``script`` gives the first steps one by one, ``step_ns`` every step after them. `advance` moves
    the time between calls, as `harness.testing.fake_backend.FakeBackend` does for its latency.
    """

    def __init__(self, step_ns: int = 0, script: Iterable[int] = (), start_ns: int = 0) -> None:
        self.now_ns = start_ns
        self._step_ns = step_ns
        self._script = iter(script)

    def __call__(self) -> int:
        now_ns = self.now_ns
        self.advance(next(self._script, self._step_ns))
        return now_ns

    def advance(self, ns: int) -> None:
        """Move on by ``ns``. Raises `ValueError` for a negative step: the clock is monotonic."""
        if ns < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-ns} ns")
        self.now_ns += ns
