"""The ONNX Runtime adapter on CUDA: the real runtime and its real Python API, the device's calls
checked against NVIDIA's own bindings, and the memory on the host, since no GPU is at hand here."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from harness.backends import cuda as cuda_module
from harness.backends.onnxruntime import backend as onnxruntime
from harness.backends.onnxruntime import buffers
from harness.backends.onnxruntime import cuda as onnxruntime_cuda
from harness.backends.onnxruntime import module as onnxruntime_module
from harness.backends.onnxruntime import options as onnxruntime_options
from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.backends.onnxruntime.cuda import CudaSession
from harness.backends.onnxruntime.operators import read_profile
from harness.backends.onnxruntime.options import CPU, CUDA, TENSORRT, engines_folder, providers
from harness.errors import BackendUnavailable, MeasurementFailed, ModelError, UsageError
from harness.maybe import Unavailable
from harness.protocols import (
    Artifact,
    Asynchronous,
    Available,
    DeviceMemory,
    DeviceTimed,
    SessionOptions,
)

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

ENGINES = Path("/engines")
# As the providers' own libraries of onnxruntime-gpu 1.31.1 spell them (read with `strings`).
CUDA_NAMES = {
    "device_id", "has_user_compute_stream", "user_compute_stream", "use_tf32",
    "cudnn_conv_algo_search", "arena_extend_strategy", "do_copy_in_default_stream",
    "enable_cuda_graph", "gpu_mem_limit", "prefer_nhwc", "cudnn_conv_use_max_workspace",
}  # fmt: skip
TENSORRT_NAMES = {
    "device_id", "has_user_compute_stream", "user_compute_stream", "trt_engine_cache_enable",
    "trt_engine_cache_path", "trt_timing_cache_enable", "trt_timing_cache_path", "trt_fp16_enable",
    "trt_int8_enable", "trt_cuda_graph_enable", "trt_max_workspace_size",
}  # fmt: skip


def options(boundary: str = "compute", device: str = "cuda:0", **given: str) -> SessionOptions:
    return SessionOptions(device=device, boundary=boundary, options=given)


def x(seed: int = 1) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).random((2, 3), np.float32)}


@pytest.fixture
def doubler(tmp_path: Path) -> Artifact:
    """Two outputs, x + x and its transpose."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["sum"], "twice"),
            helper.make_node("Transpose", ["sum"], ["turned"], "turn"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("sum", "turned")],
    )
    path = tmp_path / "doubler.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return Artifact("onnx", str(path), "", "fp32", "", 0, ())


class Bindings:
    """cuda.bindings.runtime on the host: names, constants and errors are the real module's.

    Copies happen when they are queued; an event's time is its place in ``log``.
    """

    def __init__(self) -> None:
        self.real: Any = pytest.importorskip("cuda.bindings.runtime")
        self.log: list[str] = []
        self.fail: dict[str, Any] = {}
        self.blocks: dict[int, Any] = {}
        self.events: dict[int, int] = {}
        self.good = self.real.cudaError_t.cudaSuccess

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)  # an AttributeError: the bindings have no such thing
        if not name.startswith("cuda") or not callable(found) or isinstance(found, type):
            return found
        if name == "cudaGetErrorString":
            return found
        return mock.create_autospec(found, side_effect=lambda *a: self._call(name, *a))

    def _call(self, name: str, *args: Any) -> tuple[Any, ...]:
        self.log.append(name.removeprefix("cuda"))
        if name in self.fail:
            return (self.fail[name], None)
        return (self.good, *getattr(self, f"_{name}", lambda *_: ())(*args))

    def _cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any]:  # noqa: N802
        assert flags == self.real.cudaStreamNonBlocking
        return (self.real.cudaStream_t(77),)

    def _cudaEventCreateWithFlags(self, flags: int) -> tuple[Any]:  # noqa: N802
        assert flags == self.real.cudaEventDefault
        return (self.log.count("EventCreateWithFlags"),)

    def _cudaEventRecord(self, event: int, stream: Any) -> tuple[()]:  # noqa: N802
        self.events[event] = len(self.log)
        return ()

    def _cudaEventElapsedTime(self, start: int, end: int) -> tuple[float]:  # noqa: N802
        return (float(self.events[end] - self.events[start]),)

    def _cudaMallocHost(self, size: int) -> tuple[int]:  # noqa: N802
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return (ctypes.addressof(block),)

    def _cudaFreeHost(self, address: int) -> tuple[()]:  # noqa: N802
        del self.blocks[address]
        return ()

    def _cudaMemcpyAsync(  # noqa: N802
        self, to: int, source: int, size: int, kind: Any, stream: Any
    ) -> tuple[()]:
        ctypes.memmove(to, source, size)
        return ()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bindings]:
    made = Bindings()
    on_the_host(monkeypatch, made)
    yield made
    assert made.blocks == {}


