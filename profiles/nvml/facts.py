"""The GPU under test for the fingerprint: what must match to compare, and what is only shown.

A factor stays what it is over reboots of a machine that nobody changed: the chip, its memory, the
slice, the power limit, clocks that somebody fixed, ECC, the driver's major version. What names one
board among its kind (UUID, serial number) is context, as is all that changes by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from harness.host.gpus import CudaDevice, cuda_device
from harness.maybe import Unavailable
from harness.profiles.nvml.device import LIBRARY_VARIABLE, Gpu
from harness.profiles.nvml.errors import NvmlFailure

UNKNOWN = "not shown by this system"


class DeviceFacts(NamedTuple):
    """``factors`` enter the fingerprint, ``context`` stands beside it."""

    factors: dict[str, str]
    context: dict[str, str]


def device_facts(device: str) -> DeviceFacts:
    """Of ``cuda:N``, as far as CUDA and NVML tell; never raises for what is absent."""
    found = cuda_device(device)
    if isinstance(found, Unavailable):
        return DeviceFacts({"gpu": UNKNOWN}, {"gpu_absent": found.reason})
    known = DeviceFacts(_cuda_factors(found), _cuda_context(found))
    try:
        with Gpu(found) as gpu:
            return DeviceFacts(
                {**known.factors, **{name: _said(gpu, ask) for name, ask in _FACTORS.items()}},
                {**known.context, **{name: _said(gpu, ask) for name, ask in _CONTEXT.items()}},
            )
    except NvmlFailure as failure:
        unknown = dict.fromkeys(_FACTORS, UNKNOWN)
        said = {**known.context, "gpu_nvml": failure.reason.reason}
        return DeviceFacts({**known.factors, **unknown}, said)


def _cuda_factors(device: CudaDevice) -> dict[str, str]:
    return {
        "gpu": device.name,
        "gpu_count": "1",
        "gpu_memory": f"{device.memory_bytes / 2**30:.0f} GiB",
        "gpu_compute_capability": device.compute_capability,
        "gpu_multiprocessors": str(device.multiprocessors),
        # CUDA puts the profile behind the GPU's name: "NVIDIA H200 MIG 1g.18gb"
        "gpu_mig": (device.name.partition(" MIG ")[2] or "on") if device.mig else "off",
    }


def _cuda_context(device: CudaDevice) -> dict[str, str]:
    stand_in = os.environ.get(LIBRARY_VARIABLE)
    return {
        # Figures that were replayed must not pass for a driver's.
        **({"gpu_nvml": f"read through {stand_in}"} if stand_in else {}),
        "gpu_uuid": device.uuid,
        "gpu_pci": device.pci_bus_id,
        "gpu_cuda": device.driver_cuda,
        "gpu_compute_mode": device.compute_mode,
    }


def _said(gpu: Gpu, ask: Callable[[Gpu], str]) -> str:
    try:
        return ask(gpu)
    except NvmlFailure:
        return UNKNOWN


def _driver(gpu: Gpu) -> str:
    return gpu.system("nvmlSystemGetDriverVersion")


def _on(function: str) -> Callable[[Gpu], str]:
    """An enabled state; of a pair (now, after the next reset) the first."""

    def ask(gpu: Gpu) -> str:
        answer = gpu.ask(function, function)
        return "on" if (answer[0] if isinstance(answer, list) else answer) else "off"

    return ask


def _plain(function: str) -> Callable[[Gpu], str]:
    return lambda gpu: str(gpu.ask(function, function))


def _watts(function: str) -> Callable[[Gpu], str]:
    return lambda gpu: f"{gpu.ask(function, function) / 1000:g}"


def _fixed_clocks(gpu: Gpu) -> str:
    """Application clocks where they are not the default ones. Clocks that are locked by range
    cannot be read back; they show in the clocks that are sampled."""
    chosen = []
    for kind, name in (("NVML_CLOCK_SM", "SM"), ("NVML_CLOCK_MEM", "memory")):
        constant = gpu.constant(kind)
        now, default = (
            gpu.ask("application clocks", f"nvmlDeviceGet{which}ApplicationsClock", constant)
            for which in ("", "Default")
        )
        if now != default:
            chosen.append(f"{name} {now} MHz")
    return ", ".join(chosen) or "default"


def _link(which: str) -> Callable[[Gpu], str]:
    """The PCIe link; what is current falls while the GPU idles."""

    def ask(gpu: Gpu) -> str:
        generation = gpu.ask("the PCIe link", f"nvmlDeviceGet{which}PcieLinkGeneration")
        width = gpu.ask("the PCIe link", f"nvmlDeviceGet{which}PcieLinkWidth")
        return f"gen{generation} x{width}"

    return ask


def _top_clock(kind: str) -> Callable[[Gpu], str]:
    return lambda gpu: str(gpu.ask("clocks", "nvmlDeviceGetMaxClockInfo", gpu.constant(kind)))


_FACTORS: dict[str, Callable[[Gpu], str]] = {
    "gpu_power_limit_w": _watts("nvmlDeviceGetEnforcedPowerLimit"),
    "gpu_clocks": _fixed_clocks,
    "gpu_ecc": _on("nvmlDeviceGetEccMode"),
    "gpu_driver_major": lambda gpu: _driver(gpu).partition(".")[0],
}
_CONTEXT: dict[str, Callable[[Gpu], str]] = {
    "gpu_driver": _driver,
    "gpu_serial": _plain("nvmlDeviceGetSerial"),
    "gpu_vbios": _plain("nvmlDeviceGetVbiosVersion"),
    "gpu_persistence": _on("nvmlDeviceGetPersistenceMode"),
    "gpu_power_limit_default_w": _watts("nvmlDeviceGetPowerManagementDefaultLimit"),
    "gpu_max_sm_mhz": _top_clock("NVML_CLOCK_SM"),
    "gpu_max_memory_mhz": _top_clock("NVML_CLOCK_MEM"),
    "gpu_pcie": _link("Curr"),
    "gpu_pcie_max": _link("Max"),
    "gpu_virtual": lambda gpu: "vgpu" if gpu.virtual else "no",
}
