"""TensorRT for RTX: its real parser and builder, and sessions over a fake held to its real names.

Building needs no GPU, so nothing of it is faked; what runs on a GPU alone is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import registry
from harness.backends.tensorrt import backend as adapter
from harness.backends.tensorrt.log import log_of
from harness.backends.tensorrt_rtx.backend import LIBRARY, TensorRtRtxBackend
from harness.errors import BackendUnavailable, ModelError, UsageError
from harness.maybe import Unavailable
from harness.models.cache import Cache
from harness.models.prepare import assemble
from harness.protocols import Artifact, CompilesAtLoad, Node, SessionOptions, TensorSpec, Wanted
from harness.spec import RunSpec
from harness.testing.contract_backend import BackendContract, Subject, infer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
cuda_runtime = pytest.importorskip("cuda.bindings.runtime")
from cuda_fake import FakeCuda  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from tensorrt_fake import FakeTensorRT  # noqa: E402
from tensorrt_names import Names, rtx_names  # noqa: E402
from test_backend_tensorrt import (  # noqa: E402
    Machine,
    artifact_of,
    conv,
    draw,
    save,
)


@pytest.fixture(scope="session")
def rtx() -> Names:
    try:
        return rtx_names()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def gpu(rtx: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """A fake library behind the real names, on a machine with two GPUs."""
    made = Machine.__new__(Machine)
    Machine.__init__(made, rtx)
    made.trt = FakeTensorRT(rtx, made.cuda, LIBRARY.module)
    monkeypatch.setitem(sys.modules, LIBRARY.module, made.trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", made.cuda)
    monkeypatch.setattr(adapter, "cuda_device", made.cuda_device)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    yield made
    assert isinstance(made.cuda, FakeCuda)
    assert made.cuda.live == {}


def engine(path: Path, folder: Path, inputs: dict[str, Any], **options: str) -> Artifact:
    """What the builder's process makes of ``path``."""
    target = folder / "engine"
    source = artifact_of(path, inputs)
    backend = TensorRtRtxBackend()
    facts = backend.make_artifact(source, target, SessionOptions("cuda:0", options=options))
    return Artifact(
        LIBRARY.engine_format,
        str(target),
        "",
        "fp32",
        facts["engine_sha256"],
        target.stat().st_size,
        source.inputs,
        facts=facts,
    )


