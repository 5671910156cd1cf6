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
from harness.maybe import Unavailable
from harness.protocols import Channel

NO_NVML = Unavailable("not_supported: a vGPU", "none")
NO_BINDINGS = Unavailable("cuda-bindings is not installed", "pip install cuda-bindings")


def timed(*streams: list[float], iterations: int = 0) -> LaunchRecord:
    record = LaunchRecord(device_ms=[np.array(stream) for stream in streams])
    count = iterations or sum(map(len, streams))
    recorder: Any = SimpleNamespace(window=lambda: (np.zeros(count), np.zeros(count)))
    record.recorders = [recorder]
    return record


def test_device_times_of_all_launches_and_streams() -> None:
    records = [timed([1.0, 2.0, 3.0]), timed([4.0, 5.0], [6.0])]
    found = device_ms(records, "cuda:0")
    assert not isinstance(found, Unavailable)
    assert (found.min, found.median, found.max, found.mean) == (1.0, 3.5, 6.0, 3.5)
    assert [device_median_ms(record, "cuda:0") for record in records] == [2.0, 5.0]
    assert "several in flight" in device_method(records)["device_ms"]
    assert "iterations" not in device_method(records)["device_ms"]


def test_a_part_of_the_iterations_is_said_to_be_one() -> None:
    said = device_method([timed([1.0, 2.0], iterations=5)])["device_ms"]
    assert "; 2 of 5 iterations, the first ones: the events ran out" in said


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
