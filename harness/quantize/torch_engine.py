"""Which of PyTorch's integer kernels to quantize for on this CPU. Imports torch."""

from __future__ import annotations

from typing import NamedTuple

import torch

from harness.artifacts.torch_int8 import exact
from harness.errors import BackendUnavailable


class Engine(NamedTuple):
    """Kernels that are right here, and whether activations must keep to 7 bits for it."""

    name: str
    narrow: bool


def choose() -> Engine:
    """oneDNN where it is exact, else FBGEMM and oneDNN mixed as PyTorch does it (``x86``).

    Raises `BackendUnavailable` where PyTorch has no quantized kernels.
    """
    supported = torch.backends.quantized.supported_engines
    if "onednn" in supported and exact("onednn"):
        return Engine("onednn", narrow=False)
    for name in ("x86", "qnnpack", "onednn"):
        if name in supported:
            return Engine(name, narrow=not exact(name))
    raise BackendUnavailable(
        f"PyTorch {torch.__version__} has no quantized kernels for this CPU",
        "use --backend onnxruntime",
    )
