"""Runs on a GPU that is faked below the real command: driver, sampler and worker are the real ones.

CUDA's driver library is a stub made by the C compiler, NVML a replayed trace, and the backend
computes on the CPU. The runs go at the same time, since each of them spends its time asleep.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running import Ran, assert_no_orphans, environment

from harness.testing.cuda import FakeCuda, FakeDevice, has_compiler
from harness.testing.nvml import load_trace, variables

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C compiler to build the stub with")

RUN = ("run", "--backend", "fakes:GpuFake", "--device", "cuda:0", "--option", "latency_us=2000",
       "--warmup", "1", "--max-warmup", "2", "--json")  # fmt: skip
RUNS = {
    "load": (*RUN, "--duration", "5", "--idle", "5"),
    "lost": (*RUN, "--duration", "9", "--idle", "0"),
    "mig": (*RUN, "--duration", "1", "--idle", "0"),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[dict[str, Ran]]:
    whole = FakeCuda(tmp_path_factory.mktemp("cuda"))
    uuid, device = next(iter(load_trace("mig").devices.items()))
    part = FakeDevice("NVIDIA H200 MIG 1g.18gb", uuid, device.parent)
    slices = FakeCuda(tmp_path_factory.mktemp("cuda"), [part])

    def one(trace: str) -> Ran:
        folder = tmp_path_factory.mktemp(trace)
        cuda = slices if trace == "mig" else whole
        done = subprocess.run(
            [sys.executable, "-m", "harness", *RUNS[trace]],
            cwd=folder,
            env={**environment(cache), **cuda.variables(), **variables(trace)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert_no_orphans(folder)
        return Ran(done.returncode, done.stdout, done.stderr)

    with ThreadPoolExecutor() as pool:
        yield dict(zip(RUNS, pool.map(one, RUNS), strict=True))


def checked(result: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [check for check in result["validity"] if check["name"] == name]
    return dict(found)


def test_joules_per_inference_are_the_gpus(ran: dict[str, Ran]) -> None:
    """400 W all the time: E / N = 400 W x window / N, within the ticks of 100 ms at the edges."""
    assert ran["load"].code == 0, ran["load"].err
    energy = ran["load"].result["energy"]
    assert energy["primary"] == "gpu0"
    expected = 400.0 * energy["window_s"] / energy["inferences"]
    assert energy["joules_per_inference"]["value"] == pytest.approx(expected, rel=0.04)
    board = energy["sources"]["gpu0"]
    assert (board["source"], board["scope"], board["method"]) == ("nvml", "gpu-board", "counter")
    assert board["integral_j"] == pytest.approx(400.0 * energy["window_s"], rel=0.01)
    assert board["self_test"]["verdict"] == "pass"
    assert board["idle_before_w"] == pytest.approx(400.0, rel=0.05)
    assert energy["sources"]["gpu0-average"]["method"] == "integral"


def test_the_gpu_is_described_and_its_channels_are_there(ran: dict[str, Ran]) -> None:
    result = ran["load"].result
    assert result["machine"]["factors"]["gpu"] == "NVIDIA H200"
    assert result["machine"]["factors"]["gpu_power_limit_w"] == "700"
    channels = result["profiles"]["channels"]
    assert channels["gpu0_percent"]["mean"] == 97.0
    assert channels["gpu0_sm_mhz"]["mean"] == 1980.0
    assert channels["gpu0_used_bytes"]["max"] == 1610612736.0
    verdicts = {name: checked(result, f"GPU {name}")["verdict"] for name in ("clocks", "sensors")}
    assert verdicts == {"clocks": "pass", "sensors": "pass"}


def test_a_gpu_that_falls_off_the_bus_degrades_the_run(ran: dict[str, Ran]) -> None:
    """Latencies are whole, every figure of the GPU says why it is not there."""
    assert ran["lost"].code == 0, ran["lost"].err
    result = ran["lost"].result
    assert result["status"] == "degraded"
    assert result["timing"]["latency_ms"]["median"] > 0
    sensors = checked(result, "GPU sensors")
    assert sensors["verdict"] == "warn" and "fell off the bus" in sensors["reason"]
    energy = result["energy"]
    if "sources" in energy:
        energy = energy["joules_per_inference"]
    assert "fell off the bus" in energy["unavailable"]
    channels = result["profiles"]["channels"]
    gpu = {name: found for name, found in channels.items() if "gpu0" in name}
    assert len(gpu) > 10
    assert all("unavailable" in found for found in gpu.values())
    assert "fell off the bus" in gpu["gpu0_sm_mhz"]["unavailable"]


def test_a_slice_has_memory_and_clocks_but_no_joules(ran: dict[str, Ran]) -> None:
    assert ran["mig"].code == 0, ran["mig"].err
    result = ran["mig"].result
    energy = result["energy"]
    if "sources" in energy:
        energy = energy["joules_per_inference"]
    assert "MIG slice" in energy["unavailable"]
    channels = result["profiles"]["channels"]
    assert "MIG" in channels["gpu0_percent"]["unavailable"]
    assert channels["gpu0_used_bytes"]["max"] == 73400320.0
    assert result["machine"]["factors"]["gpu_mig"] == "1g.18gb"
