"""The PyTorch adapter on CUDA, with every CUDA call checked against the torch that is installed.

No GPU is at hand here: `Cuda` puts autospecs of torch's own classes and functions in their place,
so that a name or an argument that torch does not have fails, and keeps the tensors on the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from harness.backends.pytorch import backend as pytorch
from harness.backends.pytorch import cuda as pytorch_cuda
from harness.backends.pytorch import module as pytorch_module
from harness.backends.pytorch.backend import PyTorchBackend
from harness.backends.pytorch.cuda import CudaSession, Landing, set_tf32
from harness.errors import BackendUnavailable, MeasurementFailed, ModelError, UsageError
from harness.host.gpus import CudaDevice
from harness.maybe import Unavailable
from harness.protocols import (
    Artifact,
    Asynchronous,
    Available,
    DeviceMemory,
    DeviceTimed,
    SessionOptions,
    TensorSpec,
)

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

H200 = CudaDevice(
    index=0, name="NVIDIA H200", uuid="GPU-1", whole_uuid="GPU-1", mig=False,
    compute_capability="9.0", pci_bus_id="0000:65:00.0", memory_bytes=150_000_000_000,
    multiprocessors=132, compute_mode="default", integrated=False, driver_cuda="13.0",
)  # fmt: skip


def images(seed: int) -> dict[str, Any]:
    return {"images": np.random.default_rng(seed).random((2, 1, 8, 8), np.float32)}


def artifact(precision: str = "fp32") -> Artifact:
    specs = (TensorSpec("images", "float32", (2, 1, 8, 8)),)
    return Artifact("torch", "", "zoo:digits", precision, "", 0, specs)


def options(boundary: str = "compute", device: str = "cuda:0", **given: str) -> SessionOptions:
    return SessionOptions(device=device, boundary=boundary, options=given)


class Cuda:
    """torch.cuda as it is spelled, on the host. ``log`` is what reached the device, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.ticks = 0
        spec = mock.create_autospec
        cuda = torch.cuda
        for name in (
            "set_device", "synchronize", "empty_cache", "reset_peak_memory_stats", "set_stream",
        ):  # fmt: skip
            monkeypatch.setattr(cuda, name, spec(getattr(cuda, name)))
        self.answer(monkeypatch, "get_device_capability", (9, 0))
        self.answer(monkeypatch, "get_device_name", "NVIDIA H200")
        self.answer(monkeypatch, "max_memory_allocated", 1_000_000)
        self.answer(monkeypatch, "max_memory_reserved", 2_000_000)
        self.answer(monkeypatch, "get_allocator_backend", "native")
        monkeypatch.setattr(cuda, "Stream", self._of(cuda.Stream, self._stream))
        monkeypatch.setattr(cuda, "Event", self._of(cuda.Event, self._event))
        monkeypatch.setattr(cuda, "CUDAGraph", self._of(cuda.CUDAGraph, self._graph))
        monkeypatch.setattr(cuda, "stream", spec(cuda.stream, return_value=_nothing()))
        self.capture = spec(cuda.graph, side_effect=self._capture)
        monkeypatch.setattr(cuda, "graph", self.capture)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
        monkeypatch.setattr(Landing, "_make", staticmethod(torch.empty_like))
        host = torch.device("cpu")
        monkeypatch.setattr(pytorch_module, "place", lambda options: host)
        monkeypatch.setattr(pytorch, "_cuda_availability", lambda device: Available())

    @staticmethod
    def answer(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
        made = mock.create_autospec(getattr(torch.cuda, name), return_value=value)
        monkeypatch.setattr(torch.cuda, name, made)

    def _of(self, kind: Any, fill: Any) -> Any:
        """A class whose call is checked against ``kind`` and gives autospecced instances."""

        def make(*args: Any, **kwargs: Any) -> Any:
            made = mock.create_autospec(kind, instance=True)
            fill(made)
            return made

        return mock.create_autospec(kind, side_effect=make)

    def _stream(self, made: Any) -> None:
        made.synchronize.side_effect = lambda: self.log.append("synchronize")

    def _event(self, made: Any) -> None:
        def record(stream: Any) -> None:
            self.ticks += 1
            made.at = self.ticks
            self.log.append("event")

        made.record.side_effect = record
        made.elapsed_time.side_effect = lambda end: float(end.at - made.at)

    def _graph(self, made: Any) -> None:
        made.replay.side_effect = lambda: self.log.append("replay")

    def _capture(self, *args: Any, **kwargs: Any) -> Any:
        return _logged(self.log)


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextlib.contextmanager
def _logged(log: list[str]) -> Iterator[None]:
    log.append("capture")
    yield


@pytest.fixture
def tf32_as_before() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    parts = [(part, part.fp32_precision) for part in (cudnn, cudnn.conv, cudnn.rnn)]
    yield
    torch.set_float32_matmul_precision(before[0])
    cudnn.allow_tf32 = before[1]
    for part, precision in parts:
        part.fp32_precision = precision


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, tf32_as_before: None) -> Cuda:
    return Cuda(monkeypatch)


