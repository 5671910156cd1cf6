"""Loads a quantized torch program, and tells whether this CPU's integer kernels are right for it.

The file is a TorchScript archive: torch's C++ reader builds it from a fixed set of types and runs
no pickled Python. Builder and worker only: imports torch.

x86 without VNNI multiplies uint8 by int8 in pairs and adds each pair in 16 bits, which full 8-bit
values overrun: 2 x 255 x 127 = 64,770 becomes 32,767. What a library does about it differs by
library, by its version, by operator and by environment variables (``ONEDNN_MAX_CPU_ISA``), and none
says so. So the kernels are asked: a layer whose every product is the largest has one right sum.

Where the sum is wrong, activations keep to 7 bits (2 x 127 x 127 = 32,258). Beyond the calibrated
range they may still reach 255; there a sum that overruns is clipped above what the range's end
would give, and every int8 program clips there.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from harness.errors import ModelError, one_line

FACTS = "harness.json"
_CHANNELS = 32
_HERE: Any = {"dtype": torch.float32, "device": "cpu"}  # whatever the user's code has set
_LEVEL = 100  # where the right sum comes out


class Facts(msgspec.Struct, frozen=True):
    """What the archive tells its loader."""

    engine: str
    torch: str
    narrow: bool = False


def load(target: Path) -> Any:
    """The program in ``target``: called with tensors by position. Raises `ModelError`.

    Selects the program's kernel library for this process.
    """
    extra = {FACTS: ""}
    with quiet():
        try:
            facts = msgspec.json.decode(_facts(target, extra), type=Facts)
            name = facts.engine
            if name not in torch.backends.quantized.supported_engines:
                raise ModelError(f"{target} is made for {name!r} kernels", "quantize it again here")
            if not (facts.narrow or exact(name)):
                raise ModelError(
                    f"{target} is made for a CPU that adds up 8-bit products without overflow, "
                    "as this one does not",
                    "quantize it again here",
                )
            torch.backends.quantized.engine = name
            return torch.jit.load(str(target), map_location="cpu")
        except (RuntimeError, ValueError, OSError, msgspec.DecodeError) as error:
            raise ModelError(
                f"{target} is no int8 program that PyTorch can load: "
                f"{one_line(error) or type(error).__name__}",
                "delete it and run again",
            ) from error


def _facts(target: Path, extra: dict[str, str]) -> str:
    # the archive's own reader: no code is looked at, and weights are not packed twice
    reader = torch._C.PyTorchFileReader(str(target))
    text: str = reader.get_record(f"extra/{FACTS}").decode()
    return text


@functools.cache
def exact(name: str) -> bool:
    """Whether kernels ``name`` add up full 8-bit products without overflow, here and now."""
    with quiet(), using(name):
        return all(_is_right(output) for output in _extremes())


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Kernels ``name`` in this process for a while."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What torch says of this route to its developers; it still is the fastest one."""
    from torch.jit._trace import TracerWarning

    with warnings.catch_warnings():
        for message in (
            "torch.ao.quantization is deprecated",
            "`torch.jit.[a-z_]+` is deprecated",
            "torch.quantize_per_tensor, torch.quantize_per_channel and other",
            "Please use quant_min and quant_max to specify the range",
            "must run observer before calling calculate_qparams",
        ):
            warnings.filterwarnings("ignore", message)
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield


def _is_right(output: Any) -> bool:
    return bool((output.int_repr() == _LEVEL).all())


def _extremes() -> Iterator[Any]:
    """A linear layer, a convolution and a depthwise one with the largest products there are."""
    quantized: Any = torch.ops.quantized
    rows = _activations(4, _CHANNELS)
    packed = quantized.linear_prepack(_weights(_CHANNELS, _CHANNELS), None)
    yield quantized.linear(rows, packed, _scale(_CHANNELS), 0)
    image = _activations(1, _CHANNELS, 8, 8)
    for inputs, groups in ((_CHANNELS, 1), (1, _CHANNELS)):
        weights = _weights(_CHANNELS, inputs, 3, 3)
        conv = quantized.conv2d_prepack(weights, None, [1, 1], [0, 0], [1, 1], groups)
        yield quantized.conv2d(image, conv, _scale(inputs * 9), 0)


def _scale(products: int) -> float:
    """Of an output whose right sum is `_LEVEL`."""
    return products * 255 * 127 / _LEVEL


def _activations(*shape: int) -> Any:
    full = torch.full(shape, 255.0, **_HERE)
    return torch.quantize_per_tensor(full, 1.0, 0, torch.quint8)


def _weights(*shape: int) -> Any:
    scales = torch.ones(shape[0], **_HERE)
    zeros = torch.zeros(shape[0], dtype=torch.int64, device="cpu")
    full = torch.full(shape, 127.0, **_HERE)
    return torch.quantize_per_channel(full, scales, zeros, 0, torch.qint8)
