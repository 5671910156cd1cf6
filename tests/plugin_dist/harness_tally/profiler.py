"""The worker's threads, and how much it has read: a level and a sum, both from /proc."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.protocols import Available, Channel, ProfilerContext, Unavailable

CHANNELS = (
    Channel("tally_threads", "count", "gauge", "tally/threads", source="/proc/PID/status"),
    Channel("tally_read_bytes", "bytes", "counter", "tally/read_bytes", source="/proc/PID/io"),
)
_KEYS = (("status", rb"^Threads:\s*(\d+)"), ("io", rb"^rchar:\s*(\d+)"))


class TallyProfiler:
    name = "tally"

    def __init__(self, context: ProfilerContext) -> None:
        self._folder = Path(context.root) / "proc" / str(context.pid)
        self._channels: tuple[Channel, ...] = ()

    def open(self) -> Available | Unavailable:
        self._channels = tuple(
            msgspec.structs.replace(channel, unavailable=None if value is not None else _GONE)
            for channel, value in zip(CHANNELS, self._values(), strict=True)
        )
        return _GONE if all(c.unavailable for c in self._channels) else Available()

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self) -> Sequence[float | None]:
        return [
            None if channel.unavailable else value
            for channel, value in zip(self._channels, self._values(), strict=bool(self._channels))
        ]

    def close(self) -> None:
        pass

    def _values(self) -> list[float | None]:
        return [_find(self._folder / file, pattern) for file, pattern in _KEYS]


_GONE = Unavailable("the process is gone or hides its figures", "run it as the same user")


def _find(path: Path, pattern: bytes) -> float | None:
    try:
        found = re.search(pattern, path.read_bytes(), re.MULTILINE)
    except OSError:
        return None
    return float(found[1]) if found else None
