"""Models of every kind that others ship: each is measured, with the right values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import FLOAT, INT64, floats, measured, save, value

from harness.engine.wire.messages import Looked
from harness.errors import HarnessError
from harness.records.result import Fidelity

W = floats(8, 4)
X, Y = value("x", ["batch", 8]), value("y", ["batch", 4])
Maker = Callable[[Path], Path]


def matmul(name: str = "x") -> Any:
    return helper.make_node("MatMul", [name, "w"], ["y"])


def named(name: str) -> Maker:
    node = helper.make_node("MatMul", [name, "w"], [f"{name}_out"])
    x, y = value(name, ["batch", 8]), value(f"{name}_out", ["batch", 4])
    return lambda path: save(path, [node], [x], [y], {"w": W})


def cast(kind: int) -> Maker:
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), matmul("f")]
    return lambda path: save(path, nodes, [value("x", ["batch", 8], kind)], [Y], {"w": W})


def opset(version: int) -> Maker:
    nodes = [matmul(), helper.make_node("Neg", ["y"], ["z"])]
    z = value("z", ["batch", 4])
    return lambda path: save(path, nodes, [X], [z], {"w": W}, {"": version})


def scalar(path: Path) -> Path:
    nodes = [helper.make_node("Mul", ["x", "s"], ["t"]), matmul("t")]
    return save(path, nodes, [X, value("s", [])], [Y], {"w": W})


def negative(path: Path) -> Path:
    return save(path, [matmul()], [value("x", [-1, 8])], [value("y", [-1, 4])], {"w": W})


def cache_of_none(path: Path) -> Path:
    """A decoder before its first token."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["key"]),
        helper.make_node("Concat", ["past", "key"], ["present"], axis=1),
    ]
    inputs = [value("past", ["batch", 0, 4]), value("x", ["batch", 1, 8])]
    return save(path, nodes, inputs, [value("present", ["batch", "total", 4])], {"w": W})


def listed(path: Path) -> Path:
    return save(path, [matmul()], [X, value("w", [8, 4])], [Y], {"w": W})


def branches(path: Path) -> Path:
    bodies = [
        helper.make_graph([helper.make_node(op, ["x"], [op])], op, [], [value(op, None)])
        for op in ("Relu", "Neg")
    ]
    node = helper.make_node("If", ["c"], ["i"], then_branch=bodies[0], else_branch=bodies[1])
    inputs = [X, value("c", [], TensorProto.BOOL)]
    return save(path, [node, matmul("i")], inputs, [Y], {"w": W})


def loop(path: Path) -> Path:
    nodes = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Add", ["sum", "x"], ["more"]),
    ]
    state = ["batch", 8]
    takes = [value("i", [], INT64), value("go", [], TensorProto.BOOL), value("sum", state)]
    body = helper.make_graph(
        nodes, "body", takes, [value("on", [], TensorProto.BOOL), value("more", state)]
    )
    node = helper.make_node("Loop", ["n", "", "x"], ["f"], body=body)
    return save(path, [node, matmul("f")], [X, value("n", [], INT64)], [Y], {"w": W})


def scan(path: Path) -> Path:
    nodes = [
        helper.make_node("Add", ["state", "in"], ["next"]),
        helper.make_node("Identity", ["next"], ["out"]),
    ]
    takes, gives = (
        [value(name, [8]) for name in names] for names in (("state", "in"), ("next", "out"))
    )
    body = helper.make_graph(nodes, "body", takes, gives)
    node = helper.make_node("Scan", ["z", "x"], ["last", "all"], body=body, num_scan_inputs=1)
    inputs = [value("z", [8]), value("x", ["batch", 8])]
    return save(path, [node, matmul("all")], inputs, [Y], {"w": W})


