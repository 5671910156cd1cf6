"""What an output of ONNX Runtime holds, as numpy has it: also in the types that numpy has not.

bfloat16, float8    decoded to float32, every value exactly
int4, uint4         unpacked to int8 and uint8, the low half of each byte first
text, sequences, maps    none: no array of numbers holds them
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# mantissa bits, bias, whether there are infinities, whether the code of -0 is the only NaN
_FLOAT8 = {
    "tensor(float8e4m3fn)": (3, 7, False, False),
    "tensor(float8e4m3fnuz)": (3, 8, False, True),
    "tensor(float8e5m2)": (2, 15, True, False),
    "tensor(float8e5m2fnuz)": (2, 16, False, True),
}
_HALVES = {"tensor(int4)": "int8", "tensor(uint4)": "uint8"}
_WIDE = "tensor(bfloat16)"
RAW = {*_FLOAT8, *_HALVES, _WIDE}  # what numpy has not


def read(value: Any) -> NDArray[Any] | None:
    """A copy of an `onnxruntime.OrtValue` in host memory; None for what is no array of numbers."""
    if not value.is_tensor():
        return None
    kind = value.data_type()
    if kind == "tensor(string)":
        return None
    if kind not in RAW:
        return np.array(value.numpy())
    shape = tuple(value.shape())
    count = int(np.prod(shape))
    if kind in _HALVES:
        packed = _bytes(value, (count + 1) // 2)
        halves = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:count]
        signed = kind == "tensor(int4)"
        return (((halves ^ 8).astype(np.int8) - 8) if signed else halves).reshape(shape)
    if kind == _WIDE:
        upper = _bytes(value, 2 * count).view(np.uint16).astype(np.uint32) << 16
        return upper.view(np.float32).reshape(shape)
    return _float8(*_FLOAT8[kind])[_bytes(value, count)].reshape(shape)


def _bytes(value: Any, count: int) -> NDArray[np.uint8]:
    return np.frombuffer(ctypes.string_at(value.data_ptr(), count) if count else b"", np.uint8)


@cache
def _float8(mantissa: int, bias: int, infinite: bool, single_nan: bool) -> NDArray[np.float32]:
    """The value of each of the 256 codes."""
    codes = np.arange(256)
    exponent = (codes & 127) >> mantissa
    fraction = (codes & ((1 << mantissa) - 1)) / (1 << mantissa)
    normal = exponent > 0
    values = (fraction + normal) * np.exp2(np.maximum(exponent, 1) - bias)
    if single_nan:
        values[128] = np.nan
    elif infinite:
        top = exponent == exponent.max()
        values[top] = np.where(fraction[top] > 0, np.nan, np.inf)
    else:
        values[[127, 255]] = np.nan
    signed: NDArray[np.float32] = np.where(codes > 127, -values, values).astype(np.float32)
    return signed


def unseen(kind: str) -> str:
    """What an output of that type is, which `read` has no array for."""
    return "text" if kind == "tensor(string)" else f"a {kind}"
