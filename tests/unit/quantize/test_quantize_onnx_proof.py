"""INT8 artifacts compute what their ONNX models compute, or say which layers stay in FP32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import QuantizationError
from harness.protocols import Proof, Quantization
from harness.quantize.job import QuantizeJob

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from harness.quantize import onnx_graph, onnx_proof  # noqa: E402
from harness.quantize.onnx import quantize  # noqa: E402

Arrays = dict[str, Any]
LOWEST = float(np.finfo(np.float32).min)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


class Net:
    """One ONNX file, its calibration samples, and both precisions run on other inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.target = folder / "fp32.onnx", folder / "int8.onnx"
        self.made: Quantization | None = None

    def save(
        self,
        nodes: list[Any],
        constants: Arrays,
        shapes: dict[str, tuple[int | str, ...]],
        *,
        outputs: tuple[str, ...] = ("y",),
        opset: int = 17,
        ir_version: int = 8,
        listed: bool = False,
    ) -> Net:
        """``listed``: the constants stand among the inputs too, as old files have it."""
        self.shapes = shapes
        declared = {**shapes, **({n: a.shape for n, a in constants.items()} if listed else {})}
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in declared.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        onnx.save(model, str(self.source))
        return self

    def inputs(self, count: int, seed: int) -> Arrays:
        return {
            name: normal(count, *(int(d) for d in shape[1:]), seed=seed)
            for name, shape in self.shapes.items()
        }

    def quantize(self, *, symmetric: bool = False, **how: Any) -> Proof:
        path = self.folder / "calibration.npz"
        np.savez(path, **self.inputs(32, seed=1))
        job = QuantizeJob(
            precision="int8",
            calibration_path=str(path),
            calibration_source="file",
            calibration_sha256="abc",
            calibration_samples=32,
            **how,
        )
        self.made = quantize(self.source, self.target, job, symmetric=symmetric)
        assert self.made.proof is not None
        return self.made.proof

    def both(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Each output in FP32 and in INT8, on new inputs within the range of the calibration."""
        feed = {name: array * np.float32(0.7) for name, array in self.inputs(1, seed=2).items()}
        runs = [
            ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)
            for path in (self.source, self.target)
        ]
        return list(zip(*runs, strict=True))

    def sqnr_db(self) -> float:
        """Of the worst output, over elements that no mask took out."""
        worst = np.inf
        for exact, ours in self.both():
            seen = np.abs(exact) < 1e3
            assert np.array_equal(np.isfinite(exact), np.isfinite(ours))
            noise = ((exact - ours)[seen].astype(np.float64) ** 2).sum()
            signal = (exact[seen].astype(np.float64) ** 2).sum()
            worst = min(worst, 10 * np.log10(signal / noise) if noise else np.inf)
        return float(worst)

    def operators(self) -> list[str]:
        return sorted({node.op_type for node in onnx.load(str(self.target)).graph.node})


@pytest.fixture
def net(tmp_path: Path) -> Net:
    return Net(tmp_path)


def clipped(net: Net, low: float | None, high: float | None, **how: Any) -> Net:
    bounds = {"low": low, "high": high}
    given = {name: np.float32(value) for name, value in bounds.items() if value is not None}
    names = [name if name in given else "" for name in bounds]
    return net.save(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
            helper.make_node("Clip", ["a", *names], ["y"], "clip"),
        ],
        {"w": normal(8, 3, 3, 3) * np.float32(0.3), **given},
        {"x": ("batch", 3, 12, 12)},
        **how,
    )


@pytest.mark.parametrize(("low", "high"), [(1.0, None), (0.5, 2.0), (None, -0.25), (-2.0, -1.0)])
def test_a_clip_whose_bounds_leave_out_zero_still_clips(
    net: Net, low: float | None, high: float | None
) -> None:
    proof = clipped(net, low, high).quantize()
    assert "Clip" in net.operators()
    assert proof.left == {"clip": "clips to bounds that 8 bits do not stand for"}
    assert net.sqnr_db() > 30
    ((_, ours),) = net.both()
    assert low is None or ours.min() == pytest.approx(low, abs=1e-6)


def test_a_clip_around_zero_becomes_the_range(net: Net) -> None:
    proof = clipped(net, 0.0, 6.0).quantize()
    assert "Clip" not in net.operators() and proof.left == {}
    assert net.sqnr_db() > 30


def test_a_clip_to_a_computed_bound_still_clips(net: Net) -> None:
    net.save(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("ReduceMean", ["x"], ["low"], keepdims=0),
            helper.make_node("Clip", ["a", "low"], ["y"]),
        ],
        {"w": normal(8, 3, 3, 3)},
        {"x": ("batch", 3, 12, 12)},
    )
    assert list(net.quantize().left) == ["Clip y"]  # a node without a name goes by its output
    assert net.sqnr_db() > 25


GEMMS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...] | None]] = {
    "beta": ({"alpha": 0.5, "beta": 2.0}, (8, 4), (4,)),
    "beta of a row": ({"beta": 3.0}, (8, 4), (1, 4)),
    "row": ({}, (8, 4), (1, 4)),
    "one bias for all": ({"beta": 0.5}, (8, 4), (1,)),
    "scalar bias": ({}, (8, 4), ()),
    "bias per sample": ({"beta": 2.0}, (8, 4), (1, 1)),
    "transposed weights": ({"alpha": -2.0, "transB": 1}, (4, 8), (4,)),
    "no bias": ({"alpha": 3.0}, (8, 4), None),
}


@pytest.mark.parametrize(
    ("form", "symmetric"), [*((form, False) for form in GEMMS), ("beta", True), ("row", True)]
)
def test_a_gemm_keeps_its_factors_and_its_bias(net: Net, form: str, symmetric: bool) -> None:
    attributes, weights, bias = GEMMS[form]
    constants = {"w": normal(*weights)}
    if bias is not None:
        constants["c"] = normal(*bias, seed=3) + np.float32(2)
    node = helper.make_node("Gemm", ["x", *constants], ["y"], **attributes)
    proof = net.save([node], constants, {"x": ("batch", 8)}).quantize(symmetric=symmetric)
    assert proof.left == {} and proof.layers == 1
    assert net.sqnr_db() > 30


def test_a_gemm_of_computed_operands_keeps_its_factors(net: Net) -> None:
    """Both operands come from the input, and so does a bias of one value a row."""
    net.save(
        [
            helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
            helper.make_node("MatMul", ["xt", "u"], ["b"]),
            helper.make_node("ReduceSum", ["x"], ["c"], keepdims=1),
            helper.make_node("Gemm", ["x", "b", "c"], ["y"], "gemm", alpha=0.5, beta=2.0),
        ],
        {"u": normal(1, 5)},
        {"x": (1, 8)},
    )
    net.quantize()
    assert net.sqnr_db() > 25


def test_a_bias_of_several_rows_is_added(net: Net) -> None:
    net.save(
        [helper.make_node("Gemm", ["x", "w", "c"], ["y"], transA=1, beta=2.0)],
        {"w": normal(3, 4), "c": normal(8, 4)},
        {"x": (3, 8)},
    )
    net.shapes = {"x": (1, 3, 8)}  # samples along an axis of their own
    np.savez(net.folder / "calibration.npz", x=normal(16, 3, 8))
    job = QuantizeJob(
        precision="int8",
        calibration_path=str(net.folder / "calibration.npz"),
        calibration_source="file",
        calibration_sha256="",
        calibration_samples=16,
    )
    made = quantize(net.source, net.target, job)
    assert made.proof is not None and made.proof.left == {}
    feed = {"x": normal(3, 8, seed=9)}
    exact, ours = (
        ort.InferenceSession(str(path)).run(None, feed)[0] for path in (net.source, net.target)
    )
    assert 10 * np.log10((exact**2).sum() / ((exact - ours) ** 2).sum()) > 30


def test_a_product_and_a_bias_of_two_dimensions(net: Net) -> None:
    net.save(
        [
            helper.make_node("MatMul", ["x", "w"], ["t"]),
            helper.make_node("Add", ["t", "c"], ["y"]),
        ],
        {"w": normal(8, 4), "c": normal(1, 4)},
        {"x": ("batch", 8)},
    )
    assert net.quantize().left == {}
    assert net.sqnr_db() > 30


def masked(net: Net, low: float, how: str) -> Net:
    mask = np.array([0, 0, low, 0, low, 0], np.float32)
    chain = {
        "add": [helper.make_node("Add", ["a", "mask"], ["b"], "mask it")],
        "where": [helper.make_node("Where", ["seen", "a", "low"], ["b"], "mask it")],
        "added twice": [
            helper.make_node("Add", ["a", "mask"], ["a2"], "mask"),
            helper.make_node("Add", ["a2", "shift"], ["b"], "mask it"),
        ],
    }[how]
    return net.save(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "scores"),
            *chain,
            helper.make_node("Softmax", ["b"], ["p"], "softmax", axis=-1),
            helper.make_node("MatMul", ["p", "v"], ["y"], "values"),
        ],
        {
            "w": normal(8, 6),
            "v": normal(6, 5),
            "mask": mask,
            "seen": mask == 0,
            "low": np.float32(low),
            "shift": normal(6),
        },
        {"x": ("batch", 8)},
    )


@pytest.mark.parametrize(
    ("how", "low"),
    [
        *(("add", low) for low in (-np.inf, LOWEST, -1e9, -65504.0, -1e4)),
        ("where", -np.inf),
        ("where", LOWEST),
        ("added twice", -1e9),
    ],
)
def test_a_mask_does_not_set_the_range_of_the_scores(net: Net, how: str, low: float) -> None:
    proof = masked(net, low, how).quantize()
    assert net.sqnr_db() > 20
    # the products before and behind stay in INT8; one with what is added to it goes by one name
    name = {"add": "scores Add", "where": "mask it", "added twice": "scores Add"}[how]
    assert {name, "softmax"} <= proof.left.keys()
    assert not {"scores", "values"} & proof.left.keys()
    why = proof.left[name]
    assert why == "has infinite values" if low == -np.inf else why.startswith("has values from -")


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_infinities_have_no_histogram(net: Net, method: str) -> None:
    masked(net, -np.inf, "add").quantize(method=method)
    assert net.sqnr_db() > 12  # these methods cut off a part of so few values


def test_masked_scores_as_an_output_are_not_collapsed(net: Net) -> None:
    net.save(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "mask"], ["y"], "mask it"),
        ],
        {"w": normal(8, 6), "mask": np.array([0, 0, LOWEST, 0, 0, 0], np.float32)},
        {"x": ("batch", 8)},
    )
    assert net.quantize().left.keys() == {"MatMul a Add"}
    assert net.sqnr_db() > 30


@pytest.mark.parametrize("opset", [7, 10])
def test_ir_version_3(net: Net, opset: int) -> None:
    net.save(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["a"]),
            helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"]),
            helper.make_node("Relu", ["n"], ["r"]),
            helper.make_node("Dropout", ["r"], ["d"]),
            helper.make_node("GlobalAveragePool", ["d"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "u", "c"], ["y"]),
        ],
        {
            "w": normal(8, 3, 3, 3),
            "b": normal(8),
            "s": np.abs(normal(8)),
            "m": normal(8, seed=1),
            "v": np.abs(normal(8, seed=2)),
            "u": normal(8, 5),
            "c": normal(5),
        },
        {"x": ("batch", 3, 8, 8)},
        opset=opset,
        ir_version=3,
        listed=True,
    )
    proof = net.quantize()
    assert proof.left == {} and proof.layers >= 3
    assert net.sqnr_db() > 25


def stacked(net: Net) -> Net:
    return net.save(
        [
            helper.make_node("MatMul", ["x", "u"], ["a"], "matrix"),
            helper.make_node("MatMul", ["a", "w"], ["y"], "heads"),
        ],
        {"u": normal(12, 12), "w": normal(3, 12, 7)},
        {"x": ("batch", 3, 5, 12)},
    )


def test_a_stack_of_weights_is_quantized_as_a_whole(net: Net) -> None:
    assert stacked(net).quantize().left == {}
    assert net.sqnr_db() > 25


def test_a_stack_of_weights_is_left_out_where_activations_are_scaled_as_they_run(net: Net) -> None:
    proof = stacked(net).quantize(mode="dynamic")
    why = "has weights of 3 dimensions, where the kernel takes two"
    assert (proof.left, proof.layers) == ({"heads": why}, 1)
    assert net.sqnr_db() > 30


@pytest.mark.parametrize("how", [{}, {"symmetric": True}, {"mode": "dynamic"}])
def test_inputs_and_constants_that_are_outputs(net: Net, how: dict[str, Any]) -> None:
    net.save(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": normal(8, 4)},
        {"x": ("batch", 8)},
        outputs=("x", "y", "w"),
    )
    net.quantize(**how)
    names = [output.name for output in onnx.load(str(net.target)).graph.output]
    assert names == ["x", "y", "w"]
    (x, _, w) = net.both()
    assert np.array_equal(*x) and np.array_equal(*w)
    assert net.sqnr_db() > 30


def two_convolutions(net: Net) -> Net:
    return net.save(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            helper.make_node("Conv", ["b", "v"], ["y"], "second"),
        ],
        {"w": normal(8, 3, 3, 3), "v": normal(4, 8, 3, 3)},
        {"x": ("batch", 3, 12, 12)},
    )


def test_the_proof_counts_the_layers_and_names_the_worst(net: Net) -> None:
    proof = two_convolutions(net).quantize(batch_size=2)
    assert (proof.layers, proof.samples, proof.floor_db) == (2, 8, onnx_proof.FLOOR_DB)
    assert proof.worst in ("relu", "second")
    assert proof.worst_sqnr_db is not None and 25 < proof.worst_sqnr_db < 60


Break = Callable[[Any], None]


def doubled(graph: Any) -> None:
    """As a library would that loses a factor: the second convolution's weights count twice."""
    for tensor in graph.initializer:
        if tensor.name == "v_scale":
            scale = numpy_helper.to_array(tensor) * np.float32(2)
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))


