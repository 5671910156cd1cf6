"""The server scenario's own engine, in time that stands still but for sleep and service.

Queues have theories: where service times are known, waiting times are too.
"""

from __future__ import annotations

import decimal
import math
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis.capacity import latencies as lindley
from harness.analysis.serving import inferences, serving
from harness.analysis.serving_checks import serving_checks
from harness.engine.driver.recorder import Recorder
from harness.engine.loads.closed import StreamLoop
from harness.engine.loads.server import Server, Serving
from harness.engine.wire.messages import Requests
from harness.engine.wire.timeline import ABORT, WINDOW, Timeline
from harness.errors import DataError, UsageError
from harness.maybe import Unavailable
from harness.protocols import Session
from harness.records.result import Serving as ServingRecord
from harness.spec import parse
from harness.stats import arrivals

MS = 1_000_000
REQUESTS = Requests(
    arrivals="", trace=None, rate_per_s=0, seed=0, launch=0, lead_s=0, duration_s=1, count=None
)


class VirtualTime:
    """A clock that several threads share: whoever sleeps the shortest goes on, the others wait."""

    def __init__(self, threads: int = 1) -> None:
        self.now_ns = 1_000 * MS
        self._threads = threads
        self._turn = threading.Condition()
        self._wake: dict[int, int] = {}

    def clock(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.advance(round(seconds * 1e9))

    def advance(self, ns: int) -> None:
        if self._threads == 1:
            self.now_ns += ns
            return
        me = threading.get_ident()
        with self._turn:
            self._wake[me] = self.now_ns + ns
            self._settle()
            self._turn.wait_for(lambda: me not in self._wake)

    def leave(self) -> None:
        with self._turn:
            self._threads -= 1
            self._settle()

    def _settle(self) -> None:
        """Once all sleep, the first to wake does."""
        if self._wake and len(self._wake) == self._threads:
            first = min(self._wake, key=lambda one: self._wake[one])
            self.now_ns = max(self.now_ns, self._wake.pop(first))
            self._turn.notify_all()


class Synthetic:
    """A session whose service takes as long as it is told."""

    def __init__(self, time: VirtualTime, service_ns: Callable[[], int]) -> None:
        self._time, self._service_ns = time, service_ns

    def enqueue(self) -> None:
        self._time.advance(self._service_ns())

    def synchronize(self) -> None:
        pass


def served(
    due_ns: NDArray[np.int64] | arrivals.Schedule,
    service_ns: Callable[[], int],
    *,
    servers: int = 1,
    most: int = 1,
    wait_ns: int = 0,
    of_size: Mapping[int, int] | None = None,
) -> tuple[ServingRecord, list[dict[str, Any]]]:
    """What the real engine makes of a schedule: the figures, and the timed rows by server."""
    schedule = due_ns
    if not isinstance(schedule, arrivals.Schedule):
        last = len(schedule)
        schedule = arrivals.Schedule(schedule, 0, last, 0, int(schedule[-1]) + MS)
    virtual = VirtualTime(servers)
    timeline = Timeline.create(servers, 1 << 16, Server.columns)
    timeline.command = WINDOW
    sessions: list[Any] = [
        Synthetic(virtual, service_ns if of_size is None else lambda n=size: of_size[n])
        for _ in range(servers)
        for size in range(1, most + 1)
    ]
    asked = Requests(**{**{f: getattr(REQUESTS, f) for f in REQUESTS.__struct_fields__},
                        "most": most, "wait_ns": wait_ns})  # fmt: skip
    drive = Serving(timeline, sessions, asked, schedule, virtual.clock, virtual.sleep, spin_ns=0)
    if servers > 1:
        _leave_when_done(drive, virtual)
    drive.window()
    recorders = [Recorder(stream, "due", shared=True) for stream in timeline.streams]
    for recorder in recorders:
        recorder.drain()
    rows = [recorder.rows() for recorder in recorders]
    timed = [recorder.timed() for recorder in recorders]
    timeline.close()
    found = serving(
        [(rows, timed, drive.facts)], arrivals="", rate_per_s=None, servers=servers,
        batching=(most, wait_ns / 1e9) if most > 1 else None,
    )  # fmt: skip
    return found, timed


def _leave_when_done(drive: Serving, virtual: VirtualTime) -> None:
    """A thread that has ended holds nobody up."""
    from harness.engine.loads import server

    class Leaving(server._Server):
        def run(self) -> None:
            try:
                super().run()
            finally:
                virtual.leave()

    drive.server = Leaving  # type: ignore[misc, assignment]


SERVICE_MS = 1.0
COUNT = 20_000


def poisson(utilization: float, servers: int, count: int = COUNT) -> arrivals.Schedule:
    rate = utilization * servers / (SERVICE_MS / 1e3)
    return arrivals.drawn(
        "poisson", rate, 7, 0, lead_s=2.0, duration_s=0.0, count=count, tail_s=0.0
    )


def exponential(seed: int) -> Callable[[], int]:
    draws = iter(np.random.default_rng(seed).exponential(SERVICE_MS * MS, 400_000).round().tolist())
    return lambda: int(next(draws))


def m_d_1(rho: float) -> tuple[float, float]:
    """Mean wait by Pollaczek and Khinchine, its p99 by Erlang's sum; its terms cancel, so in 60
    digits."""
    decimal.getcontext().prec = 60
    load = Decimal(repr(rho))

    def waits_at_most(x: Decimal) -> Decimal:
        terms = ((load * (k - x)) ** k / math.factorial(k) * (load * (x - k)).exp()
                 for k in range(int(x) + 1))  # fmt: skip
        return (1 - load) * sum(terms, Decimal(0))

    low, high = Decimal(0), Decimal(100)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if waits_at_most(middle) < Decimal("0.99") else (low, middle)
    return rho / (2 * (1 - rho)) * SERVICE_MS, float(low) * SERVICE_MS


def m_m_c(rho: float, servers: int) -> tuple[float, float]:
    """Erlang's C of the requests wait, exponentially with rate (1 - rho) c / s."""
    waits = rho if servers == 1 else 2 * rho**2 / (1 + rho)
    pace = (1 - rho) * servers / SERVICE_MS
    return waits / pace, math.log(waits / 0.01) / pace


def simulated_error(rho: float, servers: int, exponentially: bool, count: int) -> NDArray[Any]:
    """Standard deviations of the mean and the p99 of so many waits, between seeds."""
    found = []
    for seed in range(60 if servers == 1 else 20):
        random = np.random.default_rng([9, seed])
        due_s = np.cumsum(random.standard_exponential(count)) / (rho * servers)
        services = random.standard_exponential(count) if exponentially else np.ones(count)
        waits = lindley(due_s, services, servers) - services
        found.append((waits.mean(), np.quantile(waits, 0.99)))
    return np.std(found, axis=0) * SERVICE_MS


@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("queue", ["M/D/1", "M/M/1", "M/M/2"])
def test_waits_are_those_of_theory(queue: str, rho: float) -> None:
    """Mean and p99 within three standard errors, which are simulated; utilization too."""
    servers, exponentially = int(queue[-1]), queue != "M/D/1"
    count = COUNT if servers == 1 else COUNT // 5
    service_ns = exponential(11) if exponentially else lambda: int(SERVICE_MS * MS)
    found, timed = served(poisson(rho, servers, count), service_ns, servers=servers)
    theory = m_m_c(rho, servers) if exponentially else m_d_1(rho)
    waits = np.concatenate([one["start"] - one["due"] for one in timed]) / MS
    measured = np.array([found.waiting_ms.mean, np.quantile(waits, 0.99)])
    error = simulated_error(rho, servers, exponentially, count)
    assert (np.abs(measured - theory) <= 3 * error).all(), (measured, theory, error)
    assert found.utilization == pytest.approx(rho, rel=4 / count**0.5)
    assert found.requests == count and found.unserved == 0 and found.stationary
    starts = np.concatenate([one["start"] for one in timed])
    in_order = starts[np.argsort(np.concatenate([one["due"] for one in timed]), kind="stable")]
    assert (np.diff(in_order) >= 0).all()  # one queue, first come, first served


def test_the_engine_is_lindleys_recursion() -> None:
    """Request by request, and to the nanosecond: a prediction by it is exact for these times."""
    schedule, draw = poisson(0.9, 1, 2_000), exponential(4)
    drawn: list[int] = []

    def service_ns() -> int:
        drawn.append(draw())
        return drawn[-1]

    _, (rows,) = served(schedule, service_ns)
    expected = lindley(schedule.due_ns[: len(drawn)] / 1e9, np.array(drawn) / 1e9, 1)
    inside = slice(schedule.first, schedule.last)
    assert np.allclose((rows["end"] - rows["due"]) / 1e9, expected[inside], atol=2e-9, rtol=0)


def test_a_stall_is_in_the_latency_of_everyone_who_was_due_meanwhile() -> None:
    """One of 200 ms, at the tenth of 100 requests that come every 10 ms and take 1 ms each."""
    due = np.arange(100, dtype=np.int64) * 10 * MS
    calls = iter(range(100))
    _, (rows,) = served(due, lambda: 200 * MS if next(calls) == 10 else MS)
    found = (rows["end"] - rows["due"]) // MS
    # the stalled one, then each 9 ms less than the one before, until the queue has run empty
    assert found[10:33].tolist() == [200 - 9 * step for step in range(22)] + [2]
    assert found[:10].tolist() == [1] * 10 and set(found[33:].tolist()) == {1}
    assert np.quantile(found, 0.9) == pytest.approx(110.9)  # ten of a hundred took longer
    # beside it: a clock that starts with the send, and a closed loop, each see one slow request
    from_send = (rows["end"] - rows["start"]) // MS
    assert sorted(from_send.tolist()) == [1] * 99 + [200] and np.quantile(from_send, 0.9) == 1
    stalled = iter([MS] * 10 + [200 * MS] + [MS] * 89)
    assert sorted(closed_loop(lambda: next(stalled), 100)) == [1] * 99 + [200]


def closed_loop(service_ns: Callable[[], int], count: int) -> list[int]:
    """What the real closed loop makes of it, in ms."""
    virtual, timeline = VirtualTime(), Timeline.create(1, 1 << 10)
    (stream,) = timeline.streams
    timeline.command, stream.limit = WINDOW, count
    session = Synthetic(virtual, service_ns)
    StreamLoop(timeline, stream, session.enqueue, session.synchronize, virtual.clock).window()
    times = [(end - start) // MS for start, end in zip(stream.starts, stream.ends, strict=True)]
    timeline.close()
    return times[:count]


def test_overload_is_said_and_its_quantiles_are_not_called_stationary() -> None:
    due = np.arange(1000, dtype=np.int64) * MS
    found, _ = served(due, lambda: 2 * MS)
    assert not found.stationary
    assert found.utilization == pytest.approx(1.0, abs=0.01)
    assert found.backlog == pytest.approx(500, abs=2)
    (stationary,) = [check for check in serving_checks(found) if check.name == "stationary"]
    assert stationary.verdict == "warn" and "overloaded" in stationary.reason
    assert found.achieved_per_s == pytest.approx(500, rel=0.01)


def test_a_long_queue_that_runs_empty_is_no_overload() -> None:
    found, _ = served(poisson(0.9, 1, 40_000), lambda: int(SERVICE_MS * MS))
    assert found.stationary
    assert found.waiting_ms.mean == pytest.approx(0.9 / (2 * 0.1), rel=0.25)


def test_nobody_waits_for_ever_for_a_backlog() -> None:
    """After the schedule as much time again (10 s at least); the rest is counted."""
    due = np.arange(1000, dtype=np.int64) * MS
    found, _ = served(due, lambda: 100 * MS)
    assert found.requests + found.unserved == 1000
    assert found.requests == pytest.approx(110, abs=2)
    assert not found.stationary


def test_a_batch_is_as_large_as_what_is_due_within_the_wait() -> None:
    """Eight in a burst; then two 1 ms apart, which wait 2 ms after the first."""
    due = np.array([10] * 8 + [30, 31], dtype=np.int64) * MS
    sizes = {size: size * MS for size in range(1, 9)}
    found, (rows,) = served(due, lambda: 0, most=8, wait_ns=2 * MS, of_size=sizes)
    one = inferences(rows)
    begin = one.due[0] - 10 * MS
    assert one.size.tolist() == [8, 2]
    assert ((one.start - begin) // MS).tolist() == [10, 32]  # a full one goes at once
    assert ((one.end - one.start) // MS).tolist() == [8, 2]
    assert found.requests_per_inference == 5
    assert not isinstance(found.lateness_ms, Unavailable) and found.lateness_ms.max == 0


def test_the_driver_can_end_it_and_what_was_served_stays() -> None:
    timeline = Timeline.create(1, 1 << 10, Server.columns)
    timeline.command = WINDOW
    virtual = VirtualTime()
    calls = iter(range(1000))

    def abort_at_20() -> int:
        if next(calls) == 19:
            timeline.command = ABORT
        return MS

    due = np.arange(100, dtype=np.int64) * 10 * MS
    schedule = arrivals.Schedule(due, 0, 100, 0, 1000 * MS)
    sessions: list[Session] = [Synthetic(virtual, abort_at_20)]  # type: ignore[list-item]
    drive = Serving(timeline, sessions, REQUESTS, schedule, virtual.clock, virtual.sleep, spin_ns=0)
    drive.window()
    (stream,) = timeline.streams
    assert (stream.window_start, stream.window_end, stream.written) == (0, 20, 20)
    assert drive.facts["due"] == 20 and drive.facts["unserved"] == 0  # the rest was not due yet
    timeline.close()


def test_a_server_that_sleeps_says_that_it_lives() -> None:
    timeline = Timeline.create(1, 1 << 10, Server.columns)
    timeline.command = WINDOW
    virtual = VirtualTime()
    schedule = arrivals.Schedule(np.array([500 * MS]), 0, 1, 0, 600 * MS)
    sessions: list[Session] = [Synthetic(virtual, lambda: MS)]  # type: ignore[list-item]
    Serving(
        timeline, sessions, REQUESTS, schedule, virtual.clock, virtual.sleep, spin_ns=0
    ).window()
    assert timeline.beat_ns > 1_400 * MS
    timeline.close()


# --- schedules ----------------------------------------------------------------------------------


def test_rates_share_their_luck() -> None:
    """The same gaps, stretched: common random numbers."""
    slow = arrivals.drawn("poisson", 100, 3, 0, lead_s=1, duration_s=20).due_ns
    fast = arrivals.drawn("poisson", 400, 3, 0, lead_s=1, duration_s=20).due_ns
    assert np.allclose(slow[:500] / 4, fast[:500], atol=1)
    other = arrivals.drawn("poisson", 100, 3, 1, lead_s=1, duration_s=20).due_ns
    assert not np.array_equal(slow[:500], other[:500])


@pytest.mark.parametrize(("process", "cv"), [("poisson", 1.0), ("gamma:2", 2.0), ("constant", 0.0)])
def test_gaps_have_the_spread_that_is_asked_for(process: str, cv: float) -> None:
    found = arrivals.gaps(process, 5, 0, 100_000)
    assert found.mean() == pytest.approx(1.0, abs=0.03)
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_a_count_is_exact_and_a_duration_is_too() -> None:
    counted = arrivals.drawn("gamma:3", 50, 1, 0, lead_s=0.5, duration_s=0, count=333, tail_s=1)
    assert counted.last - counted.first == 333
    assert counted.due_ns[counted.first] >= counted.from_ns == 500 * MS
    lasting = arrivals.drawn("constant", 100, 1, 0, lead_s=0, duration_s=2.005)
    assert lasting.last - lasting.first == 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no time"),
        ("t\n", "holds no time"),
        ("0\n2\n1\n", "request 3 .* is due at 1, before"),
        ("0\nnan\n", "request 2 .* 'nan'"),
        ("0\nsoon\n", "request 2 .* 'soon'"),
        ("0\n1e9\n", "spans"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused(tmp_path: Any, text: str, told: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        arrivals.read_trace(str(path))


def test_a_trace_of_ten_million_rows_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"1\n" * 10_000_000)
    with pytest.raises(DataError, match="more than 4,194,304 requests"):
        arrivals.read_trace(str(path))


def test_a_trace_has_a_heading_or_not_and_begins_at_its_first_time(tmp_path: Any) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("seconds,what\n1000.5,a\n1000.5,b\n1001.0,c\n")
    assert arrivals.read_trace(str(path)).tolist() == [0.0, 0.0, 0.5]
    found = arrivals.of_trace(str(path), None, None)
    assert (found.first, found.last, found.until_ns) == (0, 3, 750 * MS)


# --- the spec -----------------------------------------------------------------------------------


def test_poisson_is_the_default_and_the_same_cell() -> None:
    from harness.records.cell import spec_cell

    asked = {"scenario": "server", "rate": "200"}
    assert spec_cell(parse(asked)) == spec_cell(parse({**asked, "arrivals": "poisson"}))
    assert spec_cell(parse(asked)).name.endswith("/server@200")
    assert spec_cell(parse(asked)).key != spec_cell(parse({**asked, "rate": "201"})).key
    assert parse(asked).goal is None and parse(asked).cap_s == 10


def test_a_rate_at_which_nothing_comes_is_refused() -> None:
    spec = parse({"scenario": "server", "rate": "0.001", "duration_s": "1"})
    with pytest.raises(UsageError, match="no request comes in 1 s"):
        Server().refuse(spec)


def test_what_is_overloaded_has_no_lead() -> None:
    """A second of 1000 requests goes before the window; at 10 ms each it would take ten."""
    schedule = arrivals.drawn("constant", 1000, 0, 0, lead_s=1, duration_s=1)
    timeline = Timeline.create(1, 1 << 12, Server.columns)
    timeline.command = WINDOW
    (stream,) = timeline.streams
    virtual = VirtualTime()
    for row in range(2):
        stream.starts[row], stream.ends[row] = row * 10 * MS, (row + 1) * 10 * MS
    stream.written = 2
    sessions: list[Session] = [Synthetic(virtual, lambda: 10 * MS)]  # type: ignore[list-item]
    drive = Serving(timeline, sessions, REQUESTS, schedule, virtual.clock, virtual.sleep, spin_ns=0)
    drive.window()
    assert stream.window_start == 2
    assert (drive.facts["due"], drive.facts["from_ns"]) == (
        999,
        schedule.from_ns - 10**9 + 1_005 * MS,
    )
    timeline.close()
