"""Copies the growing timeline out of shared memory, one recorder a stream."""

from __future__ import annotations

import numpy as np

from harness.engine.outcome.iterations import NONE, Iterations, Rows
from harness.engine.wire.timeline import Stream


class Recorder(Iterations):
    """The iterations of one stream, as they come."""

    def __init__(self, stream: Stream, counts_from: str = "start", *, shared: bool = False) -> None:
        super().__init__(counts_from, shared=shared)
        self._stream = stream

    def drain(self) -> tuple[Rows, slice]:
        """Take what is new, and which of it lies in the timed window."""
        stream = self._stream
        with stream.fresh() as spans:
            parts = [{n: np.array(ring, np.int64) for n, ring in span.items()} for span in spans]
        self.window_start, self.window_end = stream.window_start, stream.window_end
        if not parts:
            return dict.fromkeys(stream.columns, NONE), slice(0, 0)
        rows = {name: np.concatenate([part[name] for part in parts]) for name in stream.columns}
        others = {
            # a closed loop, such as that of every warm-up, writes start and end alone
            name: np.where(column == 0, rows["start"], column)
            for name, column in rows.items()
            if name not in ("start", "end")
        }
        before = self.count
        self.add(rows["start"], rows["end"], others)
        return {**rows, **others}, self._timed(before, len(rows["start"]))

    def _timed(self, before: int, count: int) -> slice:
        if self.window_start < 0:
            return slice(0, 0)
        last = self.count if self.window_end < 0 else self.window_end
        low = min(max(self.window_start - before, 0), count)
        return slice(low, min(max(last - before, low), count))
