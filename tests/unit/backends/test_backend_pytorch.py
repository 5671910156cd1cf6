"""The PyTorch adapter beyond the contract suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.backends.pytorch import options as pytorch_options
from harness.backends.pytorch.backend import PyTorchBackend
from harness.backends.pytorch.operators import count_operators, precision_of
from harness.errors import BackendUnavailable, DataError, MeasurementFailed, ModelError, UsageError
from harness.protocols import Artifact, Available, SessionOptions, TensorSpec, Unavailable
from harness.testing.contract_backend import BackendContract, Subject, infer

MODELS = '''
import torch
from torch import nn

class Outputs(nn.Module):
    """Nested outputs, one of them a number."""
    def forward(self, x):
        return {"sum": x.sum(1), "rest": (x * 2, 3, [x.to(torch.bfloat16)])}

class Broken(nn.Module):
    def forward(self, x):
        return x @ x

class Threads(nn.Module):
    """Sets the number of threads as it runs."""
    def forward(self, x):
        torch.set_num_threads(1)
        return x + 1

class InPlace(nn.Module):
    def forward(self, x):
        x /= 255.0
        return x + 0

class Force(nn.Module):
    """A gradient, as interatomic potentials return it."""
    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_(True)
            return torch.autograd.grad((x ** 2).sum(), x)[0]

def threads():
    torch.set_num_threads(1)
    return nn.Identity(), (torch.ones(2, 3),)

def threads_each_time():
    return Threads(), (torch.ones(2, 3),)

def in_place():
    return InPlace(), (torch.ones(2, 3),)

def force():
    return Force(), (torch.ones(2, 3),)

def outputs():
    return Outputs(), (torch.ones(2, 3),)

def broken():
    return Broken(), (torch.ones(2, 3),)
'''


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def digits(torch: Any) -> Artifact:
    specs = (TensorSpec("images", "float32", (2, 1, 8, 8)),)
    return Artifact("torch", "", "zoo:digits", "fp32", "", 0, specs)


def images(seed: int) -> dict[str, Any]:
    return {"images": np.random.default_rng(seed).random((2, 1, 8, 8), np.float32)}


def factory(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    (folder / "adapter_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "adapter_models", raising=False)
    specs = (TensorSpec("x", "float32", (2, 3)),)
    return Artifact("torch", "", f"factory:adapter_models:{name}", "fp32", "", 0, specs)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantized once: no test writes to it."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from harness.artifacts.torch_source import load_module
    from harness.quantize.job import QuantizeJob
    from harness.quantize.torch import quantize

    tmp_path = tmp_path_factory.mktemp("int8")
    np.savez(tmp_path / "calibration.npz", **images(0))
    job = QuantizeJob(
        precision="int8",
        calibration_path=str(tmp_path / "calibration.npz"),
        calibration_source="file",
        calibration_sha256="",
        calibration_samples=2,
        batch_size=2,
    )
    path = tmp_path / "digits.int8"
    quantize(load_module("zoo:digits", 0), (torch.from_numpy(images(0)["images"]),), path, job)
    return path


class TestInt8Contract(BackendContract):
    @pytest.fixture
    def subject(self, program: Path) -> Subject:
        specs = (TensorSpec("images", "float32", (2, 1, 8, 8)),)
        artifact = Artifact("torch-int8", str(program), "", "int8", "", 0, specs)
        return Subject(PyTorchBackend, artifact, images(1), images(2), framework="torch")

    def test_what_ran_in_int8_is_reported(self, subject: Subject) -> None:
        session = subject.prepare()
        operators = session.describe().operators
        assert not isinstance(operators, Unavailable)
        convolutions = {name: by for name, by in operators.items() if "conv2d" in name}
        assert sum(by.get("int8", 0) for by in convolutions.values()) == 8
        assert all(by.keys() == {"int8"} for by in convolutions.values())
        assert operators["aten::dequantize"].keys() == {"convert"}
        assert not any(name.startswith("aten::equal") for name in operators)
        session.close()


def test_outputs_are_those_of_the_module(torch: Any, digits: Artifact) -> None:
    from harness.artifacts.torch_source import load_module

    with torch.inference_mode():
        expected = load_module("zoo:digits", 0)(torch.from_numpy(images(1)["images"]))
    for layout in ("auto", "on", "off"):
        options = SessionOptions(options={"channels_last": layout})
        session = PyTorchBackend().prepare(digits, images(1), options)
        (logits,) = infer(session).values()
        np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-4)
        described = session.describe().runtime["channels_last"]
        assert described == ("off" if layout == "off" else "on")
        session.close()


def test_the_seed_draws_the_weights(torch: Any) -> None:
    specs = (TensorSpec("images", "float32", (1, 3, 32, 32)),)
    inputs = {"images": np.ones((1, 3, 32, 32), np.float32)}

    def logits(seed: int) -> Any:
        artifact = Artifact("torch", "", "zoo:mobilenet_v2", "fp32", "", 0, specs, seed=seed)
        return infer(PyTorchBackend().prepare(artifact, inputs, SessionOptions()))["output_0"]

    assert np.array_equal(logits(3), logits(3))
    assert not np.array_equal(logits(3), logits(4))


def test_fp32_is_reported_as_fp32(digits: Artifact) -> None:
    session = PyTorchBackend().prepare(digits, images(1), SessionOptions(threads=1))
    description = session.describe()
    assert description.runtime["threads"] == "1"
    assert not isinstance(description.operators, Unavailable)
    assert description.operators["aten::conv2d"] == {"fp32": 8}
    assert description.operators["aten::linear"] == {"fp32": 1}
    session.close()


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
def test_bf16_gives_float32_arrays_near_fp32(torch: Any, digits: Artifact, boundary: str) -> None:
    options = SessionOptions(boundary=boundary)
    if "bf16" not in pytorch_options.runnable("cpu"):
        pytest.skip("this CPU has no bf16 arithmetic")
    exact = infer(PyTorchBackend().prepare(digits, images(1), SessionOptions()))
    artifact = Artifact("torch", "", "zoo:digits", "bf16", "", 0, digits.inputs)
    session = PyTorchBackend().prepare(artifact, images(1), options)
    session.enqueue()
    for name, array in session.outputs().items():
        assert array.dtype == np.float32
        noise = np.square(array - exact[name]).sum()
        assert 0 < noise < np.square(exact[name]).sum() / 1000  # 30 dB; bf16 has 8 bits
    operators = session.describe().operators
    assert not isinstance(operators, Unavailable)
    assert operators["aten::conv2d"] == {"bf16": 8}
    assert ("aten::to" in operators) == (boundary == "transfer")
    session.close()


def test_sessions_share_the_module(digits: Artifact) -> None:
    backend = PyTorchBackend()
    one, two = (backend.prepare(digits, images(seed), SessionOptions()) for seed in (1, 2))
    assert one._loaded is two._loaded
    assert PyTorchBackend().prepare(digits, images(1), SessionOptions())._loaded is not one._loaded
    loaded = weakref.ref(one._loaded)
    one.close()
    assert loaded() is not None
    two.close()
    assert loaded() is None


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_type_without_instructions_is_refused(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytorch_options, "cpu_features", lambda: frozenset({"avx512f"}))
    with pytest.raises(UsageError, match=rf"{precision}.*--precision fp32 or int8$"):
        PyTorchBackend().wants(precision, SessionOptions())


@pytest.mark.parametrize(
    ("precision", "options", "message"),
    [
        ("fp32", {"compile": "fast"}, r"compile is 'fast'; choose one of off, inductor"),
        ("fp32", {"channel_last": "on"}, r"'channel_last'; choose one of compile, channels_last"),
        ("int8", {"compile": "inductor"}, r"compile=inductor.*int8"),
    ],
)
def test_options_are_checked(precision: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PyTorchBackend().wants(precision, SessionOptions(options=options))


def test_formats() -> None:
    backend = PyTorchBackend()
    assert backend.wants("fp32", SessionOptions()).format == "torch"
    assert backend.wants("int8", SessionOptions()).format == "torch-int8"
    assert backend.wants("fp16", SessionOptions(device="cuda:0")).format == "torch"


def test_absent_pytorch_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = PyTorchBackend().availability("cpu")
    assert found == Unavailable("PyTorch is not installed", "pip install 'hw-harness[torch]'")
    artifact = Artifact("torch", "", "zoo:digits", "fp32", "", 0, ())
    with pytest.raises(BackendUnavailable, match="not installed"):
        PyTorchBackend().prepare(artifact, {}, SessionOptions())


def test_availability_names_the_device(torch: Any) -> None:
    backend = PyTorchBackend()
    assert isinstance(backend.availability("cpu"), Available)
    found = backend.availability("abacus:0")
    assert isinstance(found, Unavailable)
    assert "'abacus:0'" in found.reason


def test_nested_outputs_are_flattened_and_numbers_are_arrays(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = factory("outputs", tmp_path, monkeypatch)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    session = PyTorchBackend().prepare(artifact, {"x": x}, SessionOptions())
    outputs = infer(session)
    assert list(outputs) == ["output_0", "output_1", "output_2", "output_3"]
    assert outputs["output_0"].tolist() == [3, 12]
    assert outputs["output_1"].tolist() == (2 * x).tolist()
    assert outputs["output_2"].tolist() == 3
    assert outputs["output_3"].dtype == np.float32
    session.close()
    with pytest.raises(MeasurementFailed, match="closed"):
        session.enqueue()


def test_a_model_that_fails_is_blamed(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = factory("broken", tmp_path, monkeypatch)
    session = PyTorchBackend().prepare(
        artifact, {"x": np.ones((2, 3), np.float32)}, SessionOptions()
    )
    with pytest.raises(MeasurementFailed, match="failed to run the model: mat1 and mat2"):
        session.enqueue()
    session.close()


def test_unfit_artifacts_and_inputs_are_refused(digits: Artifact) -> None:
    backend = PyTorchBackend()
    onnx = Artifact("onnx", "", "", "fp32", "", 0, digits.inputs)
    with pytest.raises(ModelError, match="'onnx'"):
        backend.prepare(onnx, images(1), SessionOptions())
    with pytest.raises(DataError, match="'images'"):
        backend.prepare(digits, {"pictures": images(1)["images"]}, SessionOptions())


def test_inductor_without_a_compiler_is_unavailable(
    digits: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendUnavailable, match=r"C\+\+ compiler.*install g\+\+"):
        PyTorchBackend().prepare(digits, images(1), SessionOptions(options={"compile": "inductor"}))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_compiles_in_prepare_and_caches_where_told(
    digits: Artifact, tmp_path: Path
) -> None:
    """In a process of its own, since inductor reads its settings once."""
    script = (
        "import numpy as np\n"
        "from harness.backends.pytorch.backend import PyTorchBackend\n"
        "from harness.protocols import Artifact, SessionOptions, TensorSpec\n"
        "specs = (TensorSpec('images', 'float32', (2, 1, 8, 8)),)\n"
        "artifact = Artifact('torch', '', 'zoo:digits', 'fp32', '', 0, specs)\n"
        "inputs = {'images': np.random.default_rng(1).random((2, 1, 8, 8), np.float32)}\n"
        "found = []\n"
        "for choice in ('off', 'inductor'):\n"
        "    options = SessionOptions(options={'compile': choice})\n"
        "    session = PyTorchBackend().prepare(artifact, inputs, options)\n"
        "    session.enqueue()\n"
        "    found.append(next(iter(session.outputs().values())))\n"
        "np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)\n"
        "described = session.describe()\n"
        "assert described.runtime['compile'] == 'inductor'\n"
        "assert any(name.startswith('mkldnn::_conv') for name in described.operators), described\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("TORCHINDUCTOR")
    } | {"HARNESS_CACHE": str(tmp_path / "cache"), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache" / "inductor").iterdir())
    assert not list(temporary.iterdir())


def test_the_outermost_operator_counts() -> None:
    calls = [
        ("forward", ["float"], 1, 0, 100),
        ("aten::linear", ["float", "float"], 1, 10, 30),
        ("aten::addmm", ["float", "float"], 1, 12, 28),
        ("aten::relu", ["float"], 1, 30, 35),
        ("aten::linear", ["c10::BFloat16"], 1, 40, 50),
        ("aten::relu", ["float"], 2, 31, 33),
    ]
    assert count_operators(reversed(calls)) == {
        "aten::linear": {"fp32": 1, "bf16": 1},
        "aten::relu": {"fp32": 2},
    }


@pytest.mark.parametrize(
    ("name", "types", "precision"),
    [
        ("quantized::linear_dynamic", ["float", "", "Scalar"], "int8"),
        ("onednn::qconv_pointwise", ["unsigned char", "signed char"], "int8"),
        ("aten::max_pool2d", ["c10::quint8", "ScalarList"], "int8"),
        ("aten::quantize_per_tensor", ["float", "float"], "convert"),
        ("aten::embedding", ["float", "long int"], "fp32"),
        ("aten::unsqueeze", ["long int", "Scalar"], "int64"),
        ("aten::cat", ["", "Scalar"], "none"),
    ],
)
def test_precision_of(name: str, types: list[str], precision: str) -> None:
    assert precision_of(name, types) == precision


ONES = {"x": np.ones((2, 3), np.float32)}


def test_threads_that_a_factory_sets_are_set_again(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = factory("threads", tmp_path, monkeypatch)
    session = PyTorchBackend().prepare(artifact, ONES, SessionOptions(threads=2))
    assert torch.get_num_threads() == 2
    infer(session)
    assert session.describe().runtime["threads"] == "2"


def test_threads_that_a_forward_sets_are_told(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = factory("threads_each_time", tmp_path, monkeypatch)
    session = PyTorchBackend().prepare(artifact, ONES, SessionOptions(threads=2))
    infer(session)
    told = session.describe().runtime["threads"]
    assert told == "1: the model sets them as it runs; asked for 2"


@pytest.mark.parametrize("boundary", ["compute", "transfer"])
def test_a_model_that_changes_its_inputs_gets_the_same_ones_each_time(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boundary: str
) -> None:
    artifact = factory("in_place", tmp_path, monkeypatch)
    session = PyTorchBackend().prepare(artifact, ONES, SessionOptions(boundary=boundary))
    for _ in range(3):
        (output,) = infer(session).values()
        np.testing.assert_allclose(output, 1 / 255)
    session.bind({"x": np.full((2, 3), 510, np.float32)})
    for _ in range(2):
        (output,) = infer(session).values()
        np.testing.assert_allclose(output, 2)
    assert "changed in place" in session.describe().runtime["inputs"]


def test_a_model_that_leaves_its_inputs_alone_is_not_said_to_change_them(
    digits: Artifact,
) -> None:
    session = PyTorchBackend().prepare(digits, images(0), SessionOptions())
    infer(session)
    assert not {"inputs", "gradients"} & session.describe().runtime.keys()


def test_a_forward_may_differentiate(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = factory("force", tmp_path, monkeypatch)
    session = PyTorchBackend().prepare(artifact, ONES, SessionOptions())
    (output,) = infer(session).values()
    np.testing.assert_array_equal(output, np.full((2, 3), 2, np.float32))
    assert "differentiates" in session.describe().runtime["gradients"]
