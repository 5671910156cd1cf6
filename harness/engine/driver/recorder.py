"""Copies the growing timeline out of shared memory, one recorder a stream."""

from __future__ import annotations

import numpy as np

from harness.engine.outcome.iterations import NONE, Iterations, Times
from harness.engine.wire.timeline import Stream


class Recorder(Iterations):
    """The iterations of one stream, as they come."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def drain(self) -> tuple[Times, Times, slice]:
        """Take what is new: (starts, ends), and which of them lie in the timed window."""
        with self._stream.fresh() as spans:
            starts = [np.array(a, np.int64) for a, _ in spans]
            ends = [np.array(b, np.int64) for _, b in spans]
        self.window_start = self._stream.window_start
        self.window_end = self._stream.window_end
        if not starts:
            return NONE, NONE, slice(0, 0)
        new = np.concatenate(starts), np.concatenate(ends)
        before = self.count
        self.add(*new)
        return *new, self._timed(before, len(new[0]))

    def _timed(self, before: int, count: int) -> slice:
        if self.window_start < 0:
            return slice(0, 0)
        last = self.count if self.window_end < 0 else self.window_end
        low = min(max(self.window_start - before, 0), count)
        return slice(low, min(max(last - before, low), count))