def prepared(chosen: SessionOptions, precision: str = "fp32", seed: int = 1) -> Any:
    session = PyTorchBackend().prepare(artifact(precision), images(seed), chosen)
    assert isinstance(session, CudaSession)
    return session


def infer(session: Any) -> dict[str, Any]:
    session.enqueue()
    session.synchronize()
    outputs: dict[str, Any] = session.outputs()
    return outputs


def on_the_cpu(seed: int) -> Any:
    session = PyTorchBackend().prepare(artifact(), images(seed), SessionOptions())
    session.enqueue()
    return session.outputs()["output_0"]


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
@pytest.mark.parametrize("layout", ["auto", "on"])
def test_outputs_follow_the_inputs(cuda: Cuda, boundary: str, layout: str) -> None:
    session = prepared(options(boundary, channels_last=layout))
    np.testing.assert_allclose(infer(session)["output_0"], on_the_cpu(1), rtol=1e-4, atol=1e-4)
    session.bind(images(2))
    np.testing.assert_allclose(infer(session)["output_0"], on_the_cpu(2), rtol=1e-4, atol=1e-4)
    session.close()
    with pytest.raises(MeasurementFailed, match="closed"):
        session.enqueue()


def test_it_is_all_that_a_device_session_can_be(cuda: Cuda) -> None:
    session = prepared(options())
    assert isinstance(session, Asynchronous)
    assert session.asynchronous
    assert isinstance(session, DeviceTimed)
    assert isinstance(session, DeviceMemory)
    assert session.device_memory() == {
        "allocator_peak_bytes": 1_000_000,
        "allocator_reserved_peak_bytes": 2_000_000,
    }
    session.reset_device_peak()
    torch.cuda.reset_peak_memory_stats.assert_called_once()


def test_every_inference_runs_on_the_sessions_own_stream(cuda: Cuda) -> None:
    one, two = prepared(options()), prepared(options(), seed=2)
    infer(one)
    infer(two)
    streams = [call.args[0] for call in torch.cuda.set_stream.call_args_list]
    assert streams == [one._stream, two._stream]
    assert one._stream is not two._stream


def test_events_stand_around_the_work_of_armed_inferences(cuda: Cuda) -> None:
    session = prepared(options())
    infer(session)
    session.arm(2)
    cuda.log.clear()
    for _ in range(3):
        session.enqueue()
        session.synchronize()
    assert cuda.log == [*["event", "event", "synchronize"] * 2, "synchronize"]
    assert session.device_times_ms().tolist() == [1.0, 1.0]
    session.arm(0)
    cuda.log.clear()
    session.enqueue()
    assert cuda.log == []
    assert session.device_times_ms().tolist() == []


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # to torch's profiler, here
def test_the_operators_told_are_the_models_without_the_copies(cuda: Cuda) -> None:
    session = prepared(options("transfer"))
    infer(session)
    described, found = session.describe().operators, session.profile_operators(3)
    counted: dict[str, int] = {}
    for one in found.operators:
        counted[one.type] = counted.get(one.type, 0) + 1
    assert counted == {kind: sum(by.values()) for kind, by in described.items()}
    assert "aten::copy_" not in counted
    assert all(one.outputs for one in found.operators)  # told by the dispatcher
    session.close()


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
def test_a_graph_is_captured_after_three_runs_and_replayed(cuda: Cuda, boundary: str) -> None:
    session = prepared(options(boundary, cuda_graph="on"))
    assert cuda.log == ["synchronize", "capture"]
    assert cuda.capture.call_args.kwargs["stream"] is session._stream
    cuda.log.clear()
    infer(session)
    assert cuda.log[:1] == ["replay"]
    assert session.describe().runtime["cuda_graph"] == "on"
    session.close()
    session.close()


