"""The whole way of device times, device memory and pipelining, on a device that needs no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Harness

from harness.records.samples import read_samples
from harness.records.store import read_result

FAKE = ("run", "--backend", "fakes:Fake", "--warmup", "0.1", "--out", "results", "--json")
QUICK = ("--sample-rate", "0", "--idle", "0")


def options(**values: object) -> list[str]:
    return [word for key, value in values.items() for word in ("--option", f"{key}={value}")]


def run(harness: Harness, *flags: str) -> dict[str, Any]:
    ran = harness(*FAKE, *QUICK, *flags)
    assert ran.code == 0, ran.err
    return ran.result


def test_device_times_are_of_a_stretch_before_the_window(harness: Harness) -> None:
    flags = options(latency_us=200, device_us=150)
    result = run(harness, *flags, "--iterations", "101", "--launches", "2")
    timing = result["timing"]
    # inference i of a stretch took 150 us and i ns
    assert timing["device_ms"]["min"] == 0.15
    assert timing["device_ms"]["max"] == 0.1501
    assert timing["device_ms"]["median"] == pytest.approx(0.15005)
    assert [launch["device_median_ms"] for launch in timing["launches"]] == [0.15005, 0.15005]
    assert "each of 202 inferences" in timing["method"]["device_ms"]
    assert timing["latency_ms"]["min"] > 0.2


def test_device_memory_is_of_the_window(harness: Harness) -> None:
    result = run(harness, *options(latency_us=500, device_us=1), "--iterations", "40")
    assert result["memory"]["device"]["allocator_peak_bytes"] == 1040
    assert result["memory"]["device"]["loaded_allocator_peak_bytes"] == 1000
    assert result["timing"]["launches"][0]["device_memory_peak_bytes"] == 1040


def test_a_backend_without_events_says_so(harness: Harness) -> None:
    result = run(harness, *options(latency_us=500), "--iterations", "40")
    assert result["timing"]["device_ms"]["unavailable"] == "the device is the host"
    assert "unavailable" in result["timing"]["launches"][0]["device_median_ms"]
    assert "device_ms" not in result["timing"]["method"]


def test_several_in_flight_by_one_thread(harness: Harness, tmp_path: Path) -> None:
    flags = options(latency_us=3000, asynchronous="on", device_us=3000)
    result = run(
        harness, *flags, "--scenario", "throughput", "--concurrency", "2", "--iterations", "61"
    )
    assert result["throughput"]["concurrency"] == 2
    assert result["throughput"]["method"].startswith("2 inferences in flight, one a stream")
    assert "each with the device to itself" in result["timing"]["method"]["device_ms"]
    (folder,) = (tmp_path / "results").iterdir()
    samples = read_samples(folder)
    timed = [(samples.timed == 1) & (samples.stream == stream) for stream in (0, 1)]
    assert [int(mask.sum()) for mask in timed] == [31, 30]
    first, second = ((samples.start_ns[mask], samples.end_ns[mask]) for mask in timed)
    # each inference of the second stream begins before the first stream's has ended, and the device
    # does one at a time: latencies are about twice its time
    assert (second[0][:30] < first[1][:30]).all()
    assert np.median(np.concatenate([first[1] - first[0], second[1] - second[0]])) > 5.9e6
    assert read_result(folder).status in ("complete", "degraded")


def test_one_stream_of_an_asynchronous_session_is_the_plain_loop(harness: Harness) -> None:
    flags = options(latency_us=1000, asynchronous="on", device_us=900)
    result = run(harness, *flags, "--iterations", "50")
    assert result["timing"]["latency_ms"]["min"] >= 1.0
    assert "in flight" not in result["throughput"]["method"]
    assert result["timing"]["device_ms"]["min"] == 0.9
