"""A profiler that plays given readings: sensors for tests, and recorded traces of real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from harness.protocols import Available, Channel, ProfilerContext, Unavailable

Reading = Sequence[float | None]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What a `ReplayProfiler` plays: one row of ``readings`` per call, one value per channel."""

    channels: tuple[Channel, ...]
    readings: tuple[tuple[float | None, ...], ...]


class ReplayProfiler:
    """Returns the given rows one by one and then the last one for good, as an idle sensor would.

    A row that is an exception is raised in its turn. Rows may be an endless iterator. Without
    ``channels`` the trace is the JSON file (a `Trace`) named by the context's option ``replay``;
    without that either, the profiler is unavailable. ``context`` is kept for tests to look at.
    """

    name = "replay"

    def __init__(
        self,
        context: ProfilerContext,
        channels: Sequence[Channel] = (),
        readings: Sequence[Reading | Exception] | Iterator[Reading | Exception] = (),
    ) -> None:
        self.context = context
        self.closed = False
        self._channels = tuple(channels)
        self._readings: Iterator[Reading | Exception] = iter(readings)
        self._last: Reading | None = None

    def open(self) -> Available | Unavailable:
        path = self.context.options.get("replay")
        if not self._channels and path is None:
            return Unavailable("no trace to replay", "give the option replay=FILE.json")
        if not self._channels and path is not None:
            try:
                trace = msgspec.json.decode(Path(path).read_bytes(), type=Trace)
            except (OSError, msgspec.DecodeError) as error:
                return Unavailable(f"the trace {path} cannot be read: {error}", "record it again")
            self._channels, self._readings = trace.channels, iter(trace.readings)
        return Available({"trace": path or "given"})

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self) -> Reading:
        row = next(self._readings, self._last)
        if isinstance(row, Exception):
            raise row
        if row is None:
            return [None] * len(self._channels)
        if len(row) != len(self._channels):
            raise ValueError(f"a row of {len(row)} readings for {len(self._channels)} channels")
        self._last = row
        return row

    def close(self) -> None:
        self.closed = True
