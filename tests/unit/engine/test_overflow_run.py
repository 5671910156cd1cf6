"""A quantized file of the user's own: which of its layers can leave 16 bits, and which cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.engine.wire.messages import Job
from harness.engine.worker.verify import verify
from harness.maybe import Maybe
from harness.protocols import Artifact, SessionOptions, TensorSpec
from harness.records.result import NOT_OWN, Overflows
from harness.testing.results import fake_result
from harness.views.headline import brief_rows

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WEIGHTS = np.array([[127, 127, 0], [64, 64, 0], [-127, 3, 0]], np.int8)  # a filter a row
SPECS = (TensorSpec("x", "float32", (1, 3)),)


def own(path: Path, *, quantized: bool = True) -> Artifact:
    pair = helper.make_node
    constants: dict[str, Any] = {
        "s": np.float32(1), "z": np.uint8(0), "zw": np.int8(0), "so": np.float32(200),
        "w8": WEIGHTS.T.copy(), "w": WEIGHTS.T.astype(np.float32),
    }  # fmt: skip
    nodes = [
        pair("QuantizeLinear", ["x", "s", "z"], ["q"]),
        pair("DequantizeLinear", ["q", "s", "z"], ["xd"]),
        pair("DequantizeLinear", ["w8", "s", "zw"], ["wd"]),
        pair("MatMul", ["xd", "wd"], ["m"], name="product"),
        pair("QuantizeLinear", ["m", "so", "z"], ["yq"]),
        pair("DequantizeLinear", ["yq", "so", "z"], ["y"]),
    ]
    if not quantized:
        nodes = [pair("MatMul", ["x", "w"], ["y"], name="product")]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items() if n in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return Artifact("onnx", str(path), "", "int8", "", 0, SPECS)


def found(artifact: Artifact, folder: Path, samples: list[list[float]]) -> Maybe[Overflows]:
    rows = np.array(samples, np.float32)
    np.savez(folder / "inputs.npz", x=rows[:1])
    np.savez(folder / "samples.npz", x=rows)
    backend, options = OnnxRuntimeBackend(), SessionOptions()
    session = backend.prepare(artifact, {"x": rows[:1].copy()}, options)
    job = Job(artifact, str(folder / "inputs.npz"), options, 1,
              evaluation_path=str(folder / "samples.npz"))  # fmt: skip
    try:
        session.enqueue()
        session.synchronize()
        return verify(backend, session, job).overflows
    finally:
        session.close()


def test_the_layers_that_can_overflow_are_named_and_shown(tmp_path: Path) -> None:
    told = found(own(tmp_path / "own.onnx"), tmp_path, [[100, 3, 0], [200, 3, 0]])
    assert isinstance(told, Overflows)
    (layer,) = told.layers
    # 200 x (127 + 127) = 50,800; 200 x 128 and 200 x 130 are within 16 bits
    assert (layer.name, layer.reached, layer.filters, layer.of) == ("product", 50_800, 1, 3)
    assert told.samples == 2
    result = fake_result()
    shown = msgspec.structs.replace(result.precision, overflows=told)
    rows = brief_rows(msgspec.structs.replace(result, precision=shown))
    (row,) = (row for row in rows if row.name == "16-bit sums")
    assert row.value == "1 layer"
    assert "product (50800, 1 of 3 filters)" in row.note


def test_small_activations_are_safe_and_need_no_row(tmp_path: Path) -> None:
    told = found(own(tmp_path / "own.onnx"), tmp_path, [[100, 3, 0]])
    assert isinstance(told, Overflows)
    assert told.layers == ()
    result = fake_result()
    shown = msgspec.structs.replace(result.precision, overflows=told)
    rows = brief_rows(msgspec.structs.replace(result, precision=shown))
    assert "16-bit sums" not in {row.name for row in rows}


def test_of_a_model_in_floating_point_it_is_not_asked(tmp_path: Path) -> None:
    assert found(own(tmp_path / "own.onnx", quantized=False), tmp_path, [[1, 2, 3]]) == NOT_OWN
