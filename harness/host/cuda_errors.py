"""What CUDA says when it refuses, as one line that says what to do. It imports no framework.

PyTorch, ONNX Runtime and the CUDA runtime word the same errors differently: with CUDA's sentence,
its name (``cudaErrorMemoryAllocation``) or its number (``CUDA failure 2``). One table knows all.
"""

from __future__ import annotations

import re
from textwrap import shorten
from typing import NamedTuple

from harness.errors import BackendUnavailable, HarnessError, MeasurementFailed

_SHOWN = 100  # characters of the runtime's own message


class _Known(NamedTuple):
    pattern: str
    kind: type[HarnessError]
    what: str
    remedy: str


_TABLE = (
    _Known(
        r"out of memory|cudaErrorMemoryAllocation|CUDA failure 2\b|CUBLAS_STATUS_ALLOC_FAILED"
        r"|failed to allocate memory for requested buffer|CUDNN_STATUS_ALLOC_FAILED",
        MeasurementFailed,
        "out of device memory",
        "lower --batch-size or --concurrency, or end what else holds memory there: nvidia-smi",
    ),
    _Known(
        r"devices?(?:\(s\))? (?:is|are|is/are) busy or unavailable|cudaErrorDevicesUnavailable"
        r"|CUDA failure 46\b",
        BackendUnavailable,
        "the device is in exclusive use by another process",
        "end that process (nvidia-smi shows it), or allow several: sudo nvidia-smi -c 0",
    ),
    _Known(
        r"invalid device ordinal|cudaErrorInvalidDevice\b|invalid device id|CUDA failure 101\b",
        BackendUnavailable,
        "CUDA has no such device",
        "harness doctor shows the devices; CUDA_VISIBLE_DEVICES hides some",
    ),
    _Known(
        r"no kernel image is available|cudaErrorNoKernelImageForDevice|CUDA failure 209\b"
        r"|not compatible with the current PyTorch installation",
        BackendUnavailable,
        "this build has no kernels for this GPU",
        "install a build of the runtime for its compute capability",
    ),
    _Known(
        r"driver version is insufficient|cudaErrorInsufficientDriver|CUDA failure 35\b"
        r"|driver on your system is too old",
        BackendUnavailable,
        "the NVIDIA driver is too old for this runtime",
        "install a newer driver, or a runtime built for an older CUDA",
    ),
    _Known(
        r"fallen off the bus|cudaErrorECCUncorrectable|uncorrectable ECC|CUDA failure 214\b",
        MeasurementFailed,
        "the GPU failed",
        "see dmesg for Xid errors, then reset the GPU or reboot",
    ),
    _Known(
        r"illegal memory access|unspecified launch failure|device-side assert|misaligned address"
        r"|cudaErrorIllegalAddress|cudaErrorLaunchFailure|CUDA failure (?:700|710|716|719)\b",
        MeasurementFailed,
        "a kernel of the model failed on the device",
        "check the model's inputs (indices above all); CUDA_LAUNCH_BLOCKING=1 finds the operator",
    ),
)


def cuda_failure(text: str, what: str) -> HarnessError | None:
    """The error that ``text`` of a runtime means, while doing ``what``; None for any other."""
    for known in _TABLE:
        if re.search(known.pattern, text, re.IGNORECASE):
            # what follows in these messages is advice for programmers
            begins = shorten(text, _SHOWN, placeholder=" ...")
            return known.kind(f"{what}: {known.what} ({begins})", known.remedy)
    return None
