"""What a launch says of itself while it goes: all that journal, terminal and TensorBoard need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.engine.driver.journal import Seen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Fresh(NamedTuple):
    """Iterations of one stream that follow each other, all of them timed or none, in ns.

    ``others``: further columns of the timeline; latency counts from the one that is named.
    """

    stream: int
    timed: bool
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    others: Mapping[str, NDArray[np.int64]] = {}
    counts_from: str = "start"

    @property
    def latencies(self) -> NDArray[np.int64]:
        return self.ends - self.others.get(self.counts_from, self.starts)


@dataclass(frozen=True)
class Estimate:
    """The median of ``count`` timed iterations, and how well it is known."""

    count: int = 0
    median_ms: float = math.nan
    relative_half_width: float = math.inf


@dataclass(frozen=True)
class Tick:
    """Published about ten times a second, and at each change of phase. Times are ns."""

    launch: int
    phase: str  # load | idle | warm-up | window | verify
    at_ns: int
    phase_began_ns: int
    fresh: tuple[Fresh, ...] = ()  # since the last one
    iterations: int = 0  # of all streams so far, warm-up included
    estimate: Estimate | None = None  # it takes a while: twice a second, and with each phase
    seen: Seen | None = None  # what the journal should keep: with each phase
    window_over: bool = False
    idle_s: float = 0.0  # before and after
    floor_s: float = 0.0  # of the window, for the meters

    @property
    def elapsed_s(self) -> float:
        """In this phase."""
        return (self.at_ns - self.phase_began_ns) / 1e9
