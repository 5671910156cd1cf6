"""What each error of NVML means to a user, and whether there is sense in asking again.

The keys are the names of pynvml's classes without their common beginning; a test holds the table
against the installed module, so that no class is missing.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.maybe import Code, Unavailable

_RESET = "see the kernel log (dmesg | grep -i xid), then reset the GPU or reboot"
NEWER = "install a newer NVIDIA driver"


class Meaning(NamedTuple):
    """Of an error of NVML. ``gone``: there is no sense in asking the device again."""

    code: Code
    reason: str
    remedy: str
    gone: bool = False


# The name of the class in pynvml without NVMLError_ -> what it means
MEANINGS: dict[str, Meaning] = {
    "Uninitialized": Meaning("error", "NVML was not initialized", "please report this"),
    "InvalidArgument": Meaning("not_supported", "this driver does not know {what}", NEWER),
    "NotSupported": Meaning(
        "not_supported", "this GPU or its driver does not report {what}", "none on this GPU"
    ),
    "NoPermission": Meaning(
        "permission_denied", "this user may not read {what}", "ask the administrator, or be root"
    ),
    "AlreadyInitialized": Meaning("error", "NVML was initialized twice", "please report this"),
    "NotFound": Meaning("not_present", "NVML does not find {what}", "see nvidia-smi -L"),
    "InsufficientSize": Meaning("error", "{what} outgrew its buffer", "measure again"),
    "InsufficientPower": Meaning(
        "error", "the GPU's power cables are not attached", "attach them", True
    ),
    "DriverNotLoaded": Meaning(
        "not_present", "the NVIDIA kernel driver is not loaded", "sudo modprobe nvidia"
    ),
    "Timeout": Meaning("error", "the driver did not give {what} in time", _RESET),
    "IrqIssue": Meaning("error", "the kernel has trouble with the GPU's interrupts", _RESET),
    "LibraryNotFound": Meaning(
        "not_present",
        "the driver's library libnvidia-ml.so.1 is not found",
        "install the NVIDIA driver (in a container: NVIDIA_DRIVER_CAPABILITIES=all)",
    ),
    "FunctionNotFound": Meaning(
        "not_supported", "this NVIDIA driver is too old to report {what}", NEWER
    ),
    "CorruptedInforom": Meaning("error", "the GPU's infoROM is corrupted", "have it serviced"),
    "GpuIsLost": Meaning("error", "the GPU fell off the bus", _RESET, True),
    "ResetRequired": Meaning("error", "the GPU needs a reset", _RESET, True),
    "OperatingSystem": Meaning(
        "permission_denied", "the operating system refused {what}", "see the container's rights"
    ),
    "LibRmVersionMismatch": Meaning(
        "error", "the NVIDIA driver's library and kernel module differ in version", "reboot", True
    ),
    "InUse": Meaning("error", "{what} is in use by another", "try again"),
    "Memory": Meaning("error", "NVML has no memory left", "free memory"),
    "NoData": Meaning("not_supported", "the driver has no data for {what}", "none on this GPU"),
    "VgpuEccNotSupported": Meaning("not_supported", "this vGPU has no ECC", "none on a vGPU"),
    "InsufficientResources": Meaning("error", "the driver ran out of resources", "close others"),
    "FreqNotSupported": Meaning("not_supported", "this GPU has no such clock", "none"),
    "ArgumentVersionMismatch": Meaning(
        "not_supported", "driver and nvidia-ml-py differ about {what}", NEWER
    ),
    "Deprecated": Meaning("not_supported", "the driver no longer gives {what}", "please report it"),
    "NotReady": Meaning("error", "the GPU is not ready", "wait a moment"),
    "GpuNotFound": Meaning("not_present", "NVML finds no GPU", "see nvidia-smi -L", True),
    "InvalidState": Meaning("error", "the GPU is in no state to give {what}", _RESET),
    "ResetTypeNotSupported": Meaning("error", "no such reset", "please report this"),
    "Unknown": Meaning(
        "error",
        "the driver failed to give {what}",
        "restart the container, if this is one; else " + _RESET,
    ),
}
STRANGE = Meaning("error", "the driver failed to give {what}", _RESET)


class NvmlFailure(Exception):
    """NVML did not answer. ``reason`` is for the user, ``gone`` as in `Meaning`."""

    def __init__(self, reason: Unavailable, gone: bool = False) -> None:
        super().__init__(reason.reason)
        self.reason, self.gone = reason, gone