def test_a_model_that_cannot_be_captured_is_refused_with_the_first_error(cuda: Cuda) -> None:
    @contextlib.contextmanager
    def refuse(*args: Any, **kwargs: Any) -> Iterator[None]:
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")
        yield

    cuda.capture.side_effect = refuse
    with pytest.raises(ModelError, match=r"cuda_graph=on.*not permitted when stream.*leave") as got:
        prepared(options(cuda_graph="on"))
    assert len(str(got.value).splitlines()) == 1


def test_bf16_is_cast_on_the_device_and_read_as_float32(cuda: Cuda) -> None:
    session = prepared(options("transfer"), "bf16")
    (logits,) = infer(session).values()
    assert logits.dtype == np.float32
    assert session._feed.bound[0].dtype == torch.bfloat16
    assert session._feed._arrived[0].dtype == torch.float32
    assert np.square(logits - on_the_cpu(1)).sum() < np.square(on_the_cpu(1)).sum() / 1000
    assert session.describe().runtime["dtype"] == "bfloat16"


def test_the_description_says_what_ran(cuda: Cuda) -> None:
    session = prepared(options())
    description = session.describe()
    assert description.runtime["device"] == "NVIDIA H200"
    assert description.runtime["tf32"] == "matrix products off, convolutions off"
    assert not isinstance(description.operators, Unavailable)
    assert description.operators["aten::conv2d"] == {"fp32": 8}


@pytest.mark.parametrize("on", [False, True])
def test_tf32_is_the_same_however_torch_is_asked(on: bool, tf32_as_before: None) -> None:
    set_tf32(on)
    backends = torch.backends
    # the older names raise where they disagree with the newer ones
    assert backends.cuda.matmul.allow_tf32 is on
    assert backends.cudnn.allow_tf32 is on
    asked = (backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn)
    assert {part.fp32_precision for part in asked} == {"tf32" if on else "ieee"}


def test_tf32_is_off_unless_asked_for(cuda: Cuda) -> None:
    prepared(options(tf32="on"))
    assert torch.backends.cudnn.allow_tf32 is True
    prepared(options())
    assert torch.backends.cudnn.allow_tf32 is False


@pytest.mark.parametrize(
    ("precision", "capability", "needs"),
    [("bf16", (7, 5), "8.0"), ("fp16", (5, 2), "5.3"), ("int8", (7, 0), "7.5")],
)
def test_a_type_that_the_gpu_would_emulate_is_refused(
    cuda: Cuda, precision: str, capability: tuple[int, int], needs: str
) -> None:
    torch.cuda.get_device_capability.return_value = capability
    with pytest.raises(UsageError, match=rf"no {precision} arithmetic.*{needs}.*fp32"):
        pytorch_cuda.set_up(precision, options())


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors",
            BackendUnavailable,
            "exclusive use.*nvidia-smi",
        ),
        (
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of",
            MeasurementFailed,
            "out of device memory.*20.00 GiB.*--batch-size",
        ),
        ("Torch not compiled with CUDA enabled", BackendUnavailable, "cannot use the device"),
    ],
)
def test_a_device_that_cannot_be_had_is_one_line(
    cuda: Cuda, text: str, kind: type[Exception], words: str
) -> None:
    torch.cuda.set_device.side_effect = RuntimeError(text)
    with pytest.raises(kind, match=words) as caught:
        prepared(options())
    assert len(str(caught.value).splitlines()) == 1


def test_out_of_memory_in_the_first_inference_is_one_line(cuda: Cuda) -> None:
    session = prepared(options())
    session._run = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried to"))
    with pytest.raises(MeasurementFailed, match="out of device memory"):
        session.enqueue()
    session.close()
    torch.cuda.empty_cache.assert_called_once()


def test_closing_after_a_failed_kernel_raises_nothing(cuda: Cuda) -> None:
    session = prepared(options())
    session._stream.synchronize.side_effect = RuntimeError("CUDA error: an illegal memory access")
    session.close()


