"""What a load is: how inferences follow one another, from when each counts, and what it adds.

One file a load, one class in it, named in `harness.registry.LOADS`; driver and worker choose it by
the name of the scenario. The worker asks for its `Drive`; the driver for the columns that the
timeline needs; the outcome for how to read them.

    worker   Load.drive ── warm_up ── rebind ── window      writes one row an inference
    driver   timeline with Load.columns                     copies the rows
    outcome  latency = end - Load.counts_from, Load.checks, Load.figures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.engine.wire.timeline import COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.engine.wire.messages import Job, Peer, Requests
    from harness.engine.wire.timeline import Timeline
    from harness.protocols import Session
    from harness.records.result import Check
    from harness.spec import RunSpec


class Drive(Protocol):
    """The streams of one worker, however many threads drive them."""

    @property
    def facts(self) -> Mapping[str, int]:
        """Of the window, for the load's own figures (`Taken.facts`)."""
        ...

    def warm_up(self) -> None:
        """Loop until the driver commands `WINDOW`."""
        ...

    def window(self) -> None:
        """The timed window and the guard band; sets ``window_start`` and ``window_end``."""
        ...

    def rebind(self, sessions: Sequence[Session]) -> None:
        """Ask the sessions for their calls anew."""
        ...


class Taken(NamedTuple):
    """The window of one launch.

    ``streams``: of each the timed rows, column -> int64 ns; ``rows``: all of them. ``facts``: what
    the drive told at the end. ``resting_share``: of a core, where it took turns with others.
    """

    streams: Sequence[Mapping[str, NDArray[np.int64]]]
    rows: Sequence[Mapping[str, NDArray[np.int64]]] = ()
    facts: Mapping[str, int] = {}
    resting_share: float | None = None


class Load:
    """One way in which inferences follow one another. Holds no state of a run."""

    columns: tuple[str, ...] = COLUMNS  # of the timeline, beside which its rows lie in samples.npz
    counts_from = COLUMNS[0]  # the column from which latency counts, up to ``end``
    pauses = True  # random ones for a power meter may lie between two inferences
    shared = False  # streams take from one schedule, so that one of them may time nothing

    def mode(self, spec: RunSpec) -> str:
        """For ``timing.mode``: what sets the pace."""
        return "closed_loop"

    def drive(self, timeline: Timeline, sessions: Sequence[Session], job: Job, peer: Peer) -> Drive:
        """What drives ``sessions``, one a stream of ``timeline``. In the worker."""
        raise NotImplementedError

    def refuse(self, spec: RunSpec) -> None:
        """Raises `HarnessError` for what can be seen before anything is loaded."""

    def requests(self, spec: RunSpec, launch: int) -> Requests | None:
        """The schedule of one launch, where there is one."""
        return None

    def rate(self, spec: RunSpec, taken: Taken) -> float:
        """Inferences per second of one launch."""
        from harness.analysis.throughput import launch_rate

        return launch_rate([(one["start"], one["end"]) for one in taken.streams], spec.batch_size)

    def figures(self, spec: RunSpec, taken: Sequence[Taken]) -> dict[str, Any]:
        """Fields of the `Result` that are this load's own, from the windows of all launches."""
        return {}

    def checks(self, spec: RunSpec, taken: Sequence[Taken]) -> tuple[Check, ...]:
        """The validity checks that this load adds to those of every run."""
        return ()
