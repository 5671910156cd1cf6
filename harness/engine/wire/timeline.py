"""The shared timeline: where the worker writes each iteration's two clock readings.

One block of anonymous shared memory, pre-touched by the driver so that the loop never meets a page
fault, and inherited by the worker as a file descriptor. It is not a mapping of a file on disk: the
write-back of such pages lands in timed regions.

    words 0..7          commands, driver to worker
    per stream s        4 counters, then CAPACITY starts, then CAPACITY ends (a ring)

The worker publishes ``written`` between chunks of iterations; the driver copies what is new and
advances ``consumed``. All values are int64; times are ``time.perf_counter_ns``, which on Linux is
CLOCK_MONOTONIC, the same in every process.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

CAPACITY = 1 << 17
_MOST_PAIRS = 1 << 22  # of all streams together: 64 MiB, all of them touched
FOREVER = 1 << 62

WARM_UP, WINDOW, STOP, ABORT = 0, 1, 2, 3

_COMMAND, _DEADLINE_NS, _GUARD_NS, _PAUSE_NS, _HEADER_WORDS = 0, 1, 2, 3, 8
_WRITTEN, _CONSUMED, _WINDOW_START, _WINDOW_END, _LIMIT, _STREAM_HEADER = 0, 1, 2, 3, 4, 8


def capacity_for(streams: int) -> int:
    """How many iterations each of ``streams`` can have that the driver has not taken in yet."""
    return max(1 << 10, min(CAPACITY, _MOST_PAIRS // streams))


def _anonymous_file(size_bytes: int) -> int:
    """A file descriptor on memory that no path names, so that nothing is left behind."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("harness-timeline")
    else:
        import tempfile

        fd, path = tempfile.mkstemp()
        os.unlink(path)  # noqa: PTH108
    os.ftruncate(fd, size_bytes)
    return fd


class Timeline:
    """The whole block. ``capacity`` is per stream; indices passed in are counts since the start."""

    def __init__(self, fd: int, streams: int, capacity: int = CAPACITY) -> None:
        self.fd = fd
        self.capacity = capacity
        self._map = mmap.mmap(fd, self.size_bytes(streams, capacity))
        self._words = memoryview(self._map).cast("q")
        self.streams = [self._stream(index) for index in range(streams)]

    @classmethod
    def create(cls, streams: int, capacity: int = CAPACITY) -> Timeline:
        """A new block, every page touched."""
        size = cls.size_bytes(streams, capacity)
        timeline = cls(_anonymous_file(size), streams, capacity)
        timeline._map.write(bytes(size))
        for stream in timeline.streams:
            stream.window_start = stream.window_end = -1
            stream.limit = FOREVER
        timeline.deadline_ns = FOREVER
        return timeline

    @staticmethod
    def size_bytes(streams: int, capacity: int) -> int:
        return 8 * (_HEADER_WORDS + streams * (_STREAM_HEADER + 2 * capacity))

    def _stream(self, index: int) -> Stream:
        at = _HEADER_WORDS + index * (_STREAM_HEADER + 2 * self.capacity)
        return Stream(self._words[at : at + _STREAM_HEADER + 2 * self.capacity], self.capacity)

    @property
    def command(self) -> int:
        return self._words[_COMMAND]

    @command.setter
    def command(self, value: int) -> None:
        self._words[_COMMAND] = value

    @property
    def deadline_ns(self) -> int:
        """The window closes at the first iteration that ends after this."""
        return self._words[_DEADLINE_NS]

    @deadline_ns.setter
    def deadline_ns(self, value: int) -> None:
        self._words[_DEADLINE_NS] = value

    @property
    def guard_ns(self) -> int:
        """How long the same load goes on after the window, for sensors that lag."""
        return self._words[_GUARD_NS]

    @guard_ns.setter
    def guard_ns(self, value: int) -> None:
        self._words[_GUARD_NS] = value

    @property
    def pause_ns(self) -> int:
        """Longest random pause between iterations, for sensors that could keep step with them."""
        return self._words[_PAUSE_NS]

    @pause_ns.setter
    def pause_ns(self, value: int) -> None:
        self._words[_PAUSE_NS] = value

    def close(self) -> None:
        """Unmap and close. Idempotent."""
        if self.fd < 0:
            return
        for stream in self.streams:
            stream.release()
        self._words.release()
        self._map.close()
        os.close(self.fd)
        self.fd = -1


class Stream:
    """One stream's counters and its ring of (start, end) pairs."""

    def __init__(self, words: memoryview[int], capacity: int) -> None:
        self.capacity = capacity
        self._header = words[:_STREAM_HEADER]
        self.starts = words[_STREAM_HEADER : _STREAM_HEADER + capacity]
        self.ends = words[_STREAM_HEADER + capacity :]
        self._all = words

    @property
    def written(self) -> int:
        return self._header[_WRITTEN]

    @written.setter
    def written(self, value: int) -> None:
        self._header[_WRITTEN] = value

    @property
    def consumed(self) -> int:
        return self._header[_CONSUMED]

    @consumed.setter
    def consumed(self, value: int) -> None:
        self._header[_CONSUMED] = value

    @property
    def window_start(self) -> int:
        """Index of the first timed iteration; -1 while warming up."""
        return self._header[_WINDOW_START]

    @window_start.setter
    def window_start(self, value: int) -> None:
        self._header[_WINDOW_START] = value

    @property
    def window_end(self) -> int:
        """Index after the last timed iteration; -1 until the window is closed."""
        return self._header[_WINDOW_END]

    @window_end.setter
    def window_end(self, value: int) -> None:
        self._header[_WINDOW_END] = value

    @property
    def limit(self) -> int:
        """How many timed iterations at most."""
        return self._header[_LIMIT]

    @limit.setter
    def limit(self, value: int) -> None:
        self._header[_LIMIT] = value

    @contextmanager
    def fresh(self) -> Iterator[list[tuple[memoryview[int], memoryview[int]]]]:
        """What came since the last call, as at most two (starts, ends) spans of the ring, in order.

        Copy before leaving the block: the worker may overwrite the spans afterwards.
        """
        first, last = self.consumed, self.written
        low, high = first % self.capacity, (last - 1) % self.capacity + 1
        if last == first:
            bounds = []
        elif low < high:
            bounds = [(low, high)]
        else:
            bounds = [(low, self.capacity), (0, high)]
        yield [(self.starts[a:b], self.ends[a:b]) for a, b in bounds]
        self.consumed = last

    def release(self) -> None:
        for view in (self._header, self.starts, self.ends, self._all):
            view.release()
