"""How far outputs moved from the reference: cosine, SQNR, largest error, top-1 agreement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementFailed
from harness.maybe import Maybe, Unavailable
from harness.records.result import Fidelity

Outputs = Mapping[str, NDArray[Any]]
Pairs = list[tuple[NDArray[Any], NDArray[Any]]]


def fidelity(
    outputs: Outputs,
    reference: Outputs,
    samples: int,
    reference_name: str = "fp32, same inputs and backend",
) -> Fidelity:
    """Compare named outputs with the reference's, all elements of all outputs as one vector.

    cosine           x.r / (|x| |r|)
    sqnr_db          10 log10(|r|^2 / |x - r|^2), signal to quantization noise
    max_abs_error    max |x - r|
    top1_agreement   share of rows with the same argmax, for the first output that looks like class
                     scores: floating point, shape [N, C], C >= 2

    Integers and booleans count as numbers. ``samples`` is how many inputs the outputs stem from.
    Raises `MeasurementFailed` where names or shapes differ, a value is not finite or not a number.
    """
    pairs = _paired(outputs, reference)
    scale = max(float(np.abs(array).max()) for pair in pairs for array in pair)
    unit = scale if scale > 0.0 else 1.0  # squares of values up to 1e308 must not overflow
    dot = noise = signal = power = 0.0
    for ours, theirs in ((x.ravel() / unit, r.ravel() / unit) for x, r in pairs):
        dot += float(ours @ theirs)
        noise += float((ours - theirs) @ (ours - theirs))
        signal += float(theirs @ theirs)
        power += float(ours @ ours)
    return Fidelity(
        reference=reference_name,
        samples=samples,
        cosine=_cosine(dot, power, signal),
        sqnr_db=_sqnr_db(signal, noise),
        max_abs_error=max(float(np.abs(x - r).max()) for x, r in pairs),
        top1_agreement=_top1_agreement(outputs, reference),
    )


def _paired(outputs: Outputs, reference: Outputs) -> Pairs:
    """Both sides of each output in float64; outputs without elements are left out."""
    if outputs.keys() != reference.keys():
        raise MeasurementFailed(
            f"outputs {sorted(outputs)} against the reference's {sorted(reference)}",
            "compare runs of the same model",
        )
    pairs = [
        (_numbers(name, outputs[name]), _numbers(f"{name} of the reference", reference[name]))
        for name in outputs
    ]
    for name, (ours, theirs) in zip(outputs, pairs, strict=True):
        if ours.shape != theirs.shape:
            raise MeasurementFailed(
                f"output {name} has shape {ours.shape}, the reference's {theirs.shape}",
                "compare the same inputs",
            )
    pairs = [pair for pair in pairs if pair[0].size]
    if not pairs:
        raise MeasurementFailed("the outputs have no elements", "check the model's outputs")
    return pairs


def _numbers(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiub":
        raise MeasurementFailed(
            f"output {name} is of type {array.dtype}, which has no distance",
            "compare numeric outputs only",
        )
    numbers = array.astype(np.float64)
    bad = numbers.size - int(np.count_nonzero(np.isfinite(numbers)))
    if bad:
        raise MeasurementFailed(
            f"output {name} holds {bad} values that are not finite",
            "check the calibration and the precision",
        )
    return numbers


def _cosine(dot: float, power: float, signal: float) -> Maybe[float]:
    if power == 0.0 or signal == 0.0:
        which = "reference" if signal == 0.0 else "output"
        return Unavailable(f"the {which} is zero throughout and has no direction")
    return max(-1.0, min(1.0, dot / math.sqrt(power * signal)))


def _sqnr_db(signal: float, noise: float) -> Maybe[float]:
    if noise == 0.0:
        return Unavailable("the outputs are bit-identical to the reference: there is no noise")
    if signal == 0.0:
        return Unavailable("the reference is zero throughout: there is no signal")
    return 10.0 * math.log10(signal / noise)


def _top1_agreement(outputs: Outputs, reference: Outputs) -> Maybe[float]:
    for name, scores in outputs.items():
        if scores.dtype.kind == "f" and scores.ndim == 2 and len(scores) and scores.shape[1] >= 2:
            same = scores.argmax(axis=1) == reference[name].argmax(axis=1)
            return float(same.mean())
    return Unavailable("no output looks like class scores (floating point, [N, C], C >= 2)")
