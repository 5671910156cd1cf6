"""The ONNX Runtime adapter beyond the contract: options, precisions, odd graphs, bad files."""

from __future__ import annotations

import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.backends.onnxruntime.operators import kernel_precision
from harness.errors import BackendUnavailable, MeasurementFailed, ModelError, UsageError
from harness.maybe import Unavailable
from harness.protocols import Artifact, Available, Session, SessionOptions
from harness.quantize.job import QuantizeJob

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Inputs = dict[str, NDArray[Any]]


def artifact(path: Path, precision: str = "fp32") -> Artifact:
    return Artifact("onnx", str(path), "", precision, "", 0, ())


def save(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, tuple[int | str, ...]]],
    outputs: list[Any],
    initializers: list[Any] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [
            helper.make_tensor_value_info(output, FLOAT, None)
            if isinstance(output, str)
            else output
            for output in outputs
        ],
        initializers or [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def doubler(tmp_path: Path) -> Path:
    return save(
        tmp_path / "double.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        {"x": (FLOAT, ("n",))},
        ["y"],
    )


def prepare(path: Path, inputs: Inputs, **options: Any) -> Session:
    backend = OnnxRuntimeBackend()
    return backend.prepare(artifact(path), inputs, SessionOptions(**options))


def infer(session: Session) -> dict[str, NDArray[Any]]:
    session.enqueue()
    session.synchronize()
    return dict(session.outputs())


ONES = {"x": np.ones(4, "f")}


def test_it_is_available_on_the_cpu_and_says_which_version() -> None:
    found = OnnxRuntimeBackend().availability("cpu")
    assert isinstance(found, Available)
    assert found.details["version"] == ort.__version__


def test_a_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = OnnxRuntimeBackend().availability("cpu")
    assert isinstance(found, Unavailable)
    assert found.remedy == "pip install 'hw-harness[onnxruntime]'"
    with pytest.raises(BackendUnavailable, match="onnxruntime"):
        OnnxRuntimeBackend().prepare(artifact(Path("a.onnx")), ONES, SessionOptions())


def test_a_device_of_no_known_kind_is_refused() -> None:
    found = OnnxRuntimeBackend().availability("abacus:0")
    assert isinstance(found, Unavailable)
    assert "'abacus:0'" in found.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": "2"}, "no option 'threads'; choose one of graph_optimization_level, exec"),
        ({"graph_optimization_level": "99"}, "is '99'; choose one of all, extended, basic, dis"),
        ({"execution_mode": ""}, "is ''; choose one of sequential, parallel"),
    ],
)
def test_bad_options_are_refused_with_the_good_ones(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OnnxRuntimeBackend().wants("fp32", SessionOptions(options=options))


def test_inter_threads_need_the_parallel_mode() -> None:
    with pytest.raises(UsageError, match="--inter-threads 2 does nothing in sequential"):
        OnnxRuntimeBackend().wants("fp32", SessionOptions(inter_threads=2))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_refused_on_the_cpu(precision: str) -> None:
    with pytest.raises(
        UsageError, match=f"no {precision} kernels on cpu.*--precision fp32 or int8"
    ):
        OnnxRuntimeBackend().wants(precision, SessionOptions())


def test_options_are_reported_as_the_runtime_holds_them(doubler: Path) -> None:
    session = prepare(
        doubler,
        ONES,
        threads=2,
        inter_threads=2,
        options={
            "graph_optimization_level": "disable",
            "execution_mode": "parallel",
            "allow_spinning": "off",
            "arena": "off",
            "deterministic": "on",
        },
    )
    runtime = session.describe().runtime
    assert runtime["intra_op_threads"] == runtime["inter_op_threads"] == "2"
    assert runtime["graph_optimization_level"] == "ORT_DISABLE_ALL"
    assert runtime["execution_mode"] == "ORT_PARALLEL"
    assert (runtime["allow_spinning"], runtime["arena"]) == ("off", "off")
    assert runtime["deterministic"] == "on"
    assert runtime["providers"] == "CPUExecutionProvider"
    assert runtime["nodes_by_provider"] == "CPUExecutionProvider 1"


def test_sessions_share_the_model_until_the_last_is_closed(doubler: Path) -> None:
    backend = OnnxRuntimeBackend()
    sessions: list[Any] = [
        backend.prepare(artifact(doubler), ONES, SessionOptions()) for _ in range(2)
    ]
    assert sessions[0]._loaded is sessions[1]._loaded
    loaded = weakref.ref(sessions[0]._loaded)
    sessions[0].close()
    assert loaded() is not None
    sessions[1].close()
    assert loaded() is None


def test_timed_calls_reuse_the_buffers_of_the_first(doubler: Path) -> None:
    session: Any = prepare(doubler, ONES)
    session.enqueue()
    native = session._binding.native
    first = native.get_outputs()[0].data_ptr()
    assert isinstance(session.enqueue, partial)  # the runtime's method, no function of ours
    for _ in range(5):
        session.enqueue()
        assert native.get_outputs()[0].data_ptr() == first


def test_the_timed_call_is_the_public_method_and_nothing_around_it(doubler: Path) -> None:
    session: Any = prepare(doubler, ONES)
    session.enqueue()
    assert session.enqueue.func == session._loaded.session.run_with_iobinding
    assert session.enqueue.args == (session._binding.native,)


def test_the_callers_arrays_are_not_used_afterwards(doubler: Path) -> None:
    mine = {"x": np.ones(4, "f")}
    session = prepare(doubler, mine)
    mine["x"][:] = 7
    assert infer(session)["y"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("kind", "dtype", "shape"),
    [
        (TensorProto.FLOAT16, "float16", (2, 3)),
        (TensorProto.DOUBLE, "float64", ()),
        (TensorProto.INT32, "int32", (1,)),
        (TensorProto.INT64, "int64", (2, 0)),
        (TensorProto.UINT8, "uint8", (5,)),
        (TensorProto.BOOL, "bool", (2, 2)),
    ],
)
def test_every_numeric_type_and_shape(
    tmp_path: Path, kind: int, dtype: str, shape: tuple[int, ...]
) -> None:
    path = save(
        tmp_path / "a.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (kind, shape)},
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    session = prepare(path, {"x": x})
    for wanted in (x, np.ones_like(x)):
        session.bind({"x": wanted})
        got = infer(session)["y"]
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert (got == wanted).all()


def test_outputs_whose_shape_follows_the_data(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.onnx",
        [
            helper.make_node("NonZero", ["x"], ["where"]),
            helper.make_node("SplitToSequence", ["x"], ["parts"]),
        ],
        {"x": (FLOAT, (4,))},
        [
            helper.make_tensor_value_info("where", INT64, None),
            helper.make_tensor_sequence_value_info("parts", FLOAT, None),
        ],
    )
    session = prepare(path, {"x": np.array([0, 1, 0, 1], "f")})
    for _ in range(3):
        assert {k: v.tolist() for k, v in infer(session).items()} == {"where": [[1, 3]]}
    session.bind({"x": np.array([1, 0, 0, 0], "f")})
    for _ in range(3):
        assert infer(session)["where"].tolist() == [[0]]
    session.bind({"x": np.zeros(4, "f")})
    assert infer(session)["where"].shape == (1, 0)


def test_an_input_passed_through_is_an_output(tmp_path: Path) -> None:
    same = helper.make_tensor_value_info("x", FLOAT, (2,))
    path = save(
        tmp_path / "a.onnx",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": (FLOAT, (2,))},
        ["y", same],
    )
    session = prepare(path, {"x": np.array([1, 2], "f")})
    for _ in range(2):
        got = infer(session)
        assert (got["x"].tolist(), got["y"].tolist()) == ([1, 2], [-1, -2])


def test_what_ran_in_int8_is_counted(tmp_path: Path) -> None:
    from harness.quantize.onnx import quantize

    weights = np.random.default_rng(0).standard_normal((16, 3, 3, 3), "f")
    path = save(
        tmp_path / "a.onnx",
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Erf", ["c"], ["y"])],
        {"x": (FLOAT, (1, 3, 8, 8))},
        ["y"],
        [numpy_helper.from_array(weights, "w")],
    )
    x = {"x": np.random.default_rng(1).standard_normal((1, 3, 8, 8), "f")}
    np.savez(tmp_path / "samples.npz", **x)
    job = QuantizeJob(
        precision="int8",
        calibration_path=str(tmp_path / "samples.npz"),
        calibration_source="file",
        calibration_sha256="",
        calibration_samples=1,
    )
    quantize(path, tmp_path / "b.onnx", job)
    exact = prepare(path, x).describe().operators
    assert exact == {"Conv": {"fp32": 1}, "Erf": {"fp32": 1}} | {
        name: {"fp32": 1} for name in ("ReorderOutput",) if name in exact
    }
    reduced = prepare(tmp_path / "b.onnx", x).describe().operators
    assert not isinstance(reduced, Unavailable)
    assert reduced["QLinearConv"] == {"int8": 1}
    assert reduced["Erf"] == {"fp32": 1}
    assert reduced["QuantizeLinear"] == {"convert": 1}
    assert "Conv" not in reduced


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "expected"),
    [
        ("QLinearConv", ["uint8", "float", "uint8"], ["uint8"], "int8"),
        ("MatMulIntegerToFloat", ["uint8", "int8", "float"], ["float"], "int8"),
        ("DynamicQuantizeMatMul", ["float", "int8", "float"], ["float"], "int8"),
        ("QuantizeLinear", ["float", "float", "uint8"], ["uint8"], "convert"),
        ("DequantizeLinear", ["int8", "float", "int8"], ["float"], "convert"),
        ("Cast", ["float"], ["float16"], "convert"),
        ("Conv", ["float", "float"], ["float"], "fp32"),
        ("Gather", ["float16", "int64"], ["float16"], "fp16"),
        ("Gather", ["int64", "int64"], ["int64"], "int64"),
        ("Where", ["bool", "double", "double"], ["double"], "fp64"),
        ("ConstantOfShape", ["int64"], ["float"], "fp32"),
        ("Transpose", ["uint8"], ["uint8"], "int8"),
        ("Shape", ["float"], ["int64"], "int64"),
        ("If", [], [], "none"),
        # a scale, a condition or indices may come before what is computed on
        ("QLinearConcat", ["float", "uint8", "uint8", "float", "uint8"], ["uint8"], "int8"),
        ("QLinearWhere", ["bool", "uint8", "float", "uint8", "uint8"], ["uint8"], "int8"),
        ("QEmbedLayerNormalization", ["int32", "int32", "uint8"], ["float", "int32"], "int8"),
        ("QLinearSoftmax", ["uint8", "float", "uint8"], ["uint8"], "int8"),
        ("QGemm", ["uint8", "float", "uint8", "int8", "float"], ["float"], "int8"),
        ("QAttention", ["uint8", "int8", "float"], ["float"], "int8"),
        ("QOrderedMatMul", ["int8", "float", "int8"], ["int8"], "int8"),
        ("MatMulInteger", ["uint8", "int8"], ["int32"], "int8"),
        ("ConvInteger", ["uint8", "uint8"], ["int32"], "int8"),
        ("DynamicQuantizeLSTM", ["float", "int8", "int8"], ["float"], "int8"),
        ("MatMulInteger16", ["int16", "int16"], ["int32"], "int16"),
        ("Where", ["bool", "uint8", "uint8"], ["uint8"], "int8"),
        ("Concat", ["uint8", "uint8"], ["uint8"], "int8"),
        ("Gather", ["int8", "int64"], ["int8"], "int8"),
        ("ArgMax", ["uint8"], ["int64"], "int8"),
        # 8 bits that are indices or weights only
        ("OneHot", ["uint8", "int64", "float"], ["float"], "fp32"),
        ("MatMulNBits", ["float", "uint8", "float"], ["float"], "weight-only"),
        ("MatMulBnb4", ["float16", "uint8", "float"], ["float16"], "weight-only"),
        ("GatherBlockQuantized", ["uint8", "int64", "float"], ["float"], "weight-only"),
        ("QuantizeWithOrder", ["float", "float"], ["int8"], "convert"),
        # names that begin like those of integer kernels
        ("QuickGelu", ["float"], ["float"], "fp32"),
        ("Where", ["bool", "float", "float"], ["float"], "fp32"),
    ],
)
def test_kernel_precision(
    operator: str, inputs: list[str], outputs: list[str], expected: str
) -> None:
    assert kernel_precision(operator, inputs, outputs) == expected


