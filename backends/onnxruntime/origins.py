"""Which nodes of the model each node of the optimised graph does the work of, found by tensors.

    the model     x ─ DQ ─ Conv ─ Relu ─ Q ─ y        (w ─ DQ ─┘)
    what runs     x ─────── QLinearConv ──── y        whatever lies between x and y went into it

Node indices mean nothing across the two graphs, and names of nodes little. Tensors that both have
keep their names. Where the runtime changes the layout it renames tensors; a node is then named
after the tensor that it stands for (blocked, NCHWc), or after the node (NHWC). Where none of this
helps, the operator is one that the runtime added, and nothing is claimed of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.protocols import Step, TensorSpec

_BLOCKED = re.compile(r"(.+)_nchwc(?:_token_\d+)?")
_NUMBERED = re.compile(r"_token_\d+$")
_INTEGER = re.compile(r"QLinear|QGemm|QAttention")
_LAYOUT = ("Transpose", "ReorderInput", "ReorderOutput")
_DEEP = 4  # nodes between one and the quantizer of what it puts out
UNKNOWN = (-1,)


class Origins:
    """``optimized`` is the graph that runs, ``shapes`` what the tensors of the model were like."""

    def __init__(self, source: Path, optimized: Any, inputs: Mapping[str, Any]) -> None:
        import onnx

        model = onnx.load(str(source), load_external_data=False)
        for value in model.graph.input:
            if value.name in inputs:
                _fix_shape(value, inputs[value.name].shape)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        graph = model.graph
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._named = {node.name: node for node in graph.node if node.name}
        self._specs = dict(_specs(graph))
        self._reading: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._reading.setdefault(name, []).append(node)
        self._alias = self._aliases(optimized)
        cut = {name for node in optimized.node for name in (*node.input, *node.output)}
        self._cut = {self._alias.get(name, name) for name in cut}

    def _aliases(self, optimized: Any) -> dict[str, str]:
        """Tensors of the optimised graph under the names that the model has for them."""
        alias: dict[str, str] = {}
        for node in optimized.node:
            output = str(next((name for name in node.output if name), ""))
            if node.op_type in _LAYOUT and node.name not in self._named:
                given = str(alias.get(node.input[0], node.input[0]))
                if output in self._makers:
                    alias[node.input[0]] = output
                else:
                    alias[output] = given
            elif output not in self._makers and (end := self._end(node)):
                alias[output] = end
        return alias

    def _end(self, node: Any) -> str:
        """The model's name for the output of ``node``, which has a name of the runtime's."""
        blocked = _BLOCKED.fullmatch(node.name)
        if blocked is not None and blocked[1] in self._makers:
            return self._through(blocked[1], node)
        named = self._named.get(_NUMBERED.sub("", node.name))
        if named is None:
            return ""
        end = str(named.output[0])
        for _ in range(_DEEP if _INTEGER.match(node.op_type) else 0):
            quantizer = next((n for n in self._readers(end) if n.op_type == "QuantizeLinear"), None)
            if quantizer is not None:
                return str(quantizer.output[0])
            after = self._readers(end)
            if len(after) != 1:
                break
            end = str(after[0].output[0])
        return end

    def _through(self, end: str, node: Any) -> str:
        """Beyond the addition and the activation that went into a blocked convolution."""
        wanted = ["Add", "Sum"] if len(node.input) > 3 and node.input[3] else []
        activation = [a.s.decode() for a in node.attribute if a.name == "activation"]
        for kinds in (wanted, activation):
            if kinds and self._makers[end].op_type not in kinds:
                after = [n for n in self._readers(end) if n.op_type in kinds]
                end = str(after[0].output[0]) if len(after) == 1 else end
        return end

    def _readers(self, name: str) -> list[Any]:
        return self._reading.get(name, [])

    def of(self, node: Any) -> list[Any] | None:
        """The nodes of the model that ``node`` of the optimised graph replaces, in no order."""
        if node.op_type in _LAYOUT and node.name not in self._named:
            return None
        ends = [self._alias.get(name, name) for name in node.output if name]
        starts = {self._alias.get(name, name) for name in node.input}
        stack = [name for name in ends if name in self._makers and name not in starts]
        found: dict[int, Any] = {}
        while stack:
            maker = self._makers[stack.pop()]
            if id(maker) in found or maker.op_type == "Constant":
                continue
            found[id(maker)] = maker
            stack += [n for n in maker.input if n in self._makers and n not in self._cut]
        if not found and node.name in self._named:
            return [self._named[node.name]]
        return list(found.values()) or None

    def step(self, node: Any) -> Step:
        """``node`` of the model with its tensors, of unknown shape where nobody inferred one."""
        inputs, outputs = (
            tuple(self._specs.get(name, TensorSpec(name, "", UNKNOWN)) for name in names if name)
            for names in (node.input, node.output)
        )
        return Step(str(node.op_type), inputs, outputs)

    def traceless(self, kept: set[str]) -> int:
        """How many nodes of the model none of the operators stands for."""
        nodes = {id(n): n for n in self._makers.values() if n.op_type != "Constant"}
        return sum(label(node) not in kept for node in nodes.values())


def label(node: Any) -> str:
    """What a node is called: its name, or its operator and first output."""
    return str(node.name or f"{node.op_type} {next(iter(node.output), '')}".strip())


def _fix_shape(value: Any, shape: tuple[int, ...]) -> None:
    dims = value.type.tensor_type.shape.dim
    if len(dims) == len(shape):
        for dim, size in zip(dims, shape, strict=True):
            dim.dim_value = size


def _specs(graph: Any) -> Iterator[tuple[str, TensorSpec]]:
    from onnx import helper

    for tensor in graph.initializer:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        yield tensor.name, TensorSpec(tensor.name, dtype, tuple(tensor.dims))
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if not kind.elem_type or not kind.HasField("shape"):
            continue
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        yield value.name, TensorSpec(value.name, dtype, tuple(dims))
