"""The decisions, as functions of figures: which layers to measure, and which to leave in FP32.

    screening     all layers, by their error in isolation and their operators' times: no decision
    choosing      the few that stand out, on one half of the samples; p values corrected by Holm
    verifying     what was chosen, on the other half: it cannot have been chosen for these samples

McNemar's test counts only samples whose answer changes. With `alpha` 0.05 and eight layers it takes
eight lost answers in a row at least, so a data set can be too small for any answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from harness.errors import DataError
from harness.maybe import Maybe, Unavailable
from harness.records.ledger import Answers, Layer, Reached, Wish
from harness.stats.mcnemar import mcnemar

ALPHA = 0.05
MOST_LAYERS = 8
_Z = 1.959964
_SUSPECT = 0.05  # of the INT8 model's time: a layer that loses less by INT8 is not worth a duel


def least_lost(alpha: float, family: int) -> int:
    """How many answers must be lost, and none gained, before one of ``family`` layers stands
    out."""
    return math.ceil(math.log2(family / alpha))


def check_samples(samples: int, family: int, drop: float | None) -> None:
    """Raises `DataError` where no result could decide anything, saying how many samples would."""
    least = least_lost(ALPHA, family)
    if samples // 2 >= 2 * least:
        return
    needed = 4 * least if drop is None or not drop else max(4 * least, 2 * math.ceil(least / drop))
    raise DataError(
        f"{samples} samples cannot decide which of {family} layers costs answers: half of them are "
        f"for choosing, and {least} lost answers are the least that stand out",
        f"give {needed} samples or more: a layer that loses {least} of {needed // 2} shows then",
    )


def samples_for(drop: float, family: int) -> int:
    """How many samples, both halves, show a layer that loses the share ``drop`` of all answers."""
    return 2 * math.ceil(least_lost(ALPHA, family) / drop)


def screened(layers: Sequence[Layer], most: int = MOST_LAYERS) -> list[str]:
    """The layers worth measuring: those farthest from FP32, and those that INT8 makes slower."""
    total = sum(layer.int8_ms for layer in layers if isinstance(layer.int8_ms, float))
    slower = {
        layer.name: layer.int8_ms - layer.fp32_ms
        for layer in layers
        if isinstance(layer.int8_ms, float)
        and isinstance(layer.fp32_ms, float)
        and layer.int8_ms - layer.fp32_ms > _SUSPECT * total
    }
    chosen = sorted(slower, key=lambda name: -slower[name])[: most // 2]
    by_error = sorted(layers, key=_error_db)
    for layer in by_error:
        if len(chosen) == most:
            break
        if layer.name not in chosen:
            chosen.append(layer.name)
    return chosen


def _error_db(layer: Layer) -> float:
    """What lies around the mean counts: an offset that all outputs share orders nothing."""
    found = layer.sqnr_db if layer.apart_db is None else layer.apart_db
    return math.inf if found is None else found


def costs(reference: str, answers: Mapping[str, str]) -> dict[str, Answers]:
    """What each layer loses against ``reference``, with p values corrected for their number (Holm,
    1979). Strings of one character a sample, ``1`` where it was right."""
    found = {name: mcnemar(reference, one) for name, one in answers.items()}
    ordered = sorted(found, key=lambda name: found[name].p_worse)
    adjusted: dict[str, Answers] = {}
    least = 0.0
    for index, name in enumerate(ordered):
        one = found[name]
        least = min(1.0, max(least, (len(ordered) - index) * one.p_worse))
        adjusted[name] = Answers(samples=one.samples, lost=one.lost, gained=one.gained, p=least)
    return adjusted


def chosen(layers: Sequence[Layer], int8: Answers, drop: float | None) -> tuple[str, ...]:
    """The layers to leave in FP32: all that are slow there, and of the fragile ones all, or as few
    as bring the ``drop`` that INT8 has back to what is allowed."""
    keep = [layer.name for layer in layers if layer.slow]
    fragile = sorted((layer for layer in layers if layer.fragile), key=lambda one: -_net(one))
    left = int8.lost - int8.gained
    for layer in fragile:
        if layer.name in keep:
            left -= _net(layer)
            continue
        if drop is not None and left <= drop * int8.samples:
            break
        keep.append(layer.name)
        left -= _net(layer)
    return tuple(keep)


def _net(layer: Layer) -> int:
    found = layer.answers
    return 0 if isinstance(found, Unavailable) else found.lost - found.gained


def judged(layer: Layer, answers: Answers | None, slow: bool) -> Layer:
    """``layer`` with its answers and whether it costs any for certain."""
    if answers is None:
        return msgspec.structs.replace(layer, slow=slow)
    fragile = answers.p < ALPHA and answers.lost > answers.gained
    return msgspec.structs.replace(layer, answers=answers, fragile=fragile, slow=slow)


def wish_of_drop(wanted: float, found: Maybe[Answers]) -> Wish:
    """Whether the loss of answers is at most ``wanted``, by the interval of a paired share."""
    if isinstance(found, Unavailable):
        return Wish(name="accuracy drop", wanted=wanted, found=found, interval=found,
                    outcome="undecided")  # fmt: skip
    changed, net = found.lost + found.gained, found.lost - found.gained
    # one more sample each way keeps the spread from vanishing where nothing changed (Agresti, Min)
    spread = math.sqrt(changed + 1.0 - net**2 / found.samples) / found.samples
    interval = (found.drop - _Z * spread, found.drop + _Z * spread)
    outcome = _outcome(interval, wanted)
    note = ""
    if outcome == "undecided":
        needed = math.ceil(found.samples * (interval[1] - found.drop) ** 2 / _gap(found, wanted))
        note = f"about {2 * max(needed, found.samples + 1)} samples would tell"
    return Wish(
        name="accuracy drop", wanted=wanted, found=found.drop, interval=interval, outcome=outcome,
        note=note,
    )  # fmt: skip


def _gap(found: Answers, wanted: float) -> float:
    return float(max(abs(wanted - found.drop), 1.0 / found.samples) ** 2)


def wish_of_speed(wanted: float, ratio: Maybe[float], interval: Maybe[tuple[float, float]]) -> Wish:
    """Whether the mixed model has ``wanted`` of INT8's speed; ``ratio`` is mixed time over INT8."""
    if isinstance(ratio, Unavailable) or isinstance(interval, Unavailable):
        why = ratio if isinstance(ratio, Unavailable) else interval
        assert isinstance(why, Unavailable)
        return Wish(name="speed", wanted=wanted, found=why, interval=why, outcome="undecided")
    kept = (1.0 / interval[1], 1.0 / interval[0])
    slower = (-kept[1], -kept[0])
    return Wish(
        name="speed", wanted=wanted, found=1.0 / ratio, interval=kept,
        outcome=_outcome(slower, -wanted),
    )  # fmt: skip


def _outcome(interval: tuple[float, float], most: float) -> Reached:
    if interval[1] <= most:
        return "reached"
    return "missed" if interval[0] > most else "undecided"
