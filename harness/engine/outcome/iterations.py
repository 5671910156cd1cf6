"""The clock readings of one stream, in the order taken, and where its timed window lies in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
NONE: Times = np.empty(0, np.int64)


class Iterations:
    """All (start, end) pairs so far, in ns.

    16 bytes an iteration; `all` and what builds on it take 8 more while they join what came since.
    """

    def __init__(self) -> None:
        self._starts: list[Times] = []
        self._ends: list[Times] = []
        self.count = 0
        self.window_start = -1
        self.window_end = -1

    @classmethod
    def of(cls, starts: Times, ends: Times, window: tuple[int, int]) -> Iterations:
        """Those recorded before. ``window``: indices, -1 and -1 where there was none."""
        iterations = Iterations()
        iterations.add(starts, ends)
        iterations.window_start, iterations.window_end = window
        return iterations

    def add(self, starts: Times, ends: Times) -> None:
        self._starts.append(starts)
        self._ends.append(ends)
        self.count += len(starts)

    def all(self) -> tuple[Times, Times]:
        """Everything, warm-up and guard band included."""
        return _joined(self._starts), _joined(self._ends)

    def stretches(self) -> list[tuple[bool, Times, Times]]:
        """(timed, starts, ends): the warm-up, the window and the guard band, as far as it got."""
        starts, ends = self.all()
        low, high = self._bounds()
        parts = ((False, 0, low), (True, low, high), (False, high, self.count))
        return [(timed, starts[a:b], ends[a:b]) for timed, a, b in parts if a < b]

    def _bounds(self) -> tuple[int, int]:
        if self.window_start < 0:
            return self.count, self.count
        last = self.count if self.window_end < 0 else self.window_end
        return self.window_start, max(last, self.window_start)

    def window(self) -> tuple[Times, Times]:
        """The timed iterations alone."""
        starts, ends = self.all()
        low, high = self._bounds()
        return starts[low:high], ends[low:high]

    def warm_up(self) -> tuple[Times, Times]:
        starts, ends = self.all()
        low, _ = self._bounds()
        return starts[:low], ends[:low]


def _joined(parts: list[Times]) -> Times:
    """``parts`` as one array, which takes their place."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0] if parts else NONE
