"""From an ONNX file to a serialized engine.

    ONNX ── parser ── strongly typed network ──┐
                      inputs' shapes ── profile ├── builder ── plan (bytes)
                      options ── configuration ─┘      │
                                         timing cache ─┘ (read before, written after)

The network is strongly typed: the types are those of the graph, so INT8 means a graph with explicit
Q/DQ nodes and FP16 a graph in FP16. TensorRT 11 knows nothing else; 10 is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from harness.backends.tensorrt.log import Log
from harness.backends.tensorrt.options import Settings
from harness.backends.tensorrt.parse import network_flags, parse
from harness.errors import BackendUnavailable, MeasurementFailed, ModelError, UsageError

if TYPE_CHECKING:
    from harness.protocols import Arrays

_MIB = 1 << 20
_ELSE = "try another --precision or a newer version, or run it with --backend onnxruntime"
_UNUSABLE = "see harness doctor for the driver and the device"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to build. ``timing`` is a serialized timing cache, empty where there is none."""

    path: str
    settings: Settings
    timing: bytes = b""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A serialized engine, and the timing cache with what this build has added."""

    plan: bytes
    timing: bytes
    layers: int  # of the network; the builder fuses some of them


def build(trt: Any, log: Log, request: Request, inputs: Arrays) -> Built:
    """Build an engine for the shapes of ``inputs``.

    Raises `ModelError` naming the nodes that the parser rejects, `UsageError` for a profile that
    does not fit, `BackendUnavailable` where no builder can be made, `MeasurementFailed` where the
    build fails or memory runs out.
    """
    settings = request.settings
    title = log.title
    with log.mapped(f"{title} cannot start a builder", BackendUnavailable, _UNUSABLE):
        builder = trt.Builder(log.native)
        network = builder.create_network(network_flags(trt))
        config = builder.create_builder_config()
    with log.mapped(f"{title} cannot parse {request.path}", ModelError):
        parse(trt, log, network, request.path)
    with log.mapped(f"{title} refused the configuration", MeasurementFailed):
        _configure(trt, config, settings)
        timing = _set_timing(config, request) if settings.timing_cache else None
    with log.mapped(f"{title} refused the optimization profile", ModelError):
        _add_profile(builder, network, config, inputs, settings.batch_profile)
    unbuilt = f"{title} failed to build the engine"
    with log.mapped(unbuilt, MeasurementFailed, _ELSE):
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise log.failure(unbuilt, MeasurementFailed, _ELSE)
        kept = bytes(timing.serialize()) if timing else b""
        return Built(plan=bytes(plan), timing=kept, layers=int(network.num_layers))


def _configure(trt: Any, config: Any, settings: Settings) -> None:
    """Everything that steers speed is set here, so that no default is left unrecorded."""
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.targets:
        _set_targets(trt, config, settings.targets)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what the inspector will tell
    switch = config.set_flag if settings.tf32 else config.clear_flag
    switch(trt.BuilderFlag.TF32)
    if settings.workspace_mib is not None:
        size = settings.workspace_mib * _MIB
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """The architectures that the engine is for. Raises `UsageError` for one that is not known."""
    known = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        if name.upper() not in known:
            others = ",".join(one.lower() for one in known if one.startswith("SM"))
            raise UsageError(f"--option targets names {name}", f"known are {others}")
        if not config.set_compute_capability(known[name.upper()], index):
            raise UsageError(f"--option targets: {name} is refused", "give other architectures")


def _set_timing(config: Any, request: Request) -> Any:
    """The timing cache that the build reads and adds to. One of another make is left aside."""
    if request.timing:
        cache = config.create_timing_cache(request.timing)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def _add_profile(
    builder: Any,
    network: Any,
    config: Any,
    inputs: Arrays,
    batches: tuple[int, int] | None,
) -> None:
    """One optimization profile, where the network leaves sizes or values open.

    It is tuned for the measured shapes, and takes these alone unless ``batches`` widens it. An
    input whose values decide shapes is held to the values that are measured.
    """
    declared = [network.get_input(index) for index in range(network.num_inputs)]
    _check_inputs([tensor.name for tensor in declared], inputs)
    open_sizes = {t.name: _sizes(t, inputs[t.name].shape, batches) for t in declared if _open(t)}
    values = [t.name for t in declared if t.is_shape_tensor and t.name not in open_sizes]
    if batches is not None and not open_sizes:
        raise UsageError(
            "--option batch_profile needs a model whose batch is open; this one fixes it",
            "export it with a symbolic batch dimension",
        )
    if not open_sizes and not values:
        return
    profile = builder.create_optimization_profile()
    for name, (low, best, high) in open_sizes.items():
        profile.set_shape(name, low, best, high)
    for name in values:
        held = [int(value) for value in inputs[name].reshape(-1)]
        profile.set_shape_input(name, held, held, held)
    config.add_optimization_profile(profile)


_Shape = tuple[int, ...]


def _open(tensor: Any) -> bool:
    return any(size < 0 for size in tensor.shape)


def _sizes(
    tensor: Any, measured: _Shape, batches: tuple[int, int] | None
) -> tuple[_Shape, _Shape, _Shape]:
    """(smallest, tuned for, largest) shape of one input."""
    if batches is None or not measured or tensor.shape[0] >= 0:
        return measured, measured, measured
    low, high = batches
    if not low <= measured[0] <= high:
        raise UsageError(
            f"--option batch_profile is {low}-{high}, and the batch is {measured[0]}",
            "let the profile include the batch",
        )
    return (low, *measured[1:]), measured, (high, *measured[1:])


def open_runtime(trt: Any, log: Log) -> Any:
    """What deserializes engines. Raises `BackendUnavailable`."""
    with log.mapped(f"{log.title} cannot start its runtime", BackendUnavailable, _UNUSABLE):
        return trt.Runtime(log.native)


def deserialize(runtime: Any, log: Log, plan: bytes) -> Any:
    """The engine in ``plan``. Raises `MeasurementFailed` with TensorRT's reason for refusing it."""
    refused = f"{log.title} refused the engine"
    with log.mapped(refused, MeasurementFailed):
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise log.failure(refused, MeasurementFailed)
        return engine


def _check_inputs(declared: list[str], inputs: Arrays) -> None:
    if sorted(declared) != sorted(inputs):
        raise ModelError(
            f"the model takes the inputs {_list(declared)} and was given {_list(inputs)}",
            "give every input once, under its own name",
        )


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
