"""Where the time of an inference goes, operator by operator, and how far from the roof each is."""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.maybe import Maybe, Unavailable

NOT_PROFILED = Unavailable("not asked for", "--operators, or harness profile")
NO_COST = Unavailable("this backend has no operators that compute nothing", "none needed")
NO_ROOF = Unavailable("no roof was measured for it")

Bound = Literal["compute", "memory"]


class Operations(msgspec.Struct, frozen=True):
    """Of one inference; a multiplication and an addition are two."""

    integer: int
    floating: int

    @property
    def total(self) -> int:
        return self.integer + self.floating


class Roof(msgspec.Struct, frozen=True, kw_only=True):
    """The fastest that a known piece of work went, through the same runtime, threads and device.

    ``per_s``: operations of ``precision`` where it is of ``compute``, bytes where it is of
    ``memory``; ``bytes`` is what that piece of work moved.
    """

    name: str
    bound: Bound
    precision: str
    per_s: float
    bytes: int
    ms: float  # that its fastest repetition took


class AtRoof(msgspec.Struct, frozen=True, kw_only=True):
    """``ms`` is what the work would take at the roof; ``share`` that over what it took.

    In a drawing of the roofline, operations a byte against operations a second, the work stands at
    ``intensity`` and `Operations.total` over the operator's own time, and the roof above it is
    that over ``share``. ``per_s`` of an operator that is bound by memory counts bytes.
    """

    bound: Bound
    ms: float
    share: float
    intensity: float  # operations a byte
    per_s: float  # achieved: operations, or bytes where memory bounds it


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One operator that ran. Times are means over the middle half of the profiled inferences."""

    name: str
    type: str
    precision: str
    calls: float
    ms: float
    ci95_ms: Maybe[tuple[float, float]]
    share: float  # of the profiled inference
    fused: Maybe[tuple[str, ...]]  # nodes of the model that it does the work of
    operations: Maybe[Operations]
    bytes: Maybe[int]  # each of its tensors once: it cannot move less from beyond the caches
    roof: Maybe[AtRoof] = NO_ROOF
    launches_ms: tuple[float, ...] = ()


class Remainder(msgspec.Struct, frozen=True, kw_only=True):
    """The profiled inference without its operators: the runtime, the profiler, the caller."""

    ms: float
    ci95_ms: Maybe[tuple[float, float]]
    share: float
    launches_ms: tuple[float, ...] = ()


class ModelAtRoof(msgspec.Struct, frozen=True, kw_only=True):
    """The counted operators together; ``covered`` is their share of all operators' time."""

    covered: float
    operations: Operations
    bytes: int
    ms: float  # that they took
    roof: Maybe[AtRoof]


class Operators(msgspec.Struct, frozen=True, kw_only=True):
    """A session's operators, profiled after the timed window and never in it.

    ``plain_ms`` is the median of inferences before and after, without the profiler: ``slowdown``
    is what it costs. ``window_ms`` is the median of the timed window. ``profiler_ms`` is what the
    profiler adds for each operator by itself, measured on operators that compute next to nothing.
    """

    profiler: str
    inferences: int  # profiled, over all launches
    launches: int
    profiled_ms: float
    plain_ms: float
    slowdown: float
    window_ms: Maybe[float]
    rows: tuple[Operator, ...]  # in the order of execution
    remainder: Maybe[Remainder]
    model: Maybe[ModelAtRoof]
    roofs: Maybe[tuple[Roof, ...]] = NO_ROOF
    notes: tuple[str, ...] = ()
    method: str = ""
    resolution_ms: float = 0.0  # of the profiler's clock
    profiler_ms: Maybe[float] = NO_COST


class LaunchOperators(msgspec.Struct, frozen=True, kw_only=True):
    """What one launch's worker found, without what needs the others."""

    profiler: str
    inferences: int
    profiled_ms: float
    plain_ms: float
    resolution_ms: float
    overlapping: bool
    rows: tuple[Operator, ...]
    remainder: Remainder
    roofs: Maybe[tuple[Roof, ...]]
    notes: tuple[str, ...] = ()
    profiler_ms: Maybe[float] = NO_COST
