"""The timed loop and its timeline, on a clock that advances as told: every latency is exact."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness.analysis.energy import series as power_series
from harness.engine.driver.recorder import Recorder
from harness.engine.loads import closed as loop_module
from harness.engine.loads.closed import StreamLoop, timed_chunk
from harness.engine.wire.timeline import ABORT, STOP, WINDOW, Timeline


@pytest.fixture
def timeline() -> Iterator[Timeline]:
    block = Timeline.create(1, 16)
    yield block
    block.close()


class Clock:
    """Advances 10 ns at each reading, and by whatever a call adds."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 10
        return self.now


def loop_with(timeline: Timeline, clock: Clock, work_ns: int) -> tuple[StreamLoop, list[str]]:
    calls: list[str] = []

    def enqueue() -> None:
        calls.append("enqueue")
        clock.now += work_ns

    loop = StreamLoop(
        timeline, timeline.streams[0], enqueue, lambda: calls.append("synchronize"), clock
    )
    return loop, calls


def test_a_latency_is_the_work_and_one_clock_step(timeline: Timeline) -> None:
    clock, stream = Clock(), timeline.streams[0]

    def work() -> None:
        clock.now += 1000

    end = timed_chunk(work, lambda: None, stream, 0, 3, clock)

    assert [e - s for s, e in zip(stream.starts[:3], stream.ends[:3], strict=True)] == [1010] * 3
    assert end == stream.ends[2] == 3 * 1020


def test_an_error_while_iterations_are_taken_in_is_not_hidden_by_closing_the_block() -> None:
    block = Timeline.create(1, 16)
    block.streams[0].written = 5

    with pytest.raises(MemoryError, match="none left"):  # its traceback holds the spans
        try:
            with block.streams[0].fresh() as spans:
                held = [memoryview(ring) for span in spans for ring in span.values()]
                raise MemoryError("none left", held)
        finally:
            block.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(block.fd)


def test_the_limit_is_exact_across_chunks_and_the_ring(timeline: Timeline) -> None:
    clock, stream = Clock(), timeline.streams[0]
    recorder = Recorder(stream)
    timeline.command, stream.limit = WINDOW, 41
    loop, calls = loop_with(timeline, clock, 1000)
    original = loop._advance

    def drained(count: int) -> int:
        end = original(count)
        recorder.drain()
        return end

    loop._advance = drained  # type: ignore[method-assign]  # the driver drains meanwhile
    loop.window()

    starts, ends = recorder.window()
    assert len(starts) == 41
    assert calls == ["enqueue", "synchronize"] * 41
    assert set(ends - starts) == {1010}
    assert (starts[1:] > ends[:-1]).all()


def test_the_deadline_ends_the_window_with_the_iteration_that_passes_it(timeline: Timeline) -> None:
    clock, stream = Clock(), timeline.streams[0]
    timeline.command, timeline.deadline_ns = WINDOW, 3 * 5_000_020
    loop, _ = loop_with(timeline, clock, 5_000_000)

    loop.window()

    assert stream.window_end == stream.written == 3


def test_the_guard_band_follows_the_window_and_is_not_part_of_it(timeline: Timeline) -> None:
    clock, stream = Clock(), timeline.streams[0]
    timeline.command, stream.limit, timeline.guard_ns = WINDOW, 2, 10_000_000
    loop, _ = loop_with(timeline, clock, 6_000_000)

    loop.window()
    recorder = Recorder(stream)
    recorder.drain()

    assert (stream.window_end, stream.written) == (2, 4)
    assert len(recorder.window()[0]) == 2
    assert len(recorder.all()[0]) == 4


