"""ONNX quantization on small graphs, and on the shipped `digits` model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import DataError, QuantizationError
from harness.quantize import onnx as quantizer
from harness.quantize import onnx_calibration, onnx_graph
from harness.quantize.job import QuantizeJob

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

ASSETS = Path(quantizer.__file__).parents[1] / "zoo" / "assets"
Job = Callable[..., QuantizeJob]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    def make(samples: dict[str, NDArray[Any]] | None = None, **fields: Any) -> QuantizeJob:
        path = tmp_path / "calibration.npz"
        samples = samples or {"x": np.random.default_rng(0).standard_normal((8, 3, 8, 8), "f")}
        np.savez(path, **samples)
        return QuantizeJob(
            **{
                "precision": "int8",
                "calibration_path": str(path),
                "calibration_source": "file",
                "calibration_sha256": "abc",
                "calibration_samples": len(next(iter(samples.values()))),
                **fields,
            }
        )

    return make


def weights(*shape: int, name: str, dtype: str = "float32") -> Any:
    values = np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)
    return numpy_helper.from_array(values, name)


def save(
    path: Path,
    nodes: list[Any],
    initializers: list[Any],
    shape: tuple[int | str, ...] = (2, 3, 8, 8),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def conv_net(path: Path, **how: Any) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    dtype = "float16" if how.get("kind") == TensorProto.FLOAT16 else "float32"
    made = [weights(16, 3, 3, 3, name="w", dtype=dtype), weights(5, 16, name="v", dtype=dtype)]
    return save(path, nodes, made, **how)


def run(path: Path, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: NDArray[Any] = session.run(None, inputs)[0]
    return output


def sqnr_db(reference: NDArray[Any], other: NDArray[Any]) -> float:
    exact = reference.astype(np.float64)
    return float(10 * np.log10((exact**2).sum() / ((exact - other) ** 2).sum()))


def zero_points(path: Path) -> list[NDArray[Any]]:
    model = onnx.load(str(path))
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    return [values[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_static_int8_stays_close_to_fp32(tmp_path: Path, job: Job, method: str) -> None:
    source, target = conv_net(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    made = quantizer.quantize(source, target, job(method=method))
    assert (made.method, made.calibration_source, made.calibration_samples) == (method, "file", 8)
    assert made.scheme.startswith("asymmetric uint8 activations, symmetric int8 weights per chan")
    x = np.random.default_rng(5).standard_normal((2, 3, 8, 8), "f")
    assert sqnr_db(run(source, {"x": x}), run(target, {"x": x})) > 20


def test_the_same_job_makes_the_same_bytes(tmp_path: Path, job: Job) -> None:
    source = conv_net(tmp_path / "a.onnx")
    for name in ("b.onnx", "c.onnx"):
        quantizer.quantize(source, tmp_path / name, job())
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()


def test_the_symmetric_recipe_is_what_tensorrt_takes(tmp_path: Path, job: Job) -> None:
    source, target = conv_net(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    made = quantizer.quantize(source, target, job(), symmetric=True)
    assert made.scheme.startswith("symmetric int8 activations")
    assert {(point.dtype.name, int(point)) for point in zero_points(target)} == {("int8", 0)}
    model = onnx.load(str(target))
    assert not any(i.data_type == TensorProto.INT32 for i in model.graph.initializer)
    scales = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    assert scales["w_scale"].shape == (16,)


def test_nothing_comes_between_what_tensorrt_fuses(tmp_path: Path, job: Job) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    made = [weights(3, 3, 3, 3, name="w"), weights(3, 3, 3, 3, name="v")]
    source, target = save(tmp_path / "a.onnx", nodes, made), tmp_path / "b.onnx"
    quantizer.quantize(source, target, job(), symmetric=True)

    graph = onnx.load(str(target)).graph
    makers = {name: node for node in graph.node for name in node.output}
    second = next(node for node in graph.node if node.name == "second")
    add = next(node for node in graph.node if node.op_type == "Add")
    first_relu = next(node for node in graph.node if node.op_type == "Relu")
    assert [makers[name].op_type for name in second.input[:2]] == ["DequantizeLinear"] * 2
    assert makers[first_relu.input[0]].op_type == "Conv"
    # the convolution as it is, and the residual in int8
    assert [makers[name].op_type for name in add.input] == ["Conv", "DequantizeLinear"]
    x = np.random.default_rng(5).standard_normal((2, 3, 8, 8), "f")
    assert sqnr_db(run(source, {"x": x}), run(target, {"x": x})) > 20


def test_a_convolution_on_the_shortcut_is_quantized_as_the_residual_is(
    tmp_path: Path, job: Job
) -> None:
    """As in the blocks of a ResNet that change their size."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "u"], ["s"], "shortcut"),
        helper.make_node("Add", ["s", "c"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "t"], ["y"], "next"),
    ]
    shapes = {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3), "u": (4, 3, 1, 1), "t": (2, 4, 1, 1)}
    made = [weights(*shape, name=name) for name, shape in shapes.items()]
    source, target = save(tmp_path / "a.onnx", nodes, made), tmp_path / "b.onnx"
    quantizer.quantize(source, target, job(), symmetric=True)

    graph = onnx.load(str(target)).graph
    makers = {name: node for node in graph.node for name in node.output}
    (add,) = (node for node in graph.node if node.op_type == "Add")
    residual, fused = (makers[name] for name in add.input)
    assert (residual.op_type, fused.name) == ("DequantizeLinear", "second")
    assert makers[makers[residual.input[0]].input[0]].name == "shortcut"
    x = np.random.default_rng(5).standard_normal((2, 3, 8, 8), "f")
    assert sqnr_db(run(source, {"x": x}), run(target, {"x": x})) > 20


