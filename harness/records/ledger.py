"""What ``ledger.json`` holds.

harness.ledger/1   first version
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.maybe import Maybe, Unavailable

SCHEMA = "harness.ledger/1"
NOT_MEASURED = Unavailable("screening left it out", "--layers N measures more of them")
Reached = Literal["reached", "missed", "undecided"]


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Paired over the same samples: ``lost`` were right before and are wrong, ``gained`` the
    other way round."""

    samples: int
    lost: int
    gained: int
    p: float  # of so many lost, if none were lost more than gained; adjusted where several are

    @property
    def drop(self) -> float:
        """Of the share of right answers, 0 to 1."""
        return (self.lost - self.gained) / self.samples


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of the INT8 model. Milliseconds are those of screening, of the operators that do
    its work; ``answers`` are of the FP32 model with this layer alone in INT8; ``ratio`` is the time
    of the INT8 model with this layer in FP32 over that of the INT8 model."""

    name: str
    operators: tuple[str, ...]
    sqnr_db: float | None
    apart_db: float | None = None  # of the same noise, by the signal around its mean
    fp32_ms: Maybe[float]
    int8_ms: Maybe[float]
    answers: Maybe[Answers] = NOT_MEASURED
    ratio: Maybe[float] = NOT_MEASURED
    interval: Maybe[tuple[float, float]] = NOT_MEASURED  # 95 %
    fragile: bool = False  # it costs answers for certain
    slow: bool = False  # in FP32 the model is faster for certain
    overflow: str = ""  # how it can leave 16 bits on a processor without VNNI


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the final duel: its share of right answers on the samples kept for it, and its
    time over that of INT8."""

    name: str
    run: str
    top1: Maybe[float]
    answers: Maybe[Answers]  # against FP32
    ratio: Maybe[float]
    interval: Maybe[tuple[float, float]]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and what became of it in the final duel."""

    name: str  # accuracy drop | speed
    wanted: float
    found: Maybe[float]
    interval: Maybe[tuple[float, float]]
    outcome: Reached
    note: str = ""


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """``keep``: the layers to leave in FP32, none where nothing was found. ``mixed`` is the file of
    that model in the ledger's folder."""

    schema: str = SCHEMA
    id: str
    model: str
    answers_of: str  # labels of which samples, or agreement with FP32
    choosing: int  # samples that the choice was made on
    verifying: int  # other samples, that it was verified on
    layers: tuple[Layer, ...]
    measured: int
    alpha: float
    keep: tuple[str, ...]
    mixed: str = ""
    sides: tuple[Side, ...] = ()
    wishes: tuple[Wish, ...] = ()
    notes: tuple[str, ...] = ()
    recommendation: str = ""
