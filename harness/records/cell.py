"""What a result is a measurement of: its cell, the same night after night.

A cell is everything that defines the benchmark and nothing that is under test: a new commit, driver
or content of a model file continues the series of its cell, another batch size or dataset begins
one of its own. Hardware is not part of it; a series is a cell on one machine fingerprint.

A model file counts by the folder that it lies in and its stem: `build/model.onnx` is one model
however often it is built anew and wherever the checkout lies, and `small/model.onnx` and
`large/model.onnx` are two. A folder called `onnx`, where hubs put a model's exports, says nothing,
and counts with the one around it. Data files count by their stem.

What took turns with others in a duel is a cell of its own, ``latency@turns``: after a rest caches
are cold, and the figure is another one than that of a run by itself.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

import msgspec

from harness.maybe import Unavailable
from harness.records.result import Result
from harness.spec import DEFINING, MODEL_SUFFIXES, TURNS, RunSpec

CELL_VERSION = 1  # raise it when what a figure means changes: every series then starts anew

_SUFFIXES = (*MODEL_SUFFIXES, ".npz")
_OF_HUBS = "onnx"
_PARTS = 6  # of a cell's name


class Cell(msgspec.Struct, frozen=True, order=True):
    """``name`` is for people and for globs in policies; ``key`` is the identity (16 hex digits).

    Two models of one file name share a name; `long_name` tells them apart.
    """

    name: str  # digits/onnxruntime/cpu/int8/b1/latency
    key: str


def cell_name(spec: RunSpec) -> str:
    """``model/backend/device/precision/bN/scenario``; a model file by its stem."""
    batch = f"b{spec.batch_size}"
    parts = (spec.backend, spec.device, spec.precision, batch, _pace(spec))
    return "/".join((_stem(spec.model), *parts))


def _pace(spec: RunSpec) -> str:
    """``latency``, ``throughput``, ``latency@turns``, ``server@200`` or ``server@trace``."""
    if not spec.scheduled:
        return f"{spec.scenario}@turns" if spec.in_turns else spec.scenario
    return f"{spec.scenario}@{_stem(spec.trace) if spec.trace else f'{spec.rate:g}'}"


def long_name(spec: RunSpec) -> str:
    """The cell's name with as much of the model file's folders as its identity has."""
    return long_form(cell_name(spec), model_path(spec.model))


def long_form(name: str, model: str) -> str:
    """``small/model/onnxruntime/...`` of a cell's name and its `model_path`."""
    return "/".join((model, name.partition("/")[2]))


def shared_names(paths: Iterable[str]) -> frozenset[str]:
    """The names that several of these `model_path`s have: cells of theirs go by the long ones."""
    times = Counter(path.rpartition("/")[2] for path in set(paths))
    return frozenset(name for name, count in times.items() if count > 1)


def told_name(name: str, model: str, shared: Collection[str]) -> str:
    """A cell's ``name``, or the long one where its model's is among those `shared_names`."""
    return long_form(name, model) if name.partition("/")[0] in shared else name


def fits(name: str, glob: str) -> bool:
    """Whether ``glob`` means the cell of that name, be it the long one, by either of the two."""
    return fnmatchcase(name, glob) or fnmatchcase("/".join(name.split("/")[-_PARTS:]), glob)


def cell_of(result: Result) -> Cell:
    """The cell of ``result``, whether it succeeded or failed."""
    return spec_cell(result.spec)


def spec_cell(spec: RunSpec) -> Cell:
    """The cell that a run of ``spec`` belongs to."""
    return Cell(cell_name(spec), _key(spec, model_path(spec.model)))


def key_by_stem(spec: RunSpec) -> str:
    """The key as if folders said nothing: what two checkouts of one model share."""
    return _key(spec, _stem(spec.model))


def _key(spec: RunSpec, model: str) -> str:
    values = {field: getattr(spec, field.name) for field in DEFINING}
    defining = {
        field.name: _stem(value or "") if field.identity == "file" else value
        for field, value in values.items()
        if value is not None or not field.later
    } | {"model": model}
    if spec.in_turns:
        defining["design"] = TURNS
    data = msgspec.json.encode(defining | {"cell": CELL_VERSION}, order="deterministic")
    return hashlib.sha256(data).hexdigest()[:16]


def content_of(result: Result) -> str | None:
    """The hash of the FP32 source: whatever has another one was made from another model."""
    return None if isinstance(result.model, Unavailable) else result.model.sha256


def is_file(model: str) -> bool:
    """Whether a spec's model is a file, there or not: told by its looks, as its identity is."""
    return "/" in model.replace("\\", "/") or model.endswith(_SUFFIXES)


def model_path(model: str) -> str:
    """What a model is called across nights: ``build/model`` of a file in a folder; else its name.

    Of a folder that is no name of its own (``..``, the root) nothing is told.
    """
    steps = posixpath.normpath(model.replace("\\", "/")).split("/")
    folders = [step for step in steps[:-1] if step not in ("", "..")]
    kept = folders[-2:] if folders[-1:] == [_OF_HUBS] else folders[-1:]
    return "/".join((*kept, _stem(model)))


def _stem(path: str) -> str:
    name = path.replace("\\", "/").removeprefix("file:").rsplit("/", 1)[-1]
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
