"""One run of ``harness run`` as an `Entry` of the board."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.compression.model import Entry, Figure, Histogram
from harness.maybe import Unavailable, explain
from harness.records.cell import cell_name, content_of, is_file, model_path
from harness.records.lookup import lookup
from harness.records.result import Result
from harness.spec import RunSpec, shown

_MB = 1e6  # decimal, as in file listings
# metric -> (where its value lies in the result, where its interval lies, divisor into its unit)
_PATHS: dict[str, tuple[str, str, float]] = {
    "accuracy": ("accuracy.top1", "", 1.0),
    "f1_score": ("accuracy.macro_f1", "", 1.0),
    "latency_ms": ("timing.latency_ms.median", "timing.latency_ms.ci95.median", 1.0),
    "latency_std_ms": ("timing.latency_ms.std", "", 1.0),
    "throughput_per_s": ("throughput.inferences_per_s", "throughput.ci95", 1.0),
    "model_size_mb": ("precision.file_size_bytes", "", _MB),
    "memory_mb": ("memory.window_peak_bytes", "", _MB),
    "gpu_memory_mb": ("memory.device.allocator_peak_bytes", "", _MB),
    "energy_j": ("energy.joules_per_inference.value", "", 1.0),
}


def model_of(spec: RunSpec) -> str:
    """The model's name on the board, the same before and after the run: that in its cell's name.

    One that was quantized elsewhere goes by the name of what it was made from.
    """
    whole = msgspec.structs.replace(spec, model=spec.reference or spec.model)
    return cell_name(whole).partition("/")[0]


def entry_of(result: Result, latencies: Histogram | None = None) -> Entry:
    """The figures of ``result``; latency is the median, memory the peak of the timed window."""
    found = {name: _figure(result, *path) for name, path in _PATHS.items()}
    info = spec_info(result.spec) | _result_info(result)
    held = _figure(result, "memory.device.process_bytes", "", _MB)
    if isinstance(found["gpu_memory_mb"], Unavailable) and isinstance(held, Figure):
        found["gpu_memory_mb"] = held
        info["gpu_memory"] = "what the process held at the end of the window: no peak is known"
    model = result.model
    return Entry(
        model=model_of(result.spec),
        precision=result.spec.precision,
        run=result.id,
        status=result.status,
        random_weights=not isinstance(model, Unavailable) and model.random_weights,
        figures={name: value for name, value in found.items() if isinstance(value, Figure)},
        missing={name: explain(v) for name, v in found.items() if isinstance(v, Unavailable)},
        latencies=latencies,
        info=info,
    )


def spec_info(spec: RunSpec) -> dict[str, str]:
    """What is known before the run."""
    facts = {name: str(value) for name, value in shown(spec).items()}
    return facts | {"launches": str(spec.launches), "latency_statistic": "median"}


def _file_info(spec: RunSpec) -> dict[str, str]:
    """Of a model file, which `told_apart` tells from others of its name."""
    return {"model_path": model_path(spec.model)} if is_file(spec.model) else {}


def _figure(result: Result, path: str, interval: str, divisor: float) -> Figure | Unavailable:
    value = lookup(result, path)
    if isinstance(value, Unavailable):
        return value
    low, high = _bounds(result, path, interval)
    return Figure(value / divisor, low, high)


def _bounds(result: Result, path: str, interval: str) -> tuple[float | None, float | None]:
    if path.startswith("energy."):  # twice a standard uncertainty covers about 95 %
        spread = lookup(result, "energy.joules_per_inference")
        return spread.value - 2 * spread.comparative, spread.value + 2 * spread.comparative
    bounds: Any = lookup(result, interval) if interval else None
    return (None, None) if bounds is None or isinstance(bounds, Unavailable) else tuple(bounds)


def _result_info(result: Result) -> dict[str, str]:
    """Where and how it was measured, and what a reader must know before believing it."""
    machine, accuracy = result.machine, result.accuracy
    interval = lookup(result, "timing.method.median")
    quantized = lookup(result, "precision.quantization.route")
    info = {
        "model_sha256": content_of(result) or "",
        "machine": machine.fingerprint,
        "processor": machine.factors.get("cpu", ""),
        "started_at": result.started_at,
        "intervals": "" if isinstance(interval, Unavailable) else interval,
        "quantized_by": "" if isinstance(quantized, Unavailable) else quantized,
        "accuracy_on": ""
        if isinstance(accuracy, Unavailable)
        else f"{accuracy.dataset}, {accuracy.samples} samples",
        "warnings": "; ".join(f"{c.name}: {c.reason}" for c in _doubts(result)),
        "error": result.error.message if result.error else "",
    }
    return {name: " ".join(text.split()) for name, text in info.items() if text}


def _doubts(result: Result) -> list[Any]:
    return [check for check in result.validity if check.verdict in ("warn", "fail")]
