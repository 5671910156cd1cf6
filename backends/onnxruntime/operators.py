"""What ONNX Runtime ran, in which precision: read from the profile of one inference.

The saved optimised graph would not do: it names no types between its nodes, and it says what was
planned. The runtime's profiler notes every kernel that executed, with the types it was handed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from math import prod
from typing import Any, NamedTuple

_CPU = "CPUExecutionProvider"
_SHAPE_ELEMENTS = 16
_FLOATS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64"}
_8_BITS = {"int8", "uint8"}
_CONVERSIONS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "CastLike",
    "QuantizeWithOrder", "DequantizeWithOrder", "QuantizeBFP", "DequantizeBFP",
}  # fmt: skip
# Kernels that compute in integers whatever comes first among their inputs: a scale
# (QLinearConcat), a condition (QLinearWhere), indices, or an activation that they quantize.
_INTEGER_KERNELS = re.compile(
    r"QLinear\w+|QOrdered\w+|QGemm|QAttention|QEmbedLayerNormalization"
    r"|\w+Integer\w*|DynamicQuantize\w+"
)
# Kernels that compute in floating point with weights of 2 to 8 bits.
_WEIGHT_ONLY = re.compile(
    r"MatMulNBits\w*|MatMulBnb4|MatMulFpQ4|MatMulBlockQuantized\w+|GatherBlockQuantized|QMoE"
)


class Profile(NamedTuple):
    """``operators``: type -> precision -> kernels. ``fallen_back``: see `_fell_back`."""

    operators: dict[str, dict[str, int]]
    nodes_by_provider: str
    fallen_back: list[str]


def read_profile(data: bytes) -> Profile:
    """Kernels by operator type and precision, and how many each provider ran.

    A kernel that ran several times, as in the body of a loop, counts once. Raises `ValueError` or
    `KeyError` for a profile of another make.
    """
    kernels = {
        (event["name"], event["args"]["node_index"]): event["args"]
        for event in json.loads(data)
        if event.get("cat") == "Node" and "op_name" in event.get("args", {})
    }
    providers = Counter(kernel["provider"] for kernel in kernels.values())
    operators: dict[str, dict[str, int]] = {}
    for kernel in sorted(kernels.values(), key=lambda kernel: str(kernel["op_name"])):
        inputs, outputs = (_types(kernel[f"{side}_type_shape"]) for side in ("input", "output"))
        precision = kernel_precision(kernel["op_name"], inputs, outputs)
        counts = operators.setdefault(kernel["op_name"], {})
        counts[precision] = counts.get(precision, 0) + 1
    return Profile(
        operators,
        ", ".join(f"{name} {count}" for name, count in sorted(providers.items())),
        [
            f"{name.removesuffix('_kernel_time')} ({kernel['op_name']})"
            for (name, _), kernel in kernels.items()
            if _fell_back(kernel)
        ],
    )


def _fell_back(kernel: dict[str, Any]) -> bool:
    """Whether it computed on the CPU what belongs on the device.

    A device's provider leaves the arithmetic on shapes to the CPU on purpose: integers, and floats
    of a few elements. More elements than that, in floating point or 8 bits, are the model's own.
    """
    if kernel["provider"] != _CPU:
        return False
    tensors = [*kernel["input_type_shape"], *kernel["output_type_shape"]]
    return any(
        (kind in _FLOATS or kind in _8_BITS) and prod(shape) > _SHAPE_ELEMENTS
        for tensor in tensors
        for kind, shape in tensor.items()
    )


def _types(entries: list[dict[str, Any]]) -> list[str]:
    return [name for entry in entries for name in entry]


def kernel_precision(operator: str, inputs: list[str], outputs: list[str]) -> str:
    """The precision that a kernel computed in, from the tensor types that it was handed.

    Conversions between precisions count as ``convert``, kernels whose weights alone are quantized
    as ``weight-only``. An operator between a DequantizeLinear and a QuantizeLinear that did not
    fuse was handed floats, so it is fp32 here, as it ran. An operator without any floating-point or
    8-bit tensor (indices, shapes) goes by its own type's name.
    """
    if operator in _CONVERSIONS:
        return "convert"
    if operator in ("Shape", "Size"):  # look at no element
        return outputs[0]
    if _WEIGHT_ONLY.fullmatch(operator):
        return "weight-only"
    if _INTEGER_KERNELS.fullmatch(operator) and not _8_BITS.isdisjoint(inputs):
        return "int8"
    if _moves_8_bits(inputs, outputs):
        return "int8"
    for kind in (*inputs, *outputs):
        if kind in _FLOATS:
            return _FLOATS[kind]
    return next((kind for kind in (*inputs, *outputs)), "none")


def _moves_8_bits(inputs: list[str], outputs: list[str]) -> bool:
    """Whether an ordinary operator has 8-bit data: what it puts out, or what it takes in first.

    One that makes floats of it is not among them: its 8 bits are indices or a mask.
    """
    if outputs and outputs[0] in _8_BITS:
        return True
    return bool(inputs) and inputs[0] in _8_BITS and _FLOATS.keys().isdisjoint(outputs)