def on_the_host(monkeypatch: pytest.MonkeyPatch, bindings: Any) -> None:
    """The CPU provider and host memory in the device's place; the bindings as given."""
    available = Available({"device": "NVIDIA H200"})
    monkeypatch.setattr(onnxruntime, "_cuda_availability", lambda device: available)
    monkeypatch.setattr(buffers, "DEVICE", "cpu")
    monkeypatch.setattr(onnxruntime_module, "providers", lambda *args: [(CPU, {})])
    monkeypatch.setattr(onnxruntime_module, "wanted", lambda options: CPU)
    monkeypatch.setattr(cuda_module, "import_framework", lambda *args: bindings)


def prepared(artifact: Artifact, chosen: SessionOptions, seed: int = 1) -> Any:
    session = OnnxRuntimeBackend().prepare(artifact, x(seed), chosen)
    assert isinstance(session, CudaSession)
    return session


def infer(session: Any) -> dict[str, Any]:
    session.enqueue()
    session.synchronize()
    outputs: dict[str, Any] = session.outputs()
    return outputs


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
@pytest.mark.parametrize("graph", ["off", "on"])
def test_outputs_follow_the_inputs(
    cuda: Bindings, doubler: Artifact, boundary: str, graph: str
) -> None:
    session = prepared(doubler, options(boundary, cuda_graph=graph))
    for seed in (1, 2, 1):
        session.bind(x(seed))
        for _ in range(2):
            outputs = infer(session)
            np.testing.assert_array_equal(outputs["sum"], 2 * x(seed)["x"])
            np.testing.assert_array_equal(outputs["turned"], 2 * x(seed)["x"].T)
    session.close()
    session.close()
    with pytest.raises(MeasurementFailed, match="closed"):
        session.enqueue()


