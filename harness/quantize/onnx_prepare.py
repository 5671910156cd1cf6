"""An ONNX model made ready for the quantizer: the same function, in forms that the library takes.

    opset raised ── batch norms folded, shapes inferred ── every node named ── Gemms made plain

Each rewriting is here because the library computes something else without it, or raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import QuantizationError
from harness.quantize.onnx_gemm import plain_gemms
from harness.quantize.onnx_graph import QUANTIZED, is_large
from harness.quantize.onnx_session import reason, start

_TENSORS = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(double)": 11, "tensor(int64)": 7}
_PER_CHANNEL_OPSET = 13  # from here on QuantizeLinear has an axis
_FIRST_IR_WITH_CONSTANTS = 4  # before it every initializer had to be an input too
_DOMAINS = ("", "ai.onnx")


def prepare(source: Path, prepared: Path) -> None:
    """Write ``source`` to ``prepared``, ready to be quantized, its weights beside it if large.

    Raises `QuantizationError` for one that is quantized already or cannot be raised to opset 13.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(str(source))
    already = sorted(
        {node.op_type for node in model.graph.node if QUANTIZED.fullmatch(node.op_type)}
    )
    if already:
        raise QuantizationError(
            f"{source.name} is quantized already: it has {', '.join(already)}",
            "give the model that it was made from, --reference FILE: it is run as it is, and held "
            "against that",
        )
    large = is_large(model)
    _unlist_weights(model)
    name_nodes(model.graph)
    model = _raise_opset(model, source, large)
    named = prepared.with_name("source.onnx")
    onnx.save(model, str(named), save_as_external_data=large)
    del model
    quant_pre_process(
        str(named),
        str(prepared),
        skip_symbolic_shape=True,  # needs sympy, and the shapes are concrete
        save_as_external_data=large,
        all_tensors_to_one_file=True,
    )
    model = onnx.load(str(prepared))
    _complete_types(model.graph, prepared)
    name_nodes(model.graph)
    plain_gemms(model.graph)
    onnx.save(model, str(prepared), save_as_external_data=large)


def _unlist_weights(model: Any) -> None:
    """Models of IR version 3 list their weights as inputs too, which keeps them from being folded.

    Newer ones may: there an initializer is a default that a caller can replace, as none does here.
    """
    weights = {initializer.name for initializer in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, _FIRST_IR_WITH_CONSTANTS)


def _raise_opset(model: Any, source: Path, large: bool) -> Any:
    import onnx

    version = max((o.version for o in model.opset_import if o.domain in _DOMAINS), default=1)
    if version >= _PER_CHANNEL_OPSET:
        return model
    remedy = "export it with opset 17"
    if large:
        raise QuantizationError(f"{source.name} has opset {version} and over 2 GB", remedy)
    try:
        return onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
    except Exception as error:  # of several types, none documented
        message = f"{source.name} has opset {version} and cannot be raised to 13: {reason(error)}"
        raise QuantizationError(message, remedy) from error


def name_nodes(graph: Any) -> None:
    """Every node by a name of its own: a node is left out, and reported, by its name.

    One that has none goes by its operator and output.
    """
    taken: set[str] = set()
    for node in graph.node:
        output = next((name for name in node.output if name), "")
        name = node.name.removesuffix("/MatMulAddFusion") or f"{node.op_type} {output}".strip()
        while name in taken:
            name += "'"
        node.name = name
        taken.add(name)


def _complete_types(graph: Any, prepared: Path) -> None:
    """Note the types that onnx cannot infer: the runtime knows those of all that it runs.

    What has no type is not quantized, nor is anything behind it (a scaler of ai.onnx.ml, say).
    """
    import onnx

    known = {value.name for value in (*graph.value_info, *graph.output)}
    made = [name for node in graph.node for name in node.output if name and name not in known]
    if not made:
        return
    model = onnx.load(str(prepared), load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    asking = prepared.with_name("asking.onnx")  # beside the weights, if those are in a file
    onnx.save(model, str(asking))
    for output in start(asking, fused=False).get_outputs():
        code = _TENSORS.get(output.type)
        if output.name not in known and code is not None:
            shape = output.shape or None  # an unknown rank reads as none
            value = onnx.helper.make_tensor_value_info(output.name, code, shape)
            graph.value_info.append(value)


def removes_wrongly(node: Any, constants: dict[str, Any]) -> bool:
    """Whether ``node`` is a Clip that the library would drop though nothing does its work then.

    It drops a Clip in the belief that the range of the quantized tensor clips as well. That range
    always has 0 in it, so it does only where 0 lies between the bounds, and both are known.
    """
    if node.op_type != "Clip":
        return False
    low, high = (_bound(node, place, constants) for place in (1, 2))
    return low is None or high is None or not low <= 0 <= high


def _bound(node: Any, place: int, constants: dict[str, Any]) -> float | None:
    """The lower (1) or upper (2) bound of a Clip; None where it is computed as the model runs."""
    from onnx import numpy_helper

    attribute = ("", "min", "max")[place]
    for found in node.attribute:
        if found.name == attribute:
            return float(found.f)
    if len(node.input) <= place or not node.input[place]:
        return -np.inf if place == 1 else np.inf
    bound = constants.get(node.input[place])
    return None if bound is None else float(numpy_helper.to_array(bound).reshape(-1)[0])
