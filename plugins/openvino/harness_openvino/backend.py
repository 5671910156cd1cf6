"""OpenVINO on the CPU: one compiled model per artifact, one infer request per session.

    enqueue: start_async     synchronize: wait

Inputs lie in arrays of the session's own, which the request reads in place.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.errors import (
    BackendUnavailable,
    DataError,
    HarnessError,
    MeasurementFailed,
    ModelError,
    UsageError,
    one_line,
)
from harness.maybe import Maybe, Unavailable
from harness.protocols import (
    Artifact,
    Available,
    Description,
    Option,
    ProfiledInferences,
    SessionOptions,
    Wanted,
)
from harness_openvino.operators import executed, profiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_PIP = "pip install openvino"
_HINTS = {"latency": "LATENCY", "throughput": "THROUGHPUT"}
# --precision -> what OpenVINO shall compute in; INT8 is in the graph
_PRECISIONS = {"fp32": "f32", "int8": "f32", "fp16": "f16", "bf16": "bf16"}
_CAPABILITIES = {"fp16": "FP16", "bf16": "BF16"}  # that the CPU must have
_STREAMS = "a whole number from 1 to 256"


class OpenVinoBackend:
    """See the module."""

    name = "openvino"
    default_device = "cpu"
    distributions = ("openvino",)
    options = (
        Option("hint", tuple(_HINTS), "latency", "what OpenVINO tunes for"),
        Option("streams", help=f"inferences side by side, {_STREAMS}; default: what hint chooses"),
    )

    def __init__(self) -> None:
        self._compiled: weakref.WeakValueDictionary[bytes, _Compiled] = (
            weakref.WeakValueDictionary()
        )

    def availability(self, device: str) -> Available | Unavailable:
        if device != "cpu":
            return Unavailable(f"this plug-in runs OpenVINO on the CPU, not {device}", "use cpu")
        openvino = _import()
        if isinstance(openvino, Unavailable):
            return openvino
        core = openvino.Core()
        return Available(
            {
                "version": str(openvino.__version__),
                "device": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
                "capabilities": ", ".join(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            }
        )

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        _settings(options)
        if precision not in _PRECISIONS:
            raise UsageError(
                f"openvino has no {precision}", f"use --precision {' or '.join(_PRECISIONS)}"
            )
        # the shorter floats are OpenVINO's own doing, at run time
        return Wanted("onnx", precision="fp32" if precision in _CAPABILITIES else "")

    def prepare(
        self, artifact: Artifact, inputs: Arrays, options: SessionOptions
    ) -> OpenVinoSession:
        config = _settings(options)
        found = self.availability(options.device)
        if isinstance(found, Unavailable):
            raise BackendUnavailable(found.reason, found.remedy)
        if artifact.format != "onnx":
            raise ModelError(f"openvino runs onnx files, not {artifact.format!r}")
        needed = _CAPABILITIES.get(artifact.precision)
        if needed and needed not in found.details["capabilities"].split(", "):
            raise UsageError(
                f"this CPU has no {artifact.precision} for OpenVINO: it can do "
                f"{found.details['capabilities']}",
                "use --precision fp32 or int8",
            )
        shapes = {name: array.shape for name, array in sorted(inputs.items())}
        key = msgspec.json.encode((artifact, options, shapes))
        compiled = self._compiled.get(key)
        if compiled is None:
            config["INFERENCE_PRECISION_HINT"] = _PRECISIONS[artifact.precision]
            compiled = self._compiled[key] = _Compiled(artifact, shapes, config)
        return OpenVinoSession(compiled, inputs)


def _import() -> Any:
    try:
        import openvino
    except Exception as error:  # a broken installation raises anything
        if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
            return Unavailable("openvino is not installed", _PIP)
        return Unavailable(f"openvino cannot be imported: {one_line(error)}", _PIP)
    return openvino


def _settings(options: SessionOptions) -> dict[str, Any]:
    """The configuration to compile with. Raises `UsageError`."""
    known = [option.name for option in OpenVinoBackend.options]
    for name in options.options:
        if name not in known:
            choose = f"choose one of {', '.join(known)}"
            raise UsageError(f"openvino has no option {name!r}", choose)
    hint = options.options.get("hint", "latency")
    if hint not in _HINTS:
        raise UsageError(f"--option hint is {hint!r}", f"choose one of {', '.join(_HINTS)}")
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": _HINTS[hint],
        "INFERENCE_NUM_THREADS": options.threads,
    }
    streams = options.options.get("streams")
    if streams is not None:
        if not re.fullmatch(r"\d{1,3}", streams, re.ASCII) or not 1 <= int(streams) <= 256:
            raise UsageError(f"--option streams is {streams!r}", f"give {_STREAMS}")
        config["NUM_STREAMS"] = int(streams)
    return config


class _Compiled:
    """One model, compiled for one set of shapes."""

    def __init__(
        self, artifact: Artifact, shapes: dict[str, tuple[int, ...]], config: dict[str, Any]
    ) -> None:
        import openvino

        self.openvino = openvino
        self.config = config
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(artifact.path)
        except Exception as error:
            raise ModelError(f"OpenVINO cannot read {artifact.path}: {one_line(error)}") from error
        self.inputs = [port.get_any_name() for port in self._model.inputs]
        if sorted(self.inputs) != sorted(shapes):
            raise ModelError(
                f"the model takes the inputs {', '.join(self.inputs)} and was given "
                f"{', '.join(shapes)}",
                "give every input once, under its own name",
            )
        self.outputs = _names(self._model, [output.name for output in artifact.outputs])
        try:
            self._model.reshape({name: list(shape) for name, shape in shapes.items()})
            self.model = self.compile()
        except Exception as error:
            raise MeasurementFailed(f"OpenVINO cannot compile it: {one_line(error)}") from error

    def compile(self, **more: Any) -> Any:
        """Compiled for the CPU, with ``more`` properties."""
        return self._core.compile_model(self._model, "CPU", {**self.config, **more})


def _names(model: Any, declared: list[str]) -> list[str]:
    """The outputs' names as the file has them: a port may have others too."""
    names = []
    for port in model.outputs:
        known = port.get_names()
        names.append(next((name for name in declared if name in known), port.get_any_name()))
    return names


