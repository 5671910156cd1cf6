"""TensorRT without a GPU: every name, argument and type is held to those of a real version.

What is called must be in the names that `tensorrt_names` has read, or it is an AttributeError or a
TypeError here as it would be there. Behind the names a model really runs, on ONNX Runtime's CPU
provider, in the fake device memory of `cuda_fake`.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from cuda_fake import FakeCuda
from onnx import TensorProto, helper
from tensorrt_names import Names

INFERENCE_MS = 1.0
HEADER = b"fake plan 1\n"
_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.INT8: "INT8",
    TensorProto.BOOL: "BOOL",
}
_INTEGERS = ("int", "typing.SupportsInt")
_SEQUENCES = ("List[int]", "collections.abc.Sequence[typing.SupportsInt]")


class Strict:
    """An object of a class of TensorRT: it has what that class has, and ``own`` does it."""

    def __init__(self, trt: FakeTensorRT, kind: str, own: Any) -> None:
        self.__dict__.update(_trt=trt, _kind=kind, _own=own)

    def __getattr__(self, name: str) -> Any:
        trt, kind = self._trt, self._kind
        members = trt.names["classes"][kind]
        if name in members["properties"]:
            return getattr(self._own, name)
        if name not in members["methods"]:
            raise AttributeError(f"TensorRT {trt.__version__}: {kind} has no {name!r}")
        overloads = members["methods"][name]

        def call(*args: Any, **kwargs: Any) -> Any:
            bound = trt.bind(f"{kind}.{name}", overloads, args, kwargs)
            return getattr(self._own, name)(*bound)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        properties = self._trt.names["classes"][self._kind]["properties"]
        setter = properties.get(name)
        if setter is None:
            raise AttributeError(f"TensorRT {self._trt.__version__}: {self._kind}.{name} not set")
        assert self._trt.fits(value, setter), f"{self._kind}.{name} = {value!r}: {setter}"
        setattr(self._own, name, value)


class FakeTensorRT(ModuleType):
    """The module ``tensorrt``. What goes wrong is set on it: see the attributes below."""

    def __init__(self, names: Names, cuda: FakeCuda, module: str = "tensorrt") -> None:
        super().__init__(module)
        self.__version__ = names["version"]
        self.names = names
        self.cuda = cuda
        self.logger: Any = None
        self.no_driver = False  # constructors return null
        self.parser_errors: list[dict[str, str]] = []
        self.refuses_plan = ""  # what the log says once, and no engine
        self.build_error = ""  # what the log says, and no engine
        self.context_error = ""
        self.enqueue_error = ""
        self.uncapturable = False
        self.refuses_kernels = False  # what a runtime cache kept is of another environment
        self.contexts: list[Any] = []  # runtime configurations that contexts were made with
        self.builds: list[Any] = []  # configurations that were built with
        self.layers: Any = None  # what the inspector tells; None: made from the graph
        self.layers_need_no_context = False  # with one, the inspector tells nothing
        for name, members in names["enums"].items():
            setattr(self, name, enum.IntEnum(name, members))
        for name in names["bases"]:
            setattr(self, name, type(name, (), {}))
        for name, value in names["severities"].items():
            setattr(self.ILogger, name, value)
        for name in ("Builder", "OnnxParser", "Runtime"):
            setattr(self, name, self._constructor(name))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"TensorRT {self.__dict__.get('__version__')} has no {name!r}")

    def _constructor(self, kind: str) -> Any:
        def construct(*args: Any, **kwargs: Any) -> Strict:
            overloads = self.names["classes"][kind]["methods"]["__init__"]
            bound = self.bind(kind, overloads, args, kwargs)
            if self.no_driver:
                self.say("CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.logger = next(arg for arg in bound if isinstance(arg, self.ILogger))
            return Strict(self, kind, _OWN[kind](self, *bound))

        return construct

    def say(self, text: str, severity: str = "ERROR") -> None:
        """What TensorRT would write to the log."""
        if self.logger is not None:
            self.logger.log(getattr(self.ILogger, severity), text)

    def init_libnvinfer_plugins(self, *args: Any) -> bool:
        self.bind("init", self.names["functions"]["init_libnvinfer_plugins"], args, {})
        return True

    def get_nv_onnx_parser_version(self) -> int:
        return 110400

    def bind(
        self, what: str, overloads: list[Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """The arguments in order, if one of the overloads takes them."""
        for parameters in overloads:
            signature = inspect.Signature(
                [
                    inspect.Parameter(
                        name,
                        inspect.Parameter.POSITIONAL_OR_KEYWORD,
                        default=None if optional else inspect.Parameter.empty,
                    )
                    for name, _, optional in parameters
                ]
            )
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                continue
            kinds = {name: kind for name, kind, _ in parameters}
            if all(self.fits(value, kinds[name]) for name, value in bound.arguments.items()):
                bound.apply_defaults()
                return bound.args
        raise TypeError(f"{what}{overloads} does not take {args} {kwargs}")

    def fits(self, value: Any, kind: str) -> bool:
        """Would pybind11 convert ``value`` to ``kind``?"""
        kind = kind.removeprefix("nvinfer1::").removeprefix("nvonnxparser::")
        if kind in self.names["enums"]:
            return isinstance(value, getattr(self, kind))
        if kind in self.names["bases"]:
            return isinstance(value, getattr(self, kind)) and self._hooked(value, kind)
        if kind in self.names["classes"]:
            return isinstance(value, Strict) and value._kind == kind
        if kind in _INTEGERS:
            return isinstance(value, int) and not isinstance(value, bool)
        if kind in _SEQUENCES or kind in ("Dims", "tuple"):
            return isinstance(value, tuple | list) and all(isinstance(v, int) for v in value)
        exact = {"str": str, "bool": bool, "buffer": bytes}
        kind = (
            "buffer" if kind.endswith(".Buffer") else kind
        )  # typing_extensions or collections.abc
        return (
            isinstance(value, exact[kind])
            if kind in exact
            else kind in ("object", "capsule") or (kind.endswith("CapsuleType"))
        )

    def _hooked(self, value: Any, kind: str) -> bool:
        """Has it the methods that TensorRT will call, with their numbers of arguments?"""
        for name, arguments in self.names["bases"][kind].items():
            inspect.signature(getattr(value, name)).bind(*arguments)
        return True


class _Tensor:
    def __init__(self, trt: FakeTensorRT, info: Any, shape_input: bool = False) -> None:
        kind = info.type.tensor_type
        self.name = info.name
        self.dtype = trt.DataType[_TYPES[kind.elem_type]]
        self.numpy = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        self.symbols = [dim.dim_param for dim in kind.shape.dim]
        self.shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in kind.shape.dim)
        self.is_shape_tensor = shape_input


def _tensors(trt: FakeTensorRT, model: Any) -> tuple[list[_Tensor], list[_Tensor]]:
    """Inputs and outputs. What a Reshape takes its shape from, and what Shape tells, are shapes."""
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    told = {node.output[0] for node in model.graph.node if node.op_type == "Shape"}
    weights = {tensor.name for tensor in model.graph.initializer}
    real = [value for value in model.graph.input if value.name not in weights]
    inputs = [_Tensor(trt, value, value.name in shapes) for value in real]
    return inputs, [_Tensor(trt, value, value.name in told) for value in model.graph.output]


class _Network:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.model: Any = None
        self.inputs: list[_Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_layers(self) -> int:
        return len(self.model.graph.node)

    def get_input(self, index: int) -> Strict:
        return Strict(self.trt, "ITensor", self.inputs[index])


class _Parser:
    def __init__(self, trt: FakeTensorRT, network: Strict, logger: Any) -> None:
        self.trt, self.network = trt, network._own

    @property
    def num_errors(self) -> int:
        return len(self.trt.parser_errors)

    def get_error(self, index: int) -> Strict:
        return Strict(self.trt, "ParserError", _ParserError(**self.trt.parser_errors[index]))

    def parse_from_file(self, path: str) -> bool:
        if self.trt.parser_errors:
            return False
        try:
            self.network.model = onnx.load(path)
        except Exception:
            self.trt.say(f"Failed to parse ONNX model from file: {path}!")
            return False
        self.network.inputs, _ = _tensors(self.trt, self.network.model)
        return True


class _ParserError:
    def __init__(self, node_name: str = "", node_operator: str = "", desc: str = "") -> None:
        self._texts = {"node_name": node_name, "node_operator": node_operator, "desc": desc}

    def __getattr__(self, name: str) -> Any:
        return lambda: self._texts[name]

    def node(self) -> int:
        return 3


class _Timing:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"+"


class _Config:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.flags = {trt.BuilderFlag.TF32}  # on by default, as the documentation says
        self.pools: dict[Any, int] = {}
        self.profiles: list[Any] = []
        self.timing: bytes | None = None
        self.builder_optimization_level = 3
        self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY

        self.num_compute_capabilities = 0
        self.targets: dict[int, Any] = {}

    def set_compute_capability(self, target: Any, index: int) -> bool:
        self.targets[index] = target
        return index < self.num_compute_capabilities

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Strict) -> int:
        self.profiles.append(profile._own)
        return 0

    def create_timing_cache(self, data: bytes) -> Strict:
        return Strict(self.trt, "ITimingCache", _Timing(data))

    def set_timing_cache(self, cache: Strict, ignore_mismatch: bool) -> bool:
        if cache._own.data.startswith(b"other"):
            return False
        self.timing = cache._own.data
        return True


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}
        self.values: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = (tuple(low), tuple(best), tuple(high))

    def set_shape_input(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.values[name] = (tuple(low), tuple(best), tuple(high))


class _Builder:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self.trt = trt

    def create_network(self, flags: int | None) -> Strict:
        strong = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        assert flags == 1 << strong, "TensorRT 10 must be told to type strongly"
        return Strict(self.trt, "INetworkDefinition", _Network(self.trt))

    def create_builder_config(self) -> Strict:
        return Strict(self.trt, "IBuilderConfig", _Config(self.trt))

    def create_optimization_profile(self) -> Strict:
        return Strict(self.trt, "IOptimizationProfile", _Profile())

    def build_serialized_network(
        self, network: Strict, config: Strict, kernel_text: Any = None
    ) -> bytes | None:
        trt, net, chosen = self.trt, network._own, config._own
        if trt.build_error:
            trt.say(trt.build_error)
            return None
        given = chosen.profiles[0] if chosen.profiles else _Profile()
        for tensor in net.inputs:
            if -1 in tensor.shape:
                assert tensor.name in given.shapes, "a profile is needed"
            if tensor.is_shape_tensor:
                assert tensor.name in given.values, "a profile of values is needed"
        trt.builds.append(chosen)
        ranges = json.dumps({"shapes": given.shapes, "values": given.values})
        detailed = chosen.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
        facts = json.dumps([trt.__version__, detailed, ranges]).encode()
        return HEADER + facts + b"\n" + net.model.SerializeToString()


class _Runtime:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self.trt = trt

    def deserialize_cuda_engine(self, plan: bytes) -> Strict | None:
        if self.trt.refuses_plan:
            said, self.trt.refuses_plan = self.trt.refuses_plan, ""
            self.trt.say(said)
            return None
        assert plan.startswith(HEADER), "no plan of ours: TensorRT may crash on it"
        facts, _, model = plan[len(HEADER) :].partition(b"\n")
        return Strict(self.trt, "ICudaEngine", _Engine(self.trt, json.loads(facts), model))


class _Engine:
    device_memory_size = device_memory_size_v2 = 4096
    num_aux_streams = 0

    def __init__(self, trt: FakeTensorRT, facts: list[Any], model: bytes) -> None:
        self.trt = trt
        self.detailed = facts[1]
        self.ranges = json.loads(facts[2])
        self.graph = onnx.load_from_string(model).graph
        self.inputs, self.outputs = _tensors(trt, onnx.load_from_string(model))
        self.by_name = {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @property
    def num_io_tensors(self) -> int:
        return len(self.by_name)

    @property
    def num_layers(self) -> int:
        return len(self.graph.node)

    def get_tensor_name(self, index: int) -> str:
        return list(self.by_name)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.by_name[name].dtype

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.TensorIOMode
        return modes.INPUT if name in {t.name for t in self.inputs} else modes.OUTPUT

    def get_tensor_location(self, name: str) -> Any:
        places = self.trt.TensorLocation
        return places.HOST if self.by_name[name].is_shape_tensor else places.DEVICE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.by_name[name].shape

    def create_runtime_config(self) -> Strict:
        return Strict(self.trt, "IRuntimeConfig", _RuntimeConfig(self.trt))

    def create_execution_context(self, config: Any = None, *_: Any) -> Strict | None:
        if self.trt.context_error:
            self.trt.say(self.trt.context_error)
            return None
        self.trt.contexts.append(config)
        return Strict(self.trt, "IExecutionContext", _Context(self.trt, self))

    def create_engine_inspector(self) -> Strict:
        return Strict(self.trt, "EngineInspector", _Inspector(self.trt, self))


class _RuntimeConfig:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self.cuda_graph_strategy: Any = None
        self.cache: Any = None

    def create_runtime_cache(self) -> Strict:
        return Strict(self.trt, "IRuntimeCache", _RuntimeCache(self.trt))

    def set_runtime_cache(self, cache: Strict) -> bool:
        self.cache = cache
        return True


class _RuntimeCache:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.kept = b""

    def deserialize(self, blob: bytes) -> bool:
        if self.trt.refuses_kernels:
            return False
        self.kept = blob
        return True

    def serialize(self) -> bytes:
        return self.kept or b"kernels"


class _Inspector:
    def __init__(self, trt: FakeTensorRT, engine: _Engine) -> None:
        self.trt, self.engine = trt, engine
        self.execution_context: Any = None

    def get_engine_information(self, format: Any) -> str:
        assert format == self.trt.LayerInformationFormat.JSON
        if self.trt.layers_need_no_context and self.execution_context is not None:
            return ""
        if isinstance(self.trt.layers, str):
            return self.trt.layers
        if not self.engine.detailed:
            return json.dumps({"Layers": [node.name for node in self.engine.graph.node]})
        nodes = self.engine.graph.node
        makers = {name: node.op_type for node in nodes for name in node.output}
        return json.dumps({"Layers": [_told(node, makers) for node in nodes]})


def _told(node: Any, makers: dict[str, str]) -> dict[str, Any]:
    """A weighted layer behind a DequantizeLinear is told as int8, as it is fused."""
    kinds = {"QuantizeLinear": ("FP32", "Int8"), "DequantizeLinear": ("Int8", "FP32")}
    before, after = kinds.get(node.op_type, ("FP32", "FP32"))
    if node.op_type in ("Conv", "Gemm") and makers.get(node.input[0]) == "DequantizeLinear":
        before = "Int8"
    return {
        "Name": node.name or node.output[0],
        "LayerType": "Reformat" if node.op_type in kinds else node.op_type,
        "Inputs": [{"Name": "i", "Format/Datatype": f"Row major linear {before}"}],
        "Outputs": [{"Name": "o", "Format/Datatype": f"Row major linear {after}"}],
    }


class _Context:
    def __init__(self, trt: FakeTensorRT, engine: _Engine) -> None:
        self.trt, self.engine = trt, engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.profiler: Any = None
        self.nvtx_verbosity = trt.ProfilingVerbosity.DETAILED

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name in self.engine.ranges["shapes"]:
            low, _, high = self.engine.ranges["shapes"][name]
            if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
                self.trt.say(
                    f"Set dimension {shape} for tensor {name} does not satisfy any profile"
                )
                return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocators[name] = allocator
        return True

    def infer_shapes(self) -> list[str]:
        vague = [t.name for t in self.engine.inputs if t.name not in self.shapes]
        shapes = [t.name for t in self.engine.by_name.values() if t.is_shape_tensor]
        return vague + [name for name in shapes if name not in self.addresses]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        tensor = self.engine.by_name[name]
        if any(symbol.startswith("data") for symbol in tensor.symbols):
            return tensor.shape
        if -1 not in tensor.shape:
            return tensor.shape
        return tuple(self._run([name], zeros=True)[0].shape)

    def _feeds(self, zeros: bool) -> dict[str, Any]:
        feeds = {}
        for tensor in self.engine.inputs:
            shape, kind = self.shapes[tensor.name], np.dtype(tensor.numpy)
            size, address = int(np.prod(shape, dtype=int)) * kind.itemsize, self.addresses
            if tensor.is_shape_tensor:
                data = ctypes.string_at(address[tensor.name], size)
            else:
                data = bytes(size) if zeros else self.trt.cuda.read(address[tensor.name], size)
            feeds[tensor.name] = np.frombuffer(data, kind).reshape(shape)
        return feeds

    def _run(self, names: list[str], zeros: bool = False) -> list[Any]:
        return self.engine.session.run(names, self._feeds(zeros))

    def execute_async_v3(self, stream: int) -> bool:
        trt = self.trt
        if trt.enqueue_error or (trt.uncapturable and stream in trt.cuda.capturing):
            trt.say(trt.enqueue_error or "this network cannot be captured")
            return False
        if self.allocators:  # sizes must be known: the inference is done here and now
            trt.cuda.flush(stream)
            self._infer()
            return all(allocator.address for allocator in self.allocators.values())
        if trt.cuda.put(stream, self._infer):
            trt.say("Cuda Runtime (invalid resource handle)")
            return False
        if self.profiler is not None:  # which makes it wait
            trt.cuda.flush(stream)
        return True

    def _infer(self) -> None:
        names = [tensor.name for tensor in self.engine.outputs]
        for name, array in zip(names, self._run(names), strict=True):
            if name in self.allocators:
                allocator = self.allocators[name]
                address = allocator.reallocate_output_async(name, 0, array.nbytes, 256, 0)
                allocator.notify_shape(name, array.shape)
            else:
                address = self.addresses[name]
            if self.engine.by_name[name].is_shape_tensor:
                ctypes.memmove(address, array.tobytes(), array.nbytes)
            elif address:
                self.trt.cuda.write(address, array.tobytes())
        self.trt.cuda.now_ms += INFERENCE_MS
        if self.profiler is not None:
            for node in self.engine.graph.node:
                self.profiler.report_layer_time(node.name or node.output[0], 0.5)


_OWN: dict[str, Any] = {"Builder": _Builder, "OnnxParser": _Parser, "Runtime": _Runtime}


def names_of(version: str, data: Path) -> Names:
    """The names of TensorRT ``version``, kept in the folder ``data``."""
    found: Names = json.loads((data / f"tensorrt-{version}-names.json").read_text())
    return found
