"""Which values may an ONNX graph's inputs take? Followed from each input to the table it indexes.

    input_ids ─ Cast ─ Reshape ─ Add(2) ─┐
                                         Gather(axis 0) ── table 512 x 768    =>  0 <= input < 510

Builder only: imports onnx.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

# operators that hand values on unchanged, from input 0 to every output
SAME = {
    "Cast", "CastLike", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
    "Slice", "Expand", "Tile", "Split", "DepthToSpace", "SpaceToDepth", "Pad", "Dropout",
}  # fmt: skip
# operators that hand on values of all their inputs
JOIN = {"Concat", "Where", "Max", "Min"}
_NUMBERS = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16,
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip
# com.microsoft's fused embedding: its index inputs and the tables that they index
EMBED = {0: 2, 1: 4, 8: 3}


class Range(msgspec.Struct, frozen=True):
    """Integers from ``low`` up to, not including, ``high``."""

    low: int
    high: int


class _Graph:
    """Consumers, constants and shapes by value name, nested graphs included."""

    def __init__(self, model: ModelProto) -> None:
        self.consumers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        self.shapes: dict[str, Sequence[int | None]] = {}
        self.constants: dict[str, float] = {}
        self._add(model.graph)

    def _add(self, graph: GraphProto) -> None:
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                sizes = [d.dim_value if d.HasField("dim_value") else None for d in dims]
                self.shapes[value.name] = sizes
        for tensor in graph.initializer:
            self._constant(tensor.name, tensor)
        for node in graph.node:
            self._node(node)

    def _constant(self, name: str, tensor: TensorProto) -> None:
        dims = list(tensor.dims)
        self.shapes[name] = dims
        external = tensor.data_location == TensorProto.EXTERNAL
        if all(dim == 1 for dim in dims) and not external and tensor.data_type in _NUMBERS:
            number = float(numpy_helper.to_array(tensor).reshape(()))
            if math.isfinite(number):
                self.constants[name] = number

    def _node(self, node: NodeProto) -> None:
        for position, name in enumerate(node.input):
            self.consumers[name].append((node, position))
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.type == AttributeProto.TENSOR:
                self._constant(node.output[0], attribute.t)
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    self._add(graph)

    def size(self, name: str, axis: int) -> int | None:
        shape = self.shapes.get(name)
        if shape is None or not -len(shape) <= axis < len(shape):
            return None
        return shape[axis]


def index_ranges(model: ModelProto) -> dict[str, Range]:
    """The range of every input that is used as an index or a divisor; others are left out."""
    graph = _Graph(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    ranges = {}
    for value in model.graph.input:
        if value.name not in constants and (found := _range(graph, value.name)) is not None:
            ranges[value.name] = found
    return ranges


def _range(graph: _Graph, name: str) -> Range | None:
    uses = list(_uses(graph, name))
    highs = [high for kind, high in uses if kind == "index" and high > 0]
    low = 1 if any(kind == "divisor" for kind, _ in uses) else 0
    if highs:
        return Range(min(low, min(highs) - 1), min(highs))
    return Range(1, 3) if low else None


def _uses(graph: _Graph, start: str) -> Iterator[tuple[str, int]]:
    """(``index``, number of rows) or (``divisor``, 0) for each use that the values reach.

    A constant added on the way shortens the table; a table of unknown size counts as one row.
    """
    seen: set[tuple[str, int]] = set()
    todo = [(start, 0)]
    while todo:
        name, shift = todo.pop()
        if (name, shift) in seen or len(seen) > 100_000:
            continue
        seen.add((name, shift))
        for node, position in graph.consumers[name]:
            rows = _indexed(graph, node, position)
            if rows is not None:
                yield "index", rows - shift
            elif node.op_type in {"Div", "Mod"} and position == 1:
                yield "divisor", 0
            else:
                more = _handed_on(graph, node, position)
                if more is not None:
                    todo += [(out, shift + more) for out in node.output if out]


def _handed_on(graph: _Graph, node: NodeProto, position: int) -> int | None:
    """What the node adds to the values that it hands on; None where it does not hand them on."""
    first_only = node.op_type in SAME and position == 0
    if first_only or (node.op_type in JOIN and (node.op_type != "Where" or position > 0)):
        return 0
    if node.op_type in {"Gather", "GatherElements", "GatherND"} and position == 0:
        return 0  # a table of indices, itself indexed
    if node.op_type == "Add" or (node.op_type == "Sub" and position == 0):
        constant = graph.constants.get(node.input[1 - position])
        if constant is not None:
            return int(constant) if node.op_type == "Add" else -int(constant)
    return None


def _indexed(graph: _Graph, node: NodeProto, position: int) -> int | None:
    """The number of rows that input ``position`` of ``node`` indexes; None where it is no index."""
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type in {"Gather", "GatherElements", "ScatterElements", "Scatter"}:
        if position == 1:
            return graph.size(node.input[0], attributes.get("axis", 0)) or 1
    elif node.op_type in {"GatherND", "ScatterND"} and position == 1:
        depth = graph.size(node.input[1], -1) or 1
        first = attributes.get("batch_dims", 0)
        sizes = [graph.size(node.input[0], first + axis) or 1 for axis in range(depth)]
        return min(sizes)
    elif node.op_type == "OneHot" and position == 0:
        return int(graph.constants.get(node.input[1], 1.0)) or 1
    elif node.op_type == "EmbedLayerNormalization" and position in EMBED:
        return graph.size(node.input[EMBED[position]], 0) or 1
    return None
