"""Several inferences in flight on an asynchronous device, driven by one thread.

Each stream has a session of its own with one inference in flight. The host waits for the oldest,
notes its end, starts the next on the same stream, and goes on to the stream whose turn it is:

    stream 0   |=== 0 ===|=== 2 ===|=== 4 ===|
    stream 1        |=== 1 ===|=== 3 ===|
    host      e0 e1  w0 e2 w1 e3  ...               e: enqueue, w: wait (synchronize)

An iteration lasts from before its ``enqueue`` to after its ``synchronize``, so it includes the time
in which the device worked for the others. A thread per stream would add the interpreter's lock to
that. Before the window and after it all streams are run empty. There are no random pauses: a device
that is never idle has no beat for a power sensor to fall in step with.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.engine.loads.closed import CHUNK_NS, FULL_RING_PAUSE_S, Call, leave_without
from harness.engine.wire.timeline import ABORT, STOP, WINDOW, Stream, Timeline

if TYPE_CHECKING:
    from harness.protocols import Session


class Lane(NamedTuple):
    """A stream and its session's two calls."""

    stream: Stream
    enqueue: Call
    synchronize: Call


class PipelinedLoop:
    """All streams from warm-up to the end of their windows, as the driver commands."""

    def __init__(
        self,
        timeline: Timeline,
        lanes: Sequence[Lane],
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._timeline = timeline
        self._lanes = list(lanes)
        self._clock = clock
        self._done = [0] * len(lanes)
        self._in_flight: deque[tuple[int, int]] = deque()  # (lane, start in ns), oldest first
        self._turn = 0
        self._chunk = 1
        self._driver_pid = os.getppid()

    def rebind(self, lanes: Sequence[Lane]) -> None:
        """Go on with other calls on the same streams; nothing may be in flight."""
        self._lanes = list(lanes)

    def warm_up(self) -> None:
        """Loop until the driver asks for the window, or to stop."""
        while self._timeline.command < WINDOW:
            self._advance(self._chunk)
        self._run_empty()

    def window(self) -> None:
        """Loop until the limits, the deadline or the driver's stop; then the guard band."""
        timeline = self._timeline
        for done, lane in zip(self._done, self._lanes, strict=True):
            lane.stream.window_start = done
        self._turn = 0
        left, end = sum(lane.stream.limit for lane in self._lanes), 0
        while timeline.command < STOP and left and end < timeline.deadline_ns:
            count, end = self._advance(min(self._chunk, left))
            left -= count
        end = self._run_empty() or end
        for done, lane in zip(self._done, self._lanes, strict=True):
            lane.stream.window_end = done
        guard_end = end + timeline.guard_ns
        while timeline.command < ABORT and end < guard_end:
            end = self._advance(self._chunk)[1]
        self._run_empty()

    def _advance(self, count: int) -> tuple[int, int]:
        """Start up to ``count`` inferences: how many, and the time after the last step in ns."""
        count = min(count, self._room())
        if count <= 0:
            self._run_empty()
            time.sleep(FULL_RING_PAUSE_S)
            leave_without(self._driver_pid)
            return 0, 0
        began = self._clock()
        for _ in range(count):
            if len(self._in_flight) == len(self._lanes):
                self._finish()
            self._start()
        end = self._clock()
        self._publish()
        spent_ns = max(end - began, 1)
        capacity = self._lanes[0].stream.capacity
        self._chunk = max(1, min(CHUNK_NS * count // spent_ns, 2 * self._chunk, capacity))
        leave_without(self._driver_pid)
        return count, end

    def _start(self) -> None:
        lane = self._turn
        start = self._clock()
        self._lanes[lane].enqueue()
        self._in_flight.append((lane, start))
        self._turn = (lane + 1) % len(self._lanes)

    def _finish(self) -> int:
        lane, start = self._in_flight.popleft()
        stream, _, synchronize = self._lanes[lane]
        synchronize()
        end = self._clock()
        index = self._done[lane] % stream.capacity
        stream.starts[index] = start
        stream.ends[index] = end
        self._done[lane] += 1
        return end

    def _run_empty(self) -> int:
        """Finish what is in flight; the last end in ns, 0 if there was none."""
        end = 0
        while self._in_flight:
            end = self._finish()
        self._publish()
        return end

    def _room(self) -> int:
        """How many more fit into every ring, those in flight counted."""
        free = (
            lane.stream.capacity - (done - lane.stream.consumed)
            for done, lane in zip(self._done, self._lanes, strict=True)
        )
        return min(free) - 1

    def _publish(self) -> None:
        for done, lane in zip(self._done, self._lanes, strict=True):
            lane.stream.written = done


class InFlight:
    """A `harness.engine.loads.load.Drive` of sessions that only start work in ``enqueue``."""

    def __init__(self, timeline: Timeline, sessions: Sequence[Session]) -> None:
        self.facts: dict[str, int] = {}
        self._streams = timeline.streams
        self._loop = PipelinedLoop(timeline, self._lanes(sessions))

    def _lanes(self, sessions: Sequence[Session]) -> list[Lane]:
        pairs = zip(self._streams, sessions, strict=True)
        return [Lane(stream, session.enqueue, session.synchronize) for stream, session in pairs]

    def warm_up(self) -> None:
        self._loop.warm_up()

    def window(self) -> None:
        self._loop.window()

    def rebind(self, sessions: Sequence[Session]) -> None:
        self._loop.rebind(self._lanes(sessions))
