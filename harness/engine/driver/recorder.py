"""Copies the growing timeline out of shared memory, one recorder a stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.engine.wire.timeline import Stream

Times = NDArray[np.int64]
_EMPTY: Times = np.empty(0, np.int64)


class Recorder:
    """All (start, end) pairs of one stream so far, in ns, and where the window lies in them.

    16 bytes an iteration; `all` and what builds on it take 8 more while they join what came since.
    """

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream
        self._starts: list[Times] = []
        self._ends: list[Times] = []
        self.count = 0
        self.window_start = -1
        self.window_end = -1

    @classmethod
    def of(cls, starts: Times, ends: Times, window: tuple[int, int]) -> Recorder:
        """One of what was recorded before. ``window``: indices, -1 and -1 where there was none."""
        recorder = cls(None)
        recorder._starts, recorder._ends, recorder.count = [starts], [ends], len(starts)
        recorder.window_start, recorder.window_end = window
        return recorder

    def drain(self) -> tuple[Times, Times, slice]:
        """Take what is new: (starts, ends), and which of them lie in the timed window."""
        if self._stream is None:
            return _EMPTY, _EMPTY, slice(0, 0)
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
    return parts[0] if parts else _EMPTY
