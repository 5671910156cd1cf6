"""The recorder of NVML traces: what it recorded from a replayed trace must replay the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from harness.host.gpus import cuda_device
from harness.maybe import Unavailable
from harness.profiles.clocks import ClocksProfiler
from harness.profiles.nvml.power import NvmlPowerSource
from harness.protocols import ProfilerContext
from harness.testing.nvml import FakeNvml, NvmlTrace, device_of, fake_gpu, load_trace

SCRIPT = Path(__file__).parents[3] / "benchmarks/record_nvml.py"


@pytest.fixture(scope="module")
def recorder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_nvml", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def recorded(recorder: ModuleType, name: str, path: Path) -> NvmlTrace:
    """The trace ``name`` as the recorder sees it, written and read again."""
    clock = Clock()
    trace = load_trace(name)
    made = recorder.record(
        device_of(trace), FakeNvml(trace, clock), 3.0, {"kind": "recorded"}, clock, clock.sleep
    )
    path.write_bytes(msgspec.json.encode(made))
    return load_trace(path)


def played(trace: NvmlTrace | str) -> list[Any]:
    """What two profilers read from it over three seconds, half a tick off the changes."""
    clock = Clock()
    rows: list[Any] = []
    context = ProfilerContext(os.getpid(), "cuda:0")
    with fake_gpu(trace, clock):
        profilers = [NvmlPowerSource(context), ClocksProfiler(context)]
        answers = [profiler.open() for profiler in profilers]
        for tick in range(28):
            clock.now_s = 0.1 * tick + 0.05
            rows.append([profiler.read() for profiler in profilers])
        for profiler in profilers:
            profiler.close()
    return [*rows, *(isinstance(answer, Unavailable) for answer in answers)]


@pytest.mark.parametrize("name", ["load", "throttling", "vgpu", "forbidden", "mig"])
def test_a_recorded_trace_replays_what_was_there(
    recorder: ModuleType, name: str, tmp_path: Path
) -> None:
    trace = recorded(recorder, name, tmp_path / "trace.json")
    assert played(trace) == played(name)


def test_a_trace_does_not_tell_which_gpu_it_was(recorder: ModuleType, tmp_path: Path) -> None:
    trace = load_trace("load")
    ((_, device),) = trace.devices.items()
    secret = {"GPU-5ec4e700-1111-4222-8333-123456789abc": device}
    secret_answers = {**device.answers, "nvmlDeviceGetSerial": "1650522012345"}
    secret = {uuid: msgspec.structs.replace(device, answers=secret_answers) for uuid in secret}
    trace = msgspec.structs.replace(trace, devices=secret)
    clock = Clock()
    made = recorder.record(device_of(trace), FakeNvml(trace, clock), 0.1, {}, clock, clock.sleep)
    text = msgspec.json.encode(made).decode()
    assert "5ec4e700" not in text and "1650522012345" not in text
    assert "NVIDIA H200" in text


@pytest.mark.skipif(
    not isinstance(cuda_device("cuda:0"), Unavailable), reason="this machine has a CUDA device"
)
def test_without_a_gpu_it_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "trace.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "-o", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert not out.exists()
