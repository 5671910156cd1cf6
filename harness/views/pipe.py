"""A run's progress for the process that started it: JSON lines through a pipe."""

from __future__ import annotations

import contextlib
import os

import msgspec

from harness.protocols import Progress
from harness.records.result import Result
from harness.views.terminal import glimpse


class Glimpse(msgspec.Struct, frozen=True):
    """What goes on inside a launch, in words, and how long the run still takes."""

    text: str
    remaining_s: float | None


class Pipe:
    """One end of it. Writing never waits: whoever does not read misses lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)  # the worker and the sampler have no use for it
        os.set_blocking(descriptor, False)

    def write(self, text: str, remaining_s: float | None) -> None:
        line = msgspec.json.encode(Glimpse(text, remaining_s)) + b"\n"
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line)  # shorter than PIPE_BUF, so whole or not at all

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class PipeSink:
    """A `engine.driver.sinks.Sink`."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = Pipe(descriptor)

    def update(self, progress: Progress) -> None:
        self._pipe.write(glimpse(progress), progress.remaining_s)

    def close(self, result: Result | None) -> None:
        self._pipe.close()
