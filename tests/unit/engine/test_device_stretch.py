"""The stretch in which device events are recorded, and what a warm-up waits for on a device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.engine.driver.launch import Launch
from harness.engine.worker.device_times import FEWEST, MOST, measure
from harness.maybe import Unavailable
from harness.protocols import Channel

NO_NVML = Unavailable("not_supported: a vGPU", "none")
NO_BINDINGS = Unavailable("cuda-bindings is not installed", "pip install cuda-bindings")


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
