"""The TensorRT adapter against fakes that are held to the real names, argument by argument.

What no fake can tell is what TensorRT itself answers: docs/tensorrt.md lists it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import registry
from harness.backends.tensorrt import backend as adapter
from harness.backends.tensorrt import engine as tensorrt_engine
from harness.backends.tensorrt.backend import TensorRtBackend
from harness.backends.tensorrt.session import TensorRtSession
from harness.errors import (
    BackendUnavailable,
    DataError,
    HarnessError,
    MeasurementFailed,
    ModelError,
    UsageError,
)
from harness.host import gpus as devices
from harness.host.gpus import CudaDevice
from harness.maybe import Unavailable
from harness.protocols import (
    Artifact,
    Asynchronous,
    Available,
    DeviceMemory,
    DeviceTimed,
    Layer,
    Layers,
    SessionOptions,
    TensorSpec,
)
from harness.testing.contract_backend import BackendContract, Subject, infer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
cuda_runtime = pytest.importorskip("cuda.bindings.runtime")
from cuda_fake import COPY_MS, FakeCuda  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from tensorrt_fake import INFERENCE_MS, FakeTensorRT, names_of  # noqa: E402
from tensorrt_names import Names, installed_names  # noqa: E402

DATA = Path(__file__).parents[2] / "data"
SHAPE = (2, 3, 8, 8)


@pytest.fixture(scope="session")
def installed() -> Names:
    try:
        return installed_names()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


@pytest.fixture(params=["installed", "10.16", "10.0"])
def names(request: pytest.FixtureRequest) -> Names:
    if request.param == "installed":
        found: Names = request.getfixturevalue("installed")
        return found
    return names_of(request.param, DATA)


@pytest.fixture
def eleven(installed: Names) -> Names:
    return installed


def device(index: int, name: str = "NVIDIA Test GPU") -> CudaDevice:
    return CudaDevice(
        index=index,
        name=name,
        uuid=f"GPU-{index}",
        whole_uuid=f"GPU-{index}",
        mig=False,
        compute_capability="9.0",
        pci_bus_id=f"0000:0{index}:00.0",
        memory_bytes=1 << 34,
        multiprocessors=132,
        compute_mode="default",
        integrated=False,
        driver_cuda="13.0",
    )


class Machine:
    """Two GPUs that are not there, and a TensorRT for them."""

    def __init__(self, names: Names) -> None:
        self.cuda = FakeCuda(cuda_runtime)
        self.trt = FakeTensorRT(names, self.cuda)
        self.gpus = [device(0), device(1)]

    def cuda_device(self, text: str, cuda: tuple[int, int] = (0, 0)) -> CudaDevice | Unavailable:
        index = devices._index(text)
        if index < len(self.gpus):
            return self.gpus[index]
        return Unavailable(f"there is no {text}", "give cuda:0 or cuda:1")


def machine_with(names: Names, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Machine:
    made = Machine(names)
    monkeypatch.setitem(sys.modules, "tensorrt", made.trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", made.cuda)
    monkeypatch.setattr(adapter, "cuda_device", made.cuda_device)
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    return made


@pytest.fixture
def machine(names: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """Every version of TensorRT; at the end nothing may be left on the device."""
    made = machine_with(names, monkeypatch, tmp_path / "cache")
    yield made
    assert made.cuda.live == {}


@pytest.fixture
def gpu(eleven: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """The installed version alone, where versions make no difference."""
    made = machine_with(eleven, monkeypatch, tmp_path / "cache")
    yield made
    assert made.cuda.live == {}


# -- models ---------------------------------------------------------------------------------------


def draw(seed: int, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)}


def artifact_of(path: Path, inputs: dict[str, Any], precision: str = "fp32") -> Artifact:
    data = path.read_bytes()
    specs = tuple(TensorSpec(n, str(array.dtype), array.shape) for n, array in inputs.items())
    return Artifact(
        "onnx", str(path), "", precision, hashlib.sha256(data).hexdigest(), len(data), specs
    )


def save(
    path: Path,
    nodes: list[Any],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    weights: list[Any] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        weights or [],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
    return path


def conv(path: Path, batch: int | str = 2) -> Path:
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), dtype=np.float32)
    return save(
        path,
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"], "relu"),
        ],
        [("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [("y", TensorProto.FLOAT, [batch, 4, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )


def nonzero(path: Path) -> Path:
    """Its output has as many columns as its input has elements that are not zero."""
    return save(
        path,
        [helper.make_node("NonZero", ["x"], ["y"], "found")],
        [("x", TensorProto.FLOAT, [4, 4])],
        [("y", TensorProto.INT64, [2, "data_count"])],
    )


def reshape(path: Path) -> Path:
    """Its second input decides the shape of its output."""
    return save(
        path,
        [helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")],
        [("x", TensorProto.FLOAT, [4, 4]), ("shape", TensorProto.INT64, [2])],
        [("y", TensorProto.FLOAT, ["rows", "columns"])],
    )


def shape_of(path: Path) -> Path:
    """Its output is a shape, which TensorRT writes to host memory."""
    return save(
        path,
        [helper.make_node("Shape", ["x"], ["y"], "shape")],
        [("x", TensorProto.FLOAT, [4, 4])],
        [("y", TensorProto.INT64, [2])],
    )


def emptied(path: Path) -> Path:
    """Nothing goes in and nothing comes out."""
    return save(
        path,
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        [("x", TensorProto.FLOAT, [0, 4])],
        [("y", TensorProto.FLOAT, [0, 4])],
    )


def prepare(
    path: Path, inputs: dict[str, Any] | None = None, device: str = "cuda:0", **options: Any
) -> TensorRtSession:
    inputs = draw(1) if inputs is None else inputs
    boundary = options.pop("boundary", "compute")
    chosen = SessionOptions(device=device, boundary=boundary, options=options)
    return TensorRtBackend().prepare(artifact_of(path, inputs), inputs, chosen)


# -- the contract ---------------------------------------------------------------------------------


class TestContract(BackendContract):
    """Every version, both boundaries, with and without a CUDA graph."""

    @pytest.fixture(
        params=[("compute", "off", 0), ("transfer", "off", 1), ("compute", "on", 1)],
        ids=["compute", "transfer-second-gpu", "graph-second-gpu"],
    )
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
        boundary, graph, index = request.param
        path = conv(tmp_path / "conv.onnx")
        options = SessionOptions(
            device=f"cuda:{index}", boundary=boundary, options={"cuda_graph": graph}
        )
        artifact = artifact_of(path, draw(1))
        return Subject(TensorRtBackend, artifact, draw(1), draw(2), "tensorrt", options)

    @pytest.fixture(autouse=True)
    def closed(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """The contract does not close every session that it opens; memory is counted here."""
        sessions: list[TensorRtSession] = []
        plain = TensorRtBackend.prepare

        def remember(*args: Any) -> TensorRtSession:
            sessions.append(plain(*args))
            return sessions[-1]

        monkeypatch.setattr(TensorRtBackend, "prepare", remember)
        yield
        for session in sessions:
            session.close()


def test_the_outputs_are_those_of_the_model(machine: Machine, tmp_path: Path) -> None:
    import onnxruntime as ort

    path = conv(tmp_path / "conv.onnx")
    session = prepare(path)
    expected = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, draw(1))
    np.testing.assert_array_equal(infer(session)["y"], expected[0])
    assert isinstance(session, DeviceTimed)
    assert isinstance(session, DeviceMemory)
    assert isinstance(session, Asynchronous)
    assert session.asynchronous
    session.close()


def test_a_name_that_tensorrt_has_not_fails(gpu: Machine) -> None:
    """What the fake is for: a slip in the adapter is an error here, as it would be there."""
    builder = gpu.trt.Builder(_logger(gpu))
    with pytest.raises(AttributeError, match="Builder has no 'build_engine'"):
        builder.build_engine(None)
    with pytest.raises(TypeError, match="create_network"):
        builder.create_network(flag=1)
    with pytest.raises(TypeError, match="create_network"):
        builder.create_network("strong")
    config = builder.create_builder_config()
    with pytest.raises(AttributeError, match="INT8"):
        config.set_flag(gpu.trt.BuilderFlag.INT8)  # gone in TensorRT 11
    with pytest.raises(TypeError, match="set_flag"):
        config.set_flag(gpu.trt.MemoryPoolType.WORKSPACE)
    with pytest.raises(AttributeError, match="max_workspace_size"):
        config.max_workspace_size = 1
    with pytest.raises(AssertionError, match="builder_optimization_level"):
        config.builder_optimization_level = "3"
    with pytest.raises(AttributeError, match="cudaMalloc2"):
        gpu.cuda.cudaMalloc2(4)
    with pytest.raises(TypeError, match="argument"):
        gpu.cuda.cudaMalloc(4, 5)


def _logger(machine: Machine) -> Any:
    from harness.backends.tensorrt.log import log_of

    return log_of(machine.trt).native


def test_the_fake_would_notice_a_listener_without_its_method(gpu: Machine) -> None:
    with pytest.raises(AttributeError, match="log"):
        gpu.trt.Builder(type("Mute", (gpu.trt.ILogger,), {})())


@pytest.mark.parametrize("member", ["Builder.create_network", "ICudaEngine.get_tensor_location"])
def test_a_version_without_a_member_breaks_the_adapter(
    names: Names, member: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The names are really asked for: without one of them nothing runs."""
    kind, name = member.split(".")
    without = json.loads(json.dumps(names))
    del without["classes"][kind]["methods"][name]
    made = machine_with(without, monkeypatch, tmp_path)
    with pytest.raises((HarnessError, AttributeError), match=f"{kind} has no '{name}'"):
        prepare(conv(tmp_path / "conv.onnx"))
    assert made.cuda.live == {}


