"""What an engine runs, and how long each layer takes: from TensorRT's inspector and profiler.

The inspector tells every layer of the engine with the types of its tensors, if the engine was built
with detailed verbosity. Layer times come from a pass of its own, in a context of its own, after the
timed window: the profiler puts events between layers, which makes the whole slower.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.protocols import Layer

PASSES = 10
_SHOWN = 300  # layers in the table; a table without end would swamp the result
_NAME = 160
_MOVES = {"Reformat", "Cast", "Quantize", "Dequantize"}
_TYPES = {
    "bfloat16": "bf16", "bf16": "bf16", "fp16": "fp16", "half": "fp16", "fp32": "fp32",
    "float": "fp32", "double": "fp64", "int8": "int8", "fp8": "fp8", "fp4": "fp4", "int4": "int4",
    "uint8": "uint8", "int32": "int32", "int64": "int64", "bool": "bool",
}  # fmt: skip
_KEYS = ("datatype", "format/datatype", "format")  # in lower case: releases differ
_ARITHMETIC = ("bf16", "fp16", "fp32", "fp64", "int8", "fp8", "fp4", "int4")
_TYPE = re.compile(rf"\b({'|'.join(_TYPES)})\b", re.IGNORECASE)


def read_layers(text: str) -> list[Layer]:
    """The layers that the inspector's JSON tells, in the order of execution.

    Raises `ValueError` where it tells no more than names, or is no such JSON at all.
    """
    document = json.loads(
        text, strict=False
    )  # names of fused layers are joined by control characters
    layers = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("the engine tells no details of its layers")
    return [_layer(layer) for layer in layers]


def _layer(entry: dict[str, Any]) -> Layer:
    kind = str(entry.get("ParameterType") or entry.get("LayerType") or "unknown")
    return Layer(str(entry.get("Name", "")), kind, _precision(kind, entry))


def _precision(kind: str, entry: dict[str, Any]) -> str:
    """The type that a layer computes in.

    It is that of its first input that arithmetic can be done on, else of its first such output; an
    engine states no other. Layers that only change type or layout count as ``convert``, those that
    move integers go by their own type. FP32 tensors in a TF32 kernel are tf32: its name says so.
    """
    if kind in _MOVES:
        return "convert"
    found = [*_types(entry.get("Inputs")), *_types(entry.get("Outputs"))]
    chosen = next((name for name in found if name in _ARITHMETIC), found[0] if found else "none")
    if chosen == "fp32" and "tf32" in str(entry.get("TacticName", "")).lower():
        return "tf32"
    return chosen


def _types(tensors: Any) -> list[str]:
    if not isinstance(tensors, list):
        return []
    told = [_told(tensor) for tensor in tensors if isinstance(tensor, dict)]
    return [_TYPES[found[1].lower()] for text in told if (found := _TYPE.search(text))]


def _told(tensor: dict[str, Any]) -> str:
    """What names a tensor's type: 10 has it in ``Format/Datatype``, 11 has split that in two.

    A ``DataType`` of its own is exact; a format calls INT64 "linear INT8" in some releases.
    """
    named = {key.lower(): str(value) for key, value in tensor.items() if value}
    return next((named[key] for key in _KEYS if key in named), "")


def operators(layers: Iterable[Layer]) -> dict[str, dict[str, int]]:
    """Layer type -> precision -> number of layers."""
    counted: dict[str, dict[str, int]] = {}
    for layer in sorted(layers, key=lambda layer: layer.type):
        counts = counted.setdefault(layer.type, {})
        counts[layer.precision] = counts.get(layer.precision, 0) + 1
    return counted


def shown(layers: Sequence[Layer], times_ms: Mapping[str, float]) -> list[Layer]:
    """The layers with their times, in order; of very many the slowest, and long names cut."""
    timed = [
        Layer(layer.name[:_NAME], layer.type, layer.precision, times_ms.get(layer.name))
        for layer in layers
    ]
    slowest = sorted(timed, key=lambda layer: -(layer.ms or 0.0))[:_SHOWN]
    kept = {id(layer) for layer in slowest}
    return [layer for layer in timed if id(layer) in kept]


def inspect(trt: Any, engine: Any, context: Any) -> list[Layer]:
    """The layers of ``engine`` at the shapes of ``context``.

    Some releases fail at that for some engines, and tell the same without shapes. Raises
    `ValueError` like `read_layers`.
    """
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    try:
        return _typed(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))
    except (RuntimeError, ValueError):
        plain = engine.create_engine_inspector()
        return _typed(str(plain.get_engine_information(trt.LayerInformationFormat.JSON)))


def _typed(text: str) -> list[Layer]:
    """`read_layers`, and a ValueError where no layer's types are told in words that are known."""
    layers = read_layers(text)
    if {layer.precision for layer in layers} - {"convert"} == {"none"}:
        raise ValueError("the types of its layers are told in words that are not known")
    return layers


def profile(trt: Any, context: Any, run: Any, passes: int = PASSES) -> dict[str, list[float]]:
    """Milliseconds of each layer in each of ``passes`` inferences that ``run`` does to their
    end."""
    times: dict[str, list[float]] = {}
    done = 0

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        """Called by TensorRT once a layer and inference."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, [0.0] * passes)[done] += ms

    run()  # without the profiler: the first inference of a context does more than infer
    profiler = Profiler()
    context.profiler = profiler
    for done in range(passes):  # noqa: B007 (the profiler reads it)
        run()
    return times
