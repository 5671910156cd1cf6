"""Accuracy of class scores against labels, and which output holds the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, MeasurementFailed
from harness.maybe import Maybe, Unavailable


class AccuracyScores(msgspec.Struct, frozen=True):
    """Named as in `harness.records.result.Accuracy`."""

    top1: float  # share correct, 0 to 1
    macro_f1: float
    correct: str  # one character a sample, '1' correct


class Scores(msgspec.Struct, frozen=True):
    """Class scores [N, C], C >= 2, of ``output``; ``reading`` says why of that one.

    ``single``: it has one probability a sample, not several scores.
    """

    output: str
    array: NDArray[Any]
    reading: str
    single: bool = False


def find_scores(outputs: Mapping[str, NDArray[Any]], named: str | None) -> Maybe[Scores]:
    """The output called ``named``, else the only one that can hold class scores.

    One probability a sample, [N] or [N, 1], becomes those of two classes where it is named.
    """
    if named is not None:
        return _named(outputs, named)
    fit = [n for n, a in outputs.items() if _is_float(a) and a.ndim == 2 and a.shape[1] > 1]
    if len(fit) == 1:
        return Scores(fit[0], outputs[fit[0]], f"{fit[0]}, the only output of class scores")
    if fit:
        return Unavailable(
            f"{len(fit)} outputs could hold the class scores: {', '.join(fit)}",
            f"name one: --scores {fit[-1]}",
        )
    single = [name for name, array in outputs.items() if _is_single(array)]
    if single:
        return Unavailable(
            f"{single[0]} has one number a sample, which may be a probability, a logit or no score",
            f"--scores {single[0]} takes it for the probability of class 1",
        )
    return Unavailable("no output looks like class scores (floating point, samples x classes)")


def _named(outputs: Mapping[str, NDArray[Any]], name: str) -> Maybe[Scores]:
    array = outputs.get(name)
    if array is None:
        have = ", ".join(outputs) or "no outputs with a row for each sample"
        return Unavailable(f"--scores names {name!r}", f"choose one of {have}")
    if _is_float(array) and array.ndim == 2 and array.shape[1] > 1:
        return Scores(name, array, f"{name} (--scores)")
    if not _is_single(array):
        return Unavailable(
            f"{name} is {array.dtype} of shape {array.shape}, no class scores",
            "name a floating-point output with a row of scores for each sample",
        )
    column = array.reshape(-1, 1).astype(np.float64)
    if not bool(((column >= 0) & (column <= 1)).all()):
        return Unavailable(
            f"{name} has one number a sample, and not all lie in 0 to 1: no probabilities",
            "put a Sigmoid behind them",
        )
    # class 0 wins at exactly one half, as ``argmax`` takes the first of equals
    both = np.concatenate([1 - column, column], axis=1)
    return Scores(name, both, f"{name} > 0.5 (--scores)", single=True)


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f"


def _is_single(array: NDArray[Any]) -> bool:
    return _is_float(array) and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1))


def accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> AccuracyScores:
    """Of scores [N, C] against integer labels [N] in 0 .. C - 1; of equal scores the first wins.

    ``macro_f1`` is the plain mean of 2 TP / (2 TP + FP + FN) over the classes that occur among the
    labels or the predictions (van Rijsbergen, 1979; the convention of scikit-learn). An infinite
    score is one: of a class that is ruled out, or certain. Raises `DataError` for labels that do
    not fit and `MeasurementFailed` for NaN.
    """
    _check(scores, labels)
    predicted, truth = scores.argmax(axis=1), labels.astype(np.int64)
    right = predicted == truth
    classes = scores.shape[1]
    hits = np.bincount(truth[right], minlength=classes)
    # 2 TP + FP + FN: every label and every prediction counts once
    occurrences = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    present = occurrences > 0
    return AccuracyScores(
        top1=float(right.mean()),
        macro_f1=float((2.0 * hits[present] / occurrences[present]).mean()),
        correct="".join("1" if one else "0" for one in right),
    )


def _check(scores: NDArray[Any], labels: NDArray[Any]) -> None:
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise DataError(
            f"scores of shape {scores.shape} are not class scores",
            "accuracy needs an output of shape [N, C] with C >= 2",
        )
    if labels.shape != scores.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype} of shape {labels.shape} for {len(scores)} samples",
            f"give {len(scores)} integer labels",
        )
    if len(labels) == 0:
        raise DataError("there are no samples", "give at least one sample with its label")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= scores.shape[1]:
        raise DataError(
            f"labels run from {low} to {high}, the model has classes 0 to {scores.shape[1] - 1}",
            "check that labels and model belong together",
        )
    if np.isnan(scores).any():
        raise MeasurementFailed("the scores hold NaN", "check the calibration and the precision")
