"""What ``harness capacity`` leaves in ``capacity.json``: the answer, every run, the prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from harness import maybe
from harness.errors import ResultError
from harness.maybe import Maybe, Unavailable
from harness.records.result import Capacity
from harness.records.store import read_bytes
from harness.spec import RunSpec

CAPACITY_NAME = "capacity.json"
SCHEMA = "harness.capacity/1"
NOT_KEPT = Unavailable("this capacity does not say it", "measure again")
Verdict = Literal["pass", "fail", "undecided"]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One bound against one window: the share that was late, of so many that count."""

    bound: str
    late: float
    quantile_ms: float
    effective: int  # independent requests that would know the share as well
    verdict: Verdict


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One server run, see the result called ``run``; intervals are of 95 %.

    ``predicted_p50_ms``, ``predicted_p99_ms``: what the closed loop's service times alone say of
    the very schedule that this run met.
    """

    run: str
    rate_per_s: float
    p50_ms: Maybe[float]
    p99_ms: Maybe[float]
    utilization: float
    joules_per_request: Maybe[float]  # idle included
    lateness_ms: Maybe[float]
    stationary: bool
    held: tuple[Held, ...]
    net_joules_per_request: Maybe[float] = NOT_KEPT
    p50_ci95_ms: Maybe[tuple[float, float]] = NOT_KEPT
    p99_ci95_ms: Maybe[tuple[float, float]] = NOT_KEPT
    predicted_p50_ms: Maybe[float] = NOT_KEPT
    predicted_p99_ms: Maybe[float] = NOT_KEPT


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    utilization: float


class Monotone(msgspec.Struct, frozen=True, kw_only=True):
    """Late shares over the rate, pooled where they fall (isotonic regression)."""

    bound: str
    rate_per_s: tuple[float, ...]
    late: tuple[float, ...]


class CapacityFound(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = SCHEMA
    id: str
    ended: str  # known | most probes | interrupted | failed
    spec: RunSpec
    capacity: Capacity
    limit: str  # in words
    scale: float  # how much faster the probes were than the service times say
    saturation_per_s: float
    probes: tuple[Measured, ...]
    predicted: tuple[Predicted, ...]  # by the service times alone
    monotone: tuple[Monotone, ...]
    curve: tuple[Measured, ...] = ()  # at lower rates, which the answer does not need


def read_capacity(folder: Path) -> CapacityFound | None:
    """The record in ``folder``; None where there is none, as around a run that was copied out.

    Raises `ResultError` where it is damaged.
    """
    path = folder / CAPACITY_NAME
    if not path.exists():
        return None
    try:
        raw = msgspec.json.decode(read_bytes(path))
        if isinstance(raw, dict) and isinstance(spec := raw.get("spec"), dict):
            # as in a result: a reader lets pass what it does not know
            raw["spec"] = {key: spec[key] for key in spec if key in RunSpec.__struct_fields__}
        return maybe.convert(raw, CapacityFound)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{str(path)!r} is no capacity, or damaged: {error}") from error
