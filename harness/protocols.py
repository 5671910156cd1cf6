"""What plugs into Harness: backends and profilers, and the values that cross those borders.

The states of a session, as the worker drives it (one session per stream; one thread per stream, or
one thread for all where the sessions are `Asynchronous`):

    prepare() ─> [bound] ─enqueue()─> [in flight] ─synchronize()─> [ready] ─outputs()─> [ready]
                  │   ↑                                              │
                  └bind() <──────────────────────────────────────────┘      close() from any state

Only ``enqueue`` and ``synchronize`` run between two clock reads. Everything else is outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from harness.maybe import Maybe, Unavailable

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

__all__ = [
    "Artifact",
    "ArtifactMaker",
    "Asynchronous",
    "Available",
    "Backend",
    "Channel",
    "Compiler",
    "CompilesAtLoad",
    "Declared",
    "Description",
    "DeviceMemory",
    "DeviceTimed",
    "Layer",
    "Layers",
    "Maybe",
    "Node",
    "OperatorProfiled",
    "OperatorTimes",
    "Option",
    "PhaseProbe",
    "ProfiledInferences",
    "Profiler",
    "ProfilerContext",
    "Proof",
    "Quantization",
    "RoofLoad",
    "Roofed",
    "SensorFacts",
    "Session",
    "SessionOptions",
    "Step",
    "TensorSpec",
    "Unavailable",
    "Unseen",
    "Wanted",
]

Precision = Literal["fp32", "int8", "fp16", "bf16"]


Dim = int | str | None


class Available(msgspec.Struct, frozen=True):
    """Present and usable; ``details`` are facts worth showing (version, device name, ...)."""

    details: dict[str, str] = {}


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output as its model declares it. A dim is a size, a symbol, or None (unnamed).

    ``dims`` is None where even the rank is not declared. ``dtype`` is a numpy name.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...] | None


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output. ``shape`` is concrete: batch and symbolic dimensions are resolved.

    A dimension of an output that is known only once it has run is -1.
    ``dtype`` is a numpy name (``float32``, ``int64``, ``bool``, ...), or that of a type which numpy
    lacks (``bfloat16``, ``float8_e4m3fn``).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def array_dtype(self) -> str:
        """The numpy type of the arrays that hold its values: float32 for one that numpy lacks."""
        lacking = self.dtype == "bfloat16" or self.dtype.startswith("float8_")
        return "float32" if lacking else self.dtype


class Proof(msgspec.Struct, frozen=True):
    """Every quantized layer of an artifact held against FP32, on the processor that made it.

    Each layer is given FP32's own inputs, so that no layer answers for those before it.
    """

    layers: int  # how many were compared
    worst: str = ""  # of those that stayed quantized, the farthest from FP32
    worst_sqnr_db: float | None = None  # None: none differs from FP32 at all
    left: dict[str, str] = {}  # layer that stays in FP32 -> why
    floor_db: float | None = None  # a layer below it does not stay quantized
    samples: int | None = None  # how many inputs the layers were compared on


class QuantizationCost(msgspec.Struct, frozen=True, kw_only=True):
    """What making it took: wall time, processor time, and the peak of the process's resident set,
    with the libraries and the FP32 model that it had loaded."""

    duration_s: float
    cpu_s: float
    peak_rss_bytes: Maybe[int]


class Quantization(msgspec.Struct, frozen=True):
    """How a reduced-precision artifact was made."""

    route: str  # "onnxruntime static QDQ", "torch FX onednn", ...
    method: str  # minmax | entropy | percentile | dynamic | cast
    scheme: str  # "symmetric activations, per-channel weights", ...
    calibration_source: str  # file | model split | drawn inputs | none
    calibration_sha256: str
    calibration_samples: int
    proof: Proof | None = None  # None: made without one
    cost: QuantizationCost | None = None  # None: nothing was to be made, or nobody looked


class Artifact(msgspec.Struct, frozen=True):
    """A model made ready for one backend family, at one precision and one set of shapes.

    ``format`` is ``onnx`` (``path`` is the file; external data lies beside it), ``torch``
    (``source`` rebuilds the module: ``zoo:NAME``, ``factory:MODULE:NAME``, ``pt2:PATH`` or
    ``torchscript:PATH``) or ``torch-int8`` (``path`` is a quantized program that a builder saved);
    or a backend's own.
    """

    format: str
    path: str
    source: str
    precision: str
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    quantization: Quantization | None = None
    seed: int = 0  # of the random weights, where ``source`` draws them
    # outputs whose length may differ from one inference to the next, on the same inputs
    varying: tuple[str, ...] = ()
    bound: str = ""  # an .npz of inputs by name that it will be run on, where some are known
    facts: dict[str, str] = {}  # what its maker says of it


class Wanted(msgspec.Struct, frozen=True):
    """The artifact that a backend asks for, at one precision and with its options.

    ``symmetric`` asks for INT8 activations with zero point 0, of what is multiplied by weights
    alone. ``precision="fp32"`` asks for the FP32 model whatever the run's precision: the runtime,
    or `ArtifactMaker.make_artifact`, goes on from there. ``libraries`` are files with custom
    operators that the graph needs: whoever makes the artifact loads them too.

    A format of the backend's own is made of another one: ``of`` says of which, which Harness makes
    (at the precision of the run) and `ArtifactMaker.make_artifact` turns into ``format``.
    """

    format: str
    symmetric: bool = False
    precision: str = ""  # of what is handed over, where the runtime itself goes on from there
    libraries: tuple[str, ...] = ()
    of: Wanted | None = None


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


class RoofLoad(NamedTuple):
    """A known piece of work, whose fastest repetition is a roof (`harness.analysis.roofline`).

    ``start`` makes it ready and returns the call that does it once, to its end.
    """

    name: str
    bound: Literal["compute", "memory"]
    precision: str  # that it computes in, in the words of `Description.operators`
    work: int  # of one call: operations, or bytes moved
    bytes: int  # that it has in use at a time
    start: Callable[[], Callable[[], None]]


@runtime_checkable
class Roofed(Protocol):
    """A backend that can do matrix products, convolutions and copies through its runtime."""

    def roof_loads(self, precision: str, options: SessionOptions) -> Sequence[RoofLoad]:
        """In each precision that a run at ``precision`` computes in. Called after the window."""
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
