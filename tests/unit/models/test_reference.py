"""A model that somebody else quantized, held against the FP32 model that it was made from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import helper
from onnx_models import floats, measured, prepared, save, value

from harness.compare.match import Across, match_across
from harness.compression.entries import model_of
from harness.errors import UsageError
from harness.host.digest import sha256_of
from harness.maybe import Unavailable
from harness.records.index.figures import read_figures
from harness.spec import RunSpec, code_named_by, parse
from harness.testing.results import fake_result

WEIGHT = floats(8, 4)
SCALE = float(np.abs(WEIGHT).max()) / 127


def original(folder: Path, inputs: int = 8) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [value("x", ["batch", inputs])], [value("y", ["batch", 4])]
    return save(folder / "net.onnx", nodes, *ends, {"w": floats(inputs, 4)})


def quantized(folder: Path) -> Path:
    """Its weight in 8 bits, as another tool may have made it."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "scale", "zero"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {
        "w8": np.rint(WEIGHT / SCALE).astype(np.int8),
        "scale": np.float32(SCALE),
        "zero": np.int8(0),
    }
    ends = [value("x", ["batch", 8])], [value("y", ["batch", 4])]
    return save(folder / "theirs.onnx", nodes, *ends, constants)


def test_it_is_run_as_it_is_and_held_against_its_original(tmp_path: Path) -> None:
    fp32, int8 = original(tmp_path), quantized(tmp_path)
    ready, verified = measured(int8, precision="int8", reference=str(fp32))
    assert (ready.artifact.path, ready.artifact.precision) == (str(int8), "int8")
    assert ready.artifact.quantization is None
    assert ready.reference is not None and ready.reference.path == str(fp32)
    assert not isinstance(verified.fidelity, Unavailable) and verified.fidelity is not None
    # each of 8 products is off by at most half a step of the weight
    error = verified.fidelity.max_abs_error
    assert isinstance(error, float) and 0 < error < 8 * 4 * SCALE / 2


def test_it_goes_by_the_content_and_name_of_its_original(tmp_path: Path) -> None:
    fp32, int8 = original(tmp_path), quantized(tmp_path)
    model = prepared(int8, precision="int8", reference=str(fp32)).model
    assert (model.name, model.sha256) == ("net", prepared(fp32).model.sha256)
    assert model.file_sha256 == sha256_of([int8])
    assert prepared(fp32).model.file_sha256 == ""
    spec = RunSpec(model=str(int8), precision="int8", reference=str(fp32))
    assert model_of(spec) == model_of(RunSpec(model=str(fp32))) == "net"


def test_it_is_the_partner_of_its_original_across_precision() -> None:
    runs = [
        fake_result(id=name, spec=msgspec.structs.replace(fake_result().spec, **fields))
        for name, fields in {
            "a": {"model": "m/net.onnx", "precision": "fp32"},
            "b": {"model": "q/theirs.onnx", "precision": "int8", "reference": "m/net.onnx"},
            "c": {"model": "r/theirs.onnx", "precision": "int8", "reference": "o/net.onnx"},
        }.items()
    ]
    matches = match_across(runs, runs, Across("precision"))
    assert [(m.a.first.id, m.b.first.id) for m in matches if m.a and m.b] == [("a", "b")]


def test_history_sees_another_file_made_from_the_same_original(tmp_path: Path) -> None:
    result = fake_result()
    assert not isinstance(result.model, Unavailable)
    made = msgspec.structs.replace(result.model, file_sha256="f" * 64)
    path = tmp_path / "result.json"
    for model, known in ((made, "f" * 64), (result.model, result.model.sha256)):
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(result, model=model)))
        assert read_figures(str(path)).model_sha == known


def test_another_shape_is_no_original(tmp_path: Path) -> None:
    int8, other = quantized(tmp_path), original(tmp_path, inputs=9)
    with pytest.raises(UsageError, match="takes x float32 1x9, and the model x float32 1x8"):
        prepared(int8, precision="int8", reference=str(other))


@pytest.mark.parametrize(
    ("more", "said"),
    [({}, "which is the reference itself"),
     ({"precision": "int8", "quantization": "dynamic"}, "which quantizes nothing")],
)  # fmt: skip
def test_what_contradicts_a_reference_is_refused(more: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse({"model": "theirs.onnx", "reference": "net.onnx", **more})


def test_a_factory_as_reference_is_code_that_a_spec_names() -> None:
    assert code_named_by(RunSpec(reference="package:make")) == ["package:make"]
