"""What a session may tell of its operators, and of the roof above them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from harness.maybe import Maybe
from harness.protocols.artifacts import TensorSpec
from harness.protocols.backends import SessionOptions


class Step(msgspec.Struct, frozen=True):
    """One node of the model as its author wrote it, with the tensors that it takes and gives.

    Names of tensors are of no account here; an optional input that is absent is left out.
    """

    type: str  # as the model calls it: ``Conv``, ``aten::conv2d``
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class OperatorTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One operator that ran: a kernel, or what the runtime calls so.

    ``ms`` has its time in each profiled inference, over all calls; ``type`` and ``precision`` are
    the words of `Description.operators`, where it counts as one.
    """

    name: str  # unique among the operators of a session
    type: str
    precision: str
    ms: tuple[float, ...]
    calls: float = 1.0  # in one inference
    inputs: tuple[TensorSpec, ...] = ()  # that it was handed, constants among them
    outputs: tuple[TensorSpec, ...] = ()
    # the nodes of the model that it does the work of, by name; None: that cannot be told
    fused: tuple[str, ...] | None = None
    steps: tuple[Step, ...] = ()  # the same nodes; where empty, the operator is its own step


class ProfiledInferences(msgspec.Struct, frozen=True, kw_only=True):
    """Inferences under the runtime's profiler. ``latency_ms`` is what their caller waited."""

    profiler: str  # what it is, and what it can resolve
    operators: tuple[OperatorTimes, ...]  # in the order of execution
    latency_ms: tuple[float, ...]
    resolution_ms: float = 0.0  # of the profiler's clock
    overlapping: bool = False  # operators run beside one another: their times do not add up
    notes: tuple[str, ...] = ()  # what it could not tell


@runtime_checkable
class OperatorProfiled(Protocol):
    """A session that can say where the time of its inferences goes."""

    def profile_operators(self, inferences: int) -> Maybe[ProfiledInferences]:
        """Run so many further inferences on the bound inputs under the runtime's profiler.

        Called once, after the timed window: it may load the model anew. Operators that the profiled
        inferences do not run are left out. Raises nothing foreign.
        """
        ...


# Does a piece of work once, to its end. What it returns is the time of that in ms, where the
# caller's clock would show something else than the clock of the operators does.
RoofCall = Callable[[], float | None]


class RoofLoad(NamedTuple):
    """A known piece of work, whose fastest repetition is a roof (`harness.analysis.roofline`).

    ``start`` makes it ready and returns the call that does it.
    """

    name: str
    bound: Literal["compute", "memory"]
    precision: str  # that it computes in, in the words of `Description.operators`
    work: int  # of one call: operations, or bytes moved
    bytes: int  # that it has in use at a time
    start: Callable[[], RoofCall]


@runtime_checkable
class Roofed(Protocol):
    """A backend that can do matrix products, convolutions and copies through its runtime."""

    def roof_loads(self, precision: str, options: SessionOptions) -> Sequence[RoofLoad]:
        """In each precision that a run at ``precision`` computes in. Called after the window."""
        ...


class IdleLoad(NamedTuple):
    """Operators that compute next to nothing, one after the other: what their inference takes
    longer under the profiler is the profiler's own doing."""

    run: Callable[[], None]  # one inference, to its end
    profile: Callable[[int], Maybe[ProfiledInferences]]  # so many, as `OperatorProfiled` does


@runtime_checkable
class Idled(Protocol):
    """A backend that can run such a chain through its runtime."""

    def idle_load(self, options: SessionOptions) -> IdleLoad:
        """Called after the window."""
        ...
