"""The shared timeline: where the worker writes each iteration's two clock readings.

One block of anonymous shared memory, pre-touched by the driver so that the loop never meets a page
fault, and inherited by the worker as a file descriptor. It is not a mapping of a file on disk: the
write-back of such pages lands in timed regions.

    words 0..7          commands, driver to worker, and its heartbeat
    per stream s        counters, then a ring of CAPACITY words for each column: start, end, and
                        what else the load names (`harness.engine.loads`)

The worker publishes ``written`` between chunks of iterations; the driver copies what is new and
advances ``consumed``. All values are int64; times are ``time.perf_counter_ns``, which on Linux is
CLOCK_MONOTONIC, the same in every process.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise

COLUMNS = ("start", "end")  # that every load has, in ns
CAPACITY = 1 << 17
_MOST_PAIRS = 1 << 22  # of all streams together: 64 MiB, all of them touched
FOREVER = 1 << 62

WARM_UP, WINDOW, STOP, ABORT = 0, 1, 2, 3

_COMMAND, _DEADLINE_NS, _GUARD_NS, _PAUSE_NS, _BEAT_NS, _HEADER_WORDS = 0, 1, 2, 3, 4, 8
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

    def __init__(
        self, fd: int, streams: int, capacity: int = CAPACITY, columns: Sequence[str] = COLUMNS
    ) -> None:
        self.fd = fd
        self.capacity = capacity
        self.columns = tuple(columns)
        self._map = mmap.mmap(fd, self.size_bytes(streams, capacity, len(columns)))
        self._words = memoryview(self._map).cast("q")
        self.streams = [self._stream(index) for index in range(streams)]

    @classmethod
    def create(
        cls, streams: int, capacity: int = CAPACITY, columns: Sequence[str] = COLUMNS
    ) -> Timeline:
        """A new block, every page touched."""
        size = cls.size_bytes(streams, capacity, len(columns))
        timeline = cls(_anonymous_file(size), streams, capacity, columns)
        timeline._map.write(bytes(size))
        for stream in timeline.streams:
            stream.window_start = stream.window_end = -1
            stream.limit = FOREVER
        timeline.deadline_ns = FOREVER
        return timeline

    @staticmethod
    def size_bytes(streams: int, capacity: int, columns: int = len(COLUMNS)) -> int:
        return 8 * (_HEADER_WORDS + streams * (_STREAM_HEADER + columns * capacity))

    def _stream(self, index: int) -> Stream:
        size = _STREAM_HEADER + len(self.columns) * self.capacity
        at = _HEADER_WORDS + index * size
        return Stream(self._words[at : at + size], self.capacity, self.columns)

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

    @property
    def beat_ns(self) -> int:
        """When a worker that waits for a request last said that it lives."""
        return self._words[_BEAT_NS]

    @beat_ns.setter
    def beat_ns(self, value: int) -> None:
        self._words[_BEAT_NS] = value

    def close(self) -> None:
        """Unmap and close. Idempotent.

        What still holds a view, as the traceback of an error does, keeps the memory until it goes:
        that error is worth more than one of ours about it.
        """
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        os.close(fd)
        with suppress(BufferError):
            for stream in self.streams:
                stream.release()
            self._words.release()
            self._map.close()


class Stream:
    """One stream's counters and its rings, one a column."""

    def __init__(
        self, words: memoryview[int], capacity: int, columns: Sequence[str] = COLUMNS
    ) -> None:
        self.capacity = capacity
        self._header = words[:_STREAM_HEADER]
        edges = [_STREAM_HEADER + index * capacity for index in range(len(columns) + 1)]
        self.columns = {
            name: words[low:high]
            for name, (low, high) in zip(columns, pairwise(edges), strict=True)
        }
        self.starts, self.ends = (self.columns[name] for name in COLUMNS)
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
    def fresh(self) -> Iterator[list[dict[str, memoryview[int]]]]:
        """What came since the last call, as at most two spans of every ring, in order.

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
        yield [{name: ring[a:b] for name, ring in self.columns.items()} for a, b in bounds]
        self.consumed = last

    def release(self) -> None:
        for view in (self._header, *self.columns.values(), self._all):
            view.release()