class TestContract(BackendContract):
    """With and without a CUDA graph."""

    @pytest.fixture(params=["off", "on"])
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path, gpu: Machine) -> Subject:
        path = conv(tmp_path / "conv.onnx")
        options = SessionOptions(device="cuda:0", options={"cuda_graph": request.param})
        artifact = engine(path, tmp_path, draw(1))
        return Subject(TensorRtRtxBackend, artifact, draw(1), draw(2), "tensorrt-rtx", options)

    @pytest.fixture(autouse=True)
    def closed(self, gpu: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        sessions: list[Any] = []
        plain = TensorRtRtxBackend.prepare

        def remember(*args: Any) -> Any:
            sessions.append(plain(*args))
            return sessions[-1]

        monkeypatch.setattr(TensorRtRtxBackend, "prepare", remember)
        yield
        for session in sessions:
            session.close()


def test_an_engine_is_asked_for_and_made_of_a_symmetric_graph() -> None:
    wanted = TensorRtRtxBackend().wants("int8", SessionOptions("cuda:0"))
    assert wanted == Wanted("tensorrt-rtx-engine", of=Wanted("onnx", symmetric=True))
    with pytest.raises(UsageError, match="no bf16 graph is to be had"):
        TensorRtRtxBackend().wants("bf16", SessionOptions("cuda:0"))


@pytest.mark.parametrize("text", ["sm8", "ampere", "", "sm89,", "current,sm89", "sm89 sm90"])
def test_targets_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--option targets is"):
        TensorRtRtxBackend().wants("fp32", SessionOptions("cuda:0", options={"targets": text}))


def test_options_of_tensorrt_that_mean_nothing_here() -> None:
    for name in ("timing_cache", "optimization_level"):
        with pytest.raises(UsageError, match=f"tensorrt-rtx has no option '{name}'"):
            TensorRtRtxBackend().wants("fp32", SessionOptions("cuda:0", options={name: "0"}))


def test_kernels_are_kept_between_processes(gpu: Machine, tmp_path: Path) -> None:
    artifact = engine(conv(tmp_path / "conv.onnx"), tmp_path, draw(1))

    def kernels() -> str:
        session = TensorRtRtxBackend().prepare(artifact, draw(1), SessionOptions("cuda:0"))
        infer(session)
        told = session.describe().runtime
        session.close()
        assert told["specialization"] == "eager"
        return told["kernels"]

    assert kernels() == "compiled anew"
    assert kernels() == "from the runtime cache"
    gpu.trt.refuses_kernels = True
    assert kernels() == "compiled anew, the runtime refused what was kept"


def test_contexts_compile_for_the_shape_at_once(gpu: Machine, tmp_path: Path) -> None:
    """A kernel that is compiled in the background would be compiled beside what is timed."""
    artifact = engine(conv(tmp_path / "conv.onnx"), tmp_path, draw(1))
    session = TensorRtRtxBackend().prepare(artifact, draw(1), SessionOptions("cuda:0"))
    config = gpu.trt.contexts[0]
    strategies = gpu.trt.DynamicShapesKernelSpecializationStrategy
    assert config.dynamic_shapes_kernel_specialization_strategy == strategies.EAGER
    assert config.cuda_graph_strategy == gpu.trt.CudaGraphStrategy.DISABLED
    session.close()


def test_a_file_that_was_changed_is_no_engine(gpu: Machine, tmp_path: Path) -> None:
    artifact = engine(conv(tmp_path / "conv.onnx"), tmp_path, draw(1))
    Path(artifact.path).write_bytes(b"other")
    with pytest.raises(ModelError, match="was changed since it was built; build it anew"):
        TensorRtRtxBackend().prepare(artifact, draw(1), SessionOptions("cuda:0"))


def test_the_facts_of_building_are_told(gpu: Machine, tmp_path: Path) -> None:
    artifact = engine(conv(tmp_path / "conv.onnx"), tmp_path, draw(1), targets="sm86,sm89")
    options = SessionOptions("cuda:0", options={"targets": "sm86,sm89"})
    session = TensorRtRtxBackend().prepare(artifact, draw(1), options)
    told = session.describe().runtime
    session.close()
    assert told["targets"] == "sm86,sm89"
    assert isinstance(session, CompilesAtLoad) and session.compile_s >= 0
    assert told["engine"] == "built"
    assert told["engine_bytes"] == str(Path(artifact.path).stat().st_size)
    assert list(gpu.trt.builds[0].targets.values()) == [86, 89]


# -- the real builder -----------------------------------------------------------------------------


@pytest.fixture
def real(rtx: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("real")
class TestBuilder:
    def test_an_engine_is_built_once(self, tmp_path: Path) -> None:
        path = conv(tmp_path / "conv.onnx")
        first = engine(path, tmp_path, draw(1), targets="sm89")
        again = engine(path, tmp_path, draw(1), targets="sm89")
        other = engine(path, tmp_path, draw(1), targets="sm86,sm120")
        assert [one.facts["engine"] for one in (first, again, other)] == [
            "built", "from the cache", "built",
        ]  # fmt: skip
        assert again.sha256 == first.sha256 != other.sha256
        assert Path(other.path).read_bytes()[:4] == b"vtrt"

    def test_an_architecture_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"targets names sm42; known are sm75,.*sm120"):
            engine(conv(tmp_path / "conv.onnx"), tmp_path, draw(1), targets="sm42")

    def test_the_current_architecture_needs_a_gpu(self, tmp_path: Path) -> None:
        if not isinstance(adapter.cuda_device("cuda"), Unavailable):
            pytest.skip("there is a GPU here")
        with pytest.raises(BackendUnavailable):
            engine(conv(tmp_path / "conv.onnx"), tmp_path, draw(1), targets="current")

    def test_a_batch_may_be_open(self, tmp_path: Path) -> None:
        path = conv(tmp_path / "conv.onnx", "batch")
        assert engine(path, tmp_path, draw(1)).facts["engine"] == "built"
        assert engine(path, tmp_path, draw(1), batch_profile="1-8").facts["engine"] == "built"
        with pytest.raises(UsageError, match="batch_profile is 4-8, and the batch is 2"):
            engine(path, tmp_path, draw(1), batch_profile="4-8")


# -- the zoo, and what a parser meets in the wild ------------------------------------------------


def examined(path: Path) -> list[Node]:
    spec = TensorSpec("x", "float32", (4,))
    source = Artifact("onnx", str(path), "", "fp32", "", path.stat().st_size, (spec,))
    return TensorRtRtxBackend().examine(source, SessionOptions("cuda:0"))


def unary(
    path: Path, *operators: str, dims: list[Any] | None = None, domain: str = "", opset: int = 17
) -> Path:
    """A chain of operators of one input and one output; the names are those of the operators."""
    dims = [4] if dims is None else dims
    names = ["x", *(f"t{index}" for index in range(1, len(operators))), "y"]
    nodes = [
        helper.make_node(kind, [names[i]], [names[i + 1]], kind.lower(), domain=domain)
        for i, kind in enumerate(operators)
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in "xy"]
    graph = helper.make_graph(nodes, "chain", value[:1], value[1:])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] * bool(domain))]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_built_in_model_is_built(
    precision: Any, rtx: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the model to the engine, as the builder's process does it."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    spec = RunSpec(backend="tensorrt-rtx", device="cuda:0", precision=precision)
    wanted = TensorRtRtxBackend().wants(precision, SessionOptions("cuda:0"))
    made = assemble(spec, wanted, Cache(tmp_path, building=True)).artifact
    assert made.format == "tensorrt-rtx-engine"
    assert made.facts["engine"] == "built"
    assert int(made.facts["network_layers"]) >= 20
    assert int(made.facts["engine_bytes"]) == made.size_bytes


@pytest.mark.usefixtures("real")
class TestParser:
    def test_every_node_that_it_refuses_is_named(self, tmp_path: Path) -> None:
        found = examined(unary(tmp_path / "m.onnx", "Relu", "Unique", "Det", "Neg"))
        assert [(node.name, node.taken) for node in found] == [
            ("relu", True), ("unique", False), ("det", False), ("neg", True),
        ]  # fmt: skip
        assert {node.reason for node in found if not node.taken} == {
            "the parser has no such operator"
        }
        with pytest.raises(ModelError) as refused:
            engine(tmp_path / "m.onnx", tmp_path, {"x": np.zeros(4, np.float32)})
        assert "node 'unique' (Unique): the parser has no such operator" in str(refused.value)
        assert "cuda" not in str(refused.value).lower()  # its absence is not the model's fault

    def test_an_operator_of_somebodys_own(self, tmp_path: Path) -> None:
        (found,) = examined(unary(tmp_path / "m.onnx", "Fancy", domain="my.own"))
        assert (found.name, found.type, found.taken) == ("fancy", "Fancy", False)
        assert found.reason.startswith("Plugin not found")

    def test_asymmetric_biases_are_refused_by_name(self, tmp_path: Path) -> None:
        """What ONNX Runtime's own quantization writes, and this parser cannot read."""
        scale = numpy_helper.from_array(np.float32(0.1), "s")
        held = numpy_helper.from_array(np.ones(4, np.int32), "b")
        nodes = [
            helper.make_node("DequantizeLinear", ["b", "s"], ["d"], "bias"),
            helper.make_node("Add", ["x", "d"], ["y"], "sum"),
        ]
        save(
            tmp_path / "m.onnx",
            nodes,
            [("x", TensorProto.FLOAT, [4])],
            [("y", TensorProto.FLOAT, [4])],
            [scale, held],
        )
        found = examined(tmp_path / "m.onnx")
        assert found[0].taken is False
        assert "Int32" in found[0].reason
        assert "cudaError" not in found[0].reason

    def test_a_graph_with_subgraphs(self, tmp_path: Path) -> None:
        path = branching(tmp_path / "m.onnx", "Neg")
        assert [(node.type, node.taken) for node in examined(path)] == [("If", True)]
        inputs = {"x": np.zeros(4, np.float32), "c": np.array(True)}
        assert engine(path, tmp_path, inputs).facts["engine"] == "built"

    def test_what_is_refused_within_a_subgraph_is_named(self, tmp_path: Path) -> None:
        (found,) = examined(branching(tmp_path / "m.onnx", "Unique"))
        assert (found.name, found.taken) == ("cond", False)
        assert found.reason == "node 'in_else' (Unique): the parser has no such operator"

    def test_weights_outside_of_the_file(self, tmp_path: Path) -> None:
        path = conv(tmp_path / "conv.onnx")
        model = onnx.load(str(path))
        inside = engine(path, tmp_path, draw(1)).sha256
        onnx.save(
            model, str(tmp_path / "out.onnx"), save_as_external_data=True, location="w.bin",
            size_threshold=0,
        )  # fmt: skip
        assert (tmp_path / "w.bin").exists()
        assert engine(tmp_path / "out.onnx", tmp_path, draw(1)).sha256 == inside
        (tmp_path / "w.bin").unlink()
        with pytest.raises(ModelError):
            engine(tmp_path / "out.onnx", tmp_path, draw(1), engine_cache="off")

    def test_text_is_refused_as_a_whole(self, tmp_path: Path) -> None:
        save(
            tmp_path / "m.onnx",
            [helper.make_node("Identity", ["x"], ["y"], "same")],
            [("x", TensorProto.STRING, [4])],
            [("y", TensorProto.STRING, [4])],
        )
        with pytest.raises(ModelError, match="Failed to convert ONNX dat"):
            examined(tmp_path / "m.onnx")


def branching(path: Path, otherwise: str) -> Path:
    """An If whose second branch holds the operator ``otherwise``."""
    branches = []
    for kind, name in (("Relu", "in_then"), (otherwise, "in_else")):
        told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])]
        node = helper.make_node(kind, ["x"], [name], name)
        branches.append(helper.make_graph([node], name, [], told))
    cond = helper.make_node(
        "If", ["c"], ["y"], "cond", then_branch=branches[0], else_branch=branches[1]
    )
    return save(
        path,
        [cond],
        [("x", TensorProto.FLOAT, [4]), ("c", TensorProto.BOOL, [])],
        [("y", TensorProto.FLOAT, [4])],
    )


def test_what_follows_an_error_without_a_driver_is_not_its_cause(gpu: Machine) -> None:
    log = log_of(gpu.trt, LIBRARY.title)
    with pytest.raises(ModelError) as raised, log.mapped("it cannot be parsed", ModelError):
        gpu.trt.logger = log.native
        gpu.trt.say("ITensor::getDimensions: input has type Int32")
        gpu.trt.say("[checkMacros.cpp::catchCudaError::250] Cuda Runtime (cudaError 35: too old)")
        raise RuntimeError
    assert str(raised.value) == "it cannot be parsed: ITensor::getDimensions: input has type Int32"


def test_it_is_registered() -> None:
    assert "tensorrt-rtx" in registry.backend_names()
    told = registry.declared("tensorrt-rtx")
    assert told.default_device == "cuda"
    assert told.options[0].name == "targets"
