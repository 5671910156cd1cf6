"""Libraries of custom operators: in the runs, and in the sessions that the quantizer makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import floats, measured, prepared, save, value

from harness.engine.wire.messages import Looked
from harness.errors import HarnessError, ModelError
from harness.records.result import Fidelity
from harness.spec import code_named_by, parse


def inverse(path: Path) -> Path:
    """A matrix inverted by an operator of onnxruntime-extensions, between two of ONNX."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Inverse", ["t"], ["i"], domain="ai.onnx.contrib"),
        helper.make_node("MatMul", ["i", "w"], ["y"]),
    ]
    domains = {"ai.onnx.contrib": 1}
    constants = {"w": np.eye(4, dtype=np.float32) * 2}
    inputs, outputs = [value("x", [4, 4])], [value("y", [4, 4])]
    return save(path, nodes, inputs, outputs, constants, domains)


def fields(library: str, **more: Any) -> dict[str, Any]:
    return {"options": [f"custom_ops={library}"], "batch_dim": "none", **more}


def test_operators_of_a_library(tmp_path: Path) -> None:
    extensions = pytest.importorskip(
        "onnxruntime_extensions", reason="no library of custom operators is installed"
    )
    library = extensions.get_library_path()
    x = np.eye(4, dtype=np.float32) * np.arange(1, 5, dtype=np.float32)
    np.savez(tmp_path / "inputs.npz", x=x)
    given = fields(library, inputs=str(tmp_path / "inputs.npz"))
    path = inverse(tmp_path / "m.onnx")
    assert measured(path, **given)[1].looked == Looked()
    _, found = measured(path, precision="int8", **given)
    assert isinstance(found.fidelity, Fidelity)
    assert isinstance(found.fidelity.cosine, float) and found.fidelity.cosine > 0.99


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "custom_ops names '.*lib.so', which is no file; check the path"),
     (b"no library", "onnxruntime cannot take the operators of .*lib.so")],
)  # fmt: skip
def test_what_is_no_library(tmp_path: Path, content: bytes | None, text: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    inputs, outputs = [value("x", ["batch", 2])], [value("y", ["batch", 2])]
    path = save(tmp_path / "m.onnx", [node], inputs, outputs)
    if content is not None:
        (tmp_path / "lib.so").write_bytes(content)
    with pytest.raises(ModelError, match=text):
        measured(path, options=[f"custom_ops={tmp_path / 'lib.so'}"])


def test_int8_with_what_is_no_library(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    inputs, outputs = [value("x", ["batch", 8])], [value("y", ["batch", 2])]
    path = save(tmp_path / "m.onnx", [node], inputs, outputs, {"w": floats(8, 2)})
    library = tmp_path / "lib.so"
    for content in (None, b"no library"):
        if content is not None:
            library.write_bytes(content)
        with pytest.raises(HarnessError, match=r"lib\.so") as raised:
            prepared(path, precision="int8", options=[f"custom_ops={library}"])
        assert "\n" not in str(raised.value)


def test_an_operator_that_no_library_was_given_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ai\.onnx\.contrib.*--option custom_ops"):
        measured(inverse(tmp_path / "m.onnx"), batch_dim="none")


def test_a_library_is_code_that_a_spec_names() -> None:
    assert code_named_by(parse({"options": ["custom_ops=lib.so"]})) == ["lib.so"]
