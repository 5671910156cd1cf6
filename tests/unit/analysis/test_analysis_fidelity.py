"""Fidelity by hand; accuracy against scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from harness.analysis.accuracy import accuracy
from harness.analysis.fidelity import fidelity, fidelity_of
from harness.analysis.fidelity_check import SQNR_FLOOR_DB, fidelity_check
from harness.errors import DataError, MeasurementFailed
from harness.maybe import Unavailable
from harness.records.result import Fidelity, OutputFidelity

floats = st.floats(-1e3, 1e3, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


def reason(value: Any) -> str:
    assert isinstance(value, Unavailable)
    return value.reason


def test_fidelity_by_hand() -> None:
    found = fidelity({"y": np.array([[3.0, 5.0]])}, {"y": np.array([[3.0, 4.0]])}, samples=1)
    assert found.cosine == pytest.approx(29 / (math.sqrt(34) * 5))
    assert found.sqnr_db == pytest.approx(10 * math.log10(25 / 1))
    assert (found.max_abs_error, found.samples, found.output) == (1.0, 1, "y")
    assert found.reference == "fp32, same inputs and backend"


def one(found: Fidelity, name: str) -> OutputFidelity:
    output = found.outputs[name]
    assert isinstance(output, OutputFidelity)
    return output


def test_the_headline_is_that_of_the_worst_floating_output() -> None:
    """A sentence encoder that hands its ids on: large, equal, and none of its embeddings' merit."""
    ids = np.arange(30_000, 30_064, dtype=np.int64).reshape(4, 16)
    good, bad = np.ones((4, 8)), np.tile([1.0, 0.0], (4, 4))
    ours = {"ids": ids, "pooled": good, "embedding": bad + 0.5}
    theirs = {"ids": ids, "pooled": good * 1.01, "embedding": bad}
    found = fidelity(ours, theirs, samples=4)
    assert found.output == "embedding"
    assert found.cosine == pytest.approx(1.5 / math.sqrt(1.5**2 + 0.5**2))  # not the ids' 1.0
    assert found.sqnr_db == pytest.approx(10 * math.log10(1 / 0.5))
    assert found.max_abs_error == 0.5
    assert one(found, "pooled").sqnr_db == pytest.approx(40 + 20 * math.log10(1.01))
    assert one(found, "ids").equal == one(found, "ids").equal_non_zero == 1.0
    assert "looks" not in reason(found.top1_agreement)  # nothing here is a class


def test_integers_and_booleans_are_compared_exactly() -> None:
    ours = {"a": np.array([1, 2, 0, 0], dtype=np.int64), "b": np.array([True, False])}
    theirs = {"b": np.array([True, True]), "a": np.array([1, 4, 0, 0], dtype=np.int64)}
    found = fidelity(ours, theirs, samples=2, reference_name="fp32")
    assert (one(found, "a").equal, one(found, "a").equal_non_zero) == (0.75, 0.5)
    assert one(found, "a").max_abs_error == 2.0
    assert (one(found, "b").equal, one(found, "b").equal_non_zero) == (0.5, 0.5)
    assert "compared exactly" in reason(found.cosine)
    assert (found.output, found.reference) == ("a", "fp32")


def test_texts_are_compared_exactly() -> None:
    found = fidelity({"t": np.array(["a", "b"])}, {"t": np.array(["a", "c"])}, samples=1)
    assert one(found, "t").equal == 0.5
    assert "compared exactly" in reason(found.max_abs_error)


def test_nan_and_infinity_are_handled_apart() -> None:
    nan, inf = math.nan, math.inf
    theirs = {"y": np.array([3.0, nan, -inf, inf, 4.0, 7.0])}
    same = fidelity({"y": np.array([3.0, nan, -inf, inf, 5.0, 7.0])}, theirs, samples=1)
    assert one(same, "y").non_finite == 0
    assert same.sqnr_db == pytest.approx(10 * math.log10((9 + 16 + 49) / 1))
    moved = fidelity({"y": np.array([3.0, 0.0, inf, inf, 4.0, nan])}, theirs, samples=1)
    assert one(moved, "y").non_finite == 3  # NaN that became 0, another sign, 7 that became NaN
    assert moved.max_abs_error == 0.0  # of what is finite on both sides
    assert fidelity_check(moved, "int8", labelled=False).verdict == "warn"
    gone = fidelity({"y": np.array([nan])}, {"y": np.array([nan])}, samples=1)
    assert "no element is finite" in reason(gone.cosine)


def test_complex_numbers_are_two() -> None:
    found = fidelity({"y": np.array([3 + 5j])}, {"y": np.array([3 + 4j])}, samples=1)
    assert found.cosine == pytest.approx(29 / (math.sqrt(34) * 5))


def test_batches_count_as_one_and_may_differ_in_shape() -> None:
    batches = [
        ({"y": np.array([3.0])}, {"y": np.array([3.0])}),
        ({"y": np.array([5.0, 0.0])}, {"y": np.array([4.0, 0.0])}),
    ]
    found = fidelity_of(batches, samples=2, inputs="drawn")
    assert found.sqnr_db == pytest.approx(10 * math.log10(25 / 1))
    assert (one(found, "y").elements, found.inputs) == (3, "drawn")


