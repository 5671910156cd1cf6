"""What a result is a measurement of: its cell, the same night after night.

A cell is everything that defines the benchmark and nothing that is under test: a new commit, driver
or model file continues the series of its cell, another batch size or dataset begins one of its own.
Hardware is not part of it; a series is a cell on one machine fingerprint.
"""

from __future__ import annotations

import hashlib

import msgspec

from harness.records.result import Result
from harness.spec import RunSpec

CELL_VERSION = 1  # raise it when what a figure means changes: every series then starts anew

# spec fields that define the benchmark beyond those in a cell's name
_DEFINING = (
    "backend", "device", "precision", "batch_size", "scenario", "input_shapes",
    "calibration_method", "quantization", "concurrency", "boundary", "threads", "inter_threads",
    "options", "seed",
)  # fmt: skip
_FILES = ("model", "dataset", "calibration")
_LATER = ("batch_dim", "scores")  # part of the key where given alone: cells from before keep theirs


class Cell(msgspec.Struct, frozen=True, order=True):
    """``name`` is for people and for globs in policies; ``key`` is the identity (16 hex digits)."""

    name: str  # digits/onnxruntime/cpu/int8/b1/latency
    key: str


def cell_name(spec: RunSpec) -> str:
    """``model/backend/device/precision/bN/scenario``; a model file by its stem."""
    batch = f"b{spec.batch_size}"
    parts = (spec.backend, spec.device, spec.precision, batch, spec.scenario)
    return "/".join((_stem(spec.model), *parts))


def cell_of(result: Result) -> Cell:
    """The cell of ``result``, whether it succeeded or failed."""
    return spec_cell(result.spec)


def spec_cell(spec: RunSpec) -> Cell:
    """The cell that a run of ``spec`` belongs to. Files count by name, not by content or folder."""
    defining = {field: getattr(spec, field) for field in _DEFINING}
    defining |= {field: _stem(getattr(spec, field) or "") for field in _FILES}
    defining |= {field: value for field in _LATER if (value := getattr(spec, field)) is not None}
    if spec.inputs is not None:
        defining["inputs"] = _stem(spec.inputs)
    data = msgspec.json.encode(defining | {"cell": CELL_VERSION}, order="deterministic")
    return Cell(cell_name(spec), hashlib.sha256(data).hexdigest()[:16])


def _stem(path: str) -> str:
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return name.removesuffix(".onnx").removesuffix(".pt2").removesuffix(".npz")
