"""All that a run gathered, as data, for `harness.engine.outcome.assemble` to make a Result of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from harness import registry
from harness.engine.loads.load import Load, Taken
from harness.engine.wire.messages import Spent, Verified
from harness.errors import HarnessError
from harness.maybe import Maybe, Unavailable
from harness.records.operators import LaunchOperators
from harness.records.result import ErrorInfo, Machine, Software
from harness.spec import RunSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.analysis.sampled import Sampled
    from harness.engine.outcome.iterations import Iterations
    from harness.models import Prepared


class Placement(msgspec.Struct, frozen=True):
    """``threads`` per stream. ``rest``: processors left for driver and sampler, None: no choice."""

    threads: int
    cpus: tuple[int, ...] | None
    rest: tuple[int, ...] | None
    usable: int


class Installed(msgspec.Struct, frozen=True, kw_only=True, tag="installed"):
    """Found out while the first worker warms up, for it takes a while."""

    software: Software
    clock_cost_ms: float


@dataclass(frozen=True)
class Block:
    """A stretch of the load, with everybody watching or not, in ns."""

    start_ns: int
    end_ns: int
    watched: bool


@dataclass
class TurnsTaken:
    """How the turns of a window went, with others in between."""

    block_ns: int
    left_out: int  # iterations at the beginning of each
    rested_ns: int = 0  # between turns, as the driver saw it
    rest_cpu_ns: int = 0  # processor time that its threads used meanwhile

    @property
    def resting_share(self) -> float:
        """Of a core."""
        return self.rest_cpu_ns / self.rested_ns if self.rested_ns else 0.0


@dataclass(frozen=True)
class Metered:
    """A stretch for the meters, in ns: ``iterations`` whole ones from ``start_ns`` to ``end_ns``,
    of ``latency_ns`` on average; the same load went on from ``began_ns`` to ``ended_ns``."""

    began_ns: int
    start_ns: int
    end_ns: int
    ended_ns: int
    iterations: int
    latency_ns: float
    paused: bool = False  # at random between iterations, so that no sensor keeps step


@dataclass
class LaunchRecord:
    """What one launch left behind. Times are ns on the common clock."""

    load_s: float = 0.0
    compile_s: float | None = None  # of load_s, where the session tells it
    first_inference_ms: float = 0.0
    warmup_end: str = ""
    stop_reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    idle: dict[str, tuple[int, int]] = field(default_factory=dict)  # before | after
    window_ns: tuple[int, int] | None = None
    pause_s: float = 0.0  # longest random pause between iterations
    # phase just finished -> figures
    memory: dict[str, dict[str, Maybe[float]]] = field(default_factory=dict)
    # the same phases -> what the framework allocated on the device, in bytes
    device_memory: dict[str, dict[str, Maybe[int]]] = field(default_factory=dict)
    # device time in ms of the timed iterations, by stream; events may have run out before the end
    device_ms: list[NDArray[np.float64]] = field(default_factory=list)
    device_untimed: Unavailable | None = None  # why that is empty, where it should not be
    spent: Spent | None = None  # of the processor, from the window's beginning on
    yardstick_ns: tuple[int, int] = (0, 0)  # before the window and after it; 0: not timed
    load_facts: dict[str, int] = field(default_factory=dict)  # see `harness.engine.loads.load`
    pipelined: bool = False  # one thread kept an inference in flight on each stream
    verified: Verified | None = None
    operators: Maybe[LaunchOperators] | None = None  # None: not asked for, or not reached
    unverified: str = ""  # what ended the worker while it verified
    error: ErrorInfo | None = None
    raised: HarnessError | None = None
    recorders: list[Iterations] = field(default_factory=list)
    turns: TurnsTaken | None = None  # None: one uninterrupted window
    metered: tuple[Metered, ...] = ()  # of a launch that took turns: what its energy is of
    unmetered: Unavailable | None = None  # why there is none, where that is known
    overhead: list[Block] = field(default_factory=list)


@dataclass
class Evidence:
    """Grows as the run goes; ``launches`` and ``samplers`` go together."""

    spec: RunSpec
    id: str
    started_at: str
    began_ns: int
    placement: Placement
    ended_ns: int | None = None  # of a run that is over; None: now
    machine: Machine | None = None
    installed: Installed | None = None
    prepared: Prepared | None = None
    launches: list[LaunchRecord] = field(default_factory=list)
    samplers: list[Sampled | None] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    unsaved: int = 0  # iterations that no file holds


Pair: TypeAlias = "tuple[LaunchRecord, Sampled | None]"


def timed_launches(evidence: Evidence) -> list[Pair]:
    """The launches that timed anything, each with what its sensors said."""
    pairs = zip(evidence.launches, evidence.samplers, strict=True)
    return [(record, sampled) for record, sampled in pairs if record.window_ns is not None]


def watched(evidence: Evidence) -> list[Pair]:
    """`timed_launches`; of turns none watched the window."""
    return [
        (record, None if record.turns else sampled) for record, sampled in timed_launches(evidence)
    ]


def load_of(spec: RunSpec, records: Sequence[LaunchRecord]) -> Load:
    """How the inferences of a run followed one another."""
    found: Load = registry.load("turns" if any(one.turns for one in records) else spec.scenario)
    return found


def taken(records: Sequence[LaunchRecord]) -> list[Taken]:
    """What a load's own figures and checks look at."""
    return [
        Taken(
            [recorder.timed() for recorder in record.recorders],
            [recorder.rows() for recorder in record.recorders],
            record.load_facts,
            record.turns.resting_share if record.turns else None,
        )
        for record in records
    ]


def window_bounds(recorders: Sequence[Iterations]) -> tuple[int, int] | None:
    """First start and last end over all streams; None unless each of them timed something, or one
    of those that share a schedule."""
    windows = [recorder.window() for recorder in recorders]
    found = [(starts, ends) for starts, ends in windows if len(starts)]
    if not found or (len(found) < len(windows) and not all(one.shared for one in recorders)):
        return None
    return min(int(s[0]) for s, _ in found), max(int(e[-1]) for _, e in found)
