"""Outputs of every kind: bound so that the next inference works, read or told what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import FLOAT, INT64, STRING, floats, measured, prepared, save, value

from harness import registry
from harness.engine.wire.messages import Looked, Verified
from harness.errors import ModelError
from harness.maybe import Unavailable
from harness.protocols import SessionOptions, Unseen
from harness.records.result import Fidelity

W = floats(8, 4, seed=1)


def session(path: Path, **fields: Any) -> Any:
    made = prepared(path, **fields)
    with np.load(made.inputs_path) as arrays:
        return registry.backend("onnxruntime").prepare(
            made.artifact, dict(arrays), SessionOptions()
        )


def outputs(path: Path, inferences: int = 3, **fields: Any) -> dict[str, Any]:
    found = session(path, **fields)
    for _ in range(inferences):
        found.enqueue()
        found.synchronize()
    return dict(found.outputs())


def speech(path: Path, declared: list[Any], functions: bool = False) -> Path:
    """Keeps each of 256 numbers by chance, as a vocoder draws how long it speaks."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("RandomUniformLike", ["t"], ["u"]),
        helper.make_node("Greater", ["u", "half"], ["keep"]),
        helper.make_node("Compress", ["t", "keep"], ["audio"]),
    ]
    more: dict[str, Any] = {}
    if functions:
        opsets = [helper.make_opsetid("", 17)]
        body = helper.make_function("ours", "Speak", ["x", "w", "half"], ["audio"], nodes, opsets)
        nodes = [helper.make_node("Speak", ["x", "w", "half"], ["audio"], domain="ours")]
        more = {"functions": [body], "domains": {"ours": 1}}
    constants = {"w": floats(64, 256), "half": np.float32(0.5)}
    inputs, outputs = [value("x", ["batch", 64])], [value("audio", declared)]
    return save(path, nodes, inputs, outputs, constants, **more)


@pytest.mark.parametrize("functions", [False, True])
@pytest.mark.parametrize("declared", [["samples"], [256], [None]])
def test_an_output_whose_length_is_drawn_anew(
    tmp_path: Path, declared: list[Any], functions: bool
) -> None:
    found = session(speech(tmp_path / "m.onnx", declared, functions))
    lengths = set()
    for _ in range(12):
        found.enqueue()
        lengths.add(len(found.outputs()["audio"]))
    assert len(lengths) > 1  # the same twelve times has a chance below 1e-10
    assert found.describe().runtime["binding"].endswith("changes are allocated anew")


def test_a_length_that_a_branch_draws(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("RandomUniformLike", ["x"], ["u"]),
            helper.make_node("Greater", ["u", "half"], ["keep"]),
            helper.make_node("NonZero", ["keep"], ["found"]),
        ],
        "then",
        [],
        [value("found", [2, "k"], INT64)],
    )
    other = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["all"])], "else", [], [value("all", [2, "k"], INT64)]
    )
    node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=other)
    constants = {"half": np.float32(0.5), "yes": np.array(True)}
    inputs, results = [value("x", ["batch", 99])], [value("y", [2, "k"], INT64)]
    path = save(tmp_path / "m.onnx", [node], inputs, results, constants)
    assert prepared(path).artifact.varying == ("y",)
    assert len(outputs(path, 5)["y"]) == 2


