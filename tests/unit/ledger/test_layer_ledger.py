"""The ledger: planted layers are named, innocent ones are not; what it cannot decide it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.cli.main import main
from harness.compare.paired import Design, Rounds, paired
from harness.errors import DataError, QuantizationError
from harness.ledger import choose
from harness.ledger.workshop import Setup, Workshop
from harness.maybe import Unavailable
from harness.protocols import Artifact, SessionOptions, TensorSpec
from harness.quantize.job import QuantizeJob
from harness.records.ledger import Answers, Layer, Ledger, Side
from harness.views.ledger import render_ledger
from harness.views.terminal import to_text

FRAGILE, INNOCENT = "fragile", "innocent"
SHAPE = (1, 8, 6, 6)


def layer(name: str, sqnr_db: float | None = 30.0, fp32: float = 1.0, int8: float = 0.5) -> Layer:
    return Layer(name=name, operators=("Conv",), sqnr_db=sqnr_db, fp32_ms=fp32, int8_ms=int8)


# -- decisions ------------------------------------------------------------------------------------


def test_screening_takes_the_farthest_and_the_slower() -> None:
    layers = [layer(f"l{i}", 20.0 + i) for i in range(10)] + [layer("slow", None, 1.0, 3.0)]
    assert choose.screened(layers, 4) == ["slow", "l0", "l1", "l2"]
    assert choose.screened(layers[:3], 8) == ["l0", "l1", "l2"]
    # a splendid SQNR says nothing of values that lie close together around a large one
    biased = msgspec.structs.replace(layer("biased", 90.0), apart_db=5.0)
    assert choose.screened([*layers[:3], biased], 2) == ["biased", "l0"]


def test_p_values_are_corrected_for_their_number() -> None:
    reference = "1" * 100
    answers = {
        "a": "0" * 10 + "1" * 90, "b": "0" * 5 + "1" * 95, "c": "1" * 100,
    }  # fmt: skip
    found = choose.costs(reference, answers)
    lost = {name: (one.lost, one.gained) for name, one in found.items()}
    assert lost == {"a": (10, 0), "b": (5, 0), "c": (0, 0)}
    assert found["a"].p == pytest.approx(3 / 2**10)
    assert found["b"].p == pytest.approx(2 / 2**5)
    assert found["c"].p == 1.0


def test_what_no_sample_could_decide_is_refused_with_how_many_could() -> None:
    assert choose.least_lost(0.05, 8) == 8  # 2^-8 x 8 = 0.031, and 2^-7 x 8 = 0.0625
    with pytest.raises(DataError, match=r"20 samples cannot decide .* 8 layers") as caught:
        choose.check_samples(20, 8, None)
    assert "give 32 samples or more" in caught.value.remedy
    with pytest.raises(DataError) as caught:
        choose.check_samples(20, 8, 0.005)
    assert "give 3200 samples or more" in caught.value.remedy
    choose.check_samples(32, 8, 0.005)


def test_a_layer_is_named_where_it_costs_answers_and_hardly_ever_where_it_does_not() -> None:
    """One layer of eight loses 10 % of the answers; the others change as many for the worse as for
    the better. Of 200 sessions it is named in nearly all, another one in at most 5 %."""
    rng = np.random.default_rng(1)
    named = others = 0
    for _ in range(200):
        truth = rng.random(400) < 0.9
        answers = {}
        for index in range(8):
            # of 360 right and 40 wrong answers as many become wrong as become right: 8 each
            changed = np.where(truth, rng.random(400) < 8 / 360, rng.random(400) < 8 / 40)
            broken = rng.random(400) < 0.1 * (index == 0)
            answers[str(index)] = text((truth ^ changed) & ~broken)
        found = choose.costs(text(truth), answers)
        fragile = {name for name in found if choose.judged(layer(name), found[name], False).fragile}
        named += "0" in fragile
        others += bool(fragile - {"0"})
    assert named >= 190
    assert others <= 10


def session_of(rng: np.random.Generator, fragile: float, slow: float) -> set[str]:
    """Eight layers, 400 samples: the first loses the share ``fragile`` of the answers, and without
    the second the model takes ``slow`` of its time. Those that the ledger leaves in FP32."""
    truth = rng.random(400) < 0.9
    answers, ratios = {}, {}
    for index in range(8):
        changed = np.where(truth, rng.random(400) < 4 / 360, rng.random(400) < 4 / 40)
        broken = rng.random(400) < fragile * (index == 0)
        answers[str(index)] = text((truth ^ changed) & ~broken)
        ratios[str(index)] = slow if index == 1 else 1.03  # INT8 saves 3 % in each of the others
    costs = choose.costs(text(truth), answers)
    names = list(ratios)
    found = paired(
        ["int8", *names], ["int8", *names],
        Design(block_ms=20.0, left_out=3, seed=0, goal=None, cpus=(0,)),
        [_launch(rng, [1.0, *ratios.values()]) for _ in range(5)], "launches",
    )  # fmt: skip
    faster = {one.b for one in found.verdicts if one.verdict == "improved"}
    judged = [choose.judged(layer(name), costs[name], name in faster) for name in names]
    whole = choose.costs(text(truth), {"int8": answers["0"]})["int8"]
    return set(choose.chosen(judged, whole, None))


def _launch(rng: np.random.Generator, ratios: list[float]) -> Rounds:
    """Twenty rounds; the machine moves all sides of one, and each by 1 % by itself."""
    machine = np.exp(rng.normal(0.0, 0.2, 20))
    process = np.exp(rng.normal(0.0, 0.005, len(ratios)))
    turns = tuple(
        tuple(1e6 * ratio * own * machine * np.exp(rng.normal(0.0, 0.01, 20)))
        for ratio, own in zip(ratios, process, strict=True)
    )
    return Rounds(latency=turns, cold=turns, cpu=turns, resting=(0.0,) * len(ratios))


def test_the_fragile_and_the_slow_layer_are_named_and_no_other_19_times_of_20() -> None:
    rng = np.random.default_rng(5)
    found = [session_of(rng, 0.1, 0.9) for _ in range(60)]
    assert sum(one == {"0", "1"} for one in found) >= 57


def test_where_there_is_nothing_to_find_nothing_is_recommended_19_times_of_20() -> None:
    rng = np.random.default_rng(6)
    found = [session_of(rng, 0.0, 1.03) for _ in range(60)]
    assert sum(not one for one in found) >= 57


def text(right: Any) -> str:
    return "".join("1" if one else "0" for one in right)


def fragile(name: str, lost: int, *, slow: bool = False) -> Layer:
    answers = Answers(samples=1000, lost=lost, gained=0, p=0.001)
    return choose.judged(layer(name), answers, slow)


def test_as_few_layers_are_left_as_the_allowed_drop_needs() -> None:
    layers = [fragile("a", 20), fragile("b", 40), fragile("c", 10), layer("d")]
    int8 = Answers(samples=1000, lost=70, gained=0, p=0.0)
    assert choose.chosen(layers, int8, None) == ("b", "a", "c")
    assert choose.chosen(layers, int8, 0.03) == ("b",)
    assert choose.chosen(layers, int8, 0.01) == ("b", "a")
    assert choose.chosen(layers, int8, 0.07) == ()
    slow = [*layers, msgspec.structs.replace(layer("e"), slow=True)]
    assert choose.chosen(slow, int8, 0.07) == ("e",)


@pytest.mark.parametrize(
    ("lost", "samples", "wanted", "outcome"),
    [(0, 10_000, 0.005, "reached"), (300, 10_000, 0.005, "missed"), (1, 100, 0.02, "undecided")],
)
def test_a_wished_drop_is_judged_by_its_interval(
    lost: int, samples: int, wanted: float, outcome: str
) -> None:
    found = choose.wish_of_drop(wanted, Answers(samples=samples, lost=lost, gained=0, p=1.0))
    assert found.outcome == outcome
    assert ("samples would tell" in found.note) == (outcome == "undecided")


def test_a_wished_speed_is_judged_by_its_interval() -> None:
    assert choose.wish_of_speed(0.9, 1.05, (1.04, 1.06)).outcome == "reached"
    assert choose.wish_of_speed(0.9, 1.25, (1.2, 1.3)).outcome == "missed"
    assert choose.wish_of_speed(0.9, 1.11, (1.0, 1.2)).outcome == "undecided"
    assert isinstance(choose.wish_of_speed(0.9, Unavailable("none"), (1.0, 1.0)).found, Unavailable)


def test_a_ledger_reads_as_what_to_do() -> None:
    sides = [
        Side(name=n, run=n, top1=t, answers=Answers(samples=500, lost=x, gained=0, p=1.0), ratio=r,
             interval=(r - 0.01, r + 0.01))
        for n, t, x, r in (("int8", 0.9, 40, 1.0), ("fp32", 0.98, 0, 2.0), ("mixed", 0.98, 1, 1.05))
    ]  # fmt: skip
    found = Ledger(
        id="i", model="m", answers_of="labels", choosing=500, verifying=500, measured=1, alpha=0.05,
        layers=(fragile("a", 20), msgspec.structs.replace(layer("b"), overflow="two products")),
        keep=("a",), mixed="mixed.onnx", sides=tuple(sides),
        wishes=(choose.wish_of_speed(0.9, 1.05, (1.04, 1.06)),),
    )  # fmt: skip
    from harness.ledger.sides import recommendation

    text = to_text(
        render_ledger(msgspec.structs.replace(found, recommendation=recommendation(found))), 120
    )
    assert (
        "leave a in fp32: 95% of int8's speed, 1.90 times fp32's, +7.80 points of answers" in text
    )
    assert "--speed 90.00%: reached, 95.24% [94.34%, 96.15%]" in text
    assert "overflow: b: two products" in text
    assert msgspec.json.decode(msgspec.json.encode(found)) is not None


# -- a planted model ------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path) -> Setup:
    """A convolution that INT8 computes well, and logits that differ by little around 3000, which
    its 256 steps do not tell apart although their SQNR is splendid."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = {
        "w": rng.standard_normal((8, 8, 3, 3)).astype(np.float32) / 8,
        "m": rng.standard_normal((8 * 6 * 6, 5)).astype(np.float32) / 17,
        "b": np.full(5, 3000, np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name=INNOCENT, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "m", "b"], ["logits"], name=FRAGILE),
        ],
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "planted.onnx"
    onnx.save(model, str(path))
    np.savez(tmp_path / "samples.npz", x=rng.random((60, *SHAPE[1:])).astype(np.float32))
    spec = TensorSpec("x", "float32", SHAPE)
    return Setup(
        backend="onnxruntime",
        options=SessionOptions(),
        fp32=Artifact("onnx", str(path), "", "fp32", "", 0, (spec,)),
        job=QuantizeJob(
            precision="int8", calibration_path=str(tmp_path / "samples.npz"),
            calibration_source="file", calibration_sha256="", calibration_samples=60,
        ),
        folder=str(tmp_path),
        samples=str(tmp_path / "samples.npz"),
        batch_size=1,
        scores=None,
    )  # fmt: skip