def test_kernels_that_begin_with_a_scale_or_a_condition_ran_in_int8(tmp_path: Path) -> None:
    """Concat and Where between Q/DQ pairs, which the runtime fuses into QLinear kernels."""

    def pair(source: str, made: str) -> list[Any]:
        scaling = ["scale", "zero"]
        return [
            helper.make_node("QuantizeLinear", [source, *scaling], [f"{made}_q"]),
            helper.make_node("DequantizeLinear", [f"{made}_q", *scaling], [made]),
        ]

    nodes = [
        *pair("x", "a"),
        helper.make_node("Concat", ["a", "a"], ["b"], axis=0),
        *pair("b", "c"),
        helper.make_node("Where", ["where", "c", "c"], ["d"]),
        *pair("d", "y"),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.uint8(0), "where": np.eye(8, dtype=bool)[0]}
    path = save(
        tmp_path / "a.onnx",
        nodes,
        {"x": (FLOAT, (4,))},
        ["y"],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    ran = prepare(path, ONES).describe().operators
    assert isinstance(ran, dict)
    assert (ran["QLinearConcat"], ran["QLinearWhere"]) == ({"int8": 1}, {"int8": 1})


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such model file: .*nowhere\.onnx"):
        prepare(tmp_path / "nowhere.onnx", ONES)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"cannot load .*broken\.onnx: INVALID_PROTOBUF") as caught:
        prepare(broken, ONES)
    assert "\n" not in str(caught.value)


