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
from harness.analysis.fidelity import fidelity
from harness.errors import DataError, MeasurementFailed
from harness.maybe import Unavailable

floats = st.floats(-1e3, 1e3, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


def reason(value: Any) -> str:
    assert isinstance(value, Unavailable)
    return value.reason


def test_fidelity_by_hand() -> None:
    found = fidelity({"y": np.array([[3.0, 5.0]])}, {"y": np.array([[3.0, 4.0]])}, samples=1)
    assert found.cosine == pytest.approx(29 / (math.sqrt(34) * 5))
    assert found.sqnr_db == pytest.approx(10 * math.log10(25 / 1))
    assert (found.max_abs_error, found.top1_agreement, found.samples) == (1.0, 1.0, 1)
    assert found.reference == "fp32, same inputs and backend"


def test_several_outputs_are_one_vector() -> None:
    ours = {"a": np.array([1, 2], dtype=np.int64), "b": np.array([True]), "e": np.empty((0, 4))}
    theirs = {"b": np.array([False]), "a": np.array([1, 4], dtype=np.int64), "e": np.empty((0, 4))}
    found = fidelity(ours, theirs, samples=2, reference_name="fp32")
    assert found.cosine == pytest.approx(9 / math.sqrt(6 * 17))
    assert found.sqnr_db == pytest.approx(10 * math.log10(17 / 5))
    assert found.max_abs_error == 2.0
    assert found.reference == "fp32"
    assert "looks like class scores" in reason(found.top1_agreement)


def test_top1_agreement_counts_rows() -> None:
    ours = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 9.0], [5.0, 5.0]], dtype=np.float32)
    theirs = np.array([[0.0, 2.0], [2.0, 3.0], [8.0, 9.0], [6.0, 5.0]], dtype=np.float32)
    assert fidelity({"y": ours}, {"y": theirs}, samples=4).top1_agreement == 0.75


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
        ({"y": np.array([1.0, math.nan])}, "output y holds 1 values that are not finite"),
        ({"y": np.array([math.inf, math.inf])}, "output y holds 2 values"),
        ({"y": np.array([1.0])}, r"shape \(1,\), the reference's \(2,\)"),
        ({"z": np.array([1.0, 2.0])}, r"\['z'\] against the reference's \['y'\]"),
        ({"y": np.array(["a", "b"])}, "which has no distance"),
    ],
)
def test_what_cannot_be_compared_is_refused(ours: Any, message: str) -> None:
    with pytest.raises(MeasurementFailed, match=message):
        fidelity(ours, {"y": np.array([1.0, 2.0])}, samples=1)


def test_a_reference_that_is_not_finite_is_named() -> None:
    with pytest.raises(MeasurementFailed, match="output y of the reference"):
        fidelity({"y": np.ones(1)}, {"y": np.array([math.nan])}, samples=1)


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


def test_scores_that_are_not_finite_fail_the_run() -> None:
    with pytest.raises(MeasurementFailed, match="not finite"):
        accuracy(np.array([[math.nan, 1.0]]), np.array([0]))
