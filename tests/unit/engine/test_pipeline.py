"""Several inferences in flight by one thread, on a clock and a device that advance as told."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from harness.engine.driver.recorder import Recorder
from harness.engine.loads.pipelined import Lane, PipelinedLoop
from harness.engine.wire.timeline import ABORT, STOP, WARM_UP, WINDOW, Timeline

STREAMS = 3
WORK_NS = 1_000_000


class Device:
    """One queue: an inference takes `WORK_NS` and waits for those before it. Each reading of its
    clock takes a nanosecond."""

    def __init__(self) -> None:
        self.now = 0
        self.free = 0
        self.ready = [0] * STREAMS
        self.calls: list[tuple[str, int]] = []

    def clock(self) -> int:
        self.now += 1
        return self.now

    def lane(self, timeline: Timeline, index: int) -> Lane:
        def enqueue() -> None:
            self.calls.append(("enqueue", index))
            self.free = self.ready[index] = max(self.free, self.now) + WORK_NS

        def synchronize() -> None:
            self.calls.append(("synchronize", index))
            self.now = max(self.now, self.ready[index])

        return Lane(timeline.streams[index], enqueue, synchronize)


@pytest.fixture
def timeline() -> Iterator[Timeline]:
    block = Timeline.create(STREAMS, 16)
    yield block
    block.close()


@pytest.fixture
def device() -> Device:
    return Device()


def loop_on(timeline: Timeline, device: Device) -> PipelinedLoop:
    lanes = [device.lane(timeline, index) for index in range(STREAMS)]
    return PipelinedLoop(timeline, lanes, device.clock)


def limit(timeline: Timeline, total: int) -> None:
    each, extra = divmod(total, STREAMS)
    for index, stream in enumerate(timeline.streams):
        stream.limit = each + (index < extra)


def recorded(timeline: Timeline) -> list[Recorder]:
    recorders = [Recorder(stream) for stream in timeline.streams]
    for recorder in recorders:
        recorder.drain()
    return recorders


def in_flight(calls: list[tuple[str, int]]) -> int:
    """The most that were in flight at once."""
    level = most = 0
    for call, _ in calls:
        level += 1 if call == "enqueue" else -1
        most = max(most, level)
    assert level == 0
    return most


def test_the_device_is_never_idle_and_every_stream_has_one_in_flight(
    timeline: Timeline, device: Device
) -> None:
    timeline.command = WINDOW
    limit(timeline, 11)

    loop_on(timeline, device).window()

    recorders = recorded(timeline)
    assert in_flight(device.calls) == STREAMS
    assert [len(recorder.window()[0]) for recorder in recorders] == [4, 4, 3]
    ends = sorted(int(end) for recorder in recorders for end in recorder.window()[1])
    # 11 inferences back to back; the host reads its clock while the device works
    assert ends[-1] - 11 * WORK_NS < 100
    gaps = [after - before for before, after in pairwise(ends)]
    assert all(abs(gap - WORK_NS) < 10 for gap in gaps)


def test_an_iteration_lasts_from_enqueue_to_synchronize(timeline: Timeline, device: Device) -> None:
    timeline.command = WINDOW
    limit(timeline, 12)

    loop_on(timeline, device).window()

    for recorder in recorded(timeline):
        starts, ends = recorder.window()
        # from the second on it waits for the two that were before it
        assert ((ends - starts)[1:] > 2.9 * WORK_NS).all()
        assert ((ends - starts)[1:] < 3.1 * WORK_NS).all()
        assert (starts[1:] > ends[:-1]).all()


def test_oldest_first_in_turn(timeline: Timeline, device: Device) -> None:
    timeline.command = WINDOW
    limit(timeline, 7)

    loop_on(timeline, device).window()

    for name in ("enqueue", "synchronize"):
        assert [i for call, i in device.calls if call == name] == [0, 1, 2, 0, 1, 2, 0]


def test_the_warm_up_runs_empty_before_the_window(timeline: Timeline, device: Device) -> None:
    loop = loop_on(timeline, device)
    original = loop._start

    def start() -> None:
        original()
        if len(device.calls) >= 10:
            timeline.command = WINDOW

    loop._start = start  # type: ignore[method-assign]
    timeline.command = WARM_UP
    loop.warm_up()
    warm = in_flight(device.calls)
    limit(timeline, 6)
    loop.window()

    assert warm == STREAMS
    recorders = recorded(timeline)
    assert [len(recorder.window()[0]) for recorder in recorders] == [2, 2, 2]
    last_warm = max(int(recorder.warm_up()[1][-1]) for recorder in recorders)
    first_timed = min(int(recorder.window()[0][0]) for recorder in recorders)
    assert last_warm < first_timed


def test_the_guard_band_is_not_timed(timeline: Timeline, device: Device) -> None:
    timeline.command, timeline.guard_ns = WINDOW, 5 * WORK_NS
    limit(timeline, 3)

    loop_on(timeline, device).window()

    recorders = recorded(timeline)
    assert [len(recorder.window()[0]) for recorder in recorders] == [1, 1, 1]
    assert sum(len(recorder.all()[0]) for recorder in recorders) > 3
    in_flight(device.calls)


def test_the_deadline_and_the_drivers_stop_end_the_window(
    timeline: Timeline, device: Device
) -> None:
    timeline.command, timeline.deadline_ns = WINDOW, 4 * WORK_NS
    loop = loop_on(timeline, device)
    loop.window()
    timed = sum(len(recorder.window()[0]) for recorder in recorded(timeline))
    assert 4 <= timed <= 4 + 2 * STREAMS

    calls = len(device.calls)
    timeline.command, timeline.guard_ns = STOP, 0
    loop.window()
    timeline.command = ABORT
    loop.window()
    assert len(device.calls) == calls


def test_a_full_ring_waits_empty_and_loses_nothing(
    timeline: Timeline, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeline.command = WINDOW
    limit(timeline, 200)
    recorders = [Recorder(stream) for stream in timeline.streams]
    waiting: list[int] = []

    def drain(_: float) -> None:
        waiting.append(sum(1 if call == "enqueue" else -1 for call, _ in device.calls))
        for recorder in recorders:
            recorder.drain()

    monkeypatch.setattr("time.sleep", drain)  # the driver's turn
    loop_on(timeline, device).window()
    for recorder in recorders:
        recorder.drain()

    assert waiting
    assert set(waiting) == {0}
    assert [len(recorder.window()[0]) for recorder in recorders] == [67, 67, 66]


def test_rebinding_changes_the_calls_on_the_same_streams(
    timeline: Timeline, device: Device
) -> None:
    timeline.command = WINDOW
    limit(timeline, 3)
    loop = loop_on(timeline, device)
    other: list[str] = []
    loop.rebind(
        [
            Lane(stream, lambda: other.append("enqueue"), lambda: other.append("synchronize"))
            for stream in timeline.streams
        ]
    )

    loop.window()

    assert device.calls == []
    assert other.count("enqueue") == other.count("synchronize") == 3