class OpenVinoSession:
    """One infer request."""

    asynchronous = True  # start_async returns at once; the streams are OpenVINO's threads

    def __init__(self, compiled: _Compiled, inputs: Arrays) -> None:
        self._compiled: _Compiled | None = compiled
        self._inputs = {name: np.array(array, order="C") for name, array in inputs.items()}
        self._request = self._request_of(compiled.model)
        self.enqueue = self._first
        self.synchronize = self._request.wait

    def _request_of(self, model: Any) -> Any:
        """A request of ``model`` that reads this session's inputs in place."""
        compiled = self._now()
        try:
            request = model.create_infer_request()
            for name, array in self._inputs.items():
                request.set_tensor(name, compiled.openvino.Tensor(array, shared_memory=True))
        except Exception as error:
            raise ModelError(f"OpenVINO cannot bind the inputs: {one_line(error)}") from error
        return request

    def _first(self) -> None:
        try:
            self._request.start_async()
            self._request.wait()
        except Exception as error:
            raise MeasurementFailed(f"OpenVINO failed to run it: {one_line(error)}") from error
        self.enqueue = self._request.start_async

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        self._now()
        if sorted(inputs) != sorted(self._inputs):
            raise DataError(
                f"the inputs are {', '.join(sorted(inputs))}, the session has "
                f"{', '.join(sorted(self._inputs))}",
                "give every input once, under its own name",
            )
        for name, held in self._inputs.items():
            array = inputs[name]
            if (array.dtype, array.shape) != (held.dtype, held.shape):
                raise DataError(
                    f"input {name!r} is {array.dtype} {array.shape}, the session has "
                    f"{held.dtype} {held.shape}",
                    "prepare another session for another type or shape",
                )
        for name, held in self._inputs.items():
            np.copyto(held, inputs[name])

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {
            name: np.array(self._request.get_output_tensor(index).data)
            for index, name in enumerate(self._now().outputs)
        }

    def describe(self) -> Description:
        compiled = self._now()
        runtime = {"version": str(compiled.openvino.__version__)}
        for name in (
            "PERFORMANCE_HINT",
            "NUM_STREAMS",
            "INFERENCE_NUM_THREADS",
            "INFERENCE_PRECISION_HINT",
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
            "EXECUTION_DEVICES",
            "RUNTIME_REQUIREMENTS",
        ):
            try:
                runtime[name.lower()] = _plain(compiled.model.get_property(name))
            except Exception as error:  # a property that this version has not
                runtime[name.lower()] = f"not told: {one_line(error)}"
        return Description(runtime, self._operators())

    def _operators(self) -> Maybe[dict[str, dict[str, int]]]:
        """What one inference of a compilation with PERF_COUNT executes."""
        compiled = self._now()
        try:
            model = compiled.compile(PERF_COUNT=True)
            request = self._request_of(model)
            request.infer()
            operators: dict[str, dict[str, int]] = {}
            for one in executed(model, request):
                counts = operators.setdefault(one.type, {})
                counts[one.precision] = counts.get(one.precision, 0) + 1
        except Exception as error:  # whatever it says: the measurement is done
            return Unavailable(f"OpenVINO does not tell what it executes: {one_line(error)}")
        return operators or Unavailable("OpenVINO tells of nothing that it executed")

    def profile_operators(self, inferences: int) -> Maybe[ProfiledInferences]:
        """Under ``PERF_COUNT``, on a compilation of its own."""
        compiled = self._now()
        try:
            model = compiled.compile(PERF_COUNT=True)
            return profiled(model, self._request_of(model), inferences)
        except HarnessError as error:
            return Unavailable(error.message, error.remedy)
        except Exception as error:
            return Unavailable(f"OpenVINO's profiler failed: {one_line(error)}")

    def close(self) -> None:
        if self._compiled is None:
            return
        self._request.wait()
        self.enqueue = self.synchronize = _refuse
        self._request = self._compiled = None

    def _now(self) -> _Compiled:
        if self._compiled is None:
            _refuse()
            raise AssertionError
        return self._compiled


def _plain(value: Any) -> str:
    """A property as text: types and enums print themselves in brackets."""
    if isinstance(value, list | tuple | set):
        return ", ".join(map(str, value))
    if isinstance(value, str | bool | int | float):
        return str(value)
    return str(value).removeprefix("<Type: '").removesuffix("'>").rpartition(".")[2]


def _refuse() -> None:
    raise MeasurementFailed("this session is closed", "prepare another one")
