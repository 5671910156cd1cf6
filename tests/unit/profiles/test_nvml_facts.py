"""What of a GPU must match to compare, and what is only shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.host.gpus import cuda_device
from harness.machine import fingerprint
from harness.maybe import Unavailable
from harness.profiles.nvml.facts import UNKNOWN, device_facts
from harness.testing.nvml import NvmlTrace, fake_gpu, load_trace


def changed(answers: dict[str, Any], system: dict[str, Any] | None = None) -> NvmlTrace:
    trace = load_trace("load")
    ((uuid, device),) = trace.devices.items()
    device = msgspec.structs.replace(device, answers={**device.answers, **answers})
    return msgspec.structs.replace(
        trace, devices={uuid: device}, system={**trace.system, **(system or {})}
    )


def test_everything_about_a_gpu() -> None:
    with fake_gpu("load") as library:
        found = device_facts("cuda:0")
    assert library.initialized == 0
    assert found.factors == {
        "gpu": "NVIDIA H200",
        "gpu_count": "1",
        "gpu_memory": "140 GiB",
        "gpu_compute_capability": "9.0",
        "gpu_multiprocessors": "132",
        "gpu_mig": "off",
        "gpu_power_limit_w": "700",
        "gpu_clocks": "default",
        "gpu_ecc": "on",
        "gpu_driver_major": "580",
    }
    assert found.context == {
        "gpu_uuid": "GPU-00000000-0000-4000-8000-000000000000",
        "gpu_pci": "0000:01:00.0",
        "gpu_cuda": "13.0",
        "gpu_compute_mode": "default",
        "gpu_driver": "580.95.05",
        "gpu_serial": "0000000000000",
        "gpu_vbios": "96.00.AF.00.01",
        "gpu_persistence": "on",
        "gpu_power_limit_default_w": "700",
        "gpu_max_sm_mhz": "1980",
        "gpu_max_memory_mhz": "3201",
        "gpu_pcie": "gen5 x16",
        "gpu_pcie_max": "gen5 x16",
        "gpu_virtual": "no",
    }


def hashed(trace: NvmlTrace | str) -> str:
    with fake_gpu(trace):
        return fingerprint(device="cuda:0").fingerprint


@pytest.mark.parametrize(
    ("answers", "system"),
    [
        ({"nvmlDeviceGetName": "NVIDIA H100 80GB HBM3"}, {}),
        ({"nvmlDeviceGetEnforcedPowerLimit": 500_000}, {}),
        ({"nvmlDeviceGetApplicationsClock(1)": 1200}, {}),
        ({"nvmlDeviceGetEccMode": [0, 0]}, {}),
        ({}, {"nvmlSystemGetDriverVersion": "595.10"}),
    ],
)
def test_what_makes_another_machine(answers: dict[str, Any], system: dict[str, Any]) -> None:
    assert hashed(changed(answers, system)) != hashed("load")


@pytest.mark.parametrize(
    ("answers", "system"),
    [
        ({"nvmlDeviceGetSerial": "1111111111111"}, {}),
        ({"nvmlDeviceGetCurrPcieLinkGeneration": 1}, {}),
        ({"nvmlDeviceGetPersistenceMode": 0}, {}),
        ({"nvmlDeviceGetClockInfo(1)": 345}, {}),
        ({}, {"nvmlSystemGetDriverVersion": "580.105.08"}),
    ],
)
def test_what_changes_by_itself_does_not(answers: dict[str, Any], system: dict[str, Any]) -> None:
    assert hashed(changed(answers, system)) == hashed("load")


def test_fixed_clocks_are_told() -> None:
    with fake_gpu(changed({"nvmlDeviceGetApplicationsClock(1)": 1200})):
        assert device_facts("cuda:0").factors["gpu_clocks"] == "SM 1200 MHz"


def test_a_slice_is_told_by_its_profile() -> None:
    with fake_gpu("mig"):
        factors = device_facts("cuda:0").factors
    assert factors["gpu_mig"] == "1g.18gb"
    assert factors["gpu_power_limit_w"] == "700"


def test_what_the_driver_does_not_show_is_unknown() -> None:
    with fake_gpu("forbidden"):
        factors = device_facts("cuda:0").factors
    assert factors["gpu"] == "NVIDIA H200"
    assert factors["gpu_power_limit_w"] == UNKNOWN
    with fake_gpu("no_driver"):
        found = device_facts("cuda:0")
    assert found.factors["gpu_ecc"] == UNKNOWN
    assert "libnvidia-ml" in found.context["gpu_nvml"]


def test_the_hosts_fingerprint_is_as_it_was() -> None:
    plain = fingerprint()
    assert fingerprint(device="cpu").factors == plain.factors
    assert not any(name.startswith("gpu") for name in {**plain.factors, **plain.context})


@pytest.mark.skipif(
    not isinstance(cuda_device("cuda:0"), Unavailable), reason="this machine has a CUDA device"
)
def test_without_a_gpu_the_reason_is_context() -> None:
    found = device_facts("cuda:0")
    assert found.factors == {"gpu": UNKNOWN}
    assert found.context["gpu_absent"]
