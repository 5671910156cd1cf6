"""How far outputs moved from the reference, output by output.

    floating   cosine, SQNR and largest error over the elements that are finite on both sides;
               NaN and infinities that are not the same on both sides are counted apart
    exact      integers, booleans and texts: the share of elements that are the same

One output that came through unharmed (ids that a model hands on, say) says nothing of another, so
the headline is that of the worst floating output, and of an exact one only where there is no other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementFailed
from harness.maybe import Maybe, Unavailable, present
from harness.records.result import Fidelity, OutputFidelity

Outputs = Mapping[str, NDArray[Any]]
Pair = tuple[NDArray[Any], NDArray[Any]]
REFERENCE = "fp32, same inputs and backend"
_SCORES = re.compile(r"logit|prob|score|softmax|class", re.IGNORECASE)
_SUM_ERROR = 1e-2  # of a row of probabilities, in half precision too


def fidelity(
    outputs: Outputs, reference: Outputs, samples: int, reference_name: str = REFERENCE
) -> Fidelity:
    """`fidelity_of` one batch of named outputs."""
    return fidelity_of([(outputs, reference)], samples, reference_name)


def fidelity_of(
    batches: Sequence[tuple[Outputs, Outputs]],
    samples: int,
    reference_name: str = REFERENCE,
    *,
    inputs: str = "",
    scores: str | None = None,
) -> Fidelity:
    """Compare the named outputs of every batch with the reference's.

    cosine           x.r / (|x| |r|)
    sqnr_db          10 log10(|r|^2 / |x - r|^2), signal to quantization noise
    max_abs_error    max |x - r|
    top1_agreement   share of rows with the same argmax, of ``scores`` where it is given, else of
                     the one output that clearly is class scores: floating point, [N, C] with C of
                     2 or more, and either called so (logits, probabilities, scores, class) or with
                     rows of numbers from 0 on that add up to 1

    ``samples`` is how many inputs the outputs stem from, ``inputs`` says which. Raises
    `MeasurementFailed` where no output can be compared at all.
    """
    names = dict.fromkeys(name for pair in batches for side in pair for name in side)
    found = {name: _compared(name, batches) for name in names}
    known = {name: one for name, one in found.items() if not isinstance(one, Unavailable)}
    if not known:
        why = next((one for one in found.values() if isinstance(one, Unavailable)), None)
        raise MeasurementFailed(
            why.reason if why else "there are no outputs", "compare runs of the same model"
        )
    worst = min(known, key=lambda name: _rank(known[name]))
    top1 = _top1(batches, names, scores)
    agreement, scores_name = top1 if isinstance(top1, tuple) else (top1, "")
    return Fidelity(
        reference=reference_name,
        samples=samples,
        cosine=known[worst].cosine,
        sqnr_db=known[worst].sqnr_db,
        max_abs_error=known[worst].max_abs_error,
        top1_agreement=agreement,
        output=worst,
        outputs=found,
        inputs=inputs,
        top1_output=scores_name,
    )


def sqnr_of(one: OutputFidelity) -> float:
    """The SQNR in dB as it is judged: inf without noise, -inf where the reference is 0 and the
    output is not, or where NaN and infinities are not where the reference has them."""
    if one.non_finite:
        return -math.inf
    if not isinstance(one.sqnr_db, Unavailable):
        return one.sqnr_db
    return -math.inf if (present(one.max_abs_error) or 0.0) > 0.0 else math.inf


def is_exact(one: OutputFidelity) -> bool:
    """Whether equality is what counts: no floating-point output."""
    return not isinstance(one.equal_non_zero, Unavailable)


def _rank(one: OutputFidelity) -> tuple[bool, float]:
    """Least for the worst: floating outputs by SQNR, then exact ones by what is the same."""
    same = present(one.equal_non_zero)
    return (False, sqnr_of(one)) if same is None else (True, same)


def _compared(name: str, batches: Sequence[tuple[Outputs, Outputs]]) -> Maybe[OutputFidelity]:
    pairs: list[Pair] = []
    for ours, theirs in batches:
        if name not in ours or name not in theirs:
            side = "this run" if name not in ours else "the reference"
            return Unavailable(f"output {name} is missing in {side}")
        if ours[name].shape != theirs[name].shape:
            return Unavailable(
                f"output {name} has shape {ours[name].shape}, the reference's {theirs[name].shape}"
            )
        pairs.append((ours[name], theirs[name]))
    if not any(ours.size for ours, _ in pairs):
        return Unavailable(f"output {name} has no elements")
    kinds = [_kind(array.dtype) for pair in pairs for array in pair]
    if "other" in kinds:
        kind = pairs[0][0].dtype
        return Unavailable(f"output {name} is of type {kind}, which has no distance")
    return _floating(pairs) if "floating" in kinds else _exact(pairs)


def _kind(dtype: np.dtype[Any]) -> str:
    """``floating``, ``exact`` or ``other``; the small types of ml_dtypes are of numpy's kind V."""
    if dtype.kind in "fc" or re.match(r"b?float\d", dtype.name):
        return "floating"
    return "exact" if dtype.kind in "iubUSOT" or re.match(r"u?int\d", dtype.name) else "other"


