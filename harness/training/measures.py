"""The formulas behind the training logs: pure functions over numpy arrays.

    gradient and weight norms    L2; a layer's is the root of its parameters' squared norms
    calibration error            equal-width bins over (0, 1], Guo et al. 2017
    attention entropy            nats, mean over queries; ln(keys) is even attention, 0 one key
    effective rank               exp of the entropy of the normalised singular values,
                                 Roy & Vetterli 2007, of the centred embeddings

Whatever is given must be finite and of the stated shape: `DataError` names what is not.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.stats.histogram import equal_bins

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]

CALIBRATION_BINS = 15
MOST_CLASSES = 2_000  # of a confusion matrix
RANK_ROWS = 512  # embeddings that the effective rank is computed from, evenly picked


class Calibration(msgspec.Struct, frozen=True):
    """Predictions binned by confidence. Per bin: how many, their mean confidence and accuracy.

    An empty bin has NaN. ``error`` is the expected calibration error, the mean gap between
    confidence and accuracy weighted by how many fall into each bin; ``gap`` is overall confidence
    minus overall accuracy: above 0 the model is overconfident.
    """

    error: float
    gap: float
    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def calibration(probabilities: Array, labels: Array, bins: int = CALIBRATION_BINS) -> Calibration:
    """How far confidence is from accuracy.

    ``probabilities``: [N, classes], each row summing to 1, or [N], the probability of class 1.
    ``labels``: [N] class numbers. The confidence is the predicted class's probability.
    Raises `DataError`.
    """
    confidence, correct = _confidence(_finite("probabilities", probabilities), np.asarray(labels))
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, part, minlength=bins) for part in (confidence, correct))
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty bin is its NaN
        mean_confidence, accuracy = (total / counts for total in sums)
    gaps = np.abs(mean_confidence - accuracy)
    return Calibration(
        error=float(np.nansum(gaps * counts) / len(confidence)),
        gap=float(confidence.mean() - correct.mean()),
        counts=tuple(counts.tolist()),
        confidence=tuple(mean_confidence.tolist()),
        accuracy=tuple(accuracy.tolist()),
    )


def _confidence(probabilities: Floats, labels: Array) -> tuple[Floats, Floats]:
    if probabilities.ndim == 1:
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        raise DataError(
            f"probabilities {probabilities.shape} and labels {labels.shape} do not fit",
            "give [samples, classes] or [samples], and [samples] labels",
        )
    off = float(np.abs(probabilities.sum(axis=1) - 1).max())
    if probabilities.min() < 0 or off > 1e-2:
        raise DataError(
            f"probabilities are not: the least is {probabilities.min():.4g}, a row's sum is"
            f" {off:.4g} off 1",
            "apply softmax first",
        )
    predicted = probabilities.argmax(axis=1)
    return probabilities.max(axis=1), (predicted == labels).astype(np.float64)


class Attention(msgspec.Struct, frozen=True):
    """Per head of one layer: mean entropy in nats, and mean weight of the strongest key."""

    entropy_nats: tuple[float, ...]
    concentration: tuple[float, ...]


def attention(weights: Array) -> Attention:
    """Of one layer's attention weights, [..., heads, queries, keys]; [queries, keys] is one head.

    Rows are normalised (dropout leaves them off 1), rows of zeros are padding and left out. A head
    without any other row is NaN. Raises `DataError`.
    """
    values = _finite("attention weights", weights)
    if values.ndim < 2 or not values.size or values.min() < 0:
        raise DataError(
            f"attention weights of shape {values.shape} are none",
            "give [batch, heads, queries, keys] after softmax: no value is negative",
        )
    heads = values.reshape(-1, *((1,) * (3 - values.ndim)), *values.shape[-3:])
    totals = heads.sum(axis=-1, keepdims=True)
    padding = totals[..., 0] == 0
    shares = heads / np.where(totals == 0, 1, totals)
    # x ln x tends to 0 with x
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=-1)
    return Attention(
        entropy_nats=_mean_per_head(entropy, padding),
        concentration=_mean_per_head(shares.max(axis=-1), padding),
    )


def _mean_per_head(values: Floats, padding: NDArray[np.bool_]) -> tuple[float, ...]:
    """Of [batch, heads, queries]."""
    sums = np.where(padding, 0, values).sum(axis=(0, 2))
    counts = (~padding).sum(axis=(0, 2))
    with np.errstate(invalid="ignore"):
        return tuple((sums / counts).tolist())


class Representation(msgspec.Struct, frozen=True):
    """What tells that embeddings collapse.

    ``std``: of each dimension. ``spread``: root mean square of ``std`` over that of the values;
    0 where all embeddings are the same, 1 where they are centred. ``rank_share``: the effective
    rank over the greatest that so many embeddings of so many dimensions can have.
    """

    std: tuple[float, ...]
    norm_mean: float
    spread: float
    effective_rank: float
    rank_share: float


def representation(embeddings: Array) -> Representation:
    """Of embeddings [..., dimensions], two at least. Raises `DataError`."""
    values = _finite("embeddings", embeddings)
    values = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    if len(values) < 2 or not values.size:
        raise DataError(
            f"{len(values)} embeddings say nothing about their spread", "give a batch of them"
        )
    std = values.std(axis=0)
    size = math.sqrt(float(np.square(values).mean()))
    picked = values[np.linspace(0, len(values) - 1, min(len(values), RANK_ROWS)).astype(int)]
    rank = effective_rank(picked - picked.mean(axis=0))
    return Representation(
        std=tuple(std.tolist()),
        norm_mean=float(np.linalg.norm(values, axis=1).mean()),
        spread=math.sqrt(float(np.square(std).mean())) / size if size else 0.0,
        effective_rank=rank,
        rank_share=rank / min(len(picked) - 1, values.shape[1]),
    )


def effective_rank(matrix: Array) -> float:
    """Roy & Vetterli 2007: exp(-sum p ln p), p the singular values over their sum; 0 for zeros.

    Singular values that rounding alone can explain (numpy's rank tolerance) count as 0.
    """
    singular = np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
    floor = singular.max(initial=0.0) * max(matrix.shape) * np.finfo(np.float64).eps
    singular = singular[singular > floor]
    if not singular.size:
        return 0.0
    shares = singular / singular.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def bins(values: Array, number: int = 30) -> dict[str, Any] | None:
    """Equal-width bins over the finite ones of ``values``, as a histogram's event takes them; None
    where there are none."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    return equal_bins(flat[np.isfinite(flat)].tolist(), number)


def _finite(what: str, values: Array) -> Floats:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are no numbers: {error}", "give an array") from error
    if not np.isfinite(numbers).all():
        count = int(np.size(numbers) - np.isfinite(numbers).sum())
        raise DataError(f"{count} of {np.size(numbers)} {what} are not finite")
    return numbers


def confusion(predicted: Array, targets: Array, classes: int = 0) -> Array:
    """How often each target was taken for what: [targets, predictions], of ``classes`` at least.

    Raises `DataError` for what is no number of a class.
    """
    least = int(min(predicted.min(), targets.min()))
    most = int(max(predicted.max(), targets.max(), classes - 1))
    if least < 0 or most >= MOST_CLASSES:
        wrong = least if least < 0 else most
        raise DataError(f"{wrong} is no class", f"give numbers from 0 to {MOST_CLASSES - 1}")
    counts = np.bincount(targets * (most + 1) + predicted, minlength=(most + 1) ** 2)
    return counts.reshape(most + 1, most + 1)
