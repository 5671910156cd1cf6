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
        self._turns: list[tuple[int, int, int, int]] = []  # first, first timed, end, round

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

    def add_turn(self, first: int, end: int, left_out: int, number: int) -> None:
        """The window consists of turns; of this one the first ``left_out`` are not timed.

        Indices since the start; ``number`` is that of the round.
        """
        self._turns.append((first, min(first + left_out, end), end, number))

    def stretches(self) -> list[tuple[bool, Times, Times, int]]:
        """(timed, starts, ends, round): the warm-up, the window and the guard band, as far as it
        got. The round is -1 where there are none."""
        starts, ends = self.all()
        low, high = self._bounds()
        parts = [(False, 0, low, -1)]
        for first, timed, end, number in self._turns:
            parts += [(False, first, timed, number), (True, timed, end, number)]
        parts += [] if self._turns else [(True, low, high, -1)]
        parts.append((False, high, self.count, -1))
        return [(timed, starts[a:b], ends[a:b], number) for timed, a, b, number in parts if a < b]

    def _bounds(self) -> tuple[int, int]:
        if self._turns:
            return self._turns[0][0], self._turns[-1][2]
        if self.window_start < 0:
            return self.count, self.count
        last = self.count if self.window_end < 0 else self.window_end
        return self.window_start, max(last, self.window_start)

    def window(self) -> tuple[Times, Times]:
        """The timed iterations alone."""
        starts, ends = self.all()
        low, high = self._bounds()
        if not self._turns:
            return starts[low:high], ends[low:high]
        inside = np.zeros(len(starts), bool)
        for _, timed, end, _ in self._turns:
            inside[timed:end] = True
        return starts[inside], ends[inside]

    def warm_up(self) -> tuple[Times, Times]:
        """All before the first that is timed."""
        starts, ends = self.all()
        low = self._turns[0][1] if self._turns else self._bounds()[0]
        return starts[:low], ends[:low]


def _joined(parts: list[Times]) -> Times:
    """``parts`` as one array, which takes their place."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0] if parts else NONE