def operators(path: Path) -> dict[str, str]:
    import onnx

    return {n.name: n.op_type for n in onnx.load(str(path)).graph.node}


def inputs_of(path: Path, name: str) -> list[str]:
    import onnx

    graph = onnx.load(str(path)).graph
    makers = {o: n.op_type for n in graph.node for o in n.output}
    (node,) = (n for n in graph.node if n.name == name)
    return [makers.get(one, "constant") for one in node.input[:2]]


def test_the_fragile_layer_is_named_and_the_innocent_one_is_not(
    planted: Setup, tmp_path: Path
) -> None:
    shop = Workshop(planted)
    try:
        made = {one.name: one for one in shop.start()}
        assert {FRAGILE, INNOCENT} <= made.keys()
        reached = made[FRAGILE].sqnr_db
        assert reached is None or reached > 40
        assert made[FRAGILE].apart_db < 10 < made[INNOCENT].apart_db
        fp32, int8, labelled = shop.answers()
        assert not labelled
        assert fp32 == "1" * 60
        costs = choose.costs(fp32, {name: shop.alone(name) for name in (FRAGILE, INNOCENT)})
        judged = {name: choose.judged(layer(name), costs[name], False) for name in costs}
        assert judged[FRAGILE].fragile
        assert not judged[INNOCENT].fragile
        whole = choose.costs(fp32, {"int8": int8})["int8"]
        keep = choose.chosen(list(judged.values()), whole, None)
        assert keep == (FRAGILE,)
        shop.without(keep, tmp_path / "mixed.onnx")
    finally:
        shop.close()
    quantized = ["DequantizeLinear", "DequantizeLinear"]
    assert inputs_of(tmp_path / "int8.onnx", FRAGILE) == quantized
    assert inputs_of(tmp_path / "mixed.onnx", INNOCENT) == quantized
    assert "constant" in inputs_of(tmp_path / "mixed.onnx", FRAGILE)


