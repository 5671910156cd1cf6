"""ONNX Runtime on the CPU.

Inputs and outputs are bound, so that a timed call neither allocates nor copies at the border:

    prepare ── inputs copied into buffers of the runtime's own allocator, outputs bound unallocated
    1st enqueue ── the runtime allocates the outputs and leaves them in the binding
    every other enqueue ── the same buffers again, through the runtime's own method and nothing else
    bind ── inputs copied over, outputs unbound, since other data may have outputs of other shapes
"""

from __future__ import annotations

import re
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from harness.backends.common import chosen_options, import_framework, nothing
from harness.backends.onnxruntime_operators import read_profile
from harness.errors import (
    BackendUnavailable,
    DataError,
    HarnessError,
    MeasurementFailed,
    ModelError,
    UsageError,
)
from harness.maybe import Maybe, Unavailable
from harness.protocols import Artifact, Available, Description, SessionOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays

_PIP = "pip install 'hw-harness[onnxruntime]'"
_PIP_GPU = "pip uninstall onnxruntime && pip install 'hw-harness[onnxruntime-gpu]'"
_PROVIDER = "CPUExecutionProvider"

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disable": "ORT_DISABLE_ALL",
}
# option -> its values, the default first
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "graph_optimization_level": tuple(_LEVELS),
    "execution_mode": ("sequential", "parallel"),
    "allow_spinning": ("on", "off"),
    "arena": ("on", "off"),
    "deterministic": ("off", "on"),
}
# The CPU provider has no half-precision kernels to speak of: it casts such a graph to fp32 and
# runs that (fp16), or refuses to load it (bf16).
_PRECISIONS = ("fp32", "int8")


def _settings(options: SessionOptions) -> dict[str, str]:
    """Every option with its value in force. Raises `UsageError` naming the valid ones."""
    chosen = chosen_options("onnxruntime", options, _OPTIONS)
    if options.inter_threads > 1 and chosen["execution_mode"] == "sequential":
        raise UsageError(
            f"--inter-threads {options.inter_threads} does nothing in sequential execution",
            "add --option execution_mode=parallel",
        )
    return chosen


