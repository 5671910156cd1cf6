"""From what a model holds and does to events: measured, written, and checked against the rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.training import arrays, measures, pictures, plots
from harness.training.measures import Array
from harness.training.recorder import Recorder, cell

MAX_IMAGES = 64  # of a grid
ATTENTION_WEIGHTS = 1 << 20  # of a layer that its entropies are computed from


# -- parameters ----------------------------------------------------------------------------------


def norms(to: Recorder, prefix: str, values: Mapping[str, Any], step: int) -> float | None:
    """By parameter, by layer and in all; returns the last. None where there are no parameters.

    Norms that are not finite are no points; a text names their parameters.
    """
    found = arrays.norms(values)
    if not found:
        return None
    lost = [name for name, norm in found.items() if not math.isfinite(norm)]
    if lost:
        to.text(f"{prefix}/not_finite", cell(", ".join(lost)), step)
    layers, total = arrays.by_layer(found), math.hypot(*found.values())
    named = (("parameter/", found), ("layer/", layers), ("", {"total_norm": total}))
    for kind, sizes in named:
        for name, norm in sizes.items():
            if math.isfinite(norm):
                to.scalar(f"{prefix}/{kind}{name}", norm, step)
    return total


def weight_norms(to: Recorder, values: Mapping[str, Any], step: int) -> None:
    total = norms(to, "training/weights", values, step)
    if total is not None:
        lost = 0 if math.isfinite(total) else 1
        to.check("non_finite_value", lost, step, "training/weights")


def gradient_norms(to: Recorder, values: Mapping[str, Any], step: int) -> None:
    total = norms(to, "training/gradients", values, step)
    if total is not None:
        to.check("gradient_explosion", total, step)
        to.check("gradient_vanishing", total, step)


def activations(to: Recorder, found: Mapping[str, Any], step: int) -> None:
    for layer, values in found.items():
        name = f"training/activations/{layer}"
        array = to.finite(name, arrays.sample(values), step)
        if array is None or not array.size:
            continue
        numbers = {"mean": array.mean(), "std": array.std(), "zeros_share": (array == 0).mean()}
        to.scalars(name, {what: float(number) for what, number in numbers.items()}, step)
        to.histogram(name, array, step)


# -- behaviour -----------------------------------------------------------------------------------


def attention(to: Recorder, weights: Any, step: int) -> None:
    for layer, values in _layers(weights).items():
        name = f"training/attention/{layer}"
        array = to.finite(name, _thinned(values), step)
        if array is None:
            continue
        found = measures.attention(array)
        for head, entropy in enumerate(found.entropy_nats):
            if math.isnan(entropy):  # all of it is padding
                continue
            subject = f"{layer}/head{head}"
            to.scalar(f"{name}/head{head}/entropy_nats", entropy, step)
            to.scalar(f"{name}/head{head}/concentration", found.concentration[head], step)
            to.check("attention_entropy", entropy, step, subject)


def _layers(weights: Any) -> dict[str, Any]:
    if isinstance(weights, Mapping):
        return {str(name): value for name, value in weights.items()}
    if not isinstance(weights, (list, tuple)):
        weights = [weights]
    return {f"layer{i}": value for i, value in enumerate(weights) if value is not None}


def _thinned(values: Any) -> Any:
    """Fewer queries, evenly picked, where a layer has more weights than are looked at."""
    shape = tuple(values.shape) if hasattr(values, "shape") else np.shape(values)
    stride = math.ceil(math.prod(shape) / ATTENTION_WEIGHTS)
    if stride <= 1 or len(shape) < 2:
        return values
    return values[..., :: min(stride, shape[-2]), :]


def uncertainty(to: Recorder, epistemic: Any, aleatoric: Any, step: int) -> None:
    means = {}
    for kind, values in (("epistemic", epistemic), ("aleatoric", aleatoric)):
        name = f"training/uncertainty/{kind}"
        array = None if values is None else to.finite(name, values, step)
        if array is not None and array.size:
            means[kind] = float(array.mean())
            to.scalar(f"{name}_mean", means[kind], step)
            to.histogram(name, array, step)
    if len(means) == 2 and sum(means.values()) > 0:
        share = means["epistemic"] / sum(means.values())
        to.scalar("training/uncertainty/epistemic_share", share, step)


def calibration(to: Recorder, prefix: str, probabilities: Any, labels: Any, step: int) -> None:
    array = to.finite(f"{prefix}/calibration", probabilities, step)
    if array is None:
        return
    found = measures.calibration(array, arrays.to_numpy(labels))
    to.scalar(f"{prefix}/calibration/expected_error", found.error, step)
    to.scalar(f"{prefix}/calibration/confidence_minus_accuracy", found.gap, step)
    to.image(f"{prefix}/calibration/reliability", plots.reliability(found), step)
    to.check("overconfidence", found.gap, step, prefix)
    to.check("underconfidence", -found.gap, step, prefix)


def representation(to: Recorder, tag: str, embeddings: Any, step: int) -> None:
    name = f"training/representation/{tag}"
    array = to.finite(name, embeddings, step)
    if array is None:
        return
    found = measures.representation(array)
    to.scalars(
        name,
        {
            "std_mean": float(np.mean(found.std)),
            "std_min": min(found.std),
            "norm_mean": found.norm_mean,
            "spread": found.spread,
            "effective_rank": found.effective_rank,
            "rank_share": found.rank_share,
        },
        step,
    )
    to.histogram(f"{name}/std", np.asarray(found.std), step)
    to.check("representation_collapse", found.spread, step, tag)
    to.check("dimensional_collapse", found.rank_share, step, tag)


# -- pictures ------------------------------------------------------------------------------------


def predictions(
    to: Recorder,
    inputs: Any,
    predicted: Any,
    targets: Any,
    names: Sequence[str] | None,
    step: int,
) -> None:
    count = min(len(inputs), MAX_IMAGES)
    scores, truth = arrays.to_numpy(predicted), arrays.to_numpy(targets)
    if truth.ndim != 1 or not len(inputs) == len(scores) == len(truth) or scores.ndim > 2:
        raise DataError(
            f"{len(inputs)} inputs, predictions {scores.shape}, targets {truth.shape} do not fit",
            "give [samples, classes] or [samples], and [samples] targets",
        )
    said = (scores.argmax(axis=1) if scores.ndim == 2 else scores)[:count].astype(int)
    truth = truth[:count].astype(int)
    to.text("training/predictions/table", _table(said, truth, names), step)
    tiles = [arrays.to_numpy(one) for one in inputs[:count]]
    if count and tiles[0].ndim >= 2:
        right = (said == truth).tolist()
        frames = [pictures.RIGHT if ok else pictures.WRONG for ok in right]
        labels = [
            _name(p, names) if ok else f"{_name(p, names)}, not {_name(t, names)}"
            for p, t, ok in zip(said.tolist(), truth.tolist(), right, strict=True)
        ]
        sheet = pictures.grid(tiles, frames=frames, labels=labels)
        to.image("training/predictions", sheet, step)


def _name(number: int, names: Sequence[str] | None) -> str:
    known = names is not None and 0 <= number < len(names)
    return names[number] if names is not None and known else str(number)


def confusion(
    to: Recorder,
    prefix: str,
    predicted: Any,
    targets: Any,
    names: Sequence[str] | None,
    step: int,
) -> None:
    scores, truth = arrays.to_numpy(predicted), arrays.to_numpy(targets)
    if truth.ndim != 1 or scores.ndim not in (1, 2) or len(scores) != len(truth) or not len(truth):
        raise DataError(
            f"predictions {scores.shape} and targets {truth.shape} do not fit",
            "give [samples, classes] or [samples], and [samples] targets",
        )
    said = (scores.argmax(axis=1) if scores.ndim == 2 else scores).astype(int)
    counts = measures.confusion(said, truth.astype(int), len(names or ()))
    labels = [_name(number, names) for number in range(len(counts))]
    to.text(f"{prefix}/confusion/table", _confused(counts, labels), step)
    if len(counts) <= plots.MOST_CLASSES:
        to.image(f"{prefix}/confusion/matrix", plots.confusion(counts, labels), step)


def _confused(counts: Array, labels: Sequence[str]) -> str:
    """What is right of each class, and what it is taken for most."""
    lines = ["| target | samples | right | most often taken for |", "| --- | --- | --- | --- |"]
    for number, row in enumerate(counts.tolist()):
        others = sorted(((n, at) for at, n in enumerate(row) if at != number and n), reverse=True)
        taken = ", ".join(f"{cell(labels[at])} ({n})" for n, at in others[:3])
        lines.append(f"| {cell(labels[number])} | {sum(row)} | {row[number]} | {taken} |")
    return "\n".join(lines)


def _table(said: Array, truth: Array, names: Sequence[str] | None) -> str:
    def label(number: int) -> str:
        return cell(_name(number, names))

    lines = ["| sample | predicted | target | |", "| --- | --- | --- | --- |"]
    for index, (p, t) in enumerate(zip(said.tolist(), truth.tolist(), strict=True)):
        lines.append(f"| {index} | {label(p)} | {label(t)} | {'' if p == t else 'wrong'} |")
    return "\n".join(lines)
