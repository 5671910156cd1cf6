"""The server scenario: requests come as a schedule says, whether anybody is free or not.

    due      r0   r1 r2      r3            drawn before the window, never shifted
    server 0 |== r0 ==|== r2 ==|
    server 1      |== r1 ==|   |== r3 ==|  the next due request goes to whoever is free next
    latency       |--------|               of r1: from the moment it was due, always

The queue is virtual: it is the schedule itself and how far it has been taken. A server that is free
takes the next request and sleeps until shortly before it is due, then spins. How late a start was,
of a server that had been free by then, is published and subtracted from nothing. With ``batching``
a server waits until so many requests are due, or the oldest has waited for so long.

The first requests of a schedule are served and not timed, so that the window does not begin with
an empty queue. The window ends with the last timed request, however far behind it is; only where
the backlog has not been worked off in as much time as the schedule took (10 s at least), the rest
is left unserved, and counted.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.engine.loads.closed import FULL_RING_PAUSE_S, Call, leave_without
from harness.engine.loads.load import Drive, Load, Taken
from harness.engine.loads.threads import Threads, in_threads
from harness.engine.wire.messages import Requests
from harness.engine.wire.timeline import ABORT, STOP, Stream, Timeline
from harness.errors import MeasurementFailed, UsageError

if TYPE_CHECKING:
    from harness.engine.wire.messages import Job, Peer
    from harness.protocols import Session
    from harness.records.result import Check
    from harness.records.result import Serving as Served
    from harness.spec import RunSpec
    from harness.stats.arrivals import Schedule

SPIN_NS = 150_000  # longer than a sleeper takes to wake up, on most machines
SLICE_S = 0.05  # a sleeping server looks up this often
LEAD_SHARE, LEAST_LEAD_S = 0.1, 0.2  # of the window, and not timed
TAIL_S = 2.0  # of further requests, for the guard band
PATIENCE_S = 10.0  # with a backlog, at least
BEGIN_NS = 5_000_000  # from the drive's start to the schedule's
_FEW = 50  # requests: by chance there may be none at all
_LOOK_EVERY = 64  # requests: whether the driver lives
_PR_SET_TIMERSLACK = 29


class Server(Load):
    """Servers on one queue; latency counts from due."""

    columns = ("start", "end", "due")
    counts_from = "due"
    pauses = False
    shared = True

    def mode(self, spec: RunSpec) -> str:
        rate = "" if spec.rate is None else f" at {spec.rate:g} /s"
        servers = f"{spec.concurrency} server{'s' if spec.concurrency > 1 else ''} on one queue"
        batching = "" if spec.batching is None else f", batching {spec.batching}"
        return f"server: {spec.arrivals} arrivals{rate}, {servers}{batching}"

    def refuse(self, spec: RunSpec) -> None:
        if spec.trace is not None:
            from harness.stats.arrivals import read_trace

            read_trace(spec.trace)
        elif spec.iterations is None and (spec.rate or 0) * spec.floor_s < _FEW:
            schedule = scheduled(self.requests(spec, 0))
            if schedule.first == schedule.last:
                raise UsageError(
                    f"--rate {spec.rate:g}: no request comes in {spec.floor_s:g} s",
                    "lengthen --duration, or give --iterations",
                )

    def requests(self, spec: RunSpec, launch: int) -> Requests:
        duration_s = spec.floor_s
        most, wait_s = spec.batch_rule or (1, 0.0)
        return Requests(
            arrivals=spec.arrivals or "",
            trace=None if spec.trace is None else os.path.abspath(spec.trace),  # noqa: PTH100
            rate_per_s=spec.rate or 0.0,
            seed=spec.seed,
            launch=launch,
            lead_s=max(LEAD_SHARE * duration_s, LEAST_LEAD_S),
            duration_s=spec.duration_s if spec.trace is not None else duration_s,
            count=spec.iterations,
            most=most,
            wait_ns=round(wait_s * 1e9),
        )

    def drive(self, timeline: Timeline, sessions: Sequence[Session], job: Job, peer: Peer) -> Drive:
        assert job.requests is not None
        return Serving(timeline, sessions, job.requests)

    def rate(self, spec: RunSpec, taken: Taken) -> float:
        from harness.analysis.serving import achieved_per_s

        return achieved_per_s(taken.rows, taken.streams, taken.facts) * spec.batch_size

    def figures(self, spec: RunSpec, taken: Sequence[Taken]) -> dict[str, Any]:
        from harness.analysis.serving import rate_of, serving

        rates = [self.rate(spec, one) for one in taken]
        launches = [(one.rows, one.streams, one.facts) for one in taken]
        return {
            "serving": serving(
                launches,
                arrivals=spec.arrivals or "",
                rate_per_s=spec.rate,
                servers=spec.concurrency,
                batching=spec.batch_rule,
            ),
            "throughput": rate_of(rates, spec.batch_size, spec.concurrency),
        }

    def checks(self, spec: RunSpec, taken: Sequence[Taken]) -> tuple[Check, ...]:
        from harness.analysis.serving_checks import serving_checks

        found = self.figures(spec, taken)["serving"] if taken else None
        if found is None:
            return ()
        return (*serving_checks(found), *self._bounds(spec, taken, found))

    def _bounds(self, spec: RunSpec, taken: Sequence[Taken], found: Served) -> tuple[Check, ...]:
        if not spec.latency_bound:
            return ()
        from harness.analysis.serving import in_order_of_arrival
        from harness.analysis.serving_checks import bound_checks

        latencies_ms = in_order_of_arrival([one.streams for one in taken])
        return bound_checks(spec.latency_bound, latencies_ms, found.stationary)


def scheduled(requests: Requests) -> Schedule:
    """What the requests of one launch are. Raises `DataError` for a trace."""
    from harness.stats.arrivals import drawn, of_trace

    if requests.trace is not None:
        return of_trace(requests.trace, requests.duration_s, requests.count)
    return drawn(
        requests.arrivals,
        requests.rate_per_s,
        requests.seed,
        requests.launch,
        lead_s=requests.lead_s,
        duration_s=requests.duration_s or 0.0,
        count=requests.count,
        tail_s=TAIL_S,
    )


class _Queue:
    """The schedule, and how far it has been taken."""

    def __init__(
        self,
        timeline: Timeline,
        schedule: Schedule,
        began: int,
        requests: Requests,
        clock: Callable[[], int],
        servers: int,
    ) -> None:
        self.first, self.last = schedule.first, schedule.last
        self.sleep: Callable[[float], None] = time.sleep
        self.spin_ns = SPIN_NS
        self._due = memoryview((schedule.due_ns + began).tobytes()).cast("q")
        self._timeline = timeline
        self._most, self._wait_ns = requests.most, requests.wait_ns
        self._clock = clock
        # a spinning thread that keeps the interpreter's lock would hold the others up
        self._yield = servers > 1
        self._next = itertools.count()
        self._taken = 0
        self._lock = threading.Lock()
        span_ns = schedule.until_ns - schedule.from_ns
        until = began + schedule.until_ns
        self._give_up_ns = until + max(span_ns, round(PATIENCE_S * 1e9))
        guard_ns = timeline.guard_ns
        self._guard_until = until + guard_ns if guard_ns else 0
        self._driver_pid = os.getppid()

    def due(self, index: int) -> int:
        return self._due[index]

    def take(self) -> tuple[int, int] | None:
        """The next requests, once they are to start: (first, how many); None: no more."""
        if self._most > 1:
            with self._lock:
                return self._take_batch()
        index = next(self._next)  # atomic
        if not self._goes_on(index) or not self._wait(self._due[index]):
            return None
        return index, 1

    def _take_batch(self) -> tuple[int, int] | None:
        first, dues = self._taken, self._due
        if not self._goes_on(first) or not self._wait(dues[first]):
            return None
        full = first + self._most - 1
        if full < len(dues):
            go = min(dues[full], dues[first] + self._wait_ns)
        else:
            go = dues[first] + self._wait_ns
        if not self._wait(go):
            return None
        now, count = self._clock(), 1
        while count < self._most and first + count < len(dues) and dues[first + count] <= now:
            count += 1
        self._taken = first + count
        return first, count

    def _goes_on(self, index: int) -> bool:
        """Whether there is such a request, and it is to be served."""
        command = self._timeline.command
        if index >= len(self._due) or command >= ABORT:
            return False
        if index >= self.last:
            return self._due[index] < self._guard_until
        if index % _LOOK_EVERY == 0:
            leave_without(self._driver_pid)
        return command < STOP and self._clock() < self._give_up_ns

    def _wait(self, until: int) -> bool:
        """Sleep, then spin. False: the driver has said that it is over."""
        clock = self._clock
        while (left := until - clock()) > 0:
            if left > self.spin_ns:
                if self._timeline.command >= STOP:
                    return False
                self.sleep(min((left - self.spin_ns) / 1e9, SLICE_S))
                self._timeline.beat_ns = clock()
                leave_without(self._driver_pid)
            elif self._yield:
                self.sleep(0)
        return True


class _Server:
    """One server: its sessions, and the stream that it writes."""

    def __init__(
        self,
        queue: _Queue,
        stream: Stream,
        calls: Mapping[int, tuple[Call, Call]],
        clock: Callable[[], int],
    ) -> None:
        self.timed = 0
        self._queue = queue
        self._stream = stream
        self._calls = calls
        self._clock = clock
        self._done = stream.written

    def run(self) -> None:
        queue, clock, stream = self._queue, self._clock, self._stream
        while (taken := queue.take()) is not None:
            first, count = taken
            enqueue, synchronize = self._calls[count]
            start = clock()
            enqueue()
            synchronize()
            end = clock()
            self._write(first, count, start, end)
        if stream.window_start < 0:
            stream.window_start = self._done
        if stream.window_end < 0:
            stream.window_end = self._done

    def _write(self, first: int, count: int, start: int, end: int) -> None:
        """One row a request; those of a batch share start and end."""
        queue, stream = self._queue, self._stream
        while self._done + count - stream.consumed > stream.capacity:
            time.sleep(FULL_RING_PAUSE_S)
        for index in range(first, first + count):
            row = self._done % stream.capacity
            stream.starts[row], stream.ends[row] = start, end
            stream.columns["due"][row] = queue.due(index)
            if index >= queue.first and stream.window_start < 0:
                stream.window_start = self._done
            if index >= queue.last and stream.window_end < 0:
                stream.window_end = self._done
            self.timed += queue.first <= index < queue.last
            self._done += 1
        stream.written = self._done


class Serving(Threads):
    """Warms up in closed loops; the window is the schedule's."""

    server: type[_Server] = _Server

    def __init__(
        self,
        timeline: Timeline,
        sessions: Sequence[Session],
        requests: Requests,
        schedule: Schedule | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
        spin_ns: int = SPIN_NS,
    ) -> None:
        self._sleep, self._spin_ns = sleep, spin_ns
        self._streams = timeline.streams
        each = len(sessions) // len(self._streams)  # sessions of a server, one a batch size
        self._each = each
        super().__init__(timeline, sessions[::each])
        self._sessions = list(sessions)
        self._schedule = schedule or scheduled(requests)
        self._requests = requests
        self._clock = clock

    def rebind(self, sessions: Sequence[Session]) -> None:
        super().rebind(sessions[:: self._each])
        self._sessions = list(sessions)

    def window(self) -> None:
        _sleep_precisely()
        schedule, clock = self._led_in(), self._clock
        began = clock() + BEGIN_NS
        queue = _Queue(self._timeline, schedule, began, self._requests, clock, len(self._streams))
        queue.sleep, queue.spin_ns = self._sleep, self._spin_ns
        servers = [
            self.server(queue, stream, self._calls(index), clock)
            for index, stream in enumerate(self._streams)
        ]
        in_threads([server.run for server in servers], self._timeline)
        until = min(began + schedule.until_ns, clock())
        due = sum(1 for at in schedule.due_ns[schedule.first : schedule.last] if began + at < until)
        timed = sum(server.timed for server in servers)
        if not timed and self._timeline.command < STOP:
            raise MeasurementFailed(
                f"overloaded: the {schedule.first} requests before the window were not served in "
                f"{(clock() - began) / 1e9:.0f} s",
                "lower --rate",
            )
        self.facts = {
            "from_ns": began + schedule.from_ns,
            "until_ns": until,
            "due": due,
            "unserved": max(0, due - timed),
        }

    def _led_in(self) -> Schedule:
        """The schedule; without its lead where the warm-up shows that this would never end: what is
        overloaded has no steady state to begin with."""
        schedule = self._schedule
        each_ns = max(map(_latest_ns, self._streams))
        if self._requests.most > 1 or not schedule.from_ns:
            return schedule
        if schedule.first * each_ns / len(self._streams) < schedule.from_ns:
            return schedule
        last = schedule.last - schedule.first
        counted = self._requests.count is not None and last < len(schedule.due_ns)
        until = int(schedule.due_ns[last]) if counted else schedule.until_ns - schedule.from_ns
        if not counted:
            last = int((schedule.due_ns < until).sum())
        return schedule._replace(first=0, last=last, from_ns=0, until_ns=until)

    def _calls(self, server: int) -> Mapping[int, tuple[Call, Call]]:
        """Of one server: batch size -> enqueue and synchronize."""
        mine = self._sessions[server * self._each : (server + 1) * self._each]
        return {size: (one.enqueue, one.synchronize) for size, one in enumerate(mine, 1)}


def _latest_ns(stream: Stream) -> float:
    """What an inference of this stream took at the end of its warm-up; 0 where it had none."""
    last = stream.written
    first = max(0, last - 100, last - stream.capacity)
    if last - first < 2:
        return 0.0
    began, ended = stream.starts[first % stream.capacity], stream.ends[(last - 1) % stream.capacity]
    return (ended - began) / (last - first)


def _sleep_precisely() -> None:
    """Ask the kernel to wake this thread, and those it starts, when they ask to be."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