class OnnxRuntimeBackend:
    """Sessions of one backend object share the loaded model, each with buffers of its own."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._loaded: weakref.WeakValueDictionary[bytes, _Loaded] = weakref.WeakValueDictionary()

    def availability(self, device: str) -> Available | Unavailable:
        ort: Any = import_framework("onnxruntime", "onnxruntime", _PIP)
        if isinstance(ort, Unavailable):
            return ort
        providers = ort.get_available_providers()
        if device == "cpu":
            return Available({"version": ort.__version__, "providers": ", ".join(providers)})
        if "CUDAExecutionProvider" not in providers:
            return Unavailable(f"onnxruntime {ort.__version__} is built without CUDA", _PIP_GPU)
        return Unavailable(f"onnxruntime on {device} is not supported yet", "use --device cpu")

    def artifact_format(self, precision: str, options: SessionOptions) -> str:
        _settings(options)
        if precision not in _PRECISIONS:
            raise UsageError(
                f"onnxruntime has no {precision} kernels on {options.device}: it would compute in "
                "fp32 behind casts, or not at all",
                f"use --precision {' or '.join(_PRECISIONS)}",
            )
        return "onnx"

    def prepare(
        self, artifact: Artifact, inputs: Arrays, options: SessionOptions
    ) -> OnnxRuntimeSession:
        available = self.availability(options.device)
        if isinstance(available, Unavailable):
            raise BackendUnavailable(available.reason, available.remedy)
        if artifact.format != "onnx":
            raise ModelError(f"onnxruntime runs onnx files, not {artifact.format!r}")
        key = msgspec.json.encode((artifact.path, artifact.sha256, options))
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._loaded[key] = _Loaded(artifact.path, options)
        return OnnxRuntimeSession(loaded, inputs)


class _Loaded:
    """One loaded model and how it was loaded; lives as long as a session holds it."""

    def __init__(self, path: str, options: SessionOptions) -> None:
        import onnxruntime as ort

        ort.disable_telemetry_events()
        ort.set_default_logger_severity(4)  # errors come as exceptions; this leaves fatal ones
        self.path = path
        self.options = options
        self.settings = _settings(options)
        if not Path(path).is_file():
            raise ModelError(f"no such model file: {path}", "check the path")
        self.session = self._create(ort, self.session_options(ort))

    def session_options(self, ort: Any) -> Any:
        """Everything that steers speed is set here, so that no default is left unrecorded."""
        chosen = self.settings
        made = ort.SessionOptions()
        made.log_severity_level = 4
        made.intra_op_num_threads = self.options.threads
        made.inter_op_num_threads = self.options.inter_threads
        level = _LEVELS[chosen["graph_optimization_level"]]
        made.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        mode = f"ORT_{chosen['execution_mode'].upper()}"
        made.execution_mode = getattr(ort.ExecutionMode, mode)
        made.enable_cpu_mem_arena = chosen["arena"] == "on"
        made.use_deterministic_compute = chosen["deterministic"] == "on"
        spinning = "1" if chosen["allow_spinning"] == "on" else "0"
        made.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        made.add_session_config_entry("session.inter_op.allow_spinning", spinning)
        return made

    def _create(self, ort: Any, made: Any) -> Any:
        try:
            return ort.InferenceSession(self.path, made, providers=[_PROVIDER])
        except Exception as error:
            _raise_mapped(error, f"onnxruntime cannot load {self.path}", ModelError)

    def operators(self, inputs: Mapping[str, Any]) -> tuple[dict[str, dict[str, int]], str]:
        """Kernels by operator type and precision, and the providers that ran them.

        A second session with the same options runs ``inputs`` once with the runtime's profiler on,
        which writes down each kernel that executed with the types of its inputs.
        """
        import onnxruntime as ort

        with tempfile.TemporaryDirectory(prefix="harness-ort-") as folder:
            made = self.session_options(ort)
            made.enable_profiling = True
            made.profile_file_prefix = str(Path(folder, "profile"))
            session = self._create(ort, made)
            binding = _Binding(session, inputs)
            _run_mapped(binding.run)
            return read_profile(Path(session.end_profiling()).read_bytes())


class _Binding:
    """Input buffers of the runtime's own allocator (aligned alike in every run), bound once."""

    def __init__(self, session: Any, inputs: Mapping[str, Any]) -> None:
        import numpy as np
        import onnxruntime as ort

        self.native = session.io_binding()
        self.output_names = [output.name for output in session.get_outputs()]
        self.values: dict[str, Any] = {}
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_shape_and_type(
                array.shape, array.dtype.type, "cpu", 0
            )
            value.update_inplace(np.asarray(array, order="C"))
            self.native.bind_ortvalue_input(name, value)
            self.values[name] = value
        self.release_outputs()
        # The public method, as a user's own loop would call it: what it costs is part of the call.
        self.run = partial(session.run_with_iobinding, self.native)

    def release_outputs(self) -> None:
        """Have the next run allocate the outputs; the runs after it reuse them."""
        for name in self.output_names:
            self.native.bind_output(name, "cpu")