def test_what_nothing_random_decides_stays_bound(tmp_path: Path) -> None:
    """Its length follows from the inputs, which stay the same."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["found"]),
        helper.make_node("RandomUniformLike", ["x"], ["noise"]),
    ]
    results = [value("found", [2, "n"], INT64), value("noise", ["batch", 3])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["batch", 3])], results)
    assert prepared(path).artifact.varying == ()
    found = session(path)
    found.enqueue()
    first = {name: v.data_ptr() for name, v in found._binding.outputs().items()}
    found.enqueue()
    assert {name: v.data_ptr() for name, v in found._binding.outputs().items()} == first
    assert found.enqueue is found._binding.run


@pytest.mark.parametrize("declared", [[2, 5], [2, 1], [7], [2, 3, 1]])
def test_an_output_that_is_not_as_large_as_declared(tmp_path: Path, declared: list[int]) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"])
    inputs, results = [value("x", ["batch", 3])], [value("y", declared, INT64)]
    path = save(tmp_path / "m.onnx", [node], inputs, results)
    assert outputs(path)["y"].tolist() == [[0, 0, 0], [0, 1, 2]]


def test_the_size_that_follows_counts_before_the_one_declared(tmp_path: Path) -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
    path = save(tmp_path / "m.onnx", [node], [value("x", ["batch", 3])], [value("y", ["batch", 3])])
    assert [o.shape for o in prepared(path, batch_size="2").artifact.outputs] == [(2, 6)]
    assert outputs(path, batch_size="2")["y"].shape == (2, 6)


# types


TYPES = {
    "BFLOAT16": (ml_dtypes.bfloat16, "bfloat16"),
    "FLOAT8E4M3FN": (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
    "FLOAT8E4M3FNUZ": (ml_dtypes.float8_e4m3fnuz, "float8_e4m3fnuz"),
    "FLOAT8E5M2": (ml_dtypes.float8_e5m2, "float8_e5m2"),
    "FLOAT8E5M2FNUZ": (ml_dtypes.float8_e5m2fnuz, "float8_e5m2fnuz"),
    "INT4": (ml_dtypes.int4, "int4"),
    "UINT4": (ml_dtypes.uint4, "uint4"),
}


def cast(path: Path, kind: int, shape: list[Any]) -> Path:
    node = helper.make_node("Cast", ["x"], ["y"], to=kind)
    return save(path, [node], [value("x", shape)], [value("y", shape, kind)], domains={"": 21})


@pytest.mark.parametrize("name", TYPES)
def test_types_that_numpy_has_not(tmp_path: Path, name: str) -> None:
    kind, dtype = TYPES[name]
    path = cast(tmp_path / "m.onnx", getattr(TensorProto, name), ["batch", 3, 3])
    x = np.array([[-7, -1.5, -1, 0, 1, 2, 3, 5, 7]], np.float32).reshape(1, 3, 3)
    if name == "UINT4":
        x = np.abs(x)
    if "INT" in name:
        x = np.trunc(x)
    np.savez(tmp_path / "inputs.npz", x=x)
    made, found = measured(path, inputs=str(tmp_path / "inputs.npz"))
    assert [(o.dtype, o.shape) for o in made.artifact.outputs] == [(dtype, (1, 3, 3))]
    assert found.looked == Looked()
    read = outputs(path, inputs=str(tmp_path / "inputs.npz"))["y"]
    assert np.array_equal(read, x.astype(kind).astype(np.float32))


@pytest.mark.parametrize("name", [name for name in TYPES if name.startswith("FLOAT8")])
def test_every_code_of_eight_bits(name: str) -> None:
    from harness.backends.onnxruntime_values import _FLOAT8, _float8

    kind, _ = TYPES[name]
    expected = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
    assert np.array_equal(_float8(*_FLOAT8[f"tensor({name.lower()})"]), expected, equal_nan=True)


def test_nan_in_a_type_that_numpy_has_not(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sqrt", ["x"], ["r"]),
        helper.make_node("Cast", ["r"], ["y"], to=TensorProto.BFLOAT16),
    ]
    results = [value("y", ["batch", 64], TensorProto.BFLOAT16)]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["batch", 64])], results)
    assert measured(path)[1].looked == Looked(nan=("y",))


def test_int8_with_an_output_in_bfloat16(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Cast", ["t"], ["y"], to=TensorProto.BFLOAT16),
    ]
    results = [value("y", ["batch", 4], TensorProto.BFLOAT16)]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["batch", 8])], results, {"w": W})
    found = measured(path, precision="int8")[1].fidelity
    assert isinstance(found, Fidelity) and isinstance(found.cosine, float) and found.cosine > 0.99


# what is no array of numbers


def text(path: Path, both: bool, initializer: bool = False) -> Path:
    nodes = [helper.make_node("Identity", ["c"], ["token"])]
    words: Any = [b"pad"]
    pad = helper.make_tensor("c", STRING, [], words)
    if not initializer:
        nodes.insert(0, helper.make_node("Constant", [], ["c"], value=pad))
    nodes.append(helper.make_node("MatMul", ["x", "w"], ["y"]))
    results = [value("y", ["batch", 4]), value("token", [], STRING)]
    path = save(path, nodes, [value("x", ["batch", 8])], results[not both :], {"w": W})
    if initializer:
        import onnx

        model = onnx.load(path)
        model.graph.initializer.append(pad)
        onnx.save(model, path)
    return path


@pytest.mark.parametrize("initializer", [False, True])
def test_a_text_among_the_outputs(tmp_path: Path, initializer: bool) -> None:
    made, found = measured(text(tmp_path / "m.onnx", True, initializer))
    assert [output.name for output in made.artifact.outputs] == ["y"]
    assert found.looked == Looked(unseen={"token": "text"})


def test_int8_beside_a_text(tmp_path: Path) -> None:
    found = measured(text(tmp_path / "m.onnx", True), precision="int8")[1]
    assert isinstance(found.fidelity, Fidelity)


def sequence(path: Path) -> Path:
    node = helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1)
    results = [helper.make_tensor_sequence_value_info("parts", FLOAT, None)]
    return save(path, [node], [value("x", ["batch", 4])], results)


def probabilities(path: Path) -> Path:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    kind = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, None))
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(kind))
    results = [value("label", ["batch"], INT64), maps]
    return save(path, nodes, [value("x", ["batch", 2])], results, domains={"ai.onnx.ml": 3})


def unseen(found: Verified) -> Any:
    return found.looked.unseen if isinstance(found.looked, Looked) else found.looked


def test_a_sequence_does_not_grow(tmp_path: Path) -> None:
    """Bound for good it would hold the parts of all inferences: longer, larger, slower."""
    found = session(sequence(tmp_path / "m.onnx"))
    for _ in range(5):
        found.enqueue()
    (parts,) = found._binding.native.copy_outputs_to_cpu()
    assert len(parts) == 4
    assert isinstance(found, Unseen)
    assert measured(tmp_path / "m.onnx")[1].looked == Unavailable(
        "no output could be looked at: parts is a seq(tensor(float))"
    )


def test_maps_beside_a_tensor(tmp_path: Path) -> None:
    _, found = measured(probabilities(tmp_path / "m.onnx"), inferences=5)
    assert unseen(found) == {"maps": "a seq(map(int64,tensor(float)))"}


@pytest.mark.parametrize("empty", [False, True])
def test_an_optional(tmp_path: Path, empty: bool) -> None:
    kind = helper.make_tensor_type_proto(FLOAT, ["batch", 2])
    given: dict[str, Any] = {"type": kind} if empty else {}
    node = helper.make_node("Optional", [] if empty else ["x"], ["o"], **given)
    results = [
        helper.make_value_info("o", helper.make_optional_type_proto(kind)),
        value("y", ["batch", 2]),
    ]
    nodes = [node, helper.make_node("Relu", ["x"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["batch", 2])], results)
    assert unseen(measured(path)[1]) == {"o": "an optional(tensor(float))"}
    assert list(outputs(path)) == ["y"]


def test_nothing_but_an_optional(tmp_path: Path) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["batch", 2]))
    node = helper.make_node("Optional", ["x"], ["o"])
    results = [helper.make_value_info("o", kind)]
    path = save(tmp_path / "m.onnx", [node], [value("x", ["batch", 2])], results)
    with pytest.raises(ModelError, match="every output of the model is optional"):
        session(path)


def test_an_output_listed_twice_keeps_its_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    results = [value(name, ["batch", 2]) for name in "yyz"]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["batch", 2])], results)
    np.savez(tmp_path / "inputs.npz", x=np.array([[1, 2]], np.float32))
    found = outputs(path, inputs=str(tmp_path / "inputs.npz"))
    assert {name: array.tolist() for name, array in found.items()} == {
        "y": [[1, 2]],
        "z": [[-1, -2]],
    }


def test_an_output_that_is_an_input_or_a_constant(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "one"], ["y"])
    results = [value("x", ["batch", 2]), value("y", ["batch", 2]), value("one", [])]
    constants = {"one": np.float32(1)}
    path = save(tmp_path / "m.onnx", [node], [value("x", ["batch", 2])], results, constants)
    np.savez(tmp_path / "inputs.npz", x=np.array([[1, 2]], np.float32))
    found = session(path, inputs=str(tmp_path / "inputs.npz"))
    for _ in range(3):
        found.enqueue()
    found.bind({"x": np.array([[5, 6]], np.float32)})
    for _ in range(3):
        found.enqueue()
    read = {name: array.tolist() for name, array in found.outputs().items()}
    assert read == {"x": [[5, 6]], "y": [[6, 7]], "one": 1}
