"""A runtime and its sessions; see the package for the states of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.protocols.artifacts import Artifact, Available, Wanted

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


class Option(msgspec.Struct, frozen=True):
    """One ``--option NAME=VALUE`` of a backend. Without ``values`` it is free text.

    ``device`` is the kind of device that it is for (``cuda``); empty: every one.
    """

    name: str
    values: tuple[str, ...] = ()
    default: str = ""
    help: str = ""
    device: str = ""


class SessionOptions(msgspec.Struct, frozen=True):
    """How to prepare a session. ``threads`` is already set in the process's environment too."""

    device: str = "cpu"  # cpu | cuda:N
    boundary: str = "compute"  # compute | transfer
    threads: int = 1
    inter_threads: int = 1
    options: dict[str, str] = {}  # --option key=value, the adapter's own


class Layer(msgspec.Struct, frozen=True):
    """One layer of what executes. ``ms``: its mean time in a pass of its own, if there was one."""

    name: str
    type: str
    precision: str
    ms: float | None = None


class Layers(msgspec.Struct, frozen=True):
    """In the order of execution; of very many the slowest."""

    total_ms: Maybe[float]  # of all layers; why they have no times, where they have none
    rows: tuple[Layer, ...]


NO_LAYERS = Unavailable("this runtime does not tell its layers one by one")


NO_THREADS = Unavailable("this runtime does not say how many threads it runs on")


class Description(msgspec.Struct, frozen=True):
    """What is really running, as read back from the runtime, not from the request."""

    runtime: dict[str, str]  # version, provider, threads, options as the runtime reports them
    # operator type -> precision it ran in -> number of nodes, from the graph that executes
    operators: Maybe[dict[str, dict[str, int]]]
    layers: Maybe[Layers] = NO_LAYERS
    threads: Maybe[int] = NO_THREADS  # of the pool that computes on the CPU, after an inference
    inputs: str = ""  # what became of the bound inputs, where the session had to see to them


class Session(Protocol):
    """One stream of inferences over one set of bound inputs."""

    def bind(self, inputs: Arrays) -> None:
        """Replace the bound inputs by others of the same names, shapes and dtypes (untimed)."""
        ...

    def enqueue(self) -> None:
        """Start one inference on the bound inputs. May return before it has finished."""
        ...

    def synchronize(self) -> None:
        """Return when the outputs of the last `enqueue` are ready."""
        ...

    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """The last inference's tensor outputs on the host, as copies (untimed).

        An output that is not a tensor (an ONNX sequence, map or optional) is left out.
        """
        ...

    def describe(self) -> Description:
        """What really runs. Called once, after the timed window: it may be slow."""
        ...

    def close(self) -> None:
        """Free everything. Idempotent."""
        ...


@runtime_checkable
class Asynchronous(Protocol):
    """A session that says whether its `enqueue` returns while the device still works.

    Where every session of a run does, several inferences in flight need one thread alone, which
    waits for the oldest and then starts the next; else there is one thread per session. A session
    without the attribute does its work in `enqueue`.
    """

    asynchronous: bool


@runtime_checkable
class DeviceTimed(Protocol):
    """A session that can also time its inferences with the device's own events.

    Events are recorded by `Session.enqueue` around the work that it starts, in a stretch between
    warm-up and window. After `arm` the worker asks for ``enqueue`` and ``synchronize`` anew, so
    that an adapter may put others in their place.
    """

    def arm(self, iterations: int) -> Unavailable | None:
        """Make events for the next ``iterations`` inferences; those after them go without.

        Called between two inferences; 0 ends the timing and lets go of the events. The reason where
        this session has none to give after all.
        """
        ...

    def device_times_ms(self) -> NDArray[Any]:
        """Device time of each inference since `arm`, in order, float64 [N], N at most as armed."""
        ...


@runtime_checkable
class CompilesAtLoad(Protocol):
    """A session that knows how much of its making was compiling for the device at hand."""

    compile_s: float


@runtime_checkable
class Unseen(Protocol):
    """A session with outputs that no array can hold, which `Session.outputs` leaves out."""

    def unseen(self) -> Mapping[str, str]:
        """What each of them is, by name: ``a sequence``, ``text``. Called after an inference."""
        ...


@runtime_checkable
class DeviceMemory(Protocol):
    """A session that knows what its framework allocated on the device."""

    def device_memory(self) -> Mapping[str, Maybe[int]]:
        """Bytes by name, ``allocator_peak_bytes`` among them where there is an allocator."""
        ...

    def reset_device_peak(self) -> None:
        """Restart the peak."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A runtime. The object is cheap: it imports the framework in `availability` or `prepare`.

    Its class may say more of it, as data that is read without an object (`harness.registry`):

        options: Sequence[Option]        what ``--option`` takes, shown by ``harness list backends``
        default_device: str              ``cpu`` unless given; of a registered backend alone
        distributions: Sequence[str]     whose installed versions belong beside a result
    """

    name: str

    def availability(self, device: str) -> Available | Unavailable:
        """Can this backend use ``device`` here? Imports the framework; never raises for absence."""
        ...

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        """The artifact wanted, without importing the framework.

        Raises `UsageError` naming what the backend can do, for a precision or an option it has not.
        """
        ...

    def prepare(self, artifact: Artifact, inputs: Arrays, options: SessionOptions) -> Session:
        """Load ``artifact`` and bind ``inputs``. Called once per stream; sessions of one backend
        object may share the loaded model and must be able to run at the same time.

        Raises `BackendUnavailable`, `ModelError` or `MeasurementFailed`; nothing foreign.
        """
        ...


@runtime_checkable
class ArtifactMaker(Protocol):
    """A backend with an artifact format of its own."""

    def make_artifact(
        self, source: Artifact, target: Path, options: SessionOptions
    ) -> Mapping[str, str] | None:
        """Write ``source``, which is as `Wanted.of` says, to the file ``target`` in that format.

        Called in the builder's process, which may import the framework; other files may go into the
        folder of ``target``. Of ``options`` device and options count. What is returned is worth
        telling of it, and stays with it as `Artifact.facts`. Raises `ModelError` or
        `QuantizationError`.
        """
        ...


class Node(msgspec.Struct, frozen=True):
    """One node of a model, and what a runtime's parser makes of it."""

    name: str  # its own, or its number where it has none
    type: str
    taken: bool | None  # None: the parser did not come to it
    reason: str = ""  # of a node that is not taken


@runtime_checkable
class Compiler(Protocol):
    """A backend that compiles what it runs, and can do so beforehand, for ``harness build``."""

    def compiled(self, precision: str, options: SessionOptions) -> Wanted:
        """The artifact to build, in the backend's own format. Raises like `Backend.wants`."""
        ...

    def examine(self, source: Artifact, options: SessionOptions) -> Sequence[Node]:
        """Which nodes of ``source``, which is as `Wanted.of` says, the runtime's parser takes.

        Called in the builder's process, before the artifact is built. Raises `ModelError` where
        the file as a whole is refused.
        """
        ...