def narrowed(graph: Any) -> None:
    """The range of what is between the convolutions is a hundredth of what it should be."""
    for tensor in graph.initializer:
        if tensor.name == "b_scale":
            scale = numpy_helper.to_array(tensor) / np.float32(100)
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))


@pytest.mark.parametrize(
    ("fault", "left", "layers"),
    [
        (doubled, {"second": "computes something else in 8 bits ("}, 1),
        (narrowed, {"relu": "has values from 0 to ", "second": "reads the output of relu, "}, 0),
    ],
)
def test_a_layer_that_the_library_gets_wrong_is_left_out(
    net: Net, monkeypatch: pytest.MonkeyPatch, fault: Break, left: dict[str, str], layers: int
) -> None:
    from onnxruntime.quantization import QDQQuantizer

    whole = QDQQuantizer.quantize_model

    def broken(quantizer: Any) -> Any:
        model = whole(quantizer)
        fault(model.graph)
        return model

    monkeypatch.setattr(QDQQuantizer, "quantize_model", broken)
    proof = two_convolutions(net).quantize()
    assert proof.left.keys() == left.keys()
    assert all(proof.left[name].startswith(why) for name, why in left.items())
    assert net.sqnr_db() > 25


def test_nothing_left_is_refused_with_the_reasons(net: Net) -> None:
    net.save(
        [helper.make_node("Clip", ["x", "low"], ["y"], "guard")],
        {"low": np.float32(2)},
        {"x": ("batch", 8)},
    )
    with pytest.raises(QuantizationError, match="nothing for static quantization: guard clips to"):
        net.quantize()


