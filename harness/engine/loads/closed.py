"""The timed loop: between two clock reads there is the inference and nothing else.

    start = clock() | enqueue() | synchronize() | end = clock()      then, outside:  store both

Chunks of iterations run without any test but the loop's own. Between chunks, about every 5 ms, the
worker publishes how far it is, obeys the driver, and makes sure that the driver still lives.
``benchmarks/loop_cost.py`` measures what this costs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from harness.engine.wire.timeline import ABORT, STOP, WINDOW, Stream, Timeline

Call = Callable[[], object]
CHUNK_NS = 5_000_000
PAUSE_EVERY = 10  # iterations share a pause; equal to that of `harness.analysis.energy.series`
FULL_RING_PAUSE_S = 0.001


def timed_chunk(
    enqueue: Call,
    synchronize: Call,
    stream: Stream,
    first: int,
    last: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> int:
    """Run iterations ``first`` to ``last`` (ring positions) and return the last end, in ns."""
    starts, ends = stream.starts, stream.ends
    end = 0
    for index in range(first, last):
        start = clock()
        enqueue()
        synchronize()
        end = clock()
        starts[index] = start
        ends[index] = end
    return end


class StreamLoop:
    """One stream from warm-up to the end of its window, as the driver commands."""

    def __init__(
        self,
        timeline: Timeline,
        stream: Stream,
        enqueue: Call,
        synchronize: Call,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._timeline = timeline
        self._stream = stream
        self._enqueue = enqueue
        self._synchronize = synchronize
        self._clock = clock
        self._done = 0
        self._chunk = 1
        self._pause_s = 0.0
        self._driver_pid = os.getppid()

    def rebind(self, enqueue: Call, synchronize: Call) -> None:
        """Go on with other calls, such as those that record device events."""
        self._enqueue, self._synchronize = enqueue, synchronize

    def warm_up(self) -> None:
        """Loop until the driver asks for the window, or to stop."""
        while self._timeline.command < WINDOW:
            self._advance(self._chunk)

    def window(self) -> None:
        """Loop until the limit, the deadline or the driver's stop; then the guard band, untimed."""
        stream, timeline = self._stream, self._timeline
        stream.window_start = self._done
        last = self._done + stream.limit
        end = 0
        while timeline.command < STOP and self._done < last and end < timeline.deadline_ns:
            end = self._advance(min(self._chunk, last - self._done))
        stream.window_end = self._done
        guard_end = end + timeline.guard_ns
        while timeline.command < ABORT and end < guard_end:
            end = self._advance(self._chunk)

    def turn(self, length_ns: int, at_least: int) -> tuple[int, int]:
        """Loop for so long, and so many iterations: the first index, and that after the last."""
        first, end = self._done, 0
        deadline = self._clock() + length_ns
        while self._timeline.command < STOP:
            end = self._advance(self._chunk)
            if end >= deadline and self._done - first >= at_least:
                break
        return first, self._done

    def _advance(self, count: int) -> int:
        stream = self._stream
        room = stream.capacity - (self._done - stream.consumed)
        if room <= 0:
            time.sleep(FULL_RING_PAUSE_S)
            self._check_driver()
            return 0
        first = self._done % stream.capacity
        count = min(count, room, stream.capacity - first)
        end = timed_chunk(
            self._enqueue, self._synchronize, stream, first, first + count, self._clock
        )
        self._done += count
        stream.written = self._done
        spent_ns = max(end - stream.starts[first], 1)
        self._chunk = max(1, min(CHUNK_NS * count // spent_ns, 2 * self._chunk, stream.capacity))
        self._check_driver()
        if self._timeline.pause_ns:
            self._pause()
        return end

    def _pause(self) -> None:
        """Break step with a sensor that looks only now and then (`analysis.power_series`)."""
        if self._done % PAUSE_EVERY == 0:
            import random

            self._pause_s = random.uniform(0, self._timeline.pause_ns / 1e9)
        time.sleep(self._pause_s)

    def _check_driver(self) -> None:
        leave_without(self._driver_pid)


def leave_without(driver_pid: int) -> None:
    """End this process where its driver is gone: nobody is left to measure for."""
    if os.getppid() != driver_pid:
        os._exit(1)
