"""Accuracy of class scores against labels."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, MeasurementFailed


class AccuracyScores(msgspec.Struct, frozen=True):
    """Named as in `harness.records.result.Accuracy`."""

    top1: float  # share correct, 0 to 1
    macro_f1: float
    correct: str  # one character a sample, '1' correct


def accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> AccuracyScores:
    """Of scores [N, C] against integer labels [N] in 0 .. C - 1; of equal scores the first wins.

    ``macro_f1`` is the plain mean of 2 TP / (2 TP + FP + FN) over the classes that occur among the
    labels or the predictions (van Rijsbergen, 1979; the convention of scikit-learn). Raises
    `DataError` for labels that do not fit and `MeasurementFailed` for scores that are not finite.
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
    if not np.all(np.isfinite(scores)):
        raise MeasurementFailed(
            "the scores hold values that are not finite", "check the calibration and the precision"
        )