def function(path: Path) -> Path:
    inner = helper.make_node("MatMul", ["a", "b"], ["c"])
    body = helper.make_function(
        "ours", "F", ["a", "b"], ["c"], [inner], [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("F", ["x", "w"], ["y"], domain="ours")
    return save(path, [node], [X], [Y], {"w": W}, {"ours": 1}, functions=[body])


def passed_on(path: Path) -> Path:
    return save(path, [matmul()], [X], [X, Y], {"w": W})


NAMES = ("file", "allow_pickle", "a=b", "a/b:0", "/x", "..", "a b", "Größe 你好", "n" * 5000)
KINDS: dict[str, Maker] = {
    **{f"input {name:.12}": named(name) for name in NAMES},
    **{f"opset {version}": opset(version) for version in (7, 13, 22)},
    "float16": cast(TensorProto.FLOAT16),
    "float64": cast(TensorProto.DOUBLE),
    "uint8": cast(TensorProto.UINT8),
    "bool": cast(TensorProto.BOOL),
    "rank 0": scalar,
    "a size of -1": negative,
    "an empty cache": cache_of_none,
    "weights listed as inputs": listed,
    "If": branches,
    "Loop": loop,
    "Scan": scan,
    "a function": function,
    "an input among the outputs": passed_on,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_is_measured(tmp_path: Path, kind: str, precision: str) -> None:
    made, found = measured(KINDS[kind](tmp_path / "m.onnx"), precision=precision)
    assert found.looked == Looked()
    assert made.model.parameters == 32  # of w
    if precision == "int8":
        assert isinstance(found.fidelity, Fidelity)
        assert isinstance(found.fidelity.sqnr_db, float) and found.fidelity.sqnr_db > 15


SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(np.array([1, 2], np.float32), "values"),
    numpy_helper.from_array(np.array([1, 5]), "indices"),
    [8, 4],
)


def test_a_sparse_output_beside_a_dense_one(tmp_path: Path) -> None:
    nodes = [matmul(), helper.make_node("Constant", [], ["c"], sparse_value=SPARSE)]
    kind = helper.make_sparse_tensor_type_proto(FLOAT, [8, 4])
    outputs = [Y, helper.make_value_info("c", kind)]
    path = save(tmp_path / "m.onnx", nodes, [X], outputs, {"w": W})
    found = measured(path)[1].looked
    assert isinstance(found, Looked) and found.unseen == {"c": "a sparse_tensor(float)"}


@pytest.mark.parametrize("draws", [False, True])
def test_a_model_without_inputs(tmp_path: Path, draws: bool) -> None:
    node = helper.make_node("RandomNormal", [], ["a"], shape=[3, 8])
    constants = {"w": W} if draws else {"w": W, "a": floats(3, 8)}
    path = save(
        tmp_path / "m.onnx", [node] * draws + [matmul("a")], [], [value("y", [3, 4])], constants
    )
    made, found = measured(path)
    assert (made.artifact.inputs, found.looked) == ((), Looked())


def test_a_scalar_output_has_no_dimension(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    path = save(tmp_path / "m.onnx", [node], [X], [value("y", [])])
    assert [output.shape for output in measured(path)[0].artifact.outputs] == [()]


def test_a_constant_of_infinity_on_the_way_of_indices(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Add", ["f", "low"], ["g"]),
        helper.make_node("Cast", ["g"], ["y"], to=INT64),
    ]
    inputs, outputs = [value("i", ["batch", 3], INT64)], [value("y", ["batch", 3], INT64)]
    path = save(tmp_path / "m.onnx", nodes, inputs, outputs, {"low": np.float32(-np.inf)})
    assert measured(path)[1].looked == Looked()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (helper.make_sparse_tensor_type_proto(FLOAT, [4, 8]),
         "the type sparse tensor; only tensor"),
        (helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [4, 8])),
         "the type optional; only tensor"),
        (helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, None)),
         "the type map; only tensor"),
    ],
)  # fmt: skip
def test_inputs_that_cannot_be_drawn(tmp_path: Path, kind: Any, text: str) -> None:
    x = helper.make_value_info("x", kind)
    path = save(tmp_path / "m.onnx", [matmul()], [x], [value("y", None)], {"w": W})
    with pytest.raises(HarnessError, match=text) as raised:
        measured(path)
    assert "\n" not in str(raised.value)
