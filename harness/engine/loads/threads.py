"""One thread a stream, each with a closed loop of its own; a single stream needs none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.engine.loads.closed import StreamLoop
from harness.engine.wire.timeline import STOP, Timeline

if TYPE_CHECKING:
    from harness.protocols import Session


class Threads:
    """A `harness.engine.loads.load.Drive` of closed loops."""

    def __init__(self, timeline: Timeline, sessions: Sequence[Session]) -> None:
        self.facts: dict[str, int] = {}
        self._timeline = timeline
        self.loops = [
            StreamLoop(timeline, stream, session.enqueue, session.synchronize)
            for stream, session in zip(timeline.streams, sessions, strict=True)
        ]

    def warm_up(self) -> None:
        in_threads([loop.warm_up for loop in self.loops], self._timeline)

    def window(self) -> None:
        in_threads([loop.window for loop in self.loops], self._timeline)

    def rebind(self, sessions: Sequence[Session]) -> None:
        for loop, session in zip(self.loops, sessions, strict=True):
            loop.rebind(session.enqueue, session.synchronize)


def in_threads(calls: Sequence[Callable[[], None]], timeline: Timeline) -> None:
    """One thread a call, started together; an error in one stops the others and is raised."""
    if len(calls) == 1:
        calls[0]()
        return
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def body(call: Callable[[], None]) -> None:
        try:
            barrier.wait()
            call()
        except BaseException as error:
            errors.append(error)
            timeline.command = STOP

    threads = [threading.Thread(target=body, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
