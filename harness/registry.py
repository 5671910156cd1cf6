"""Where backends and profilers are found: built-ins in a lazy table, third parties by entry points.

A backend that no distribution registers can be named as ``package.module:Class``.

A plug-in that fails to load stays listed, as `Broken`, with the cause: a missing name would leave
its user guessing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import BackendUnavailable, UsageError
from harness.host import here
from harness.protocols import (
    Backend,
    Option,
    Profiler,
    ProfilerContext,
    SessionOptions,
    Unavailable,
    Wanted,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BACKENDS: Mapping[str, str] = {
    "pytorch": "harness.backends.pytorch.backend:PyTorchBackend",
    "onnxruntime": "harness.backends.onnxruntime.backend:OnnxRuntimeBackend",
    "tensorrt": "harness.backends.tensorrt.backend:TensorRtBackend",
    "tensorrt-rtx": "harness.backends.tensorrt_rtx.backend:TensorRtRtxBackend",
}
PROFILERS: Mapping[str, str] = {
    "memory": "harness.profiles.memory:MemoryProfiler",
    "utilization": "harness.profiles.utilization:UtilizationProfiler",
    "clocks": "harness.profiles.clocks:ClocksProfiler",
    "power": "harness.profiles.power.sources:PowerProfiler",
}

# How inferences follow one another, by the name of the scenario; ``turns`` is a duel's.
LOADS: Mapping[str, str] = {
    "latency": "harness.engine.loads.latency:Latency",
    "throughput": "harness.engine.loads.throughput:Throughput",
    "server": "harness.engine.loads.server:Server",
    "turns": "harness.engine.loads.turns:InTurns",
}

DEFAULT_BACKEND = "onnxruntime"
_PARTS = ("name", "availability", "wants", "prepare")  # of a Backend
_REPAIR = "repair or uninstall the plug-in"


class Broken(msgspec.Struct, frozen=True):
    """A plug-in that could not be imported."""

    name: str
    cause: Unavailable


class Declared(msgspec.Struct, frozen=True):
    """What a backend's class says of it as data. See `harness.protocols.Backend`."""

    options: tuple[Option, ...] = ()
    default_device: str = "cpu"
    distributions: tuple[str, ...] = ()


def _plugins(group: str) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 20 ms that a built-in does without

    return {point.name: point for point in entry_points(group=f"harness.{group}")}


def _names(group: str, builtins: Mapping[str, str]) -> list[str]:
    return [*builtins, *(name for name in sorted(_plugins(group)) if name not in builtins)]


def _load(group: str, builtins: Mapping[str, str], name: str) -> Any:
    if name in builtins or ":" in name:
        module, _, attribute = builtins.get(name, name).partition(":")
        load = importlib.import_module if name in builtins else here.import_module
        return getattr(load(module), attribute)
    return _plugins(group)[name].load()


def backend_names() -> list[str]:
    """Every known backend, built-ins first."""
    return _names("backends", BACKENDS)


def profiler_names() -> list[str]:
    """Every known profiler, built-ins first."""
    return _names("profilers", PROFILERS)


def load(name: str) -> Any:
    """The `harness.engine.loads.load.Load` of that name in `LOADS`."""
    module, _, attribute = LOADS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()


def find_backend(name: str) -> Backend | Broken:
    """The backend called ``name``. Raises `UsageError` for a name that nobody registered."""
    if ":" not in name and name not in BACKENDS and name not in backend_names():
        raise UsageError(f"unknown backend {name!r}", f"choose one of {', '.join(backend_names())}")
    try:
        made = _load("backends", BACKENDS, name)()
        if not hasattr(made, "wants") and hasattr(made, "artifact_format"):
            made.wants = partial(_wanted, made)  # a plug-in from before there was `Wanted`
    except (Exception, SystemExit) as error:  # whatever a stranger's module does on import
        return Broken(name, _cause(error))
    lacking = [part for part in _PARTS if not hasattr(made, part)]
    if lacking:
        text = f"it is no backend: {type(made).__name__} lacks {', '.join(lacking)}"
        return Broken(name, Unavailable(text, _REPAIR))
    backend: Backend = made
    return backend


def _wanted(older: Any, precision: str, options: SessionOptions) -> Wanted:
    return Wanted(older.artifact_format(precision, options))


def declared(name: str) -> Declared:
    """What backend ``name`` says of itself; of one that cannot be loaded, or is unknown, nothing.

    Imports its module, and no framework.
    """
    try:
        kind = _load("backends", BACKENDS, name)
        told = {field: getattr(kind, field, None) for field in Declared.__struct_fields__}
        given = {field: value for field, value in told.items() if value is not None}
        return msgspec.convert(given, Declared, from_attributes=True)
    except (Exception, SystemExit):  # whatever a stranger's module does on import
        return Declared()


def distributions(*backends: str) -> tuple[str, ...]:
    """Whose installed versions belong beside a result: those of every built-in backend, and of
    ``backends``."""
    named = [one for name in (*BACKENDS, *backends) for one in declared(name).distributions]
    return tuple(dict.fromkeys(named))


def backend(name: str) -> Backend:
    """`find_backend`, but a broken one raises `BackendUnavailable`."""
    found = find_backend(name)
    if isinstance(found, Broken):
        raise BackendUnavailable(
            f"backend {name!r} cannot be used: {found.cause.reason}", found.cause.remedy
        )
    return found


def find_profiler(name: str, context: ProfilerContext) -> Profiler | Broken:
    """The profiler called ``name``, not yet opened. Raises `UsageError` for an unknown name."""
    if name not in PROFILERS and name not in profiler_names():
        raise UsageError(
            f"unknown profiler {name!r}", f"choose one of {', '.join(profiler_names())}"
        )
    try:
        profiler: Profiler = _load("profilers", PROFILERS, name)(context)
    except (Exception, SystemExit) as error:  # whatever a stranger's module does on import
        return Broken(name, _cause(error))
    return profiler


def _cause(error: BaseException) -> Unavailable:
    return Unavailable(f"it fails to load: {type(error).__name__}: {error}", _REPAIR)
