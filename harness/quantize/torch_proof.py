"""Each integer layer of a program held against the FP32 layer that it stands for. Imports torch.

    observed graph (FP32)   x ─ conv ─ relu ───── add ─ ...     values, step by step
                                 │       └───┐      │
    converted graph (int8)  q(x) ─ conv_relu ─ q ─ add ─ ...    each node alone, on FP32's values

A node of the converted graph gets FP32's own inputs, brought to the scale and zero point of the
node that it would have had them from. So what is seen at a node is its own doing: its weights, the
range of its output, and whether its kernel computes what it should on this CPU.

What a model really computes is seen in the fidelity of a run; a layer that computes something else
can hide behind the others there.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from harness.artifacts.torch_values import tensors_in

# an error of 18 % of the signal, as on the ONNX side: 8-bit layers in their range have 20 to 45 dB
FLOOR_DB = 15.0
_CONVERSIONS = ("quantize_per_tensor", "quantize_per_tensor_dynamic", "dequantize")
_INTEGER = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
_ADDED = re.compile(r"activation_post_process_\d+")


class Layer(NamedTuple):
    """One layer of the observed graph as it came out in int8."""

    node: str  # of the observed graph
    sqnr_db: float  # inf where it does not differ, nan where FP32 has zeros only
    error: str  # why it cannot run at all; empty if it can


def remember(graph: fx.GraphModule) -> fx.GraphModule:
    """The observed ``graph`` as it is before its conversion, which works in place.

    Parameters are shared with it. Nodes are marked so that those of the conversion can be traced
    back to them.
    """
    for node in graph.graph.nodes:
        node.meta["observed"] = node.name
    shared = {id(parameter): parameter for parameter in graph.parameters()}
    kept: fx.GraphModule = copy.deepcopy(graph, shared)
    return kept


def compare(
    observed: fx.GraphModule, converted: fx.GraphModule, inputs: tuple[Tensor, ...]
) -> list[Layer]:
    """Every integer layer of ``converted`` against ``observed``, on ``inputs``, in order."""
    return list(_Comparison(observed, converted, inputs).layers())


class _Value(NamedTuple):
    """What a node gave when it was given FP32's inputs, and what FP32 gives there."""

    made: Any
    exact: Any


class _Comparison:
    def __init__(
        self, observed: fx.GraphModule, converted: fx.GraphModule, inputs: tuple[Tensor, ...]
    ) -> None:
        self._converted = converted
        self._origins = origins(observed, converted)
        self._left = Counter(origin.name for origin in self._origins.values())
        self._steps = _steps(observed, inputs, set(self._left))
        self._exact: dict[str, Any] = {}
        self._interpreter = fx.Interpreter(converted)
        self._interpreter.args_iter = iter(_copies(inputs))
        self._values: dict[fx.Node, _Value] = {}

    def layers(self) -> Iterator[Layer]:
        last_uses = self._interpreter.user_to_last_uses
        for node in self._converted.graph.nodes:
            if node.op == "output":
                return
            origin = self._origins.get(node)
            exact = self._fp32(origin.name) if origin is not None else None
            try:
                made = self._run(node)
            except Exception as error:  # kernels raise whatever they like
                if origin is None or exact is None:
                    raise
                yield Layer(origin.name, -math.inf, _first_line(error))
                self._values[node] = _Value(exact, exact)
            else:
                if is_integer(self._converted, node) and origin is not None and exact is not None:
                    yield Layer(origin.name, sqnr_db(self._clipped(node, made), exact), "")
                self._values[node] = _Value(made, self._shadow(node, made, exact))
            for used in last_uses.get(node, []):
                self._values.pop(used, None)

    def _run(self, node: fx.Node) -> Any:
        interpreter = self._interpreter
        args, kwargs = map_arg((node.args, node.kwargs), self._given)
        return getattr(interpreter, node.op)(node.target, args, kwargs)

    def _clipped(self, node: fx.Node, made: Any) -> Any:
        """With the clipping that FP32 has inside this layer, where int8 has it behind."""
        user = next(iter(node.users), None)
        if len(node.users) == 1 and user is not None and user.op == "call_module":
            module = self._converted.get_submodule(str(user.target))
            return module(made) if isinstance(module, nn.Hardtanh) else made
        return made

    def _given(self, node: fx.Node) -> Any:
        """FP32's value of ``node``, in the form in which the int8 node hands it on."""
        made, exact = self._values[node]
        if not isinstance(made, Tensor) or not isinstance(exact, Tensor) or made is exact:
            return made
        if not made.is_quantized or made.qscheme() != torch.per_tensor_affine:
            return exact.clone() if made.shape == exact.shape and not made.is_quantized else made
        return torch.quantize_per_tensor(
            exact.float(), made.q_scale(), made.q_zero_point(), made.dtype
        )

    def _shadow(self, node: fx.Node, made: Any, exact: Any) -> Any:
        if exact is not None:
            return exact
        if _is_conversion(node) and isinstance(node.args[0], fx.Node):
            return self._values[node.args[0]].exact
        return made

    def _fp32(self, name: str) -> Any:
        while name not in self._exact:
            found = next(self._steps, None)
            if found is None:
                return None
            self._exact[found[0]] = found[1]
        self._left[name] -= 1
        return self._exact[name] if self._left[name] else self._exact.pop(name)


