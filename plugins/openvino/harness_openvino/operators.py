"""What OpenVINO executes: primitives by type and precision, and their times."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, NamedTuple

from harness.protocols import OperatorTimes, ProfiledInferences

_NOT_RUN = {"Const", "Input", "Output"}
_CONVERSIONS = {"Reorder", "Convert", "FakeQuantize", "Quantize"}
_PRECISIONS = {
    "f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8", "f64": "fp64",
    "i4": "int4", "u4": "int4", "i32": "int32", "i64": "int64", "boolean": "bool",
}  # fmt: skip
_CLOCK_MS = 1e-3  # the profiler counts whole microseconds


class Primitive(NamedTuple):
    name: str
    type: str
    precision: str  # or ``convert``, for what only changes type or layout
    fused: tuple[str, ...]  # the layers of the model that it does the work of


def executed(model: Any, request: Any) -> list[Primitive]:
    """The primitives that ``request`` of ``model``, compiled with PERF_COUNT, has executed."""
    told = request.get_profiling_info()
    ran = {one.node_name for one in told if one.status == one.Status.EXECUTED}
    found = []
    for node in model.get_runtime_model().get_ordered_ops():
        info = {key: _text(value) for key, value in node.get_rt_info().items()}
        kind = info.get("layerType", node.get_type_name())
        if kind in _NOT_RUN or node.get_friendly_name() not in ran:
            continue
        told = info.get("runtimePrecision", "")
        precision = "convert" if kind in _CONVERSIONS else _PRECISIONS.get(told, told or "none")
        layers = tuple(filter(None, info.get("originalLayersNames", "").split(",")))
        found.append(Primitive(node.get_friendly_name(), kind, precision, layers))
    return found


def _text(value: Any) -> str:
    """A fact of the runtime's, which some versions wrap."""
    return str(getattr(value, "value", value))


def profiled(model: Any, request: Any, inferences: int) -> ProfiledInferences:
    """Run ``request`` of ``model``, compiled with PERF_COUNT, so often after a first time.

    OpenVINO tells the mean over all inferences so far, so the first, which allocates, is taken out
    of the last mean.
    """
    _infer(request)
    before = _means_ms(request)
    latency = [_infer(request) for _ in range(inferences)]
    after = _means_ms(request)
    ran = []
    for one in executed(model, request):
        total = (inferences + 1) * after.get(one.name, 0.0) - before.get(one.name, 0.0)
        ran.append(
            OperatorTimes(
                name=one.name,
                type=one.type,
                precision=one.precision,
                ms=(max(0.0, total) / inferences,),
                fused=one.fused or None,
            )
        )
    return ProfiledInferences(
        profiler="OpenVINO's PERF_COUNT: means over the inferences, in whole microseconds",
        operators=tuple(ran),
        latency_ms=(sum(latency) / inferences,),
        resolution_ms=_CLOCK_MS,
        notes=("what takes less than a microsecond may stand as 0",),
    )


def _infer(request: Any) -> float:
    """One inference; the milliseconds that it took."""
    began = time.perf_counter()
    request.start_async()
    request.wait()
    return (time.perf_counter() - began) * 1e3


def _means_ms(request: Any) -> dict[str, float]:
    told = request.get_profiling_info()
    return {one.node_name: one.real_time / timedelta(milliseconds=1) for one in told}
