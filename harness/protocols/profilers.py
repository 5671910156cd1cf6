"""Sensors: what they read, of which process, and what the driver tells of a run meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.protocols.artifacts import Available


class SensorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of a channel's `Channel.facts`, by the same names; a fact is absent by default.

    A power reading is the mean over ``averaging_s``, which ended ``lag_s`` before it was published.
    A counter moves by ``resolution_j``, and starts again at 0 after ``wrap_range_j``, its largest
    value. ``gain_rel`` is the standard uncertainty of the instrument's gain, as a ratio.
    """

    averaging_s: float | None = None
    lag_s: float = 0.0
    resolution_j: float = 0.0
    wrap_range_j: float | None = None
    gain_rel: float | None = None
    filtered: float = 0.0  # 1: the processor adds noise
    malformed_rows: float = 0.0


class Channel(msgspec.Struct, frozen=True):
    """One quantity that a profiler reads.

    A ``gauge`` is a level, a ``counter`` only grows (its difference over a window is what counts).
    ``tag`` is its TensorBoard tag, unit included. ``scope`` says whose quantity it is (``process``,
    ``machine``, ``core``, ``cpu-package``, ``dram``, ``gpu-board``, ``wall``, ...).
    """

    name: str
    unit: str
    kind: Literal["gauge", "counter"]
    tag: str
    scope: str = "process"
    source: str = ""
    period_s: float | None = None
    # Why this one cannot be read although its profiler is open.
    unavailable: Unavailable | None = None
    # Of the sensor: those of `SensorFacts`, and others that are worth showing.
    facts: dict[str, float] = {}
    # The physical sensor, among those of ``source``: the channels of joules and of watts that share
    # it measure the same thing. Empty: it is in the name, ``energy/<meter>_j``.
    meter: str = ""

    @property
    def sensor(self) -> SensorFacts:
        """The facts that the analysis uses, typed."""
        return msgspec.convert(self.facts, SensorFacts)


class ProfilerContext(msgspec.Struct, frozen=True):
    """Whom and what to observe. ``root`` replaces "/": tests lay out a machine in a folder."""

    pid: int
    device: str = "cpu"
    root: str = "/"
    power_source: str = "auto"
    options: dict[str, str] = {}


class Profiler(Protocol):
    """Reads sensors in the sampler process. Constructed with a `ProfilerContext`."""

    name: str

    def open(self) -> Available | Unavailable:
        """Probe and acquire. After `Available`, `channels` lists what `read` returns."""
        ...

    @property
    def channels(self) -> Sequence[Channel]:
        """Fixed after `open`, channels that cannot be read included (with their reason)."""
        ...

    def read(self) -> Sequence[float | None]:
        """One value per channel, in order; None for what could not be read this time."""
        ...

    def close(self) -> None:
        """Release file descriptors and handles. Idempotent."""
        ...


@runtime_checkable
class PhaseProbe(Protocol):
    """A profiler with figures too slow to sample, read by the driver at phase boundaries."""

    def snapshot(self) -> Mapping[str, Maybe[float]]:
        """Named values now (bytes, counts), slow reads allowed."""
        ...

    def reset_peaks(self) -> None:
        """Restart peak tracking where the system can."""
        ...


class Progress(msgspec.Struct, frozen=True):
    """A glimpse of a run under way, computed by the driver for its sinks."""

    phase: str  # build | load | warm-up | window | idle | profile | verify
    launch: int  # from 0
    launches: int
    elapsed_s: float  # in this phase
    remaining_s: float | None  # of the whole command: an estimate, None where unknown
    iterations: int  # timed so far in this launch (warm-up ones while warming up)
    median_ms: float | None = None
    ci95_ms: tuple[float, float] | None = None
    wall_time_s: float = 0.0  # seconds since 1970, for event stamps alone
    # latencies that came since the last update (window only), ms
    new_latencies_ms: Sequence[float] = ()
    throughput_per_s: float | None = None
    # newest reading of each channel: tag -> value (counters already turned into rates or sums)
    readings: Mapping[str, float] = {}
    at_most: bool = False  # remaining_s is a bound, which a goal may well undercut
