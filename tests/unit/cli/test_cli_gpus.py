"""The GPUs as doctor lists them: what each can be asked, and what it lacks."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from harness.host.gpus import cuda_devices
from harness.inspect import meters as matrix
from harness.inspect import probe
from harness.maybe import Unavailable
from harness.testing.nvml import device_of, fake_gpu, load_trace


def listed(trace: str) -> dict[str, list[tuple[str, str]]]:
    """Quantity -> (verdict, detail) of each of its lines."""
    known = load_trace(trace)
    device = device_of(known if known.devices else load_trace("load"))
    with fake_gpu(trace) as library, patch("harness.inspect.probe.cuda_devices", lambda: (device,)):
        lines = matrix.gpu_lines(probe.gpus())
    assert library.initialized == 0
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in lines:
        name = line[0] or name
        found.setdefault(name, []).append(line[2:])
    return found


def test_a_gpu_and_its_sensors() -> None:
    found = listed("load")
    ((verdict, detail),) = found.pop("cuda:0")
    assert verdict == "yes"
    assert "NVIDIA H200, 140 GiB" in detail and "GPU-00000000-" in detail
    assert found["energy"] == [("yes", "energy/gpu0_j, every 100 ms")]
    assert found["power"] == [("yes", "power/gpu0_w, power/gpu0-average_w, every 100 ms")]
    assert set(found) == {"energy", "power", "utilization", "clocks", "temperature", "memory"}


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        ("mig", "MIG slice"),
        ("vgpu", "virtual GPU"),
        ("forbidden", "may not read energy"),
        ("no_driver", "libnvidia-ml.so.1"),
        ("old", "does not report energy"),
    ],
)
def test_what_a_gpu_lacks_is_said_with_the_reason(trace: str, words: str) -> None:
    ((verdict, detail),) = listed(trace)["energy"]
    assert verdict == "n/a" and words in detail


def test_a_machine_without_one_has_one_line() -> None:
    why = Unavailable("not_present: no GPU", "plug one in")
    assert matrix.gpu_lines(why) == [("none", "", "n/a", "no GPU; plug one in")]


@pytest.mark.skipif(
    not isinstance(cuda_devices(), Unavailable), reason="this machine has a CUDA device"
)
def test_this_machine_says_why_it_has_none() -> None:
    ((name, _, verdict, detail),) = matrix.gpu_lines(probe.gpus())
    assert (name, verdict) == ("none", "n/a")
    assert "; " in detail
