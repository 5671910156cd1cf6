"""ONNX Runtime while a model is made: sessions on the CPU, and what it says when it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.errors import one_line

# the distributions that decide what a quantized graph is like
DISTRIBUTIONS = tuple("onnx onnxruntime onnxruntime-gpu".split())  # noqa: SIM905 (no backends)


def start(model: Any, *, fused: bool) -> Any:
    """A session on the CPU, of a path or a model, optimised as runs are or not at all."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def reason(error: Exception) -> str:
    """What the library says, without its codes, its own functions and files that are gone."""
    noise = (
        r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed: *"
        r"|/project/onnx/\S+: \w+: Assertion `[^`']*' failed: "
        r"|/onnxruntime_src/\S+:\d+ [^()]*\([^()]*\)(?: const)? |(?:virtual )?onnxruntime::\S+ "
    )
    return re.sub(noise, "", one_line(error)) or type(error).__name__