def test_a_process_that_ends_is_an_error_and_no_traceback(planted: Setup) -> None:
    shop = Workshop(planted)
    shop.close()
    with pytest.raises(QuantizationError, match="was killed by SIGKILL"):
        shop.start()


def test_layers_that_can_leave_16_bits_are_told_by_their_bound(planted: Setup) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from harness.quantize.onnx_overflow import overflows

    weights = np.array([[127, 127, 0], [64, 64, 0], [-127, 3, 0]], np.int8)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w8", "s", "zw"], ["wd"]),
            helper.make_node("Gemm", ["xd", "wd"], ["y"], name="product", transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        [
            numpy_helper.from_array(weights, "w8"),
            numpy_helper.from_array(np.asarray(np.float32(1.0)), "s"),
            numpy_helper.from_array(np.asarray(0, np.uint8), "z"),
            numpy_helper.from_array(np.asarray(0, np.int8), "zw"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    beside = Path(planted.folder, "beside.onnx")
    (found,) = overflows(model, [{"x": np.array([[200.0, 3.0, 0.0]], np.float32)}], beside)
    # 200 x (127 + 127) = 50,800; 200 x 128 = 25,600 and 200 x 130 are within 16 bits
    assert (found.name, found.reached, found.filters, found.of) == ("product", 50_800, 1, 3)
    assert overflows(model, [{"x": np.array([[100.0, 3.0, 0.0]], np.float32)}], beside) == ()
    assert onnx.checker.check_model(model) is None


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "digits", "--precision", "fp32"], "--precision fp32 in a ledger"),
        (["--model", "resnet18"], "no samples whose answers could be counted"),
        (["--model", "digits", "--reference", "digits"], "--reference digits in a ledger"),
        (["--model", "digits", "--operators"], "--operators in a ledger"),
        (["--model", "digits", "--accuracy-drop", "many"], "--accuracy-drop is 'many'"),
    ],
)
def test_what_a_ledger_cannot_do_is_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ledger", "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.glob("results/*"))
