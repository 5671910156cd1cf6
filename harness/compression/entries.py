"""One run of ``harness run`` as an `Entry` of the board."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.compression.model import METRICS, Entry, Figure, Histogram
from harness.compression.settings import facts_of
from harness.maybe import Unavailable, explain
from harness.records.cell import cell_name, content_of, is_file, model_path
from harness.records.figures import interval, single
from harness.records.lookup import lookup
from harness.records.metric import FIGURES, Metric
from harness.records.result import Result
from harness.spec import RunSpec, shown

# column -> the metric that it shows, in the order of the board's columns
_SHOWN = {one.column: one for one in FIGURES.values() if one.column}
COLUMNS = {column: _SHOWN[column] for column in METRICS if column in _SHOWN}


def model_of(spec: RunSpec) -> str:
    """The model's name on the board, the same before and after the run: that in its cell's name.

    One that was quantized elsewhere goes by the name of what it was made from.
    """
    whole = msgspec.structs.replace(spec, model=spec.reference or spec.model)
    return cell_name(whole).partition("/")[0]


def entry_of(result: Result, latencies: Histogram | None = None) -> Entry:
    """The figures of ``result``; latency is the median, memory the peak of the timed window."""
    found = {column: _figure(result, metric) for column, metric in COLUMNS.items()}
    info = spec_info(result.spec) | _result_info(result)
    no_peak = isinstance(lookup(result, "memory.device.allocator_peak_bytes"), Unavailable)
    if no_peak and isinstance(found["gpu_memory_mb"], Figure):
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
    facts = facts_of(spec) | {name: str(value) for name, value in shown(spec).items()}
    return (
        facts | _file_info(spec) | {"launches": str(spec.launches), "latency_statistic": "median"}
    )


def _file_info(spec: RunSpec) -> dict[str, str]:
    """Of a model file, which `told_apart` tells from others of its name."""
    return {"model_path": model_path(spec.model)} if is_file(spec.model) else {}


def _figure(result: Result, metric: Metric) -> Figure | Unavailable:
    value, bounds = single(result, metric.name), interval(result, metric.name)
    if isinstance(value, Unavailable):
        return value
    unit = metric.column_divisor
    if isinstance(bounds, Unavailable):
        return Figure(value / unit)
    return Figure(value / unit, bounds[0] / unit, bounds[1] / unit)


def _result_info(result: Result) -> dict[str, str]:
    """Where and how it was measured, and what a reader must know before believing it."""
    machine, accuracy = result.machine, result.accuracy
    interval = lookup(result, "timing.method.median")
    quantized = lookup(result, "precision.quantization.route")
    took_s = lookup(result, "precision.quantization.cost.duration_s")
    info = {
        "model_sha256": content_of(result) or "",
        "machine": machine.fingerprint,
        "processor": machine.factors.get("cpu", ""),
        "started_at": result.started_at,
        "intervals": "" if isinstance(interval, Unavailable) else interval,
        "quantized_by": "" if isinstance(quantized, Unavailable) else quantized,
        "quantized_in": "" if isinstance(took_s, Unavailable) else f"{took_s:.3g} s",
        "accuracy_on": ""
        if isinstance(accuracy, Unavailable)
        else f"{accuracy.dataset}, {accuracy.samples} samples",
        "warnings": "; ".join(f"{c.name}: {c.reason}" for c in _doubts(result)),
        "error": result.error.message if result.error else "",
    }
    return {name: " ".join(text.split()) for name, text in info.items() if text}


def _doubts(result: Result) -> list[Any]:
    return [check for check in result.validity if check.verdict in ("warn", "fail")]