def test_layers_are_walked_in_pieces_that_fit_into_memory(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = two_convolutions(net).quantize()
    monkeypatch.setattr(onnx_proof, "_CHUNK_BYTES", 1)
    assert net.quantize() == whole


def test_weights_in_a_file_of_their_own_are_proven_too(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "INLINE_LIMIT_BYTES", 100)
    proof = masked(net, -1e9, "add").quantize()
    assert {"scores Add", "softmax"} <= proof.left.keys()
    assert net.sqnr_db() > 20


def test_a_pipeline_of_another_domain_whose_types_onnx_does_not_infer(net: Net) -> None:
    """As scikit-learn's converter writes a scaler, a perceptron, the label and a map of scores."""
    foreign = {"domain": "ai.onnx.ml"}
    rows = {"offset": [0.5] * 8, "scale": [2.0] * 8}
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], **foreign, **rows),
        helper.make_node("MatMul", ["scaled", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "v"], ["e"]),
        helper.make_node("Softmax", ["e"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["classes", "best"], ["label"], **foreign),
        helper.make_node("ZipMap", ["y"], ["by name"], classlabels_int64s=[3, 5, 7], **foreign),
    ]
    net.save(
        nodes,
        {
            "w": normal(8, 16),
            "b": normal(1, 16),
            "v": normal(16, 3),
            "classes": np.array([3, 5, 7], np.int64),
        },
        {"x": ("batch", 8)},
    )
    model = onnx.load(str(net.source))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    label = helper.make_tensor_value_info("label", TensorProto.INT64, None)
    scores = onnx.ValueInfoProto(name="by name")
    scores.type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
    scores.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = 1
    model.graph.output.extend([label, scores])
    onnx.save(model, str(net.source))
    proof = net.quantize()
    assert proof.left == {} and proof.layers >= 4
    (exact, ours), _, (maps, our_maps) = net.both()
    assert 10 * np.log10((exact**2).sum() / ((exact - ours) ** 2).sum()) > 25
    assert maps[0].keys() == our_maps[0].keys() == {3, 5, 7}


