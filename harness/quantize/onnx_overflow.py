"""Which layers of a Q/DQ model can overflow on a processor that adds products in 16 bits.

x86 without VNNI multiplies unsigned activations by signed weights and adds two neighbouring
products at once in 16 bits, which saturate (`vpmaddubsw`). With VNNI, and on ARM, sums have 32.

    a0 w0 + a1 w1     at most  a_max x (the two largest weights of one sign in a filter)
                      safe if that is within 32,767, and -32,768 on the other side

``a_max`` is the largest quantized activation that was observed, at most 255. Which weights are
neighbours is the kernel's business, so any two of a filter may be: the bound is safe, not sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.quantize.onnx_graph import Graph

_MOST, _LEAST = 32_767, -32_768
# axis of the filters in the weights
_PRODUCTS = {"Conv": 0, "Gemm": None, "MatMul": 1, "QLinearConv": 0, "QLinearMatMul": 1}


class Overflow(msgspec.Struct, frozen=True, kw_only=True):
    """A layer whose sum of two products can leave 16 bits; ``filters``: how many of them can."""

    name: str
    reached: int  # the farthest that two products can add up to
    filters: int
    of: int
    activation_max: int  # observed, of 255


def overflows(model: Any, feeds: Sequence[dict[str, Any]], beside: Path) -> tuple[Overflow, ...]:
    """Of all products of uint8 activations and constant int8 weights; ``feeds`` are observed."""
    graph = Graph(model)
    layers = [
        (node, *found)
        for node in model.graph.node
        if node.op_type in _PRODUCTS and (found := _operands(graph, node)) is not None
    ]
    observed = _observed(model, {activation for _, activation, _ in layers}, feeds, beside)
    rows = [
        _bound(node, weights, observed.get(activation, 255)) for node, activation, weights in layers
    ]
    return tuple(row for row in rows if row is not None)


def _operands(graph: Graph, node: Any) -> tuple[str, Any] | None:
    """The quantized activation's name and the weights [filters, rest]; None for other types."""
    from onnx import numpy_helper

    if node.op_type.startswith("QLinear"):
        activation, zero, weight = node.input[0], node.input[2], node.input[3]
    else:
        before = [graph.makers.get(name) for name in node.input[:2]]
        if any(one is None or one.op_type != "DequantizeLinear" for one in before):
            return None
        activation, weight = (one.input[0] for one in before if one is not None)
        quantizer = graph.makers.get(activation)
        zero = quantizer.input[2] if quantizer is not None and len(quantizer.input) > 2 else ""
    if weight not in graph.constants or activation in graph.constants:
        return None
    weights = numpy_helper.to_array(graph.constants[weight])
    signed = zero in graph.constants and graph.constants[zero].data_type == 3  # INT8
    if weights.dtype != np.int8 or signed or weights.ndim < 2:
        return None
    axis = _PRODUCTS[node.op_type]
    if axis is None:  # a Gemm says whether its weights are transposed
        axis = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    elif axis == 1:
        axis = weights.ndim - 1
    return activation, np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)


def _bound(node: Any, weights: Any, largest: int) -> Overflow | None:
    wide = weights.astype(np.int64)
    if wide.shape[1] < 2:
        wide = np.pad(wide, ((0, 0), (0, 1)))
    ordered = np.sort(wide, axis=1)
    high = largest * np.maximum(ordered[:, -1], 0) + largest * np.maximum(ordered[:, -2], 0)
    low = largest * np.minimum(ordered[:, 0], 0) + largest * np.minimum(ordered[:, 1], 0)
    beyond = (high > _MOST) | (low < _LEAST)
    if not beyond.any():
        return None
    most, least = int(high.max()), int(low.min())
    return Overflow(
        name=str(node.name or node.output[0]),
        reached=most if most > -least else least,
        filters=int(beyond.sum()),
        of=len(weights),
        activation_max=largest,
    )


def _observed(
    model: Any, names: set[str], feeds: Sequence[dict[str, Any]], beside: Path
) -> dict[str, int]:
    """The largest value of each quantized tensor over ``feeds``; an input of the model has 255."""
    import onnx

    from harness.quantize.onnx_session import start

    made = {name for node in model.graph.node for name in node.output}
    wanted = sorted(names & made)
    if not wanted or not feeds:
        return {}
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    path = beside.with_name("observed.onnx")
    from harness.quantize.onnx_make import save

    save(tapped, path)
    session = start(path, fused=False)
    largest = dict.fromkeys(wanted, 0)
    for feed in feeds:
        for name, array in zip(wanted, session.run(wanted, feed), strict=True):
            largest[name] = max(largest[name], int(array.max(initial=0)))
    path.unlink()
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return largest
