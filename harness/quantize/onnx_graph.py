"""Parts of ONNX graphs: which nodes make a tensor, and the model that makes it from given ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

QUANTIZED = re.compile(r"(Dynamic)?Quantize\w*|QLinear\w+|\w+Integer\w*|Q[A-Z]\w+")
# A protobuf message cannot reach 2 GiB; some room is left for the nodes that quantizing adds.
INLINE_LIMIT_BYTES = 1_800_000_000
_DRAWN = re.compile(r"Random\w+|Multinomial|Bernoulli")


def is_large(model: Any) -> bool:
    """Whether the weights of ``model`` must lie in a file beside it."""
    return bool(model.ByteSize() > INLINE_LIMIT_BYTES)


class Segment(NamedTuple):
    """The nodes behind a tensor, each after those that it reads from, and where they begin."""

    nodes: list[Any]
    inputs: list[str]  # tensors at which the graph was cut, and its own inputs
    constants: list[str]


class Graph:
    """A model's main graph by name."""

    def __init__(self, model: Any) -> None:
        self.model = model
        graph = model.graph
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        self.quantizers = {n.input[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
        self.types = {
            value.name: value for value in (*graph.value_info, *graph.output, *graph.input)
        }

    def segment(self, ends: Iterable[str], cut: Collection[str]) -> Segment:
        """What makes ``ends`` from the tensors of ``cut`` and the graph's inputs."""
        nodes: dict[int, Any] = {}
        inputs: dict[str, None] = {}
        constants: dict[str, None] = {}
        stack = [(self.makers[name], False) for name in ends if name in self.makers]
        while stack:
            node, ready = stack.pop()
            if ready:
                nodes.setdefault(id(node), node)
            elif id(node) not in nodes:
                stack.append((node, True))
                for name in reads(node):
                    if name in self.constants or name in self.sparse:
                        constants[name] = None
                    elif name in cut or name not in self.makers:
                        inputs[name] = None
                    else:
                        stack.append((self.makers[name], False))
        return Segment(list(nodes.values()), list(inputs), list(constants))

    def constant_bytes(self, segment: Segment) -> int:
        return sum(self.constants[c].ByteSize() for c in segment.constants if c in self.constants)

    def declare(self, name: str, alias: str = "") -> Any:
        """``name``'s type, for an input or output called ``alias``."""
        from onnx import ValueInfoProto

        value = ValueInfoProto()
        if name in self.types:
            value.CopyFrom(self.types[name])
        value.name = alias or name
        return value

    def build(self, segment: Segment, inputs: list[Any], outputs: list[Any]) -> Any:
        """A model of ``segment`` alone. ``segment.nodes`` may be copies under other names."""
        from onnx import ModelProto

        part = ModelProto(ir_version=self.model.ir_version)
        part.opset_import.extend(self.model.opset_import)
        part.functions.extend(self.model.functions)
        part.graph.name = "part"
        part.graph.node.extend(segment.nodes)
        part.graph.input.extend(inputs)
        part.graph.output.extend(outputs)
        for name in segment.constants:
            if name in self.constants:
                part.graph.initializer.append(self.constants[name])
            else:
                part.graph.sparse_initializer.append(self.sparse[name])
        return part


def reads(node: Any) -> Iterator[str]:
    """All tensors that ``node`` reads, those that its nested graphs take from outside too."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for nested in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {value.name for value in nested.input}
            own.update(tensor.name for tensor in nested.initializer)
            own.update(name for inner in nested.node for name in inner.output)
            for inner in nested.node:
                yield from (name for name in reads(inner) if name not in own)
            yield from (value.name for value in nested.output if value.name not in own)


def is_random(nodes: Iterable[Any]) -> bool:
    """Whether two runs of ``nodes`` on the same inputs may differ."""
    return any(
        _DRAWN.fullmatch(node.op_type) is not None
        or (node.op_type == "Dropout" and len(node.input) > 2)
        or any(is_random(nested.node) for a in node.attribute for nested in (a.g, *a.graphs))
        for node in nodes
    )