def test_an_operator_without_a_kernel_is_named(tmp_path: Path) -> None:
    bfloat16 = TensorProto.BFLOAT16
    path = save(
        tmp_path / "a.onnx",
        [
            helper.make_node("Cast", ["x"], ["a"], to=bfloat16),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Cast", ["b"], ["y"], to=FLOAT),
        ],
        {"x": (FLOAT, (4,))},
        ["y"],
    )
    with pytest.raises(ModelError, match="Relu"):
        prepare(path, ONES)


def test_inputs_that_the_model_does_not_have(doubler: Path) -> None:
    with pytest.raises(ModelError, match="takes the inputs 'x' and was given 'y'"):
        prepare(doubler, {"y": ONES["x"]})


def test_string_inputs_are_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.STRING, (1,))},
        [helper.make_tensor_value_info("y", TensorProto.STRING, (1,))],
    )
    with pytest.raises(ModelError, match=r"'x' is a tensor\(string\)"):
        prepare(path, {"x": np.array(["a"], dtype=object)})


def test_a_failing_inference_is_one_line(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": (FLOAT, ("n",)), "shape": (INT64, (1,))},
        ["y"],
    )
    inputs = {**ONES, "shape": np.array([3], "int64")}
    session = prepare(path, inputs)
    with pytest.raises(MeasurementFailed, match=r"failed to run the model: .*Reshape") as caught:
        session.enqueue()
    assert "\n" not in str(caught.value)
    description = session.describe()
    assert isinstance(description.operators, Unavailable)
    session.bind({**inputs, "shape": np.array([4], "int64")})
    assert infer(session)["y"].shape == (4,)


def test_a_closed_session_says_so(doubler: Path) -> None:
    session = prepare(doubler, ONES)
    session.close()
    for call in (session.enqueue, session.synchronize, session.outputs, session.describe):
        with pytest.raises(MeasurementFailed, match="this session is closed"):
            call()


def test_nothing_is_written_or_printed(
    doubler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    session = prepare(doubler, ONES)
    infer(session)
    msgspec.json.encode(session.describe())
    session.close()
    assert not list(elsewhere.iterdir())
    assert not list((tmp_path / "tmp").iterdir())
    assert capfd.readouterr() == ("", "")


def test_loading_on_the_cpu_looks_at_no_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing them takes longer than the load itself; engines alone are kept by their versions."""
    import importlib.metadata

    from harness.zoo.shipped import ASSETS

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the installed packages were listed")

    monkeypatch.setattr(importlib.metadata, "distributions", refuse)
    image = np.zeros((1, 1, 8, 8), np.float32)
    name = onnx.load(str(ASSETS / "digits.onnx")).graph.input[0].name
    session = OnnxRuntimeBackend().prepare(
        artifact(ASSETS / "digits.onnx"), {name: image}, SessionOptions()
    )
    session.close()
