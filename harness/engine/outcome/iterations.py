"""The clock readings of one stream, in the order taken, and where its timed window lies in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Rows = dict[str, Times]  # column of the timeline -> one entry an iteration, ns
NONE: Times = np.empty(0, np.int64)
_ALWAYS = ("start", "end")


class Iterations:
    """All rows so far: start, end, and what else the load records, in ns.

    8 bytes a column and iteration; `all` and what builds on it take 8 more while they join what
    came since. ``counts_from``: the column from which latency counts. ``shared``: streams take from
    one schedule, of which this one may have got nothing.
    """

    def __init__(self, counts_from: str = "start", *, shared: bool = False) -> None:
        self.shared = shared
        self._parts: dict[str, list[Times]] = {name: [] for name in _ALWAYS}
        self.counts_from = counts_from
        self.count = 0
        self.window_start = -1
        self.window_end = -1
        self._turns: list[tuple[int, int, int, int]] = []  # first, first timed, end, round

    @classmethod
    def of(
        cls,
        starts: Times,
        ends: Times,
        window: tuple[int, int],
        others: Mapping[str, Times] | None = None,
        counts_from: str = "start",
        *,
        shared: bool = False,
    ) -> Iterations:
        """Those recorded before. ``window``: indices, -1 and -1 where there was none."""
        iterations = Iterations(counts_from, shared=shared)
        iterations.add(starts, ends, others)
        iterations.window_start, iterations.window_end = window
        return iterations

    def add(self, starts: Times, ends: Times, others: Mapping[str, Times] | None = None) -> None:
        for name, column in {"start": starts, "end": ends, **(others or {})}.items():
            self._parts.setdefault(name, []).append(column)
        self.count += len(starts)

    def rows(self) -> Rows:
        """Everything, warm-up and guard band included."""
        return {name: _joined(parts) for name, parts in self._parts.items()}

    def all(self) -> tuple[Times, Times]:
        """The starts and ends of `rows`."""
        return _joined(self._parts["start"]), _joined(self._parts["end"])

    def add_turn(self, first: int, end: int, left_out: int, number: int) -> None:
        """The window consists of turns; of this one the first ``left_out`` are not timed.

        Indices since the start; ``number`` is that of the round.
        """
        self._turns.append((first, min(first + left_out, end), end, number))

    def stretches(self) -> list[tuple[bool, Times, Times, int, Rows]]:
        """(timed, starts, ends, round, other columns): the warm-up, the window and the guard band,
        as far as it got. The round is -1 where there are none."""
        rows = self.rows()
        starts, ends = rows.pop("start"), rows.pop("end")
        low, high = self._bounds()
        parts = [(False, 0, low, -1)]
        for first, timed, end, number in self._turns:
            parts += [(False, first, timed, number), (True, timed, end, number)]
        parts += [] if self._turns else [(True, low, high, -1)]
        parts.append((False, high, self.count, -1))
        return [
            (timed, starts[a:b], ends[a:b], number, {n: one[a:b] for n, one in rows.items()})
            for timed, a, b, number in parts
            if a < b
        ]

    def _bounds(self) -> tuple[int, int]:
        if self._turns:
            return self._turns[0][0], self._turns[-1][2]
        if self.window_start < 0:
            return self.count, self.count
        last = self.count if self.window_end < 0 else self.window_end
        return self.window_start, max(last, self.window_start)

    def timed(self) -> Rows:
        """The rows of the timed iterations alone."""
        rows = self.rows()
        low, high = self._bounds()
        if not self._turns:
            return {name: column[low:high] for name, column in rows.items()}
        inside = np.zeros(self.count, bool)
        for _, timed, end, _ in self._turns:
            inside[timed:end] = True
        return {name: column[inside] for name, column in rows.items()}

    def window(self) -> tuple[Times, Times]:
        """The starts and ends of `timed`."""
        rows = self.timed()
        return rows["start"], rows["end"]

    def counted(self) -> tuple[Times, Times]:
        """From when to when the latency of each timed iteration counts."""
        rows = self.timed()
        return rows[self.counts_from], rows["end"]

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
