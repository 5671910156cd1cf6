"""Artifact files: what one machine built is what another runs, or one line says why not."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.errors import ModelError, UsageError
from harness.models.packed import pack
from harness.models.prepare import prepare
from harness.models.prepared import Prepared
from harness.protocols import Artifact, TensorSpec, Wanted
from harness.records.result import ModelInfo
from harness.spec import RunSpec, parse
from harness.spec.artifact_file import MANIFEST

X = TensorSpec("x", "float32", (2, 3))


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def made(folder: Path, spec: RunSpec, format: str = "engine", source: str = "") -> Prepared:
    """What a builder leaves, with a model of any bytes."""
    folder.mkdir(exist_ok=True)
    model = folder / "model.plan"
    model.write_bytes(b"plan")
    np.savez(folder / "inputs.npz", x=np.ones((2, 3), np.float32))
    artifact = Artifact(
        format, str(model), source, spec.precision, "", 4, (X,), facts={"built": "yes"}
    )
    info = ModelInfo(
        name=spec.model, source="zoo", sha256="", parameters=1, random_weights=False,
        inputs=(X,), outputs=(), input_data="drawn", file_size_bytes=4,
    )  # fmt: skip
    return Prepared(
        model=info, artifact=artifact, reference=artifact, inputs_path=str(folder / "inputs.npz"),
        evaluation_path=None, evaluation_name="", evaluation_sha256="",
    )  # fmt: skip


def packed(folder: Path, **values: Any) -> Path:
    spec = parse({"backend": "onnxruntime", **values})
    pack(made(folder, spec), spec, folder / "file")
    return folder / "file"


def opened(path: Path, **values: Any) -> Prepared:
    return prepare(parse({"artifact": str(path), **values}), Wanted("onnx"))


def test_what_was_packed_is_what_is_run(tmp_path: Path) -> None:
    path = packed(tmp_path / "made", precision="int8", options=["a=1"], batch_size="2")
    spec = parse({"artifact": str(path), "iterations": "5"})
    assert (spec.precision, spec.batch_size, spec.options) == ("int8", 2, {"a": "1"})
    found = prepare(spec, Wanted("onnx"))
    assert Path(found.artifact.path).read_bytes() == b"plan"
    assert Path(found.artifact.path).is_relative_to(tmp_path / "cache")
    assert found.artifact.facts == {"built": "yes"}
    assert found.reference is not None and found.reference.format == "engine"
    with np.load(found.inputs_path) as arrays:
        assert arrays["x"].shape == (2, 3)


def test_what_the_built_in_model_needs_is_all_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec()
    pack(prepare(spec, Wanted("onnx")), spec, tmp_path / "file")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "elsewhere"))
    found = opened(tmp_path / "file")
    assert found.evaluation_name == "digits test split"
    for path in (found.artifact.path, found.inputs_path, found.evaluation_path):
        assert Path(str(path)).is_relative_to(tmp_path / "elsewhere")


def test_weights_beside_a_graph_are_packed_where_it_finds_them(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path / "made"
    spec = RunSpec()
    prepared = made(folder, spec)
    (folder / "weights").mkdir()
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xy"]
    held = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [held]
    )
    path = folder / "net.onnx"
    onnx.save(
        helper.make_model(graph), str(path), save_as_external_data=True,
        location="weights/all.bin", size_threshold=0,
    )  # fmt: skip
    size = path.stat().st_size + (folder / "weights/all.bin").stat().st_size
    artifact = msgspec.structs.replace(
        prepared.artifact, format="onnx", path=str(path), size_bytes=size
    )
    whole = msgspec.structs.replace(prepared, artifact=artifact, reference=None)
    pack(whole, spec, tmp_path / "file")
    found = Path(opened(tmp_path / "file").artifact.path)
    assert (found.parent / "weights/all.bin").stat().st_size == 24
    assert onnx.load(str(found)).graph.initializer[0].raw_data == held.raw_data


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"precision": "fp32"}, "--precision is the default, and .* was built for int8"),
        ({"model": "resnet18"}, "--model is resnet18, and .* was built for the default"),
        ({"batch_size": "4"}, "--batch-size is 4, and .* was built for 2"),
        ({"options": ["a=2"]}, "--option"),
    ],
)
def test_another_run_than_it_was_built_for(
    tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    path = packed(tmp_path / "made", precision="int8", options=["a=1"], batch_size="2")
    with pytest.raises(UsageError, match=told):
        opened(path, **values)


def test_a_run_may_add_options(tmp_path: Path) -> None:
    path = packed(tmp_path / "made", options=["a=1"])
    spec = parse({"artifact": str(path), "options": ["b=2"]})
    assert spec.options == {"a": "1", "b": "2"}
    assert prepare(spec, Wanted("onnx")).artifact.format == "engine"


def test_native_code_is_not_named_by_a_file(tmp_path: Path) -> None:
    path = packed(tmp_path / "made", options=["custom_ops=libmine.so", "a=1"])
    assert parse({"artifact": str(path)}).options == {"a": "1"}


def test_code_is_not_packed(tmp_path: Path) -> None:
    spec = RunSpec()
    prepared = made(tmp_path / "made", spec, format="torch", source="factory:mine:net")
    with pytest.raises(ModelError, match="mine:net is code, which no artifact holds"):
        pack(prepared, spec, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_what_is_no_artifact(tmp_path: Path) -> None:
    for data in (b"", b"PK", b"onnx"):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(UsageError, match="is no artifact of Harness; give a file that"):
            parse({"artifact": str(tmp_path / "file")})
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        parse({"artifact": str(tmp_path / "none")})


def rewritten(path: Path, change: Any) -> Path:
    """The same file with its manifest and members put through ``change``."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    manifest = json.loads(members.pop(MANIFEST))
    change(manifest, members)
    other = path.with_name("other")
    with zipfile.ZipFile(other, "w") as file:
        file.writestr(MANIFEST, json.dumps(manifest))
        for name, data in members.items():
            file.writestr(name, data)
    return other


def test_a_damaged_member_is_found_out(tmp_path: Path) -> None:
    path = packed(tmp_path / "made")
    other = rewritten(path, lambda told, members: members.update({"inputs.npz": b"other"}))
    with pytest.raises(ModelError, match=r"is damaged: inputs\.npz is not what was packed"):
        opened(other)
    lacking = rewritten(path, lambda told, members: members.pop("inputs.npz"))
    with pytest.raises(ModelError, match="is damaged"):
        opened(lacking)


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/../../escaped"])
def test_a_member_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    def change(told: Any, members: dict[str, bytes]) -> None:
        told["files"][name] = told["files"]["inputs.npz"]
        members[name] = members["inputs.npz"]

    other = rewritten(packed(tmp_path / "made"), change)
    with pytest.raises(ModelError, match="the artifact has a member"):
        opened(other)
    assert not list(tmp_path.rglob("escaped"))


def test_an_artifact_names_no_code_to_import(tmp_path: Path) -> None:
    def change(told: Any, members: dict[str, bytes]) -> None:
        told["prepared"]["artifact"] |= {"format": "torch", "source": "factory:os:getcwd"}

    with pytest.raises(ModelError, match="the artifact names code, factory:os:getcwd"):
        opened(rewritten(packed(tmp_path / "made"), change))


def test_a_newer_format_is_told(tmp_path: Path) -> None:
    def change(told: Any, members: dict[str, bytes]) -> None:
        told["format"] = "harness.artifact/2"

    other = rewritten(packed(tmp_path / "made"), change)
    with pytest.raises(UsageError, match=r"is of the format harness\.artifact/2"):
        opened(other)
