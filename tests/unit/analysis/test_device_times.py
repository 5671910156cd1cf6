"""What a result says of the device's own clock."""

from __future__ import annotations

import numpy as np

from harness.analysis.device_times import DeviceTimes, device_median_ms, device_method, device_ms
from harness.maybe import Unavailable

NO_BINDINGS = Unavailable("cuda-bindings is not installed", "pip install cuda-bindings")


def timed(*streams: list[float]) -> DeviceTimes:
    return DeviceTimes([np.array(stream) for stream in streams])


def test_device_times_of_all_launches_and_streams() -> None:
    launches = [timed([1.0, 2.0, 3.0]), timed([4.0, 5.0], [6.0])]
    found = device_ms(launches, "cuda:0")
    assert not isinstance(found, Unavailable)
    assert (found.min, found.median, found.max, found.mean) == (1.0, 3.5, 6.0, 3.5)
    assert [device_median_ms(launch, "cuda:0") for launch in launches] == [2.0, 5.0]
    said = device_method(launches)["device_ms"]
    assert "each of 6 inferences on its own stream, in a stretch between warm-up and window" in said
    assert "of several streams, each with the device to itself" in said
    assert "several streams" not in device_method([timed([1.0])])["device_ms"]


def test_no_device_time_has_its_reason() -> None:
    assert device_method([timed()]) == {}
    absent = DeviceTimes([], NO_BINDINGS)
    assert device_ms([absent], "cuda:0") is NO_BINDINGS
    assert device_median_ms(absent, "cuda:0") is NO_BINDINGS
    host = device_ms([DeviceTimes([])], "cpu")
    assert isinstance(host, Unavailable)
    assert host.reason == "the device is the host"