def test_tensorrt_has_no_dynamic_int8(tmp_path: Path, job: Job) -> None:
    source = conv_net(tmp_path / "a.onnx")
    with pytest.raises(QuantizationError, match="scaled as they run") as caught:
        quantizer.quantize(source, tmp_path / "b.onnx", job(mode="dynamic"), symmetric=True)
    assert caught.value.remedy == "use --quantization static"


def test_digits_loses_at_most_one_percent(tmp_path: Path, job: Job) -> None:
    test = np.load(ASSETS / "digits_test.npz")
    samples = dict(np.load(ASSETS / "digits_calibration.npz"))
    samples.pop("labels", None)
    target = tmp_path / "int8.onnx"
    quantizer.quantize(ASSETS / "digits.onnx", target, job(samples, batch_size=4))
    right = run(target, {"images": test["images"]}).argmax(axis=1) == test["labels"]
    exact = run(ASSETS / "digits.onnx", {"images": test["images"]}).argmax(axis=1)
    assert right.mean() >= (exact == test["labels"]).mean() - 0.01
    assert target.stat().st_size < (ASSETS / "digits.onnx").stat().st_size / 2


def test_dynamic_quantizes_what_multiplies_matrices(tmp_path: Path, job: Job) -> None:
    source, target = conv_net(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    made = quantizer.quantize(source, target, job(mode="dynamic"))
    operators = {node.op_type for node in onnx.load(str(target)).graph.node}
    assert {"Conv", "MatMulInteger"} <= operators
    assert (made.method, made.calibration_source, made.calibration_samples) == (
        "dynamic",
        "none",
        0,
    )
    assert "convolutions stay in fp32" in made.scheme


@pytest.mark.parametrize("opset", [8, 12, 20])
def test_old_and_new_opsets(tmp_path: Path, job: Job, opset: int) -> None:
    source = save(
        tmp_path / "a.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [weights(4, 3, 3, 3, name="w")],
        opset=opset,
    )
    quantizer.quantize(source, tmp_path / "b.onnx", job())
    assert len(zero_points(tmp_path / "b.onnx")) == 2


def test_weights_listed_as_inputs_are_still_weights(tmp_path: Path, job: Job) -> None:
    source, target = conv_net(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    model = onnx.load(str(source))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (16, 3, 3, 3)))
    onnx.save(model, str(source))
    quantizer.quantize(source, target, job())
    assert [value.name for value in onnx.load(str(target)).graph.input] == ["x"]
    assert target.stat().st_size < source.stat().st_size * 3


def test_weights_beside_the_file(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = conv_net(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    external = tmp_path / "external.onnx"
    onnx.save(
        onnx.load(str(source)),
        str(external),
        save_as_external_data=True,
        size_threshold=0,
        location="external.bin",
    )
    monkeypatch.setattr(onnx_graph, "INLINE_LIMIT_BYTES", 100)
    for mode in ("static", "dynamic"):
        quantizer.quantize(external, target, job(mode=mode))
        x = np.random.default_rng(5).standard_normal((2, 3, 8, 8), "f")
        assert sqnr_db(run(source, {"x": x}), run(target, {"x": x})) > 20


def test_float16_models(tmp_path: Path, job: Job) -> None:
    source = conv_net(tmp_path / "a.onnx", kind=TensorProto.FLOAT16, opset=20)
    x = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float16)
    quantizer.quantize(source, tmp_path / "b.onnx", job({"x": x}))
    assert sqnr_db(run(source, {"x": x[:2]}), run(tmp_path / "b.onnx", {"x": x[:2]})) > 20


def test_nothing_to_quantize_names_the_operators(tmp_path: Path, job: Job) -> None:
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Erf", ["e"], ["y"])]
    source = save(tmp_path / "a.onnx", nodes, [])
    for mode in ("static", "dynamic"):
        with pytest.raises(QuantizationError, match=f"for {mode} .* its operators are Erf, Exp"):
            quantizer.quantize(source, tmp_path / "b.onnx", job(mode=mode))


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path, job: Job) -> None:
    quantizer.quantize(conv_net(tmp_path / "a.onnx"), tmp_path / "b.onnx", job())
    with pytest.raises(QuantizationError, match="quantized already: it has QuantizeLinear"):
        quantizer.quantize(tmp_path / "b.onnx", tmp_path / "c.onnx", job())


