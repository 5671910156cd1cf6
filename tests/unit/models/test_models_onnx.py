"""ONNX files as a stranger may hand them in: what goes in, what is refused, what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from harness.errors import ModelError, UsageError
from harness.models import data
from harness.models.onnx_file import OnnxStructure, read_structure
from harness.models.onnx_index import Range

F, I64, BOOL, STRING = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)


def value(name: str, code: int, shape: Sequence[int | str | None] | None) -> Any:
    return helper.make_tensor_value_info(name, code, shape)


def table(name: str, *shape: int) -> Any:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return numpy_helper.from_array(array, name)


def integers(name: str, *numbers: int) -> Any:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def scalar(name: str, number: int) -> Any:
    return numpy_helper.from_array(np.array(number, np.int64), name)


def model(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    initializers: Sequence[Any] = (),
    opsets: dict[str, int] | None = None,
    **more: Any,
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    versions = [helper.make_opsetid(d, v) for d, v in (opsets or {"": 17}).items()]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=9, **more), path)
    return path


def relu(path: Path, *shape: int | str | None, code: int = F) -> Path:
    node = helper.make_node("Identity", ["x"], ["y"])
    return model(path, [node], [value("x", code, shape)], [value("y", code, shape)])


def gather(path: Path, code: int, rows: int, axis: int, between: Sequence[Any], last: str) -> Path:
    """ids ── between ── Gather of a table with ``rows`` rows along ``axis``."""
    shape = (rows, 4) if axis == 0 else (4, rows)
    return model(
        path,
        [*between, helper.make_node("Gather", ["table", last], ["y"], axis=axis)],
        [value("ids", code, ["batch", 3])],
        [value("y", F, None)],
        [table("table", *shape), scalar("two", 2), integers("flat", -1)],
    )


def run(path: Path, structure: OnnxStructure, seed: int) -> list[Any]:
    """What ONNX Runtime makes of inputs drawn for ``structure``: it raises where one is invalid."""
    ranges = {name: (found.low, found.high) for name, found in structure.ranges.items()}
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, data.draw(structure.inputs, ranges, seed)))


# shapes


def test_symbolic_batch_takes_the_batch_size(tmp_path: Path) -> None:
    found = read_structure(relu(tmp_path / "m.onnx", "N", 3), {}, 5)
    assert found.inputs[0].shape == (5, 3)
    assert found.outputs[0].shape == (5, 3)


def test_unnamed_first_dimension_is_the_batch(tmp_path: Path) -> None:
    assert read_structure(relu(tmp_path / "m.onnx", None, 3), {}, 5).inputs[0].shape == (5, 3)


def test_a_dimension_named_batch_wins_over_the_first(tmp_path: Path) -> None:
    path = relu(tmp_path / "m.onnx", "time", "batch_size", 3)
    with pytest.raises(ModelError, match=r"'x' leaves dimension 0 \(time\) open.*--input-shape x="):
        read_structure(path, {}, 2)
    assert read_structure(path, {"x": (7, 2, 3)}, 2).inputs[0].shape == (7, 2, 3)
    with pytest.raises(ModelError, match=r"batch of 4, --batch-size is 2"):
        read_structure(path, {"x": (7, 4, 3)}, 2)


def test_open_dimension_names_the_flag_with_the_known_sizes(tmp_path: Path) -> None:
    path = relu(tmp_path / "m.onnx", "batch", 3, "height", "width")
    with pytest.raises(ModelError) as raised:
        read_structure(path, {}, 2)
    assert str(raised.value) == (
        "input 'x' leaves dimension 2 (height) open; "
        "give --input-shape x=2x3xSIZExSIZE, such as x=2x3x224x224"
    )


def test_a_symbol_learnt_from_one_input_holds_for_the_other(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    shape = ["batch", "length"]
    path = model(
        tmp_path / "m.onnx",
        [node],
        [value("a", F, shape), value("b", F, shape)],
        [value("y", F, shape)],
    )
    found = read_structure(path, {"a": (1, 9)}, 1)
    assert [spec.shape for spec in found.inputs] == [(1, 9), (1, 9)]
    assert found.outputs[0].shape == (1, 9)
    with pytest.raises(ModelError, match=r"makes 'length' 8, another input makes it 9"):
        read_structure(path, {"a": (1, 9), "b": (1, 8)}, 1)


def test_fixed_batch_other_than_asked_is_refused(tmp_path: Path) -> None:
    path = relu(tmp_path / "m.onnx", 4, 3)
    with pytest.raises(
        ModelError, match=r"fixed batch of 4, --batch-size is 1; use --batch-size 4"
    ):
        read_structure(path, {}, 1)
    assert read_structure(path, {}, 4).inputs[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("shapes", "error", "text"),
    [
        ({"z": (1, 3)}, UsageError, "names 'z', which is no input of the model; its inputs are x"),
        ({"x": (1, 3, 1)}, ModelError, "x=1x3x1 has 3 dimensions, the model declares Nx3"),
        ({"x": (1, 4)}, ModelError, "x=1x4 does not fit Nx3; 3 is fixed in the model"),
    ],
)
def test_given_shapes_must_fit(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        read_structure(relu(tmp_path / "m.onnx", "N", 3), shapes, 1)


def test_scalars_have_no_batch(tmp_path: Path) -> None:
    path = relu(tmp_path / "m.onnx", code=I64)
    assert read_structure(path, {}, 1).inputs[0].shape == ()
    with pytest.raises(ModelError, match="no batch dimension, --batch-size is 2"):
        read_structure(path, {}, 2)


def test_output_sizes_known_only_from_the_data_are_minus_one(tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"])
    path = model(
        tmp_path / "m.onnx", [node], [value("x", F, ["N", 3])], [value("y", I64, [2, "found"])]
    )
    assert read_structure(path, {}, 1).outputs[0].shape == (2, -1)


# inputs and outputs of every type


NAMES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_numeric_type_is_drawn_and_runs(tmp_path: Path, name: str) -> None:
    path = relu(
        tmp_path / "m.onnx", "N", 3, 2, code=helper.np_dtype_to_tensor_dtype(np.dtype(name))
    )
    found = read_structure(path, {}, 2)
    assert found.inputs[0].dtype == name
    (output,) = run(path, found, 0)
    assert output.dtype == np.dtype(name)
    assert output.shape == (2, 3, 2)


@pytest.mark.parametrize("code", [STRING, TensorProto.COMPLEX64, TensorProto.BFLOAT16])
def test_other_types_are_refused_by_name(tmp_path: Path, code: int) -> None:
    with pytest.raises(ModelError, match=r"input 'x' of .* is (string|complex64|bfloat16)"):
        read_structure(relu(tmp_path / "m.onnx", "N", 3, code=code), {}, 1)


def test_sequence_inputs_are_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", F, None)
    node = helper.make_node("SequenceLength", ["x"], ["y"])
    path = model(tmp_path / "m.onnx", [node], [sequence], [value("y", I64, [])])
    with pytest.raises(
        ModelError, match=r"input 'x' of .* is no tensor but of the type sequence; only tensor"
    ):
        read_structure(path, {}, 1)


def test_sequence_outputs_are_left_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    outputs = [helper.make_tensor_sequence_value_info("parts", F, None), value("y", F, ["N", 3])]
    path = model(tmp_path / "m.onnx", nodes, [value("x", F, ["N", 3])], outputs)
    found = read_structure(path, {}, 1)
    assert [spec.name for spec in found.outputs] == ["y"]
    assert len(run(path, found, 0)) == 2


def test_initializers_listed_as_inputs_are_none(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    inputs = [value("x", F, ["N", 3]), value("w", F, [3])]
    path = model(tmp_path / "m.onnx", [node], inputs, [value("y", F, ["N", 3])], [table("w", 3)])
    found = read_structure(path, {}, 1)
    assert [spec.name for spec in found.inputs] == ["x"]
    assert found.parameters == 3


def test_unknown_domains_are_the_runtimes_business(tmp_path: Path) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    path = model(
        tmp_path / "m.onnx",
        [node],
        [value("x", F, ["N", 3])],
        [value("y", F, ["N", 3])],
        opsets={"": 17, "com.microsoft": 1},
    )
    assert run(path, read_structure(path, {}, 2), 0)[0].shape == (2, 3)


# indices


CHAINS: dict[str, tuple[list[Any], str]] = {
    "direct": ([], "ids"),
    "cast": ([helper.make_node("Cast", ["ids"], ["a"], to=I64)], "a"),
    "reshape": (
        [
            helper.make_node("Identity", ["ids"], ["i"]),
            helper.make_node("Reshape", ["i", "flat"], ["a"]),
        ],
        "a",
    ),
    "transpose": ([helper.make_node("Transpose", ["ids"], ["a"])], "a"),
}


@pytest.mark.parametrize("chain", CHAINS)
@given(rows=st.integers(1, 40), axis=st.sampled_from([0, 1, -1]), seed=st.integers(0, 2**32 - 1))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_indices_stay_within_their_table(
    tmp_path: Path, chain: str, rows: int, axis: int, seed: int
) -> None:
    between, last = CHAINS[chain]
    path = gather(tmp_path / "m.onnx", I64, rows, axis, between, last)
    found = read_structure(path, {}, 2)
    assert found.ranges == {"ids": Range(0, rows)}
    run(path, found, seed)


def test_an_added_constant_shortens_the_table(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["ids", "two"], ["a"])
    found = read_structure(gather(tmp_path / "m.onnx", I64, 10, 0, [node], "a"), {}, 2)
    assert found.ranges == {"ids": Range(0, 8)}


def test_floats_that_become_indices_are_whole(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["ids"], ["a"], to=I64)
    path = gather(tmp_path / "m.onnx", F, 6, 0, [node], "a")
    found = read_structure(path, {}, 2)
    drawn = data.draw(found.inputs, {"ids": (0, 6)}, 0)["ids"]
    assert found.ranges == {"ids": Range(0, 6)}
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn, np.clip(np.floor(drawn), 0, 5))


def test_the_smallest_of_several_tables_counts(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", [t, "ids"], [f"y_{t}"]) for t in ("large", "small")]
    path = model(
        tmp_path / "m.onnx",
        nodes,
        [value("ids", I64, ["N", 3])],
        [value(f"y_{t}", F, None) for t in ("large", "small")],
        [table("large", 30, 2), table("small", 5, 2)],
    )
    assert read_structure(path, {}, 1).ranges == {"ids": Range(0, 5)}


def test_a_table_that_is_computed_has_its_inferred_size(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["twice"], axis=0),
        helper.make_node("Gather", ["twice", "ids"], ["y"]),
    ]
    inputs = [value("x", F, ["rows", 4]), value("ids", I64, ["batch"])]
    path = model(tmp_path / "m.onnx", nodes, inputs, [value("y", F, None)])
    found = read_structure(path, {"x": (3, 4)}, 2)
    assert found.ranges == {"ids": Range(0, 6)}


def test_a_table_inside_a_branch_is_found(tmp_path: Path) -> None:
    def branch(name: str) -> Any:
        node = helper.make_node("Gather", ["table", "ids"], [name])
        return helper.make_graph([node], name, [], [value(name, F, None)])

    node = helper.make_node(
        "If", ["flag"], ["y"], then_branch=branch("then"), else_branch=branch("other")
    )
    inputs = [value("flag", BOOL, []), value("ids", I64, ["batch", 2])]
    path = model(tmp_path / "m.onnx", [node], inputs, [value("y", F, None)], [table("table", 9, 2)])
    found = read_structure(path, {}, 3)
    assert found.ranges == {"ids": Range(0, 9)}
    run(path, found, 1)


def test_a_table_inside_a_function_is_found(tmp_path: Path) -> None:
    version = helper.make_opsetid("", 17)
    look_up = helper.make_function(
        "own",
        "LookUp",
        ["t", "i"],
        ["o"],
        [helper.make_node("Gather", ["t", "i"], ["o"])],
        [version],
    )
    path = model(
        tmp_path / "m.onnx",
        [helper.make_node("LookUp", ["table", "ids"], ["y"], domain="own")],
        [value("ids", I64, ["batch", 2])],
        [value("y", F, None)],
        [table("table", 9, 2)],
        opsets={"": 17, "own": 1},
        functions=[look_up],
    )
    found = read_structure(path, {}, 3)
    assert found.ranges == {"ids": Range(0, 9)}
    run(path, found, 1)


def test_divisors_are_not_zero(tmp_path: Path) -> None:
    node = helper.make_node("Div", ["x", "by"], ["y"])
    inputs = [value("x", I64, ["N", 3]), value("by", I64, ["N", 3])]
    path = model(tmp_path / "m.onnx", [node], inputs, [value("y", I64, ["N", 3])])
    found = read_structure(path, {}, 4)
    assert found.ranges == {"by": Range(1, 3)}
    run(path, found, 0)


def test_gather_elements_and_gather_nd(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GatherElements", ["wide", "a"], ["ya"], axis=1),
        helper.make_node("GatherND", ["wide", "b"], ["yb"]),
    ]
    inputs = [value("a", I64, [4, 2]), value("b", I64, [4, 2])]
    outputs = [value("ya", F, None), value("yb", F, None)]
    path = model(tmp_path / "m.onnx", nodes, inputs, outputs, [table("wide", 4, 11)])
    found = read_structure(path, {}, 4)
    assert found.ranges == {"a": Range(0, 11), "b": Range(0, 4)}
    run(path, found, 3)


# files that are not what they claim


def external(path: Path, location: str, length: int = 12) -> Path:
    """A model whose weight lies in ``location``, written by hand: onnx.save would refuse some."""
    tensor = TensorProto(name="w", dims=[3], data_type=F, data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("length", str(length))):
        tensor.external_data.add(key=key, value=text)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    inputs, outputs = [value("x", F, ["N", 3])], [value("y", F, ["N", 3])]
    graph = helper.make_graph([node], "graph", inputs, outputs, [tensor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    path = external(tmp_path / "m.onnx", "w.bin")
    (tmp_path / "w.bin").write_bytes(np.ones(3, np.float32).tobytes())
    found = read_structure(path, {}, 1)
    assert found.external == ("w.bin",)
    assert found.parameters == 3
    assert run(path, found, 0)[0].shape == (1, 3)


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(12))
    (folder / "link.bin").symlink_to(secret)
    for location in (str(secret), "../secret.bin", "sub/../../secret.bin", "link.bin", ""):
        path = external(folder / "m.onnx", location)
        with pytest.raises(ModelError, match="points outside the model's folder"):
            read_structure(path, {}, 1)


def test_external_data_missing_or_cut_short(tmp_path: Path) -> None:
    path = external(tmp_path / "m.onnx", "w.bin")
    with pytest.raises(ModelError, match=r"is missing: .*w\.bin"):
        read_structure(path, {}, 1)
    (tmp_path / "w.bin").write_bytes(bytes(11))
    with pytest.raises(ModelError, match="is cut short: 11 bytes of at least 12"):
        read_structure(path, {}, 1)


def test_truncated_files_never_pass_and_never_crash(tmp_path: Path) -> None:
    whole = gather(tmp_path / "m.onnx", I64, 5, 0, [], "ids").read_bytes()
    for end in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.onnx").write_bytes(whole[:end])
        with pytest.raises(ModelError) as raised:
            read_structure(tmp_path / "cut.onnx", {}, 1)
        assert "\n" not in str(raised.value)


@given(garbage=st.binary(max_size=200))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_garbage_is_no_model(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(garbage)
    with pytest.raises(ModelError):
        read_structure(path, {}, 1)


def test_more_than_protobuf_can_hold_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ModelError, match=r"3,221,225,472 bytes, more than an ONNX file can hold"):
        read_structure(path, {}, 1)


def test_a_graph_that_uses_what_nobody_made_is_invalid(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["nothing"], ["y"])
    path = model(tmp_path / "m.onnx", [node], [value("x", F, ["N"])], [value("y", F, ["N"])])
    with pytest.raises(ModelError, match="is not valid ONNX"):
        read_structure(path, {}, 1)
