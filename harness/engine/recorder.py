"""Copies the growing timeline out of shared memory, one recorder a stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.engine.timeline import Stream

Times = NDArray[np.int64]
_EMPTY: Times = np.empty(0, np.int64)


class Recorder:
    """All (start, end) pairs of one stream so far, in ns, and where the window lies in them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._starts: list[Times] = []
        self._ends: list[Times] = []
        self.count = 0
        self.window_start = -1
        self.window_end = -1

    def drain(self) -> tuple[Times, Times, slice]:
        """Take what is new: (starts, ends), and which of them lie in the timed window."""
        with self._stream.fresh() as spans:
            starts = [np.array(a, np.int64) for a, _ in spans]
            ends = [np.array(b, np.int64) for _, b in spans]
        self.window_start = self._stream.window_start
        self.window_end = self._stream.window_end
        if not starts:
            return _EMPTY, _EMPTY, slice(0, 0)
        new = np.concatenate(starts), np.concatenate(ends)
        self._starts.append(new[0])
        self._ends.append(new[1])
        before, self.count = self.count, self.count + len(new[0])
        return *new, self._timed(before, len(new[0]))

    def _timed(self, before: int, count: int) -> slice:
        if self.window_start < 0:
            return slice(0, 0)
        last = self.count if self.window_end < 0 else self.window_end
        low = min(max(self.window_start - before, 0), count)
        return slice(low, min(max(last - before, low), count))

    def all(self) -> tuple[Times, Times]:
        """Everything, warm-up and guard band included."""
        if not self._starts:
            return _EMPTY, _EMPTY
        if len(self._starts) > 1:
            self._starts = [np.concatenate(self._starts)]
            self._ends = [np.concatenate(self._ends)]
        return self._starts[0], self._ends[0]

    def window(self) -> tuple[Times, Times]:
        """The timed iterations alone."""
        starts, ends = self.all()
        if self.window_start < 0:
            return _EMPTY, _EMPTY
        last = self.count if self.window_end < 0 else self.window_end
        return starts[self.window_start : last], ends[self.window_start : last]

    def warm_up(self) -> tuple[Times, Times]:
        starts, ends = self.all()
        last = self.count if self.window_start < 0 else self.window_start
        return starts[:last], ends[:last]
