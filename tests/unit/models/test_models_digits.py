"""What ships for digits is small, whole, consistent, and as accurate as its manifest says."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from harness.errors import ModelError, UsageError
from harness.models import model_names, prepare
from harness.models.onnx_file import read_structure
from harness.protocols import Wanted
from harness.spec import RunSpec
from harness.zoo.shipped import ASSETS, FILES, manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def test_split() -> dict[str, np.ndarray]:
    with np.load(ASSETS / "digits_test.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_assets_are_under_a_megabyte_and_are_what_the_manifest_says() -> None:
    assert sorted(p.name for p in ASSETS.iterdir()) == sorted([*FILES, "manifest.json"])
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 1_000_000
    for name, sha256 in manifest().sha256.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == sha256


def test_splits_do_not_overlap(test_split: dict[str, np.ndarray]) -> None:
    with np.load(ASSETS / "digits_calibration.npz", allow_pickle=False) as file:
        calibration = {image.tobytes() for image in file["images"]}
    assert len(calibration) == manifest().calibration_samples
    assert not calibration & {image.tobytes() for image in test_split["images"]}
    assert set(test_split["labels"].tolist()) == set(range(10))


def test_the_manifest_describes_the_onnx_file() -> None:
    onnx.checker.check_model(str(ASSETS / "digits.onnx"), full_check=True)
    found = read_structure(ASSETS / "digits.onnx", {}, 3)
    prepared = prepare(RunSpec(batch_size=3), Wanted("onnx"))
    assert found.inputs == prepared.artifact.inputs
    assert found.outputs == prepared.artifact.outputs
    assert found.external == ()


def test_the_onnx_file_holds_no_traces_of_where_it_was_made() -> None:
    content = (ASSETS / "digits.onnx").read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content


def test_onnx_equals_torch_and_reaches_the_accuracy(test_split: dict[str, np.ndarray]) -> None:
    images, labels = test_split["images"], test_split["labels"]
    session = ort.InferenceSession(ASSETS / "digits.onnx", providers=["CPUExecutionProvider"])
    (by_onnx,) = session.run(None, {"images": images})
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install 'hw-harness[torch]'"
    )
    from harness.artifacts.torch_source import load_module

    module = load_module("zoo:digits", seed=0)
    with torch.no_grad():
        by_torch = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(by_onnx, by_torch, rtol=1e-3, atol=1e-4)
    assert len(labels) == manifest().test_samples
    assert (by_torch.argmax(1) == labels).mean() == manifest().test_accuracy
    assert (by_onnx.argmax(1) == labels).mean() == pytest.approx(
        manifest().test_accuracy, abs=0.002
    )
    assert manifest().test_accuracy > 0.98
    assert sum(p.numel() for p in module.parameters()) == manifest().parameters


def test_bound_inputs_are_test_images_and_wrap_around(test_split: dict[str, np.ndarray]) -> None:
    prepared = prepare(RunSpec(batch_size=541), Wanted("onnx"))
    with np.load(prepared.inputs_path, allow_pickle=False) as file:
        assert np.array_equal(file["images"][:540], test_split["images"])
        assert np.array_equal(file["images"][540], test_split["images"][0])
    assert prepared.model.input_data == "digits test split, first samples (541)"
    assert prepared.evaluation_name == "digits test split"
    assert prepared.reference is None
    assert not prepared.model.random_weights


def test_a_run_on_digits_imports_no_framework(cache: Path) -> None:
    """The second time not even numpy: only hashes and JSON are read."""
    code = """if True:
        import sys
        from harness.models import prepare
        from harness.protocols import Wanted
        from harness.spec import RunSpec
        prepare(RunSpec(), Wanted("onnx"))
        print(sorted({"numpy", "onnx", "onnxruntime", "torch", "subprocess"} & sys.modules.keys()))
    """
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)]
    assert runs[1].strip() == "[]"
    assert "torch" not in runs[0]
    assert "onnx" not in runs[0]


def test_int8_is_smaller_nearly_as_accurate_and_reused(
    test_split: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(precision="int8")
    prepared = prepare(spec, Wanted("onnx"))
    made = prepared.artifact.quantization
    assert made is not None
    assert (made.calibration_source, made.calibration_samples) == ("model split", 256)
    assert prepared.reference is not None
    assert prepared.reference.precision == "fp32"
    assert prepared.artifact.size_bytes < prepared.reference.size_bytes / 2
    session = ort.InferenceSession(prepared.artifact.path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": test_split["images"]})
    accuracy = (logits.argmax(1) == test_split["labels"]).mean()
    assert accuracy >= manifest().test_accuracy - 0.02
    # a second time nothing may be built: a builder that cannot start would show
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert prepare(spec, Wanted("onnx")) == prepared


def test_every_setting_makes_its_own_artifact() -> None:
    specs = [
        RunSpec(precision="int8"),
        RunSpec(precision="int8", calibration_method="percentile"),
        RunSpec(precision="fp16"),
    ]
    assert len({prepare(spec, Wanted("onnx")).artifact.sha256 for spec in specs}) == len(specs)


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        (RunSpec(model="digit"), UsageError, "unknown model 'digit'; did you mean digits?"),
        (RunSpec(model="no/such.onnx"), ModelError, r"cannot read no/such.onnx: No such file"),
        (RunSpec(precision="bf16"), ModelError, "no bf16 route from ONNX"),
        (
            RunSpec(input_shapes={"images": (1, 3, 8, 8)}),
            ModelError,
            "images=1x3x8x8 does not fit batchx1x8x8; 1 is fixed in the model",
        ),
        (RunSpec(input_shapes={"image": (1,)}), UsageError, "names 'image', which is no input"),
    ],
)
def test_one_clear_line(spec: RunSpec, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        prepare(spec, Wanted("onnx"))


def test_names_say_what_is_random() -> None:
    names = model_names()
    assert list(names) == [
        "digits", "alexnet", "resnet18", "resnet50", "mobilenet_v2", "bert_base",
    ]  # fmt: skip
    assert [name for name, text in names.items() if "random weights" not in text] == ["digits"]
