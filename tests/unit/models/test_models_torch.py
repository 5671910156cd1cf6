"""Zoo architectures, users' factories and programs, through the builder process where it counts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'hw-harness[torch]'")

import torch

from harness.artifacts.torch_source import load, load_module
from harness.errors import DataError, ModelError
from harness.models import Prepared, prepare
from harness.models.builder import answer
from harness.models.builder_client import Job
from harness.models.cache import UNFINISHED
from harness.models.onnx_export import export_onnx
from harness.models.sources import find_source
from harness.models.torch_build import describe
from harness.protocols import Wanted
from harness.spec import RunSpec
from harness.zoo import ZOO
from harness.zoo.bert import BertBase

FACTORIES = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 4)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, ids, scale):
        return self.head(self.embed(ids).mean(1)) * scale

class Keyword(Net):
    def forward(self, *, ids, scale):
        return super().forward(ids, scale)

IDS = torch.tensor([[1, 2, 6], [3, 4, 5]])
SCALE = torch.tensor([[1.0], [2.0]])

def pair():
    print("printed by the factory")
    return Net(), (IDS, SCALE)

def named():
    return Net(), {"scale": SCALE, "ids": IDS}

def keyword():
    return Keyword(), {"scale": SCALE, "ids": IDS}

def nothing():
    return 3

def raises():
    raise ValueError("first line\\nsecond line")

def lists():
    return Net(), ([1, 2], SCALE)

def halves():
    return Net(), (IDS.bfloat16(), SCALE)

class Extra(torch.nn.Linear):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass

def extra():
    return Extra(8, 4), (torch.ones(1, 8),)

def lazy():
    return torch.nn.Sequential(torch.nn.LazyLinear(4)), (torch.ones(1, 8),)

def traced():
    return torch.jit.trace(torch.nn.Linear(8, 4), torch.ones(1, 8)), (torch.ones(1, 8),)

class Step(torch.nn.Linear):
    def forward(self, x, step):
        return super().forward(x) * step

def scalar():
    return Step(8, 4), (torch.ones(1, 8), torch.tensor(0.5))

class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(500, 64)
        self.head = torch.nn.Linear(64, 500, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens))

def tied():
    return Tied(), (torch.ones(1, 16, dtype=torch.long),)

def missing():
    import no_such_library

def crashes():
    import ctypes
    ctypes.string_at(0)

def leaves():
    import os
    os._exit(7)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "factories", raising=False)
    (tmp_path / "factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bound(prepared: Prepared) -> dict[str, np.ndarray]:
    with np.load(prepared.inputs_path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


# zoo


@pytest.mark.parametrize("name", [name for name in ZOO if name != "bert_base"])
def test_image_models_stay_in_a_sensible_range_and_call_no_module_twice(name: str) -> None:
    module = load_module(f"zoo:{name}", seed=1)
    calls: dict[str, int] = {}
    for path, part in module.named_modules():
        if not list(part.children()):
            part.register_forward_hook(
                lambda *_, path=path: calls.update({path: calls.get(path, 0) + 1})
            )
    shape = ZOO[name].inputs[0].dims or ()
    with torch.no_grad():
        logits = module(torch.randn(1, *[int(size or 0) for size in shape[1:]]))
    assert set(calls.values()) == {1}
    assert not module.training
    assert logits.shape[1:] == (ZOO[name].outputs[0].dims or ())[1:]
    assert 0.01 < logits.std() < 100
    assert logits.isfinite().all()


def test_the_sizes_are_those_of_the_papers() -> None:
    """Parameter counts as torchvision and transformers have them (BERT without token types)."""
    counts = {"alexnet": 61_100_840, "resnet18": 11_689_512, "resnet50": 25_557_032}
    for name, count in {**counts, "mobilenet_v2": 3_504_872}.items():
        module = load_module(f"zoo:{name}", seed=0)
        assert sum(p.numel() for p in module.parameters()) == count
    with torch.device("meta"):
        bert = BertBase()
    assert sum(p.numel() for p in bert.parameters()) == 109_482_240 - 2 * 768


def test_the_seed_decides_the_weights() -> None:
    states = [load_module("zoo:mobilenet_v2", seed).state_dict() for seed in (0, 0, 1)]
    first = "features.0.0.weight"
    assert torch.equal(states[0][first], states[1][first])
    assert not torch.equal(states[0][first], states[2][first])


def test_a_small_encoder_ignores_masked_tokens_and_exports(folder: Path) -> None:
    torch.manual_seed(0)
    module = BertBase(width=128, depth=2, vocabulary=50, positions=16).eval()
    ids, mask = torch.randint(0, 50, (2, 8)), torch.ones(2, 8, dtype=torch.int64)
    mask[1, 5:] = 0
    changed = ids.clone()
    changed[1, 5:] = 1 - changed[1, 5:].clamp(0, 1)
    with torch.no_grad():
        hidden, pooled = module(ids, mask)
        again, _ = module(changed, mask)
    torch.testing.assert_close(hidden[:, :5], again[:, :5])
    names, outputs = ["input_ids", "attention_mask"], ["hidden", "pooled"]
    export_onnx(module, (ids, mask), folder / "m.onnx", names, outputs, batched=True)
    session = ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    np.testing.assert_allclose(got[0], hidden.numpy(), atol=1e-4)
    np.testing.assert_allclose(got[1], pooled.numpy(), atol=1e-4)
    one = {"input_ids": ids[:1].numpy(), "attention_mask": mask[:1].numpy()}
    assert session.run(None, one)[0].shape == (1, 8, 128)


def test_zoo_on_onnx_is_random_claims_no_accuracy_and_is_exported_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(model="mobilenet_v2", batch_size=2, seed=5)
    prepared = prepare(spec, Wanted("onnx"))
    assert prepared.model.random_weights
    assert prepared.evaluation_path is None
    assert prepared.model.input_data == "drawn, seed 5"
    assert prepared.model.parameters == 3_504_872
    session = ort.InferenceSession(prepared.artifact.path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, bound(prepared))
    with torch.no_grad():
        module = load_module("zoo:mobilenet_v2", seed=5)
        wanted = module(torch.from_numpy(bound(prepared)["images"])).numpy()
    np.testing.assert_allclose(logits, wanted, rtol=1e-2, atol=1e-2)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert prepare(spec, Wanted("onnx")) == prepared


def test_too_many_tokens_are_refused() -> None:
    spec = RunSpec(model="bert_base", input_shapes={"input_ids": (1, 513)})
    with pytest.raises(ModelError, match="the sequence length is 513; it can be 512 at most"):
        prepare(spec, Wanted("onnx"))


# factories


@pytest.mark.parametrize(
    ("factory", "order"),
    [("pair", ["ids", "scale"]), ("named", ["ids", "scale"]), ("keyword", ["scale", "ids"])],
)
def test_a_factory_gives_module_and_examples_in_call_order(factory: str, order: list[str]) -> None:
    loaded = load(f"factory:factories:{factory}", seed=0)
    assert list(loaded.examples or {}) == order
    plain = load("factory:factories:pair", seed=0)
    with torch.no_grad():
        got = loaded.module(*(loaded.examples or {}).values())
        torch.testing.assert_close(got, plain.module(*(plain.examples or {}).values()))


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_factory_is_prepared_at_the_batch_size(format: str, folder: Path) -> None:
    spec = RunSpec(model="factories:pair", batch_size=3)
    prepared = prepare(spec, Wanted(format))
    assert [(s.name, s.shape) for s in prepared.artifact.inputs] == [
        ("ids", (3, 3)),
        ("scale", (3, 1)),
    ]
    assert prepared.artifact.outputs[0].shape == (3, 3)
    assert prepared.model.source == "factory"
    assert prepared.model.parameters == 7 * 4 + 4 * 3 + 3
    assert prepared.evaluation_path is None
    # the example's two samples, begun anew
    assert bound(prepared)["ids"].tolist() == [[1, 2, 6], [3, 4, 5], [1, 2, 6]]
    if format == "torch":
        assert prepared.artifact.source == "factory:factories:pair"


def test_a_factory_is_never_taken_from_the_cache(folder: Path) -> None:
    spec = RunSpec(model="factories:pair", batch_size=2)
    before = prepare(spec, Wanted("torch"))
    text = FACTORIES.replace("Embedding(7, 4)", "Embedding(8, 4)")
    (folder / "factories.py").write_text(text + "# longer, so that no stale bytecode is used\n")
    after = prepare(spec, Wanted("torch"))
    assert (after.model.parameters, before.model.parameters) == (47, 43)
    assert after.model.sha256 != before.model.sha256


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("nothing", r"'factories:nothing' returned int; return \(torch module, example inputs"),
        ("raises", "'factories:raises' raised ValueError: first line second line; repair it"),
        (
            "halves",
            "fails on inputs of 2x3, 2x1: RuntimeError: Expected tensor for argument #1 'indices'",
        ),
        ("lists", "gives list for input 'ids'; give tensors"),
        ("missing", "raised ModuleNotFoundError: No module named 'no_such_library'"),
        ("absent", "raised AttributeError: module 'factories' has no attribute 'absent'"),
    ],
)
def test_a_bad_factory_is_one_line(folder: Path, factory: str, text: str) -> None:
    with pytest.raises(ModelError, match=text) as raised:
        describe(f"factory:factories:{factory}", 0, None, None, {}, 2, folder)
    assert "\n" not in str(raised.value)


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="cannot import 'no_such' for factory"):
        load("factory:no_such.module:make", seed=0)


# the builder process


def test_a_crash_names_the_signal_and_leaves_nothing_half_built(folder: Path) -> None:
    died = "'factories:crashes' died: killed by SIGSEGV in "
    with pytest.raises(ModelError, match=died) as raised:
        prepare(RunSpec(model="factories:crashes"), Wanted("torch"))
    assert raised.value.remedy.startswith("a library crashed in its own code; try another")
    assert "in crashes" in raised.value.__notes__[0]
    assert list((folder / "cache" / UNFINISHED).iterdir()) == []


def test_an_exit_names_its_code() -> None:
    with pytest.raises(ModelError, match="'factories:leaves' died: exit code 7"):
        prepare(RunSpec(model="factories:leaves"), Wanted("torch"))


def test_errors_cross_back_with_type_and_remedy(folder: Path) -> None:
    (folder / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError) as raised:
        prepare(RunSpec(model="m.onnx"), Wanted("onnx"))
    assert raised.value.message == f"{folder / 'm.onnx'} is no ONNX file, or is cut short"
    assert raised.value.remedy == "check where it came from"


@pytest.mark.parametrize(
    ("library", "model", "extra"),
    [("onnx", "m.onnx", "onnxruntime"), ("torch", "resnet18", "torch")],
)
def test_a_missing_extra_names_the_pip_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, library: str, model: str, extra: str
) -> None:
    (folder / "m.onnx").write_bytes(b"never read")
    for name in ("onnx_file", "torch_build", "torch_source"):
        monkeypatch.delitem(sys.modules, f"harness.models.{name}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    job = Job(spec=RunSpec(model=model), wanted=Wanted("onnx"), root=str(folder / "cache"))
    failure = answer(job).failure
    assert failure is not None
    assert failure.kind == "ModelError"
    assert failure.message == f"preparing {model!r} needs {library}, which is not installed"
    assert failure.remedy == f"pip install 'hw-harness[{extra}]'"


def test_an_onnx_file_is_run_where_it_lies(folder: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3)).eval()
    export_onnx(module, (torch.ones(2, 4),), folder / "m.onnx", ["x"], ["y"], batched=True)
    np.savez(folder / "d.npz", inputs=np.eye(4, dtype=np.float32), labels=[0, 1, 2, 0])
    spec = RunSpec(model="m.onnx", batch_size=2, dataset="d.npz", precision="int8")
    prepared = prepare(spec, Wanted("onnx"))
    assert prepared.reference is not None
    assert prepared.reference.path == str(folder / "m.onnx")
    assert bound(prepared)["x"].tolist() == np.eye(4)[:2].tolist()
    assert prepared.evaluation_name == "d.npz"
    made = prepared.artifact.quantization
    assert made is not None
    assert (made.calibration_source, made.calibration_samples) == ("drawn inputs", 32)
    # under the input's own name, whatever the file called it
    with np.load(str(prepared.evaluation_path), allow_pickle=False) as file:
        assert sorted(file.files) == ["labels", "x"]
    with pytest.raises(ModelError, match=r"is an ONNX file; PyTorch runs .pt2 and Torch"):
        prepare(spec, Wanted("torch"))
    (folder / "notes.pt").write_bytes(b"hello")
    with pytest.raises(ModelError, match=r"notes.pt is no file of PyTorch's; PyTorch runs"):
        prepare(RunSpec(model="notes.pt"), Wanted("torch"))
    np.savez(folder / "d.npz", inputs=np.eye(4), labels=[0, 1, 2, 0])
    with pytest.raises(DataError, match="'x' is float64 4x4, expected float32 samplesx4"):
        prepare(spec, Wanted("onnx"))
    with pytest.raises(DataError, match=r"--calibration: cannot read none.npz: No such file"):
        prepare(RunSpec(model="m.onnx", calibration="none.npz"), Wanted("onnx"))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["extra", "lazy", "traced"])
def test_unusual_modules_have_the_weights_of_a_linear_layer(folder: Path, name: str) -> None:
    found = describe(f"factory:factories:{name}", 0, None, None, {}, 1, folder)
    assert found.parameters == 8 * 4 + 4
    assert [spec.shape for spec in found.outputs] == [(1, 4)]


def test_a_number_beside_the_input_is_an_input(folder: Path) -> None:
    prepared = answer(
        Job(spec=RunSpec(model="factories:scalar"), wanted=Wanted("torch"), root=str(folder))
    )
    assert prepared.failure is None
    inputs = prepared.prepared["artifact"]["inputs"]
    assert [tuple(spec["shape"]) for spec in inputs] == [(1, 8), ()]
    with np.load(prepared.prepared["inputs_path"]) as arrays:
        assert arrays["step"] == 0.5


def test_tied_weights_are_counted_once_at_every_precision(folder: Path) -> None:
    size = describe("factory:factories:tied", 0, None, None, {}, 1, folder).size_bytes
    weights = 500 * 64 * 4
    # what torch.save adds is less than a tenth
    assert weights < size["fp32"] < 1.1 * weights
    for precision in ("bf16", "fp16"):
        assert weights / 2 < size[precision] < 1.1 * weights / 2


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_torch_files_are_told_apart(tmp_path: Path, suffix: str) -> None:
    checkpoint, old = (tmp_path / f"{name}{suffix}" for name in ("zip", "old"))
    torch.save({"weight": torch.ones(2)}, checkpoint)
    torch.save({"weight": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    for path, text in (
        (checkpoint, "is a checkpoint: pickled weights without a model"),
        (old, "is a pickle, which runs code when it is read"),
    ):
        with pytest.raises(ModelError, match=text):
            find_source(str(path))