def test_an_output_that_does_not_compare_is_told_and_costs_the_others_nothing() -> None:
    ours = {"boxes": np.ones((3, 4)), "y": np.ones(2), "empty": np.ones((0, 4)), "new": np.ones(1)}
    theirs = {"boxes": np.ones((2, 4)), "y": np.ones(2), "empty": np.ones((0, 4))}
    found = fidelity(ours, theirs, samples=1)
    assert "(3, 4), the reference's (2, 4)" in reason(found.outputs["boxes"])
    assert "no elements" in reason(found.outputs["empty"])
    assert "missing in the reference" in reason(found.outputs["new"])
    assert found.cosine == 1.0
    checked = fidelity_check(found, "int8", labelled=False)
    assert checked.verdict == "pass" and "not judged: boxes, empty, new" in checked.reason


SCORES = np.array([[0.0, 2.0], [2.0, 3.0], [8.0, 9.0], [6.0, 5.0]], dtype=np.float32)


def test_top1_agreement_counts_rows() -> None:
    ours = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 9.0], [5.0, 5.0]], dtype=np.float32)
    found = fidelity({"logits": ours}, {"logits": SCORES}, samples=4)
    assert (found.top1_agreement, found.top1_output) == (0.75, "logits")
    chosen = fidelity_of([({"y": ours}, {"y": SCORES})], samples=4, scores="y")
    assert (chosen.top1_agreement, chosen.top1_output) == (0.75, "y")


def test_what_is_not_clearly_class_scores_has_no_classes() -> None:
    """An embedding has the shape of class scores, too."""
    assert "no output clearly is" in reason(
        fidelity({"y": SCORES}, {"y": SCORES}, samples=4).top1_agreement
    )
    shares = SCORES / SCORES.sum(axis=1, keepdims=True)
    assert fidelity({"y": shares}, {"y": shares}, samples=4).top1_agreement == 1.0
    two = {"class_logits": SCORES, "age_logits": SCORES}
    assert "class_logits, age_logits all look" in reason(fidelity(two, two, 4).top1_agreement)
    maps = {"logits": np.ones((1, 2, 4, 4))}
    assert "no output clearly is" in reason(fidelity(maps, maps, samples=1).top1_agreement)


def _at(sqnr_db: float) -> Fidelity:
    theirs = np.full(100, 1.0)
    return fidelity({"y": theirs + 10 ** (-sqnr_db / 20)}, {"y": theirs}, samples=1)


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_the_check_warns_below_the_floor(precision: str) -> None:
    floor = SQNR_FLOOR_DB[precision]
    assert fidelity_check(_at(floor + 0.01), precision, labelled=False).verdict == "pass"
    found = fidelity_check(_at(floor - 0.1), precision, labelled=False)
    assert found.verdict == "warn"
    assert f"y SQNR {floor - 0.1:.1f} dB" in found.reason
    assert f"SQNR at least {floor:g} dB" in found.threshold


def test_the_check_without_a_ratio() -> None:
    zero, ones = {"y": np.zeros(3)}, {"y": np.ones(3)}
    assert fidelity_check(fidelity(zero, zero, 1), "int8", labelled=False).verdict == "pass"
    assert fidelity_check(fidelity(ones, zero, 1), "int8", labelled=False).verdict == "warn"
    assert fidelity_check(fidelity(zero, ones, 1), "int8", labelled=False).verdict == "warn"
    absent = fidelity_check(Unavailable("it broke"), "int8", labelled=False)
    assert (absent.verdict, absent.reason) == ("unknown", "it broke")


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (np.arange(1, 11), np.arange(1, 11), "pass"),
        (np.r_[np.arange(1, 10), 0], np.arange(1, 11), "pass"),  # nine of ten
        (np.r_[np.arange(1, 9), 0, 0], np.arange(1, 11), "warn"),
        (np.zeros(100, bool), np.arange(100) < 3, "warn"),  # 97 % equal, and all of it nothing
        (np.full((1, 9, 9), 100, np.uint8), np.full((1, 9, 9), 108, np.uint8), "pass"),  # a picture
        (np.full((1, 9, 9), 100, np.uint8), np.full((1, 9, 9), 109, np.uint8), "warn"),
    ],
)
def test_the_check_of_exact_outputs(ours: Any, theirs: Any, verdict: str) -> None:
    found = fidelity({"n": ours, "y": np.ones(3)}, {"n": theirs, "y": np.ones(3)}, samples=1)
    assert fidelity_check(found, "int8", labelled=False).verdict == verdict


def test_labelled_samples_must_keep_their_class() -> None:
    """Close to FP32 in every number, and yet every sample is of the same class."""
    theirs = np.tile([1.0, 1.001], (40, 1))
    theirs[::2] = [1.001, 1.0]
    ours = np.tile([1.0, 1.001], (40, 1))
    found = fidelity_of([({"y": ours}, {"y": theirs})], samples=40, scores="y")
    checked = fidelity_check(found, "int8", labelled=True)
    assert checked.verdict == "warn" and "50.0% of the samples keep their class" in checked.reason
    assert fidelity_check(found, "int8", labelled=False).verdict == "pass"
    few = fidelity_of([({"y": ours[:8]}, {"y": theirs[:8]})], samples=8, scores="y")
    assert fidelity_check(few, "int8", labelled=True).verdict == "pass"