class OnnxRuntimeSession:
    """One stream: its own buffers over a shared `onnxruntime.InferenceSession`.

    After the first inference ``enqueue`` is the runtime's own method. It raises foreign
    exceptions then: mapping them would cost a Python frame inside the timed interval.
    """

    enqueue: Callable[[], None]
    synchronize: Callable[[], None]

    def __init__(self, loaded: _Loaded, inputs: Arrays) -> None:
        self._loaded: _Loaded | None = loaded
        self._shapes = {name: (array.dtype, array.shape) for name, array in inputs.items()}
        _check_declared(loaded.session.get_inputs(), inputs)
        try:
            self._binding = _Binding(loaded.session, inputs)
        except Exception as error:
            _raise_mapped(error, "onnxruntime cannot bind the inputs", ModelError)
        self.enqueue = self._first
        self.synchronize = nothing

    def _first(self) -> None:
        _run_mapped(self._binding.run)
        self.enqueue = self._binding.run

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        import numpy as np

        self._open()
        _check_same(self._shapes, inputs)
        for name, array in inputs.items():
            self._binding.values[name].update_inplace(np.asarray(array, order="C"))
        self._binding.release_outputs()

    def outputs(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        self._open()
        values = self._binding.native.get_outputs()
        pairs = zip(self._binding.output_names, values, strict=False)
        return {name: np.array(value.numpy()) for name, value in pairs if value.is_tensor()}

    def describe(self) -> Description:
        loaded = self._open()
        inputs = {name: value.numpy() for name, value in self._binding.values.items()}
        runtime = _runtime_facts(loaded)
        operators: Maybe[dict[str, dict[str, int]]]
        try:
            operators, runtime["nodes_by_provider"] = loaded.operators(inputs)
        except (HarnessError, OSError, ValueError, KeyError) as error:
            operators = Unavailable(f"a profiled inference failed: {_line(error)}")
        return Description(runtime, operators)

    def close(self) -> None:
        if self._loaded is None:
            return
        self._loaded = None
        self.enqueue = self.synchronize = _refuse
        del self._binding

    def _open(self) -> _Loaded:
        if self._loaded is None:
            _refuse()
        return self._loaded


def _refuse() -> NoReturn:
    raise MeasurementFailed("this session is closed", "prepare another one")


def _runtime_facts(loaded: _Loaded) -> dict[str, str]:
    import onnxruntime as ort

    session = loaded.session
    read = session.get_session_options()
    spinning = read.get_session_config_entry("session.intra_op.allow_spinning")
    return {
        "version": ort.__version__,
        "build": ort.get_build_info().removeprefix("ORT Build Info: "),
        "providers": ", ".join(session.get_providers()),
        "intra_op_threads": str(read.intra_op_num_threads),
        "inter_op_threads": str(read.inter_op_num_threads),
        "graph_optimization_level": read.graph_optimization_level.name,
        "execution_mode": read.execution_mode.name,
        "allow_spinning": "on" if spinning == "1" else "off",
        "arena": "on" if read.enable_cpu_mem_arena else "off",
        "memory_pattern": "on" if read.enable_mem_pattern else "off",
        "deterministic": "on" if read.use_deterministic_compute else "off",
        "binding": "inputs and outputs bound to preallocated host memory",
    }


def _check_declared(declared: Any, inputs: Arrays) -> None:
    """The model's own inputs, by name, against what was handed over. Raises `ModelError`."""
    names = [argument.name for argument in declared]
    if sorted(names) != sorted(inputs):
        raise ModelError(
            f"the model takes the inputs {_list(names)} and was given {_list(inputs)}",
            "give every input once, under its own name",
        )
    for argument in declared:
        if argument.type == "tensor(string)" or not argument.type.startswith("tensor("):
            raise ModelError(
                f"input {argument.name!r} is a {argument.type}",
                "only models with numeric and boolean tensor inputs can be measured",
            )


def _check_same(bound: Mapping[str, tuple[Any, tuple[int, ...]]], inputs: Arrays) -> None:
    if sorted(bound) != sorted(inputs):
        raise DataError(
            f"the inputs are {_list(inputs)}, the session has {_list(bound)}",
            "give every input once, under its own name",
        )
    for name, (dtype, shape) in bound.items():
        array = inputs[name]
        if (array.dtype, array.shape) != (dtype, shape):
            raise DataError(
                f"input {name!r} is {array.dtype} {array.shape}, the session has {dtype} {shape}",
                "prepare another session for another type or shape",
            )


def _list(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"


def _run_mapped(run: Callable[[], None]) -> None:
    try:
        run()
    except Exception as error:
        _raise_mapped(error, "onnxruntime failed to run the model", MeasurementFailed)


def _line(error: Exception) -> str:
    """The first lines of a runtime's message as one, without its numeric code prefix."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", str(error).strip())
    return " ".join(text.split())[:400] or type(error).__name__


def _raise_mapped(error: Exception, what: str, kind: type[HarnessError]) -> NoReturn:
    text = _line(error)
    if re.search(r"bad.?alloc|failed to allocate|out of memory", text, re.IGNORECASE):
        raise MeasurementFailed(
            f"{what}: out of memory: {text}", "use a smaller batch or model"
        ) from error
    raise kind(f"{what}: {text}") from error