def test_warm_up_ends_on_command_and_is_kept_apart(timeline: Timeline) -> None:
    clock, stream = Clock(), timeline.streams[0]
    loop, calls = loop_with(timeline, clock, 6_000_000)
    timeline.command = WINDOW
    loop.warm_up()
    assert calls == []

    timeline.command, stream.limit = 0, 3

    def command_after_five(work_ns: int = 6_000_000) -> None:
        clock.now += work_ns
        if stream.written >= 4:
            timeline.command = WINDOW

    loop._enqueue = command_after_five
    loop.warm_up()
    loop.window()
    recorder = Recorder(stream)
    recorder.drain()

    assert len(recorder.warm_up()[0]) == stream.window_start == 5
    assert len(recorder.window()[0]) == 3


def test_stop_and_abort_end_a_window_without_limit(timeline: Timeline) -> None:
    clock = Clock()
    loop, calls = loop_with(timeline, clock, 6_000_000)
    timeline.command, timeline.guard_ns = STOP, 10_000_000
    loop.window()
    assert len(calls) == 2 * 2  # nothing timed, two iterations of guard band

    timeline.command = ABORT
    loop.window()
    assert len(calls) == 2 * 2


def test_a_full_ring_waits_and_loses_nothing(timeline: Timeline) -> None:
    clock, stream = Clock(), timeline.streams[0]
    timeline.command, stream.limit = WINDOW, 40
    recorder = Recorder(stream)
    loop, _ = loop_with(timeline, clock, 10)
    pauses: list[int] = []

    def driver_wakes() -> None:
        if stream.written - stream.consumed == stream.capacity:
            pauses.append(stream.written)
            recorder.drain()

    loop._check_driver = driver_wakes  # type: ignore[method-assign]
    loop.window()
    recorder.drain()

    assert pauses == [16, 32]
    starts, _ = recorder.window()
    assert len(starts) == 40
    assert (starts[1:] > starts[:-1]).all()


class Pauses:
    """Stands in for the loop's random numbers and its sleep; the clock moves while it sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        self.slept_s: list[float] = []
        self.drawn: list[tuple[float, float]] = []
        self._clock = clock
        monkeypatch.setattr("random.uniform", self.uniform)
        monkeypatch.setattr("time.sleep", self.sleep)

    def uniform(self, low: float, high: float) -> float:
        self.drawn.append((low, high))
        return len(self.drawn) * 1e-6  # every draw is another one

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self._clock.now += round(seconds * 1e9)


def test_pauses_lie_between_iterations_and_are_redrawn_every_ten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, block = Clock(), Timeline.create(1, 64)
    pauses = Pauses(monkeypatch, clock)
    block.command, block.streams[0].limit, block.pause_ns = WINDOW, 35, 2_000_000
    # Iterations of 20 ms make chunks of one, which is where pauses are made.
    loop, _ = loop_with(block, clock, 20_000_000)
    recorder = Recorder(block.streams[0])

    loop.window()
    recorder.drain()
    starts, ends = recorder.window()

    # Not a nanosecond of them is inside an iteration ...
    assert set((ends - starts).tolist()) == {20_000_010}
    # ... and between two there is the pause, beside one step of the clock. Nothing is drawn before
    # the tenth iteration, then each draw holds for ten.
    gaps = (starts[1:] - ends[:-1] - 10).tolist()
    assert gaps == [0] * 9 + [1000] * 10 + [2000] * 10 + [3000] * 5
    assert pauses.drawn == [(0, 0.002)] * 3
    block.close()


def test_without_pauses_the_loop_never_sleeps(
    monkeypatch: pytest.MonkeyPatch, timeline: Timeline
) -> None:
    clock = Clock()
    pauses = Pauses(monkeypatch, clock)
    timeline.command, timeline.streams[0].limit = WINDOW, 12
    loop, _ = loop_with(timeline, clock, 20_000_000)

    loop.window()

    assert (pauses.slept_s, pauses.drawn) == ([], [])


def test_loop_and_attribution_agree_on_how_long_a_pause_holds() -> None:
    assert loop_module.PAUSE_EVERY == power_series.PAUSE_EVERY