# -- availability ---------------------------------------------------------------------------------


def test_availability_names_version_and_device(machine: Machine) -> None:
    found = TensorRtBackend().availability("cuda:1")
    assert isinstance(found, Available)
    assert found.details["version"] == machine.trt.__version__
    assert (found.details["device"], found.details["uuid"]) == ("NVIDIA Test GPU", "GPU-1")
    assert found.details["compute_capability"] == "9.0"


def test_availability_says_what_is_missing(gpu: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TensorRtBackend()
    for device_name, reason in (("cpu", "NVIDIA GPUs alone"), ("cuda:7", "no cuda:7")):
        found = backend.availability(device_name)
        assert isinstance(found, Unavailable)
        assert reason in found.reason
        assert found.remedy
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    found = backend.availability("cuda:0")
    assert isinstance(found, Unavailable)
    assert "cuda-bindings" in found.reason
    gpu.trt.__version__ = "8.6.1"
    found = backend.availability("cuda:0")
    assert isinstance(found, Unavailable)
    assert "8.6.1 is not supported" in found.reason
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found = backend.availability("cuda:0")
    assert isinstance(found, Unavailable)
    assert found.remedy == "pip install 'hw-harness[tensorrt]'"


def test_it_is_registered() -> None:
    assert isinstance(registry.backend("tensorrt"), TensorRtBackend)


def test_precisions_are_those_that_an_onnx_graph_can_have() -> None:
    backend = TensorRtBackend()
    for precision in ("fp32", "int8", "fp16"):
        assert backend.wants(precision, SessionOptions("cuda:0")).format == "onnx"
    with pytest.raises(UsageError, match=r"bf16.*fp32 or int8 or fp16"):
        backend.wants("bf16", SessionOptions("cuda:0"))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("optimization_level", "6", "choose one of 3, 0, 1"),
        ("tf32", "yes", "choose one of off, on"),
        ("workspace_mib", "0", "whole number of mebibytes"),
        ("workspace_mib", "1e3", "whole number of mebibytes"),
        ("workspace_mib", "٣", "whole number of mebibytes"),
        ("batch_profile", "32-1", "smallest and largest batch"),
        ("batch_profile", "8", "smallest and largest batch"),
        ("int8", "on", "choose one of optimization_level"),
    ],
)
def test_an_option_is_refused_with_what_there_is(key: str, value: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        TensorRtBackend().wants("fp32", SessionOptions("cuda:0", options={key: value}))
    assert key in caught.value.message
    assert told in caught.value.remedy


# -- building -------------------------------------------------------------------------------------


def test_defaults_are_stated_and_tf32_is_off(machine: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"))
    (config,) = machine.trt.builds
    flags = machine.trt.BuilderFlag
    assert config.flags == set()
    assert config.builder_optimization_level == 3
    assert config.pools == {}
    assert config.profiles == []
    facts = session.describe().runtime
    assert (facts["tf32"], facts["optimization_level"]) == ("off", "3")
    assert (facts["workspace_mib"], facts["batch_profile"]) == ("all", "the batch alone")
    assert facts["version"] == machine.trt.__version__
    assert float(facts["engine_build_s"]) > 0
    assert facts["engine"] == "built"
    assert facts["activation_bytes"] == "4096"
    assert flags.TF32 not in config.flags
    session.close()


def test_every_option_reaches_the_builder(machine: Machine, tmp_path: Path) -> None:
    session = prepare(
        conv(tmp_path / "conv.onnx", "batch"),
        optimization_level="5",
        tf32="on",
        workspace_mib="256",
        batch_profile="1-8",
        timing_cache="off",
    )
    (config,) = machine.trt.builds
    flags = machine.trt.BuilderFlag
    assert config.flags == {flags.TF32}
    assert config.builder_optimization_level == 5
    assert config.pools == {machine.trt.MemoryPoolType.WORKSPACE: 256 << 20}
    assert config.timing is None
    (profile,) = config.profiles
    assert profile.shapes == {"x": ((1, 3, 8, 8), (2, 3, 8, 8), (8, 3, 8, 8))}
    assert infer(session)["y"].shape == (2, 4, 8, 8)
    session.close()


def test_an_open_batch_is_tuned_for_the_measured_one(gpu: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx", "batch"))
    (profile,) = gpu.trt.builds[0].profiles
    assert profile.shapes == {"x": (SHAPE, SHAPE, SHAPE)}
    session.close()


def test_a_profile_must_suit_model_and_batch(gpu: Machine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs a model whose batch is open"):
        prepare(conv(tmp_path / "fixed.onnx"), batch_profile="1-8")
    with pytest.raises(UsageError, match=r"4-8, and the batch is 2"):
        prepare(conv(tmp_path / "open.onnx", "batch"), batch_profile="4-8")


def test_an_input_that_decides_shapes_is_held_to_its_values(
    machine: Machine, tmp_path: Path
) -> None:
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    inputs = {"x": x, "shape": np.array([2, 8])}
    session = prepare(reshape(tmp_path / "reshape.onnx"), inputs, boundary="transfer")
    (profile,) = machine.trt.builds[0].profiles
    assert profile.values == {"shape": ((2, 8), (2, 8), (2, 8))}
    np.testing.assert_array_equal(infer(session)["y"], x.reshape(2, 8))
    with pytest.raises(DataError, match="'shape' decides shapes"):
        session.bind({"x": x, "shape": np.array([8, 2])})
    session.bind({"x": x + 1, "shape": np.array([2, 8])})
    np.testing.assert_array_equal(infer(session)["y"], (x + 1).reshape(2, 8))
    session.close()


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
def test_an_output_that_is_a_shape_lies_on_the_host(
    gpu: Machine, tmp_path: Path, boundary: str
) -> None:
    inputs = {"x": np.ones((4, 4), np.float32)}
    session = prepare(shape_of(tmp_path / "shape.onnx"), inputs, boundary=boundary)
    np.testing.assert_array_equal(infer(session)["y"], [4, 4])
    assert session.asynchronous
    session.close()


def test_parser_errors_name_the_node(machine: Machine, tmp_path: Path) -> None:
    machine.trt.parser_errors = [
        {"node_name": "/head/Unique", "node_operator": "Unique", "desc": "false"},
        {"node_name": "", "node_operator": "", "desc": "the graph is no DAG"},
        {"node_name": "", "node_operator": "Foo", "desc": "unknown"},
        {"node_name": "b", "node_operator": "Bar", "desc": "unknown"},
    ]
    with pytest.raises(ModelError) as caught:
        prepare(conv(tmp_path / "conv.onnx"))
    message = str(caught.value)
    told = "node '/head/Unique' (Unique): the parser has no such operator; the graph is no DAG"
    assert told in message
    assert "node 3 (Foo): unknown (and 1 more)" in message
    assert "--backend onnxruntime" in message


def test_a_file_that_is_no_model_is_one_line(gpu: Machine, tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"\x08\x07garbage")
    with pytest.raises(ModelError, match=r"cannot parse .*no\.onnx.*Failed to parse"):
        prepare(path)
    with pytest.raises(ModelError, match="no such model file"):
        TensorRtBackend().prepare(
            msgspec.structs.replace(artifact_of(path, draw(1)), path="/nowhere.onnx"),
            draw(1),
            SessionOptions("cuda:0"),
        )
    torch = msgspec.structs.replace(artifact_of(path, draw(1)), format="torch")
    with pytest.raises(ModelError, match="runs onnx files, not 'torch'"):
        TensorRtBackend().prepare(torch, draw(1), SessionOptions("cuda:0"))


def test_other_inputs_than_the_models_are_refused(gpu: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    with pytest.raises(ModelError, match=r"takes the inputs 'x' and was given 'z'"):
        prepare(path, {"z": draw(1)["x"]})
    with pytest.raises(ModelError, match=r"input 'x' is float64, the engine takes float32"):
        prepare(path, {"x": draw(1)["x"].astype(np.float64)})


def test_a_failed_build_says_what_the_log_says(machine: Machine, tmp_path: Path) -> None:
    machine.trt.build_error = "Error Code 10: Internal Error (Could not find any implementation)"
    with pytest.raises(MeasurementFailed, match="Could not find any implementation") as caught:
        prepare(conv(tmp_path / "conv.onnx"))
    assert caught.value.remedy.startswith("try another --precision")
    machine.trt.build_error = "Error Code 2: OutOfMemory (Requested size was 9663676416 bytes.)"
    with pytest.raises(MeasurementFailed, match="out of device memory") as caught:
        prepare(conv(tmp_path / "conv.onnx"))
    assert "lower --batch-size" in caught.value.remedy


def test_a_driver_that_tensorrt_cannot_use(machine: Machine, tmp_path: Path) -> None:
    machine.trt.no_driver = True
    with pytest.raises(BackendUnavailable, match=r"cannot start its runtime.*returned nullptr"):
        prepare(conv(tmp_path / "conv.onnx"))


# -- the cache, as a session sees it --------------------------------------------------------------


def engine_note(session: TensorRtSession) -> str:
    session_note = session.describe().runtime["engine"]
    session.close()
    return session_note


def test_an_engine_is_built_once(machine: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    first = prepare(path)
    built = first.describe().runtime["engine_build_s"]
    first.close()
    again = prepare(path)
    facts = again.describe().runtime
    assert (facts["engine"], facts["engine_build_s"]) == ("from the cache", built)
    again.close()
    assert len(machine.trt.builds) == 1
    assert engine_note(prepare(path, engine_cache="off")) == "built, engine_cache=off"
    assert len(machine.trt.builds) == 2
    assert engine_note(prepare(path, tf32="on")) == "built"
    assert engine_note(prepare(path, boundary="transfer")) == "from the cache"
    assert engine_note(prepare(path, cuda_graph="on")) == "from the cache"


def test_another_gpu_driver_or_version_builds_its_own(gpu: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    prepare(path).close()
    gpu.gpus[0] = device(0, "NVIDIA Other GPU")
    assert engine_note(prepare(path)) == "built"
    gpu.gpus[0] = msgspec.structs.replace(device(0), driver_cuda="13.1")
    assert engine_note(prepare(path)) == "built"
    gpu.gpus[0] = device(0)
    gpu.trt.__version__ = "11.5.0"
    assert engine_note(prepare(path)) == "built"
    assert engine_note(prepare(path, device="cuda:1")) == "from the cache"  # the same model of GPU


def test_a_corrupt_engine_never_reaches_tensorrt(gpu: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    prepare(path).close()
    (plan,) = (tmp_path / "cache" / "tensorrt").glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:-9])  # the fake would fail on it
    note = engine_note(prepare(path))
    assert note.startswith("rebuilt, the cached one was not used: the plan was damaged")
    assert engine_note(prepare(path)) == "from the cache"


def test_an_engine_that_tensorrt_refuses_is_built_anew(gpu: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    prepare(path).close()
    gpu.trt.refuses_plan = "The engine plan file is not compatible with this version of TensorRT"
    note = engine_note(prepare(path))
    assert note.startswith("rebuilt")
    assert "not compatible with this version" in note
    assert engine_note(prepare(path)) == "from the cache"


def test_a_device_without_memory_costs_no_engine(gpu: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    prepare(path).close()
    gpu.trt.refuses_plan = "[defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(MeasurementFailed, match="out of device memory"):
        prepare(path)
    assert engine_note(prepare(path)) == "from the cache"
    assert len(gpu.trt.builds) == 1


def test_an_engine_belongs_to_the_variables_that_it_was_built_under(
    gpu: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = conv(tmp_path / "conv.onnx")
    assert engine_note(prepare(path, tf32="on")) == "built"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # no TF32, whatever the program says
    assert engine_note(prepare(path, tf32="on")) == "built"
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert engine_note(prepare(path, tf32="on")) == "from the cache"


def test_timings_are_kept_for_the_next_build(machine: Machine, tmp_path: Path) -> None:
    prepare(conv(tmp_path / "a.onnx")).close()
    prepare(conv(tmp_path / "b.onnx", "batch")).close()
    assert [config.timing for config in machine.trt.builds] == [b"", b"+"]


def test_two_models_without_a_hash_are_told_apart(gpu: Machine, tmp_path: Path) -> None:
    for name, batch in (("a.onnx", 2), ("b.onnx", "batch")):
        path = conv(tmp_path / name, batch)
        unhashed = msgspec.structs.replace(artifact_of(path, draw(1)), sha256="")
        session = TensorRtBackend().prepare(unhashed, draw(1), SessionOptions("cuda:0"))
        assert engine_note(session) == "built"


def test_timings_of_another_make_are_left_aside(gpu: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "a.onnx")
    prepare(path).close()
    (timing,) = (tmp_path / "cache" / "tensorrt").glob("timing-*.cache")
    for data in (b"other", b""):
        timing.write_bytes(hashlib.sha256(data).digest() + data)
        prepare(path, engine_cache="off").close()
    timing.write_bytes(b"no digest")
    prepare(path, engine_cache="off").close()
    assert [config.timing for config in gpu.trt.builds] == [b""] * 4


def test_a_cache_that_cannot_be_written_costs_a_note(
    gpu: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("no folder")
    monkeypatch.setenv("HARNESS_CACHE", str(occupied))
    assert engine_note(prepare(conv(tmp_path / "conv.onnx"))).startswith("built; not kept: ")


# -- running --------------------------------------------------------------------------------------


def test_device_times_are_those_of_the_same_inferences(machine: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    copies = {"compute": 0, "transfer": 2}
    for boundary, count in copies.items():
        for graph in ("off", "on"):
            session = prepare(path, boundary=boundary, cuda_graph=graph)
            session.arm(3)
            enqueue, synchronize = session.enqueue, session.synchronize
            for _ in range(5):
                enqueue()
                synchronize()
            times = session.device_times_ms()
            assert times.dtype == np.float64
            np.testing.assert_allclose(times, [INFERENCE_MS + count * COPY_MS] * 3)
            session.arm(0)
            assert "events" not in machine.cuda.live
            session.enqueue()
            session.synchronize()
            assert session.device_times_ms().size == 0
            session.close()


def test_a_graph_is_captured_after_an_inference_and_launched(
    machine: Machine, tmp_path: Path
) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"), cuda_graph="on")
    machine.cuda.calls.clear()
    infer(session)
    assert machine.cuda.calls.count("cudaGraphLaunch") == 1
    assert session.describe().runtime["cuda_graph"] == "on"
    session.close()


def test_a_graph_that_cannot_be_captured_is_refused(machine: Machine, tmp_path: Path) -> None:
    path = conv(tmp_path / "conv.onnx")
    machine.trt.uncapturable = True
    with pytest.raises(UsageError, match=r"cannot be captured as a CUDA graph: .*cannot be capt"):
        prepare(path, cuda_graph="on")
    machine.trt.uncapturable = False
    for call in ("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"):
        machine.cuda.fail(call, "cudaErrorStreamCaptureInvalidated")
        with pytest.raises(UsageError, match="cudaErrorStreamCaptureInvalidated") as caught:
            prepare(path, cuda_graph="on")
        assert "cuda_graph=off" in caught.value.remedy
        machine.cuda.faults.clear()
        machine.cuda.graphs.clear()  # what the failed end of a capture left in the fake


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
def test_an_output_whose_size_depends_on_the_data(
    machine: Machine, tmp_path: Path, boundary: str
) -> None:
    few = np.zeros((4, 4), np.float32)
    few[1, 2] = 1
    session = prepare(nonzero(tmp_path / "n.onnx"), {"x": few}, boundary=boundary)
    assert not session.asynchronous
    session.bind({"x": few})  # before anything has run
    np.testing.assert_array_equal(infer(session)["y"], [[1], [2]])
    many = np.ones((4, 4), np.float32)
    session.bind({"x": many})
    np.testing.assert_array_equal(infer(session)["y"], np.nonzero(many))
    session.bind({"x": np.zeros((4, 4), np.float32)})
    assert infer(session)["y"].shape == (2, 0)
    session.arm(1)
    infer(session)
    assert session.device_times_ms().size == 1
    session.close()


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
def test_tensors_without_elements(gpu: Machine, tmp_path: Path, boundary: str) -> None:
    inputs = {"x": np.zeros((0, 4), np.float32)}
    session = prepare(emptied(tmp_path / "e.onnx"), inputs, boundary=boundary)
    assert infer(session)["y"].shape == (0, 4)
    session.close()


def test_such_an_output_and_a_graph_exclude_each_other(gpu: Machine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"depends on the data, as 'y' does"):
        prepare(nonzero(tmp_path / "n.onnx"), {"x": np.ones((4, 4), np.float32)}, cuda_graph="on")


def test_memory_that_runs_out_within_an_inference(gpu: Machine, tmp_path: Path) -> None:
    session = prepare(nonzero(tmp_path / "n.onnx"), {"x": np.ones((4, 4), np.float32)})
    gpu.cuda.fail("cudaMalloc", "cudaErrorMemoryAllocation")
    with pytest.raises(MeasurementFailed, match="out of device memory"):
        session.enqueue()
    session.close()


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("cudaMalloc", 0),
        ("cudaMalloc", 1),
        ("cudaMallocHost", 0),
        ("cudaMallocHost", 1),
        ("cudaStreamCreateWithFlags", 0),
        ("cudaStreamSynchronize", 0),
    ],
)
def test_whatever_cannot_be_had_the_rest_is_freed(
    gpu: Machine, tmp_path: Path, call: str, after: int
) -> None:
    gpu.cuda.fail(call, "cudaErrorMemoryAllocation", after)
    with pytest.raises(MeasurementFailed, match=r"cuda:0: out of device memory"):
        prepare(conv(tmp_path / "conv.onnx"), boundary="transfer")


def test_a_context_without_memory(gpu: Machine, tmp_path: Path) -> None:
    gpu.trt.context_error = "Error Code 2: OutOfMemory (Requested size was 1 bytes.)"
    with pytest.raises(MeasurementFailed, match="execution context: out of device memory"):
        prepare(conv(tmp_path / "conv.onnx"))


def test_a_device_in_exclusive_use(gpu: Machine, tmp_path: Path) -> None:
    gpu.cuda.fail("cudaSetDevice", "cudaErrorDevicesUnavailable")
    with pytest.raises(BackendUnavailable, match="in exclusive use by another") as caught:
        prepare(conv(tmp_path / "conv.onnx"))
    assert "nvidia-smi" in caught.value.remedy


def test_an_inference_that_fails_is_never_a_measurement(machine: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"))
    machine.trt.enqueue_error = "Error Code 1: Cuda Runtime (an illegal memory access)"
    with pytest.raises(MeasurementFailed, match=r"failed to run the model: .*illegal memory"):
        session.enqueue()
    machine.trt.enqueue_error = ""
    machine.cuda.fail("cudaStreamSynchronize", "cudaErrorLaunchFailure")
    session.enqueue()
    with pytest.raises(MeasurementFailed, match=r"on cuda:0: .*cudaErrorLaunchFailure"):
        session.synchronize()
    session.close()  # the device stays broken, and everything is freed all the same
    machine.cuda.faults.clear()


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("cudaErrorMemoryAllocation", MeasurementFailed, "out of device memory"),
        ("cudaErrorDevicesUnavailable", BackendUnavailable, "in exclusive use"),
        ("cudaErrorInsufficientDriver", BackendUnavailable, "driver is too old"),
        ("cudaErrorInvalidDevice", BackendUnavailable, "no such device"),
        ("cudaErrorIllegalAddress", MeasurementFailed, "a kernel of the model failed"),
        ("cudaErrorNotReady", MeasurementFailed, "cudaErrorNotReady"),
    ],
)
def test_errors_of_the_real_cuda_are_ours(name: str, kind: type[HarnessError], told: str) -> None:
    """The texts are those of the real runtime, which knows them without a driver."""
    from harness.backends.cuda import Cuda

    made = Cuda(cuda_runtime, 1).error(getattr(cuda_runtime.cudaError_t, name), "doing it")
    assert type(made) is kind
    assert made.message.startswith("doing it on cuda:1: ")
    assert told in made.message


def test_events_and_graphs_that_fail_are_reported(gpu: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"), cuda_graph="on")
    session.arm(2)
    gpu.cuda.fail("cudaEventRecord", "cudaErrorInvalidResourceHandle")
    with pytest.raises(MeasurementFailed, match="recording an event"):
        session.enqueue()
    gpu.cuda.faults.clear()
    gpu.cuda.fail("cudaGraphLaunch", "cudaErrorLaunchFailure")
    with pytest.raises(MeasurementFailed, match="launching the CUDA graph"):
        session.enqueue()
    gpu.cuda.faults.clear()
    session.close()


def test_a_second_device_works_from_any_thread(machine: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"), device="cuda:1")
    expected = infer(session)["y"]
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(infer(session)["y"]))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(got[0], expected)
    session.close()


def test_a_closed_session_refuses(gpu: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"))
    session.close()
    for call in (session.enqueue, session.synchronize, session.outputs, session.describe):
        with pytest.raises(MeasurementFailed, match="closed"):
            call()


def test_memory_is_told_as_far_as_it_is_known(machine: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"))
    found = session.device_memory()
    peak = found["allocator_peak_bytes"]
    assert isinstance(peak, Unavailable)
    assert found["activation_bytes"] == 4096
    assert found["io_bytes"] == 4 * (2 * 3 * 8 * 8 + 2 * 4 * 8 * 8)
    session.reset_device_peak()
    session.close()


# -- describing -----------------------------------------------------------------------------------


def test_layers_have_precisions_and_times(machine: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"), boundary="transfer")
    before = infer(session)["y"]
    described = session.describe()
    assert described.operators == {"Conv": {"fp32": 1}, "Relu": {"fp32": 1}}
    rows = [Layer("conv", "Conv", "fp32", 0.5), Layer("relu", "Relu", "fp32", 0.5)]
    assert described.layers == Layers(1.0, tuple(rows))
    assert not {"layers", "layer_times"} & described.runtime.keys()
    np.testing.assert_array_equal(infer(session)["y"], before)
    session.close()


def test_layers_that_cannot_be_read_say_why(gpu: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"))
    for text in ("{", "[]", '{"Layers": ["conv"]}', "null"):
        gpu.trt.layers = text
        found = session.describe().operators
        assert isinstance(found, Unavailable)
        assert "layers cannot be read" in found.reason
        assert session.describe().layers == found
    unknown = [{"Name": "n", "LayerType": "Conv", "Inputs": [{"DataType": "Float6"}]}]
    gpu.trt.layers = json.dumps({"Layers": unknown})
    found = session.describe().operators
    assert isinstance(found, Unavailable) and "words that are not known" in found.reason
    gpu.trt.layers = None
    gpu.trt.context_error = "OutOfMemory"
    described = session.describe()
    assert not isinstance(described.operators, Unavailable)
    assert isinstance(described.layers, Layers)
    assert isinstance(described.layers.total_ms, Unavailable)
    assert "out of device memory" in described.layers.total_ms.reason
    assert [layer.ms for layer in described.layers.rows] == [None, None]
    session.close()


def test_an_inspector_that_fails_with_shapes_is_asked_without(gpu: Machine, tmp_path: Path) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"))
    gpu.trt.layers_need_no_context = True
    assert session.describe().operators == {"Conv": {"fp32": 1}, "Relu": {"fp32": 1}}
    session.close()


def test_nothing_is_printed(
    machine: Machine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = prepare(conv(tmp_path / "conv.onnx"))
    machine.trt.say("an error")
    machine.trt.say("a doubt", "WARNING")
    machine.trt.say("a word", "VERBOSE")
    session.close()
    assert capfd.readouterr() == ("", "")


def test_the_driver_is_read_from_the_kernel_module(
    gpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build"
    monkeypatch.setattr(tensorrt_engine, "read_text", lambda *_: text)
    assert tensorrt_engine.platform(gpu.trt, device(0)).driver == "580.95.05 (CUDA 13.0)"
    monkeypatch.setattr(tensorrt_engine, "read_text", lambda *_: None)
    assert tensorrt_engine.platform(gpu.trt, device(0)).driver == "unknown (CUDA 13.0)"
