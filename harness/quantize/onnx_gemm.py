"""Gemms in the one form that ONNX Runtime's quantizer takes rightly.

alpha A B + beta C   ──>   A B' + c        c constant, one value per output, or none
                     ──>   A B, Mul, Add   where B or C is computed, or C has several rows
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_MASK = 5e3  # -1e4, -65504, -1e9, the lowest float: scores to be taken out, no bias


def plain_gemms(graph: Any) -> None:
    """Rewrite every Gemm of ``graph``: the same function, its factors within the constants."""
    writer = _Writer(graph)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        is_gemm = node.op_type == "Gemm" and node.domain in ("", "ai.onnx")
        graph.node.extend([*writer.plain(node)] if is_gemm else [node])


class _Writer:
    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._values = {v.name: v for v in (*graph.value_info, *graph.output)}
        self._taken = {*self._constants, *self._values, *(value.name for value in graph.input)}
        self._taken.update(output for node in graph.node for output in node.output)

    def plain(self, node: Any) -> Iterator[Any]:
        """``node`` without its factors, behind what it needs and before what must follow."""
        factors = {a.name: a.f for a in node.attribute if a.name in ("alpha", "beta")}
        kept = [a for a in node.attribute if a.name not in factors]
        width = self._width(node)
        del node.attribute[:]
        node.attribute.extend(kept)
        behind = self._scale(node, factors.get("alpha", 1.0))
        bias = node.input[2] if len(node.input) > 2 else ""
        del node.input[2:]
        beta = factors.get("beta", 1.0)
        if bias in self._constants:
            array = _scaled(self._constants[bias], beta)
            row = None if behind else _row(array, width)
            if row is not None:
                node.input.append(self._constant(row, f"{bias}_row"))
            else:
                behind.append(("Add", self._constant(array, f"{bias}_scaled")))
        elif bias:
            if beta != 1.0:
                yield (scaling := self._times(bias, beta, node))
                bias = scaling.output[0]
            behind.append(("Add", bias))
        yield node
        yield from self._chain(node, behind)

    def _width(self, node: Any) -> int | None:
        """How many outputs a row has, where the weights are constant."""
        weights = self._constants.get(node.input[1])
        if weights is None:
            return None
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return int(weights.dims[0 if transposed else 1])

    def _scale(self, node: Any, alpha: float) -> list[tuple[str, str]]:
        """Multiply the weights by ``alpha``, or have the product multiplied."""
        if alpha == 1.0:
            return []
        weights = self._constants.get(node.input[1])
        if weights is None:
            factor = np.asarray(alpha, self._dtype(node.output[0]))
            return [("Mul", self._constant(factor, f"{node.output[0]}_alpha"))]
        node.input[1] = self._constant(_scaled(weights, alpha), f"{weights.name}_scaled")
        return []

    def _times(self, name: str, factor: float, node: Any) -> Any:
        from onnx import helper

        array = np.asarray(factor, self._dtype(node.output[0]))
        made = self._fresh(f"{name}_scaled")
        operands = [name, self._constant(array, f"{name}_beta")]
        return helper.make_node("Mul", operands, [made], f"{node.name} beta")

    def _chain(self, node: Any, behind: list[tuple[str, str]]) -> Iterator[Any]:
        """The operators that follow on ``node``; the last puts out what ``node`` did."""
        from onnx import helper

        final = node.output[0]
        for operator, operand in behind:
            node.output[0] = self._declared(f"{final}_before_{operator}", final)
            name = f"{node.name} {operator}"
            node = helper.make_node(operator, [node.output[0], operand], [final], name)
            yield node

    def _declared(self, name: str, like: str) -> str:
        """A new tensor of the type and shape of ``like``: what has no type is not quantized."""
        name = self._fresh(name)
        if like in self._values:
            declared = self._graph.value_info.add()
            declared.CopyFrom(self._values[like])
            declared.name = name
        return name

    def _constant(self, array: Any, name: str) -> str:
        from onnx import numpy_helper

        name = self._fresh(name)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _dtype(self, name: str) -> Any:
        from onnx import TensorProto, helper

        known = self._values.get(name)
        code = known.type.tensor_type.elem_type if known is not None else TensorProto.FLOAT
        return helper.tensor_dtype_to_np_dtype(code)

    def _fresh(self, name: str) -> str:
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        return name


def _scaled(tensor: Any, factor: float) -> Any:
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    return array if factor == 1.0 else (array * factor).astype(array.dtype)


def _row(array: Any, width: int | None) -> Any:
    """A bias as one value per output; None where it has several rows, or nobody knows how many.

    None for a mask too: the scale that it would take leaves nothing of the weights.
    """
    if width is None or array.size not in (1, width) or array.shape[-1:] not in ((), (array.size,)):
        return None
    if not (np.abs(array) < _MASK).all():
        return None
    return np.full(width, array.reshape(-1), array.dtype)