def origins(observed: fx.GraphModule, converted: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Node of the converted graph -> the observed node whose value it stands for.

    Conversion keeps most nodes and their marks. Where it puts a new node, that is the unmarked one
    whose arguments are the same; where it fuses a ReLU into a function, the ReLU's value counts.
    """
    by_name = {node.name: node for node in observed.graph.nodes}
    marks = {node.meta.get("observed") for node in converted.graph.nodes}
    lost = [
        node
        for node in observed.graph.nodes
        if node.op in ("call_function", "call_method") and node.name not in marks
    ]
    found: dict[fx.Node, fx.Node] = {}
    for node in converted.graph.nodes:
        if node.op in ("get_attr", "output"):
            continue
        if _is_conversion(node):
            argument = node.args[0]
            if isinstance(argument, fx.Node) and argument in found:
                found[node] = found[argument]
            continue
        origin = by_name.get(node.meta.get("observed", ""))
        if origin is None:
            arguments = [found.get(argument) for argument in node.all_input_nodes]
            named = [argument for argument in arguments if argument is not None]
            origin = next((one for one in lost if named and _arguments(one) == named), None)
        if origin is not None and _fuses_relu(node):
            origin = _relu_after(origin)
        if origin is not None:
            found[node] = origin
            lost = [one for one in lost if one is not origin]
    return {node: origin for node, origin in found.items() if not _is_conversion(node)}


def is_integer(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether ``node`` computes with integer kernels of its own."""
    if node.op == "call_module":
        return type(graph.get_submodule(str(node.target))).__module__.startswith(_INTEGER)
    return node.op == "call_function" and str(node.target).startswith("quantized.")


def sqnr_db(made: Any, exact: Any) -> float:
    """Of the worst tensor in a nest: 10 log10(|exact|^2 / |made - exact|^2)."""
    pairs = zip(tensors_in(made), tensors_in(exact), strict=False)
    found = [_sqnr_db(a, b) for a, b in pairs]
    judged = [value for value in found if not math.isnan(value)]
    return min(judged) if judged else math.nan


def _sqnr_db(made: Tensor, exact: Tensor) -> float:
    ours, theirs = _real(made), _real(exact)
    if ours.shape != theirs.shape:
        return -math.inf
    signal, noise = float(theirs.square().sum()), float((ours - theirs).square().sum())
    if signal == 0.0 or not math.isfinite(signal):
        return math.nan
    if math.isnan(noise):
        return -math.inf
    return 10.0 * math.log10(signal / noise) if noise else math.inf


def _real(tensor: Tensor) -> Tensor:
    """In double precision; complex numbers as pairs."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()


def _steps(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], wanted: set[str]
) -> Iterator[tuple[str, Any]]:
    """Run ``graph`` in FP32, giving the values of the ``wanted`` nodes as they come."""
    interpreter = fx.Interpreter(graph)
    interpreter.args_iter = iter(_copies(inputs))
    for node in graph.graph.nodes:
        if node.op == "output":
            return
        interpreter.env[node] = interpreter.run_node(node)
        if node.name in wanted:
            # a later node may work in place
            yield node.name, _copy(interpreter.env[node])
        for used in interpreter.user_to_last_uses.get(node, []):
            interpreter.env.pop(used, None)


def _copies(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.clone() for tensor in inputs)


def _copy(value: Any) -> Any:
    return pytree.tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, value)


def _is_conversion(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", node.target) in _CONVERSIONS


def _fuses_relu(node: fx.Node) -> bool:
    return str(node.target).startswith("quantized.") and str(node.target).endswith("_relu")


def _arguments(node: fx.Node) -> list[fx.Node]:
    """Of an observed node, through the observers between."""
    return [_through(argument) for argument in node.all_input_nodes if argument.op != "get_attr"]


def _through(node: fx.Node) -> fx.Node:
    while _ADDED.fullmatch(node.name):
        node = node.all_input_nodes[0]
    return node


def _relu_after(node: fx.Node) -> fx.Node:
    pending = list(node.users)
    for user in pending:
        if _ADDED.fullmatch(user.name):
            pending.extend(user.users)
        elif _is_relu(user):
            return user
    return node


def _is_relu(node: fx.Node) -> bool:
    if node.op == "call_module":
        owner = node.graph.owning_module
        return owner is not None and isinstance(owner.get_submodule(str(node.target)), nn.ReLU)
    return getattr(node.target, "__name__", node.target) in ("relu", "relu_")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def worst(layers: Mapping[str, Layer]) -> tuple[str, float | None]:
    """The name and SQNR of the farthest layer; None where none differs from FP32 at all."""
    differing = {
        name: layer.sqnr_db for name, layer in layers.items() if math.isfinite(layer.sqnr_db)
    }
    if not differing:
        return "", None
    name = min(differing, key=differing.__getitem__)
    return name, differing[name]