def test_bit_identical_outputs_have_no_sqnr() -> None:
    y = {"y": np.array([1.0, -2.0])}
    found = fidelity(y, y, samples=1)
    assert (found.cosine, found.max_abs_error) == (1.0, 0.0)
    assert "bit-identical" in reason(found.sqnr_db)


def test_zeros_have_neither_direction_nor_signal() -> None:
    zero, one = {"y": np.zeros(3)}, {"y": np.ones(3)}
    assert "reference is zero" in reason(fidelity(one, zero, samples=1).cosine)
    assert "no signal" in reason(fidelity(one, zero, samples=1).sqnr_db)
    lost = fidelity(zero, one, samples=1)
    assert "output is zero" in reason(lost.cosine)
    assert lost.sqnr_db == 0.0
    assert "bit-identical" in reason(fidelity(zero, zero, samples=1).sqnr_db)


def test_huge_values_do_not_overflow() -> None:
    found = fidelity({"y": np.array([1e300, 2e300])}, {"y": np.array([1e300, 1e300])}, samples=1)
    assert found.cosine == pytest.approx(3 / math.sqrt(10))
    assert found.sqnr_db == pytest.approx(10 * math.log10(2))


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({"y": np.array([1.0])}, r"shape \(1,\), the reference's \(2,\)"),
        ({"z": np.array([1.0, 2.0])}, "output z is missing in the reference"),
        ({"y": np.array([1, 2], "M8[s]")}, "which has no distance"),
        ({}, "output y is missing in this run"),
    ],
)
def test_what_cannot_be_compared_is_refused(ours: Any, message: str) -> None:
    with pytest.raises(MeasurementFailed, match=message):
        fidelity(ours, {"y": np.array([1.0, 2.0])}, samples=1)


def test_no_elements_at_all() -> None:
    with pytest.raises(MeasurementFailed, match="no elements"):
        fidelity({"y": np.empty(0)}, {"y": np.empty(0)}, samples=0)


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=30), st.sampled_from([0.5, 4.0]))
@settings(deadline=None)
def test_scaling_both_sides_changes_only_the_error(
    pairs: list[tuple[float, float]], factor: float
) -> None:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    one = fidelity({"y": ours}, {"y": theirs}, samples=1)
    many = fidelity({"y": ours * factor}, {"y": theirs * factor}, samples=1)
    assert (many.cosine, many.sqnr_db) == (one.cosine, one.sqnr_db)
    assert many.max_abs_error == one.max_abs_error * factor


@given(st.integers(2, 6), st.data())
@settings(deadline=None)
def test_accuracy_equals_scikit_learn(classes: int, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=40))
    seed = data.draw(st.integers(0, 10**6))
    scores = np.random.default_rng(seed).standard_normal((len(labels), classes))
    found = accuracy(scores, np.array(labels))
    predicted = scores.argmax(axis=1)
    assert found.top1 == metrics.accuracy_score(labels, predicted)
    f1 = metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(f1, rel=1e-12)
    assert found.correct.count("1") == round(found.top1 * len(labels))


def test_accuracy_by_hand() -> None:
    scores = np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    found = accuracy(scores, np.array([0, 1, 1, 1], dtype=np.uint8))
    # predictions 0 1 0 1 (a tie goes to the first): F1 of class 0 is 2/3, of class 1 is 4/5;
    # class 2 occurs nowhere
    assert (found.top1, found.correct) == (0.75, "1101")
    assert found.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.ones((2, 3)), np.array([0, 3]), "labels run from 0 to 3, the model has classes 0 to 2"),
        (np.ones((2, 3)), np.array([-1, 0]), "labels run from -1 to 0"),
        (np.ones((2, 3)), np.array([0, 1, 2]), r"shape \(3,\) for 2 samples; give 2 integer"),
        (np.ones((2, 3)), np.array([0.0, 1.0]), "labels are float64"),
        (np.ones((2, 1)), np.array([0, 0]), "not class scores"),
        (np.ones((2, 3, 4)), np.array([0, 0]), "not class scores"),
        (np.ones((0, 3)), np.array([], dtype=np.int64), "no samples"),
    ],
)
def test_labels_that_do_not_fit_are_refused(scores: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        accuracy(scores, labels)


def test_scores_with_nan_have_no_accuracy() -> None:
    with pytest.raises(MeasurementFailed, match="the scores hold NaN"):
        accuracy(np.array([[math.nan, 1.0]]), np.array([0]))


def test_an_infinite_score_is_a_score() -> None:
    scores = np.array([[-math.inf, 1.0, 0.0], [2.0, -math.inf, math.inf]])
    assert accuracy(scores, np.array([1, 2])).top1 == 1.0