def _flat(pairs: Sequence[Pair], turn: Callable[[NDArray[Any]], NDArray[Any]]) -> Pair:
    ours, theirs = (np.concatenate([turn(pair[side]).ravel() for pair in pairs]) for side in (0, 1))
    return ours, theirs


def _numbers(array: NDArray[Any]) -> NDArray[np.float64]:
    """In float64; a complex number is two."""
    if array.dtype.kind == "c":
        return np.stack([np.real(array), np.imag(array)]).astype(np.float64)
    return array.astype(np.float64)


def _floating(pairs: Sequence[Pair]) -> OutputFidelity:
    ours, theirs = _flat(pairs, _numbers)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    cosine, sqnr_db, error = _distance(ours[finite], theirs[finite])
    return OutputFidelity(
        dtype=pairs[0][0].dtype.name,
        elements=sum(pair[0].size for pair in pairs),
        cosine=cosine,
        sqnr_db=sqnr_db,
        max_abs_error=error,
        equal=float(same.mean()),
        equal_non_zero=Unavailable("a floating-point output is judged by its distance"),
        non_finite=int(np.count_nonzero(~finite & ~same)),
    )


def _distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[Maybe[float], ...]:
    """Cosine, SQNR and largest error of finite vectors."""
    if not len(ours):
        nothing = Unavailable("no element is finite on both sides")
        return nothing, nothing, nothing
    error = float(np.abs(ours - theirs).max())
    scale = max(float(np.abs(side).max()) for side in (ours, theirs))
    unit = scale if scale > 0.0 else 1.0  # squares of values up to 1e308 must not overflow
    x, r = ours / unit, theirs / unit
    signal, noise = float(r @ r), float((x - r) @ (x - r))
    return _cosine(float(x @ r), float(x @ x), signal), _sqnr_db(signal, noise), error


def _exact(pairs: Sequence[Pair]) -> OutputFidelity:
    ours, theirs = _flat(pairs, lambda array: array)
    same = np.asarray(ours == theirs, dtype=np.bool_)
    texts = ours.dtype.kind in "USOT"
    counted = np.ones_like(same) if texts else (ours != 0) | (theirs != 0)
    apart = Unavailable("integers, booleans and texts are compared exactly")
    error: Maybe[float] = apart
    if not texts:
        error = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())
    return OutputFidelity(
        dtype=ours.dtype.name,
        elements=same.size,
        cosine=apart,
        sqnr_db=apart,
        max_abs_error=error,
        equal=float(same.mean()),
        equal_non_zero=float(same[counted].mean()) if counted.any() else 1.0,
    )


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


def _top1(
    batches: Sequence[tuple[Outputs, Outputs]], names: Mapping[str, None], scores: str | None
) -> Unavailable | tuple[float, str]:
    """The share of rows with the same argmax, and the name of the output."""
    wanted = names if scores is None else [scores]
    found = [name for name in wanted if _are_rows(name, batches)]
    if scores is None:
        found = [name for name in found if _are_scores(name, batches)]
    if not found:
        return Unavailable("no output clearly is class scores", "give labelled data with --dataset")
    if len(found) > 1:
        return Unavailable(f"{', '.join(found)} all look like class scores")
    same = [
        ours[found[0]].argmax(axis=1) == theirs[found[0]].argmax(axis=1) for ours, theirs in batches
    ]
    return float(np.concatenate(same).mean()), found[0]


def _are_rows(name: str, batches: Sequence[tuple[Outputs, Outputs]]) -> bool:
    """Whether both sides are floating point, [N, C] with N above 0 and C of 2 or more."""
    return all(
        name in side
        and _kind(side[name].dtype) == "floating"
        and side[name].dtype.kind != "c"
        and side[name].ndim == 2
        and len(side[name]) > 0
        and side[name].shape[1] >= 2
        and side[name].shape == pair[0][name].shape
        for pair in batches
        for side in pair
    )


def _are_scores(name: str, batches: Sequence[tuple[Outputs, Outputs]]) -> bool:
    if _SCORES.search(name):
        return True
    rows = np.concatenate([theirs[name].astype(np.float64) for _, theirs in batches])
    return bool((rows >= 0).all() and np.abs(rows.sum(axis=1) - 1).max() <= _SUM_ERROR)
