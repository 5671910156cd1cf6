"""What a result says of the device's time and memory, from what a launch left behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.engine.driver.launch import Launch
from harness.engine.outcome.device_figures import (
    device_median_ms,
    device_memory,
    device_method,
    device_ms,
    device_peak_bytes,
)
from harness.engine.outcome.evidence import LaunchRecord
from harness.engine.worker.device_times import FEWEST, MOST, measure
from harness.maybe import Unavailable
from harness.protocols import Channel

NO_NVML = Unavailable("not_supported: a vGPU", "none")
NO_BINDINGS = Unavailable("cuda-bindings is not installed", "pip install cuda-bindings")


def timed(*streams: list[float]) -> LaunchRecord:
    return LaunchRecord(device_ms=[np.array(stream) for stream in streams])


def test_device_times_of_all_launches_and_streams() -> None:
    records = [timed([1.0, 2.0, 3.0]), timed([4.0, 5.0], [6.0])]
    found = device_ms(records, "cuda:0")
    assert not isinstance(found, Unavailable)
    assert (found.min, found.median, found.max, found.mean) == (1.0, 3.5, 6.0, 3.5)
    assert [device_median_ms(record, "cuda:0") for record in records] == [2.0, 5.0]
    said = device_method(records)["device_ms"]
    assert "each of 6 inferences on its own stream, in a stretch between warm-up and window" in said
    assert "of several streams, each with the device to itself" in said
    assert "several streams" not in device_method([timed([1.0])])["device_ms"]


class Timed:
    """A session whose inference i since `arm` took ``i + 1`` ms; it counts what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._armed = self._done = 0

    def arm(self, iterations: int) -> None:
        self.calls.append(f"arm {iterations}")
        self._armed, self._done = iterations, 0

    def enqueue(self) -> None:
        self._done += 1

    def synchronize(self) -> None: ...

    def device_times_ms(self) -> Any:
        return np.arange(1.0, min(self._done, self._armed) + 1)


@pytest.mark.parametrize(
    ("each_ms", "wanted", "count"),
    [(10, 10**9, 100), (10, 7, 7), (3000, 10**9, FEWEST), (0.001, 10**9, MOST)],
)
def test_a_stretch_of_device_events_takes_a_second(each_ms: float, wanted: int, count: int) -> None:
    starts = [round(index * each_ms * 1e6) for index in range(8)]
    stream: Any = SimpleNamespace(written=8, capacity=8, starts=starts)
    session: Any = Timed()
    (times,) = measure([session], [stream], wanted)
    assert times.tolist() == list(range(1, count + 1))
    assert session.calls == [f"arm {count}", "arm 0"]


def test_sessions_that_record_no_events_have_no_stretch() -> None:
    stream: Any = SimpleNamespace(written=0, capacity=8, starts=[])
    session: Any = Timed()
    assert measure([SimpleNamespace()], [stream], 10) == []
    assert measure([session], [stream], 0) == []
    assert session.calls == []
    session.arm = lambda iterations: NO_BINDINGS
    assert measure([session], [stream], 10) == NO_BINDINGS


def test_no_device_time_has_its_reason() -> None:
    assert device_method([timed()]) == {}
    absent = LaunchRecord(device_untimed=NO_BINDINGS)
    assert device_ms([absent], "cuda:0") is NO_BINDINGS
    assert device_median_ms(absent, "cuda:0") is NO_BINDINGS
    host = device_ms([LaunchRecord()], "cpu")
    assert isinstance(host, Unavailable)
    assert host.reason == "the device is the host"


def test_memory_has_the_drivers_figures_and_the_allocators() -> None:
    record = LaunchRecord(
        memory={
            "imported": {"device_process_bytes": NO_NVML, "device_used_bytes": 100.0},
            "window": {"device_process_bytes": 700.0, "device_used_bytes": 800.0, "rss_bytes": 1.0},
        },
        device_memory={
            "loaded": {"allocator_peak_bytes": 300},
            "window": {"allocator_peak_bytes": 600},
        },
    )
    assert device_memory(record, "cuda:0") == {
        "baseline_process_bytes": NO_NVML,
        "baseline_device_used_bytes": 100,
        "loaded_allocator_peak_bytes": 300,
        "process_bytes": 700,
        "device_used_bytes": 800,
        "allocator_peak_bytes": 600,
    }
    assert device_peak_bytes(record, "cuda:0") == 600


def test_without_an_allocator_the_process_is_the_peak() -> None:
    window = {"device_process_bytes": 700.0, "device_used_bytes": 800.0}
    own: dict[str, Any] = {"allocator_peak_bytes": Unavailable("an arena", "")}
    record = LaunchRecord(memory={"window": dict(window)}, device_memory={"window": own})
    assert device_peak_bytes(record, "cuda:0") == 700
    record.memory["window"]["device_process_bytes"] = NO_NVML
    assert device_peak_bytes(record, "cuda:0") == NO_NVML
    assert isinstance(device_peak_bytes(LaunchRecord(), "cuda:0"), Unavailable)
    assert isinstance(device_memory(LaunchRecord(), "cpu"), Unavailable)


@pytest.mark.parametrize(
    ("device", "sampler", "words"),
    [
        ("cpu", {}, ""),
        ("cuda:0", {"lost": NO_NVML}, ""),
        ("cuda:0", {"ready": False}, "the sensors have not answered yet"),
        ("cuda:0", {"rate_hz": 0.5}, ""),  # too seldom to tell within any warm-up
        ("cuda:0", {}, "clocks/gpu0_sm_mhz has too few readings yet"),
    ],
)
def test_a_warm_up_waits_for_sensors_that_answer(
    device: str, sampler: dict[str, Any], words: str
) -> None:
    clock = Channel("gpu0_sm_mhz", "MHz", "gauge", "clocks/gpu0_sm_mhz")
    empty = {"gpu0_sm_mhz": (np.empty(0, np.int64), np.empty(0))}
    made = {"lost": None, "ready": True, "rate_hz": 10.0, "channels": [clock]} | sampler
    stub: Any = SimpleNamespace(
        spec=SimpleNamespace(device=device),
        sampler=SimpleNamespace(**made, series=lambda: empty),
        _clock=lambda: 10**9,
        phase_began_ns=0,
    )
    assert Launch._unsettled(stub) == words