def test_an_unusable_range_is_refused(tmp_path: Path, job: Job) -> None:
    source = conv_net(tmp_path / "a.onnx")
    samples = {"x": np.full((4, 3, 8, 8), np.nan, "f")}
    with pytest.raises(QuantizationError, match=r"give '\w+' no finite range"):
        quantizer.quantize(source, tmp_path / "b.onnx", job(samples))


def test_an_operator_that_nobody_knows_is_named(tmp_path: Path, job: Job) -> None:
    source = save(tmp_path / "a.onnx", [helper.make_node("Frobnicate", ["x"], ["y"])], [])
    with pytest.raises(QuantizationError, match="Frobnicate") as caught:
        quantizer.quantize(source, tmp_path / "b.onnx", job())
    assert "harness-quantize-" not in str(caught.value)


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, job: Job) -> None:
    source = tmp_path / "a.onnx"
    source.write_bytes(b"not a model")
    with pytest.raises(QuantizationError, match=r"a\.onnx cannot be quantized") as caught:
        quantizer.quantize(source, tmp_path / "b.onnx", job())
    assert "\n" not in str(caught.value)


def test_it_is_quiet_and_leaves_logging_as_it_was(
    tmp_path: Path, job: Job, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = conv_net(tmp_path / "a.onnx")
    for method in ("minmax", "entropy", "percentile"):
        quantizer.quantize(source, tmp_path / "b.onnx", job(method=method))
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "calibration.npz"]


def test_feeds_fill_the_fixed_batch_and_wrap_around() -> None:
    samples = {"x": np.arange(5.0)[:, None], "scale": np.arange(5.0) * 10}
    made = list(onnx_calibration.feeds(samples, {"x": (2, 1), "scale": ()}, batch_size=7))
    assert [feed["x"].ravel().tolist() for feed in made] == [[0, 1], [2, 3], [4, 0]]
    assert [float(feed["scale"]) for feed in made] == [0, 10, 20]


def test_feeds_of_an_open_batch_take_the_jobs() -> None:
    made = list(onnx_calibration.feeds({"x": np.arange(4.0)[:, None]}, {"x": (0, 1)}, batch_size=3))
    assert [feed["x"].ravel().tolist() for feed in made] == [[0, 1, 2], [3, 0, 1]]


def test_feeds_without_any_batch_go_one_by_one() -> None:
    made = list(onnx_calibration.feeds({"x": np.arange(3.0)}, {"x": ()}, batch_size=4))
    assert [float(feed["x"]) for feed in made] == [0, 1, 2]


def test_feeds_need_a_sample() -> None:
    with pytest.raises(DataError, match="no calibration sample"):
        list(onnx_calibration.feeds({"x": np.empty((0, 1))}, {"x": (0, 1)}, batch_size=1))


def test_feeds_need_every_input() -> None:
    with pytest.raises(DataError, match="have no 'y'; the model takes x, y"):
        list(
            onnx_calibration.feeds({"x": np.ones((2, 1))}, {"x": (0, 1), "y": (0, 1)}, batch_size=1)
        )


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx2 avx512f avx512_vnni", False),
        ("AMD64", "flags : avx2 avx_vnni", False),
        ("x86_64", "flags : avx2 avx512f", True),
        ("x86_64", "", True),
        ("aarch64", "", False),
    ],
)
def test_only_x86_without_vnni_saturates(machine: str, flags: str, expected: bool) -> None:
    assert quantizer.saturates(machine, flags) is expected


def test_fp16_computes_in_fp16_and_keeps_its_inputs(tmp_path: Path, job: Job) -> None:
    source, target = conv_net(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    made = quantizer.quantize(source, target, job(precision="fp16"))
    onnx.checker.check_model(str(target), full_check=True)
    model = onnx.load(str(target))
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {i.data_type for i in model.graph.initializer} == {TensorProto.FLOAT16}
    assert (made.method, made.calibration_samples) == ("cast", 0)
    x = np.random.default_rng(5).standard_normal((2, 3, 8, 8), "f")
    assert sqnr_db(run(source, {"x": x}), run(target, {"x": x})) > 50


def test_fp16_refuses_weights_beyond_its_range(tmp_path: Path) -> None:
    source = save(
        tmp_path / "a.onnx",
        [helper.make_node("Add", ["x", "huge"], ["y"])],
        [numpy_helper.from_array(np.array([70000.0], "f"), "huge")],
    )
    with pytest.raises(QuantizationError, match="'huge' holds 70000, beyond fp16's 65504"):
        quantizer.convert_float(source, tmp_path / "b.onnx", "fp16")


def test_bf16_has_no_route(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="no route from ONNX to bf16"):
        quantizer.convert_float(tmp_path / "a.onnx", tmp_path / "b.onnx", "bf16")