def test_biases_stay_in_fp32_on_a_device(cuda: Bindings, tmp_path: Path) -> None:
    """The runtime would make int32 of them, with a node that only the CPU can compute."""
    values = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
            helper.make_node("Conv", ["d", "v", "b"], ["c"], name="conv"),
            helper.make_node("QuantizeLinear", ["c", "s", "z"], ["p"]),
            helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"]),
        ],
        "biased",
        [helper.make_tensor_value_info("x", 1, (1, 4, 6, 6))],
        [helper.make_tensor_value_info("y", 1, (1, 2, 4, 4))],
        [
            numpy_helper.from_array(np.array(0.1, np.float32), "s"),
            numpy_helper.from_array(np.array(0, np.int8), "z"),
            numpy_helper.from_array(values.integers(-90, 90, (2, 4, 3, 3), np.int8), "w"),
            numpy_helper.from_array(np.ones(2, np.float32), "b"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    artifact = Artifact("onnx", str(tmp_path / "m.onnx"), "m", "int8", "", 0, ())

    def biases(device: str) -> list[str]:
        made = onnxruntime_module.Loaded(artifact, options(device=device))
        settled = made.session_options(ort)
        settled.optimized_model_filepath = str(tmp_path / "o.onnx")
        made.create(ort, settled)
        ran = onnx.load(str(tmp_path / "o.onnx")).graph
        return [tensor.name for tensor in ran.initializer if tensor.data_type == 6]

    assert len(biases("cpu")) == 1
    assert biases("cuda:0") == []


def test_it_is_all_that_a_device_session_can_be(cuda: Bindings, doubler: Artifact) -> None:
    session = prepared(doubler, options())
    assert isinstance(session, Asynchronous)
    assert session.asynchronous
    assert isinstance(session, DeviceTimed)
    assert isinstance(session, DeviceMemory)
    assert isinstance(session.device_memory()["allocator_peak_bytes"], Unavailable)
    session.close()


def test_a_transfer_copies_in_and_out_between_its_events(cuda: Bindings, doubler: Artifact) -> None:
    session = prepared(doubler, options("transfer"))
    infer(session)
    session.arm(1)
    cuda.log.clear()
    session.enqueue()
    session.synchronize()
    session.enqueue()
    copies = ["MemcpyAsync"] * 3  # one input, two outputs
    assert cuda.log == ["EventRecord", *copies, "EventRecord", "StreamSynchronize", *copies]
    assert session.device_times_ms().tolist() == [4.0]
    session.arm(0)
    assert cuda.log.count("EventDestroy") == 2
    session.close()
    assert cuda.log[-1] == "StreamDestroy"


def test_pinned_memory_does_not_grow_with_the_inputs_bound(
    cuda: Bindings, doubler: Artifact
) -> None:
    session = prepared(doubler, options("transfer"))
    for seed in range(4):
        session.bind(x(seed))
        np.testing.assert_array_equal(infer(session)["sum"], 2 * x(seed)["x"])
    assert len(cuda.blocks) == 3  # one input, two outputs
    session.close()


@pytest.mark.parametrize(
    ("provider", "graph", "build", "waits"),
    [
        (CUDA, "off", "", False),
        (CUDA, "on", "", False),
        (CUDA, "off", ", cuda-plugin-ep=1", True),
        (CUDA, "on", ", cuda-plugin-ep=1", False),
        (TENSORRT, "off", "", False),
        (TENSORRT, "on", "", True),
    ],
)
def test_a_run_that_waits_whatever_it_is_told_is_not_asynchronous(
    cuda: Bindings,
    doubler: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    graph: str,
    build: str,
    waits: bool,
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setattr(onnxruntime_cuda, "wanted", lambda options: provider)
    monkeypatch.setattr(ort, "get_build_info", lambda: f"ORT Build Info: git-branch=HEAD{build}")
    session = prepared(doubler, options(cuda_graph=graph))
    assert session.asynchronous is not waits
    session.close()


def test_the_cudnn_that_convolves_is_stated(cuda: Bindings, doubler: Artifact) -> None:
    """It is optional for the provider, which says nothing where it finds none."""
    session = prepared(doubler, options())
    loaded = "libcudnn.so.9" in Path("/proc/self/maps").read_text()  # by a torch built for CUDA
    assert session.describe().runtime["cudnn"].isdigit() is loaded
    session.close()


def test_a_run_is_only_queued_and_kept_from_the_graph_at_first(
    cuda: Bindings, doubler: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[bool, bool]] = []
    original = onnxruntime_cuda.Buffers.options

    def note(*, graph: bool, wait: bool) -> Any:
        made.append((graph, wait))
        return original(graph=graph, wait=wait)

    monkeypatch.setattr(onnxruntime_cuda.Buffers, "options", staticmethod(note))
    session = prepared(doubler, options(cuda_graph="on"))
    made.clear()
    infer(session)
    # outputs are allocated in a run outside of the graph; then the capture; then it is queued
    assert made == [(False, True), *[(True, True)] * 3, (True, False)]
    read = original(graph=False, wait=False)
    assert read.get_run_config_entry("gpu_graph_id") == "-1"
    assert read.get_run_config_entry("disable_synchronize_execution_providers") == "1"
    # named, since the runtime's Python raises and catches an error in each run that names none
    assert original(graph=True, wait=False).get_run_config_entry("gpu_graph_id") == "0"
    session.close()


def test_without_the_bindings_a_run_waits_and_has_no_device_time(
    doubler: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Unavailable("cuda-bindings is not installed", "pip install cuda-bindings")
    on_the_host(monkeypatch, absent)
    session = prepared(doubler, options())
    assert not session.asynchronous
    np.testing.assert_array_equal(infer(session)["sum"], 2 * x()["x"])
    assert session.arm(10) == absent
    assert session.device_times_ms().tolist() == []
    assert "pip install cuda-bindings" in session.describe().runtime["stream"]
    session.close()
    with pytest.raises(BackendUnavailable, match=r"--boundary transfer.*pip install cuda-bindings"):
        prepared(doubler, options("transfer"))


@pytest.mark.parametrize(
    ("call", "error", "kind", "words"),
    [
        ("cudaSetDevice", "cudaErrorDevicesUnavailable", BackendUnavailable, "exclusive use"),
        ("cudaSetDevice", "cudaErrorInvalidDevice", BackendUnavailable, "no such device"),
        ("cudaSetDevice", "cudaErrorInsufficientDriver", BackendUnavailable, "cuda-bi.*too old"),
        ("cudaSetDevice", "cudaErrorSystemNotReady", BackendUnavailable, "cudaErrorSystemNotReady"),
        ("cudaStreamCreateWithFlags", "cudaErrorDevicesUnavailable", BackendUnavailable, "exclus"),
        ("cudaMallocHost", "cudaErrorMemoryAllocation", MeasurementFailed, "out of device memory"),
    ],
)
def test_what_cuda_refuses_is_one_line(
    cuda: Bindings, doubler: Artifact, call: str, error: str, kind: type[Exception], words: str
) -> None:
    cuda.fail[call] = getattr(cuda.real.cudaError_t, error)
    with pytest.raises(kind, match=words) as caught:
        prepared(doubler, options("transfer"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_stream_is_given_back_where_the_model_cannot_be_loaded(
    cuda: Bindings, tmp_path: Path
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError):
        prepared(Artifact("onnx", str(path), "", "fp32", "", 0, ()), options())
    assert cuda.log[-1] == "StreamDestroy"


def test_a_provider_that_does_not_come_up_is_never_replaced(
    doubler: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU build leaves the CUDA provider out, as a GPU build without its libraries does."""
    on_the_host(monkeypatch, Unavailable("no bindings", ""))
    monkeypatch.setattr(onnxruntime_module, "wanted", lambda options: CUDA)
    with pytest.raises(BackendUnavailable, match=r"cannot use CUDAExecutionProvider.*pip install"):
        prepared(doubler, options())


def test_nodes_that_fall_back_to_the_cpu_are_named(
    cuda: Bindings, doubler: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.backends.onnxruntime.operators._SHAPE_ELEMENTS", 5)
    with pytest.raises(MeasurementFailed, match=r"2 nodes would run on the CPU: .*twice \(Add\)"):
        prepared(doubler, options())


def profile(*kernels: dict[str, Any]) -> bytes:
    events = [
        {"cat": "Node", "name": f"n{i}_kernel_time", "args": {"node_index": str(i), **kernel}}
        for i, kernel in enumerate(kernels)
    ]
    return json.dumps(events).encode()


def kernel(provider: str, operator: str, *tensors: dict[str, list[int]]) -> dict[str, Any]:
    return {
        "provider": provider,
        "op_name": operator,
        "input_type_shape": list(tensors),
        "output_type_shape": [],
    }


def test_arithmetic_on_shapes_is_no_fallback() -> None:
    found = read_profile(
        profile(
            kernel(CUDA, "Conv", {"float": [1, 3, 224, 224]}),
            kernel(CPU, "Gather", {"int64": [4]}, {"int64": [1]}),
            kernel(CPU, "Range", {"int64": [512]}),
            kernel(CPU, "Sqrt", {"float": [1]}),
            kernel(CPU, "NonMaxSuppression", {"float": [1, 100, 4]}),
            kernel(CPU, "QLinearConv", {"uint8": [1, 3, 8, 8]}),
        )
    )
    assert found.fallen_back == ["n4 (NonMaxSuppression)", "n5 (QLinearConv)"]
    assert found.nodes_by_provider == "CPUExecutionProvider 5, CUDAExecutionProvider 1"


def test_every_option_is_one_that_the_providers_know() -> None:
    graph = options(cuda_graph="on", tf32="on", conv_search="heuristic", device="cuda:3")
    (name, cuda), (last, nothing) = providers(graph, "fp32", 77, ENGINES)
    assert (name, last, nothing) == (CUDA, CPU, {})
    assert set(cuda) <= CUDA_NAMES
    assert cuda["device_id"] == "3"
    assert cuda["user_compute_stream"] == "77"
    assert (cuda["use_tf32"], cuda["enable_cuda_graph"]) == ("1", "1")
    assert cuda["cudnn_conv_algo_search"] == "HEURISTIC"
    plain = providers(options(), "fp32", None, ENGINES)[0][1]
    assert (plain["use_tf32"], plain["enable_cuda_graph"]) == ("0", "0")
    assert "user_compute_stream" not in plain


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"), [("fp32", "0", "0"), ("fp16", "1", "0"), ("int8", "0", "1")]
)
def test_tensorrt_goes_before_cuda(precision: str, fp16: str, int8: str) -> None:
    chosen = options(provider="tensorrt", cuda_graph="on")
    (first, tensorrt), (second, cuda), (third, _) = providers(chosen, precision, 77, ENGINES)
    assert (first, second, third) == (TENSORRT, CUDA, CPU)
    assert set(tensorrt) <= TENSORRT_NAMES
    assert (tensorrt["trt_fp16_enable"], tensorrt["trt_int8_enable"]) == (fp16, int8)
    assert tensorrt["trt_engine_cache_path"] == "/engines"
    assert tensorrt["trt_cuda_graph_enable"] == "1"
    assert "enable_cuda_graph" not in cuda  # the graph is TensorRT's


def test_engines_of_other_models_and_devices_lie_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    made = {engines_folder("a", "fp32"), engines_folder("b", "fp32"), engines_folder("a", "int8")}
    assert len(made) == 3
    assert engines_folder("a", "fp32") in made
    assert {path.parent for path in made} == {tmp_path / "ort-tensorrt"}


@pytest.mark.parametrize(
    ("device", "given", "message"),
    [
        ("cpu", {"provider": "tensorrt"}, "no option 'provider'"),
        ("cpu", {"tf32": "on"}, "no option 'tf32'"),
        ("cuda:0", {"provider": "rocm"}, "provider is 'rocm'; choose one of cuda, tensorrt"),
    ],
)
def test_options_belong_to_a_device(device: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OnnxRuntimeBackend().wants("fp32", options(device=device, **given))


def test_precisions_belong_to_a_device() -> None:
    backend = OnnxRuntimeBackend()
    assert backend.wants("fp16", options()).format == "onnx"
    with pytest.raises(UsageError, match=r"no bf16 kernels on cuda:0.*fp32 or int8 or fp16"):
        backend.wants("bf16", options())


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_int8_on_a_device_is_symmetric(provider: str) -> None:
    """The other recipe has biases in int32, which the CUDA provider leaves to the CPU."""
    wants = OnnxRuntimeBackend().wants
    assert wants("int8", options(provider=provider)).symmetric
    assert not wants("int8", SessionOptions()).symmetric


def test_availability_needs_a_build_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_backend_pytorch_cuda import H200

    monkeypatch.setattr("harness.host.gpus.cuda_device", lambda device, cuda=(0, 0): H200)
    found = OnnxRuntimeBackend().availability("cuda:0")
    if CUDA not in ort.get_available_providers():
        assert isinstance(found, Unavailable)
        assert "built without CUDA" in found.reason
        assert "pip uninstall onnxruntime && pip install" in found.remedy
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    found = OnnxRuntimeBackend().availability("cuda:0")
    assert isinstance(found, Available)
    assert found.details["device"] == "NVIDIA H200"


def test_pinned_memory_of_an_empty_tensor_is_no_error(cuda: Bindings) -> None:
    with ExitStack() as owner:
        assert cuda_module.Cuda(cuda, 0).pinned((0, 4), "float32", owner).shape == (0, 4)


def test_the_table_of_options_says_what_is_the_default() -> None:
    chosen = onnxruntime_options.settings(options())
    assert (chosen["provider"], chosen["tf32"], chosen["cuda_graph"]) == ("cuda", "off", "off")