def test_a_device_that_is_not_there_is_said_before_torch_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = Unavailable("not_present: no NVIDIA GPU", "run elsewhere")
    monkeypatch.setattr("harness.host.gpus.cuda_device", lambda device, cuda=(0, 0): absent)
    monkeypatch.setattr(pytorch, "import_framework", mock.Mock(side_effect=AssertionError))
    assert PyTorchBackend().availability("cuda:7") == absent
    with pytest.raises(BackendUnavailable, match=r"^no NVIDIA GPU; run elsewhere$"):
        PyTorchBackend().prepare(artifact(), images(1), options())


@pytest.mark.parametrize(
    ("built", "cuda_version", "words"),
    [(False, None, "built without CUDA"), (True, "13.0", "")],
)
def test_availability_on_a_machine_with_a_gpu(
    monkeypatch: pytest.MonkeyPatch, built: bool, cuda_version: str | None, words: str
) -> None:
    asked: list[tuple[int, int]] = []

    def device(name: str, cuda: tuple[int, int] = (0, 0)) -> CudaDevice:
        asked.append(cuda)
        return H200

    monkeypatch.setattr("harness.host.gpus.cuda_device", device)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.version, "cuda", cuda_version)
    found = PyTorchBackend().availability("cuda:0")
    if words:
        assert isinstance(found, Unavailable)
        assert words in found.reason
        assert "pip" in found.remedy
    else:
        assert isinstance(found, Available)
        assert found.details["device"] == "NVIDIA H200"
        assert asked == [(0, 0), (13, 0)]


@pytest.mark.parametrize(
    ("device", "given", "message"),
    [
        ("cpu", {"cuda_graph": "on"}, "no option 'cuda_graph'"),
        ("cpu", {"tf32": "on"}, "no option 'tf32'"),
        ("cuda:0", {"cuda_graph": "maybe"}, "cuda_graph is 'maybe'; choose one of off, on"),
    ],
)
def test_options_belong_to_a_device(device: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PyTorchBackend().wants("fp32", options(device=device, **given))


def test_an_exported_program_is_moved_with_its_constants(tmp_path: Path) -> None:
    """On a device that needs no hardware: what the program creates itself moves as well."""
    from harness.artifacts.torch_source import load_module

    class Positions(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            return x + torch.arange(x.shape[1], device=x.device)

    path = tmp_path / "positions.pt2"
    torch.export.save(torch.export.export(Positions(), (torch.ones(2, 3),)), path)
    module = load_module(f"pt2:{path}", 0, "meta")
    assert module(torch.ones(2, 3, device="meta")).device.type == "meta"


LAYERS = """
import torch

def make():
    torch.manual_seed(0)
    layers = torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 9)
    return torch.nn.Sequential(*layers), (torch.ones(20, 16),)
"""


def test_planned_layers_run_in_int8_and_the_result_says_how(
    cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    from harness.artifacts.torch_source import load_module
    from harness.quantize.torch_linear import plan, write

    (tmp_path / "cuda_layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    source, specs = "factory:cuda_layers:make", (TensorSpec("input", "float32", (20, 16)),)
    inputs = {"input": np.random.default_rng(0).random((20, 16), np.float32)}
    path = tmp_path / "layers.json"
    write(plan(load_module(source, 0), (torch.from_numpy(inputs["input"]),), "layers"), path)
    whole = Artifact("torch", "", source, "fp32", "", 0, specs)
    reduced = Artifact("torch-int8-linear", str(path), source, "int8", "", 0, specs)

    assert PyTorchBackend().wants("int8", options()).format == reduced.format
    session: Any = PyTorchBackend().prepare(reduced, inputs, options())
    (given,) = infer(session).values()
    description = session.describe()
    assert not isinstance(description.operators, Unavailable)
    assert description.operators["aten::_int_mm"] == {"int8": 1}
    assert description.operators["aten::linear"] == {"fp32": 1}  # 9 is no multiple of 8
    assert "compile=inductor" in description.runtime["int8"]
    (exact,) = infer(PyTorchBackend().prepare(whole, inputs, options())).values()
    assert 0 < np.square(given - exact).sum() < np.square(exact).sum() / 1000
