"""TorchScript files: told from others, looked through before they are loaded, prepared and run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'hw-harness[torch]'")

import torch

from harness.artifacts.torchscript import load_script
from harness.backends.pytorch.backend import PyTorchBackend
from harness.errors import DataError, ModelError, QuantizationError, UsageError
from harness.maybe import Unavailable
from harness.models.builder import answer
from harness.models.builder_client import Job
from harness.models.cache import Cache
from harness.models.prepare import Prepared, assemble
from harness.models.sources import find_source
from harness.protocols import SessionOptions, Wanted
from harness.spec import RunSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

# 3 * 4 weights and 4 biases
NET_PARAMETERS = 16


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval()


class Evil(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "evil")
        return x


class Hidden(torch.nn.Module):
    """Runs an operator as soon as the file is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.x = 1

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return (self.x, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        torch.save(torch.ones(1), "evil")
        self.x, self.training = state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Ids(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(100, 4)

    def forward(
        self, ids: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        out = self.embed(ids).mean(1) * scale
        return out if shift is None else out + shift


class Several(torch.nn.Module):
    def forward(self, several: list[torch.Tensor]) -> torch.Tensor:
        return several[0]


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    path = tmp_path / "traced.pt"
    torch.jit.trace(net(), torch.zeros(2, 3)).save(str(path))
    return path


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    path = tmp_path / "scripted.pth"
    torch.jit.script(net()).save(str(path))
    return path


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    path = tmp_path / "ids.pt"
    torch.jit.script(Ids()).save(str(path))
    return path


def prepared(path: Path, format: str, cache: Path, **fields: object) -> Prepared:
    spec = RunSpec(model=str(path), backend="pytorch", **fields)  # type: ignore[arg-type]
    return assemble(spec, Wanted(format), Cache(cache, building=True))


def test_torchscript_is_told_by_its_content(traced: Path, tmp_path: Path) -> None:
    for name in ("model.pt", "model.pth", "model.ts", "model.pt2", "model.onnx", "model"):
        copy = tmp_path / name
        shutil.copy(traced, copy)
        assert find_source(str(copy)).kind == "torchscript"


def test_an_exported_program_may_be_named_pt(tmp_path: Path) -> None:
    program = torch.export.export(net(), (torch.zeros(2, 3),))
    torch.export.save(program, tmp_path / "program.pt2")
    (tmp_path / "program.pt2").rename(tmp_path / "program.pt")
    assert find_source(str(tmp_path / "program.pt")).kind == "pt2"


def test_a_missing_file_is_no_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*model.pth: No such file"):
        find_source(str(tmp_path / "model.pth"))


@pytest.mark.parametrize("module", [Evil(), Hidden()])
def test_a_file_that_writes_files_is_refused_before_it_is_loaded(
    module: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(module).save("model.pt")
    with pytest.raises(ModelError, match=r"is refused: 'torch.save\(.* in code/.*reach beyond"):
        load_script(Path("model.pt"))
    assert not Path("evil").exists()


def test_a_damaged_file_is_told(traced: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(traced.read_bytes()[:-300])
    with pytest.raises(ModelError, match=r"no TorchScript file that this torch can load: .*zip"):
        load_script(cut)


def test_a_traced_file_says_its_inputs(traced: Path, tmp_path: Path) -> None:
    made = prepared(traced, "torch", tmp_path / "cache", batch_size=5)
    assert [(i.name, i.dtype, i.shape) for i in made.artifact.inputs] == [
        ("input", "float32", (5, 3))
    ]
    assert [o.shape for o in made.artifact.outputs] == [(5, 4)]
    assert made.model.source == "torchscript"
    assert made.model.input_data == "drawn, seed 0"
    assert made.model.parameters == NET_PARAMETERS
    assert made.artifact.size_bytes == traced.stat().st_size
    with np.load(made.inputs_path) as inputs:
        session = PyTorchBackend().prepare(made.artifact, dict(inputs), SessionOptions())
        session.enqueue()
        session.synchronize()
        expected = net()(torch.from_numpy(inputs["input"])).detach().numpy()
        (output,) = session.outputs().values()
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    session.close()


def test_a_shape_given_is_float32(scripted: Path, tmp_path: Path) -> None:
    made = prepared(scripted, "torch", tmp_path / "cache", input_shapes={"input": (1, 3)})
    assert [(i.name, i.dtype, i.shape) for i in made.artifact.inputs] == [
        ("input", "float32", (1, 3))
    ]


def test_inputs_that_nobody_names_are_asked_for(scripted: Path, ids: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not say what its inputs are: input; give --inputs"):
        prepared(scripted, "torch", tmp_path / "cache")
    with pytest.raises(ModelError, match=r"what its inputs are: ids, scale; give --inputs"):
        prepared(ids, "torch", tmp_path / "cache", input_shapes={"ids": (1, 8)})
    with pytest.raises(UsageError, match=r"names 'idz'.*its inputs are ids, scale, shift"):
        prepared(ids, "torch", tmp_path / "cache", input_shapes={"idz": (1, 8)})


def test_inputs_of_a_file_say_types_and_shapes(ids: Path, tmp_path: Path) -> None:
    tokens = np.arange(21).reshape(3, 7)
    np.savez(tmp_path / "own.npz", ids=tokens, scale=np.ones((3, 1), np.float32))
    made = prepared(
        ids, "torch", tmp_path / "cache", inputs=str(tmp_path / "own.npz"), batch_size=2
    )
    assert [(i.name, i.dtype, i.shape) for i in made.artifact.inputs] == [
        ("ids", "int64", (2, 7)),
        ("scale", "float32", (2, 1)),
    ]
    with np.load(made.inputs_path) as inputs:
        np.testing.assert_array_equal(inputs["ids"], tokens[:2])


def test_an_input_that_is_no_tensor_is_told(tmp_path: Path) -> None:
    torch.jit.script(Several()).save(str(tmp_path / "several.pt"))
    with pytest.raises(ModelError, match=r"input 'several' of .* is List\[Tensor\], no tensor"):
        prepared(tmp_path / "several.pt", "torch", tmp_path / "cache")


def test_inputs_that_the_model_refuses_are_told(traced: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"fails on inputs of 1x5: .*shapes cannot be multiplied"):
        prepared(traced, "torch", tmp_path / "cache", input_shapes={"input": (1, 5)})


def test_weights_of_a_frozen_module_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "frozen.pt"
    torch.jit.freeze(torch.jit.script(net())).save(str(path))
    made = prepared(path, "torch", tmp_path / "cache", input_shapes={"input": (1, 3)})
    assert made.model.parameters == NET_PARAMETERS


@pytest.mark.filterwarnings("ignore")
def test_weights_packed_for_integer_kernels_are_not_counted_as_none(tmp_path: Path) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(8, 4)).eval()
    quantized = torch.ao.quantization.quantize_dynamic(linear, dtype=torch.qint8)
    torch.jit.save(torch.jit.trace(quantized, torch.zeros(1, 8)), str(tmp_path / "q.pt"))

    found = prepared(tmp_path / "q.pt", "torch", tmp_path / "cache").model.parameters

    assert isinstance(found, Unavailable) and found.reason.startswith("its weights are packed")


def test_int8_is_refused_in_one_line_by_torch(traced: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"is TorchScript, .*cannot quantize;.*onnxruntime"):
        prepared(traced, "torch-int8", tmp_path / "cache", precision="int8")


@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_takes_it_by_export_in_int8_too(traced: Path, tmp_path: Path) -> None:
    made = prepared(traced, "onnx", tmp_path / "cache", precision="int8", batch_size=2)
    assert made.reference is not None
    assert [(i.name, i.shape) for i in made.artifact.inputs] == [("input", (2, 3))]
    assert made.model.source == "torchscript"


def test_what_is_wrong_with_samples_is_told(traced: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", other=np.ones((3, 3), np.float32))
    spec = RunSpec(model=str(traced), backend="pytorch", inputs=str(tmp_path / "own.npz"))
    failure = answer(Job(spec=spec, wanted=Wanted("torch"), root=str(tmp_path / "cache"))).failure
    assert failure is not None
    assert failure.kind == DataError.__name__
    assert "has no array 'input', only other" in failure.message