def test_a_tensor_without_elements_stays_in_fp32(net: Net) -> None:
    """The runtime's QLinearMul ends the process on one."""
    net.save(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
            helper.make_node("Slice", ["x", "none", "none"], ["empty"], "cut"),
            helper.make_node("Mul", ["empty", "half"], ["nothing"], "mul"),
            helper.make_node("Concat", ["a", "nothing"], ["y"], "join", axis=0),
        ],
        {"w": normal(8, 8), "none": np.array([0], np.int64), "half": np.float32(0.5)},
        {"x": ("batch", 8)},
    )
    proof = net.quantize()
    assert "mul" in proof.left and "product" not in proof.left
    assert net.sqnr_db() > 30


def test_what_is_drawn_is_no_layer_and_what_is_done_with_it_is(net: Net) -> None:
    net.save(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
            helper.make_node("RandomNormalLike", ["a"], ["n"]),
            helper.make_node("Add", ["a", "n"], ["y"], "noise"),
        ],
        {"w": normal(8, 4)},
        {"x": ("batch", 8)},
    )
    proof = net.quantize()
    assert (proof.left, proof.layers) == ({}, 2)


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.5], 20.0),
        ([1.0, 2.0], [1.0, 2.0], np.inf),
        ([0.0, 0.0], [0.0, 1.0], -np.inf),
        ([1.0, np.inf], [1.0, np.inf], np.inf),
        ([1.0, np.inf], [1.0, 9.0], -np.inf),
        ([1.0, 2.0], [1.0, np.nan], -np.inf),
        # the mask's own value counts for nothing, the scores beside it for all
        ([3.0, 4.0, -1e9], [3.0, 4.5, -1e9], 20.0),
        ([3.0, 4.0, LOWEST], [0.0, 0.0, LOWEST], 0.0),
        # a large value among others of its kind is one of them
        ([3e3, 4e3, 6e3], [3e3, 4e3, 6e3 + 781.0249676], 20.0),
    ],
)
def test_the_distance_of_two_tensors(
    reference: list[float], other: list[float], expected: float
) -> None:
    found = onnx_proof.decibels(*onnx_proof.powers(np.array(reference), np.array(other)))
    assert found == pytest.approx(expected, abs=1e-6)
