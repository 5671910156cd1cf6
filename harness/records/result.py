"""The Result: everything a run leaves for its readers, with units in the names.

Schema history (old versions keep loading):

    harness.result/1   first version
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.protocols import NO_LAYERS, Layers, Quantization, TensorSpec
from harness.records import notebook
from harness.records.operators import NOT_PROFILED, Operators
from harness.spec import RunSpec

SCHEMA = "harness.result/1"

Status = Literal["complete", "degraded", "failed", "interrupted"]
CheckVerdict = Literal["pass", "warn", "fail", "unknown"]
NOT_ASKED = Unavailable("not asked for", "--overhead-check")
IN_TURNS = Unavailable(
    "it took turns with others and rested in between; its latency says how fast it is",
    "harness run for a rate of its own",
)
UNWATCHED = Unavailable(
    "no sensor is read while variants take turns", "harness run for a window that sensors watch"
)
NOT_SERVED = Unavailable("requests came as fast as they were done", "--scenario server")
NOT_SOUGHT = Unavailable("not asked for", "harness capacity")
NOT_KEPT = Unavailable("this result does not say it of each launch", "measure again")
NOT_OWN = Unavailable("asked of a quantized ONNX file of the user's own, on a CPU")
NOT_REACHED = Unavailable("the run ended before this was measured", "see `error`")


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model came from. ``sha256`` is of the FP32 source (file, weights or recipe);
    ``file_sha256`` of the model that was run where somebody else had made it from that source."""

    name: str
    source: str  # zoo | onnx | factory | pt2 | torchscript
    sha256: str
    parameters: Maybe[int]
    random_weights: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_data: str  # what was bound: "test split", "drawn, seed 0", ...
    file_size_bytes: int
    file_sha256: str = ""
    batch_dim: str = ""  # of an ONNX graph, what was taken for the batch: "n_audio (by position)"


class OutputFidelity(msgspec.Struct, frozen=True, kw_only=True):
    """One output against FP32's, over all samples. Cosine, SQNR and largest error are of the
    elements that are finite on both sides; integers, booleans and texts have no cosine and SQNR."""

    dtype: str
    elements: int
    cosine: Maybe[float]
    sqnr_db: Maybe[float]
    max_abs_error: Maybe[float]
    equal: float  # share of the elements that are the same
    equal_non_zero: Maybe[float]  # of those that are not 0 on both sides; of exact outputs alone
    non_finite: int = 0  # elements with a NaN or an infinity that only one side has


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """Outputs against FP32 on the same inputs and backend.

    Cosine, SQNR and largest error are those of ``output``, the worst floating-point output. Where
    ``output`` is empty the result is of an earlier version: all outputs together as one vector.
    """

    reference: str
    samples: int
    cosine: Maybe[float]
    sqnr_db: Maybe[float]
    max_abs_error: Maybe[float]
    top1_agreement: Maybe[float]
    output: str = ""
    outputs: dict[str, Maybe[OutputFidelity]] = {}
    inputs: str = ""  # what the samples are: "digits test split", "drawn, seeds 0, 2 to 8", ...
    top1_output: str = ""  # whose top-1 class was compared


class Overflow(msgspec.Struct, frozen=True, kw_only=True):
    """A layer in which two products of 8 bits can add up to more than 16 bits hold.

    ``reached``: the farthest that they can, in ``filters`` of all ``of`` filters, given the largest
    quantized activation that was observed.
    """

    name: str
    reached: int
    filters: int
    of: int
    activation_max: int


class Overflows(msgspec.Struct, frozen=True, kw_only=True):
    """Layers whose answers may differ on x86 processors without VNNI, which add two neighbouring
    products in 16 bits. ``here``: this processor is one. Without ``layers`` all are safe."""

    layers: tuple[Overflow, ...]
    samples: int  # that activations were observed on
    here: bool


class PrecisionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for and what truly ran."""

    requested: str
    quantization: Quantization | None
    # operator type -> precision -> number of nodes, from the graph that ran
    operators: Maybe[dict[str, dict[str, int]]]
    fidelity: Maybe[Fidelity]
    file_size_bytes: int
    fp32_file_size_bytes: Maybe[int]
    size_ratio: Maybe[float]  # fp32 / this
    layers: Maybe[Layers] = NO_LAYERS
    overflows: Maybe[Overflows] = NOT_OWN


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Measured through the backend under test, outside the timed window."""

    dataset: str
    dataset_sha256: str
    samples: int
    top1: float  # share correct, 0 to 1
    macro_f1: float
    # one character a sample, '1' correct: paired tests between two results need it
    correct: str
    scores: str = ""  # the output that it is of, and how that was known


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Hardware and settings. ``fingerprint`` hashes ``factors``, which must match to compare."""

    fingerprint: str
    factors: dict[str, str]
    context: dict[str, str]


class Software(msgspec.Struct, frozen=True, kw_only=True):
    versions: dict[str, str]
    runtime: dict[str, str]  # as the backend reports itself
    environment: dict[str, str]  # the variables that steer threads and libraries
    commit: str | None
    branch: str | None = None
    commit_time: str | None = None  # ISO 8601
    dirty: bool | None = None  # tracked files differed from the commit


class LatencyStats(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles are absent where there are too few iterations for a two-sided 95 % interval."""

    mean: float
    std: float
    min: float
    max: float
    median: float
    p90: Maybe[float]
    p95: Maybe[float]
    p99: Maybe[float]
    p99_9: Maybe[float]
    iqr: float
    mad: float
    ci95: dict[str, Maybe[tuple[float, float]]]  # median, p90, p95, p99, p99_9, mean


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """One fresh worker process."""

    iterations: int
    warmup_iterations: int
    warmup_end: str  # steady | cap | count
    stop_reason: str  # interval | duration | max_duration | iterations | interrupted | failed
    window_s: float
    median_ms: float
    first_inference_ms: float
    load_s: float
    # A launch is what comparisons repeat, so whatever is compared has one figure per launch.
    mean_ms: Maybe[float] = NOT_KEPT
    p90_ms: Maybe[float] = NOT_KEPT
    p95_ms: Maybe[float] = NOT_KEPT
    p99_ms: Maybe[float] = NOT_KEPT
    device_median_ms: Maybe[float] = NOT_KEPT
    joules_per_inference: Maybe[float] = NOT_KEPT  # gross, of the primary source
    average_power_w: Maybe[float] = NOT_KEPT  # of the primary source
    memory_peak_bytes: Maybe[int] = NOT_KEPT  # in the window
    device_memory_peak_bytes: Maybe[int] = NOT_KEPT
    inferences_per_s: Maybe[float] = NOT_KEPT  # while all streams ran; iterations x batch size
    cpu_ms: Maybe[float] = NOT_KEPT  # processor time per iteration, of all the worker's threads
    compile_s: Maybe[float] = NOT_KEPT  # of load_s, what the runtime compiled for this device
    # a fixed piece of work before the window and after it: the machine's speed, not the model's
    yardstick_ms: Maybe[tuple[float, float]] = NOT_KEPT


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    scenario: str
    boundary: str
    clock: str
    mode: str  # closed_loop, or how requests came
    warmup_end: str
    stop_reason: str
    iterations: int
    window_s: float
    latency_ms: LatencyStats
    device_ms: Maybe[LatencyStats]
    autocorrelation: Maybe[float]  # lag 1, within launches
    effective_samples: Maybe[float]
    outliers: int  # beyond median + 5 MAD-sd; counted and kept
    outlier_rule: str
    drift: Maybe[float]  # last third's median / first third's - 1
    launches: tuple[Launch, ...]
    between_launch_cv: Maybe[float]
    method: dict[str, str]  # how each interval was made
    cpu_ms: Maybe[float] = NOT_KEPT  # processor time per iteration, over all launches


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    inferences_per_s: float  # samples per second: iterations x batch size
    ci95: Maybe[tuple[float, float]]
    batch_size: int
    concurrency: int
    method: str


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of a schedule met, over all launches; latency counts from when they were due.

    Where ``stationary`` is false the backlog grew, and quantiles are those of this window alone.
    """

    arrivals: str  # poisson | constant | gamma:CV | file:PATH
    rate_per_s: Maybe[float]  # as asked for
    servers: int
    batching: str  # 8:2ms; empty: one at a time
    requests: int  # timed
    unserved: int  # timed ones that were due, and given up with the backlog
    offered_per_s: float  # due in the schedule's window, over its length
    achieved_per_s: float  # ended in it
    waiting_ms: LatencyStats  # due to start
    service_ms: LatencyStats  # start to end, once an inference
    lateness_ms: Maybe[LatencyStats]  # of starts, where a server was free; part of every latency
    utilization: float  # busy time over servers x time
    requests_per_inference: float
    queue_mean: float  # requests that were due and had not started
    queue_max: int
    queue: tuple[tuple[float, float], ...]  # (s since the window's start, length), mean of launches
    backlog: int  # that waited at the window's end; the worst launch's
    stationary: bool


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The highest rate at which every bound holds; how it was found stands in ``capacity.json``."""

    per_s: float
    ci95: Maybe[tuple[float, float]]
    bounds: tuple[str, ...]
    limited_by: str  # the bound that sets it
    predicted_per_s: float  # by the service times alone
    probes: int


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its standard uncertainties (one standard deviation; twice that covers about
    95 %), in the unit of ``value``."""

    value: float
    comparative: float  # between runs on the same device
    absolute: Maybe[float]  # against true joules or watts: adds the instrument's gain


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """What a meter did under the load of the warm-up, before anything was attributed to it."""

    verdict: CheckVerdict
    reason: str
    updates: int
    update_period_s: Maybe[float]  # as seen: never below the sampler's own interval
    counter_to_integral: Maybe[float]  # counter / integral of its own power, 1 where they agree


class EnergySource(msgspec.Struct, frozen=True, kw_only=True):
    """One meter over exactly the timed window. ``parts`` lists what a sum was made of.

    ``counted_by``: the channel of ``series.npz`` that ``counter_j`` is of; empty for a sum, without
    a counter, and in older results.

    With status ``disagreement`` the two raw figures are kept and nothing is derived from them.
    """

    source: str
    scope: str
    method: str  # counter | integral | none
    energy_j: Maybe[Spread]
    counter_j: Maybe[float]
    integral_j: Maybe[float]
    average_power_w: Maybe[float]
    idle_before_w: Maybe[float]
    idle_after_w: Maybe[float]
    gross_j_per_inference: Maybe[Spread]
    net_j_per_inference: Maybe[Spread]
    energy_delay_product_js: Maybe[float]  # joules per inference x seconds of latency
    update_period_s: Maybe[float]
    updates: int
    status: str  # ok | shared | disagreement | unavailable
    notes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    self_test: Maybe[SelfTest] = NOT_REACHED
    counted_by: str = ""


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Sources by meter, never added across scopes. ``joules_per_inference`` repeats ``primary``'s
    gross figure."""

    primary: str
    joules_per_inference: Maybe[Spread]
    window_s: float
    inferences: int
    shared: Maybe[bool]  # others used more than 5 % of what this machine's meters saw
    sources: dict[str, EnergySource]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Host memory of the worker, one kind for all four; USS and PSS where readable."""

    kind: str  # host_rss_hwm | host_rss_sampled
    baseline_bytes: Maybe[int]  # runtime imported, model not yet loaded
    loaded_bytes: Maybe[int]
    warmup_peak_bytes: Maybe[int]
    window_peak_bytes: Maybe[int]
    window_uss_bytes: Maybe[int]
    window_pss_bytes: Maybe[int]
    device: Maybe[dict[str, Maybe[int]]]


class ChannelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A gauge's time-weighted summary over the timed window; a counter's growth and rate."""

    unit: str
    kind: str
    scope: str
    source: str
    samples: int
    mean: Maybe[float]
    min: Maybe[float]
    max: Maybe[float]
    first: Maybe[float]
    last: Maybe[float]


class Sampler(msgspec.Struct, frozen=True, kw_only=True):
    requested_rate_hz: float
    achieved_rate_hz: Maybe[float]
    gap_max_s: Maybe[float]
    cpu_share: Maybe[float]  # of one core


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """About a second of a timed window. Shares are of one core's time."""

    launch: int
    start_s: float  # since the window's start
    seconds: float
    iterations: int
    median_ms: Maybe[float]
    foreign_share: Maybe[float]
    steal_share: Maybe[float]
    pressure_share: Maybe[float]  # of the time, in which some task waited for a CPU
    clock_mhz: Maybe[float]  # of the fastest core, or of the GPU under test
    temperature_c: Maybe[float]
    disturbed: Maybe[bool]  # foreign load or steal beyond the limits of the validity checks


class Profiles(msgspec.Struct, frozen=True, kw_only=True):
    sampler: Maybe[Sampler]
    channels: dict[str, Maybe[ChannelSummary]]
    blocks: tuple[Block, ...] = ()


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """Latency while watched (sampler, journal, TensorBoard) over latency left alone: ratios.

    Medians over interleaved rounds in one process, each with its 95 % interval between rounds.
    """

    rounds: int
    block_s: float
    median: float
    median_ci95: tuple[float, float]
    p99: Maybe[float]
    p99_ci95: Maybe[tuple[float, float]]
    method: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One validity check. ``threshold`` says what was held against what."""

    name: str
    verdict: CheckVerdict
    reason: str
    threshold: str = ""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    kind: str  # exception | signal | timeout | exit | interrupted
    message: str
    remedy: str
    phase: str
    stderr_tail: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Immutable once written."""

    schema: str = SCHEMA
    id: str
    status: Status
    started_at: str  # ISO 8601, UTC
    duration_s: float
    spec: RunSpec
    model: Maybe[ModelInfo]
    precision: Maybe[PrecisionInfo]
    accuracy: Maybe[Accuracy]
    machine: Machine
    software: Software
    timing: Maybe[Timing]
    throughput: Maybe[Throughput]
    energy: Maybe[Energy]
    memory: Maybe[Memory]
    profiles: Maybe[Profiles]
    validity: tuple[Check, ...] = ()
    overhead: Maybe[Overhead] = NOT_ASKED
    operators: Maybe[Operators] = NOT_PROFILED
    artifacts: dict[str, str] = {}  # file name in the run folder -> what it holds
    sha256: dict[str, str] = {}  # of those files, when the run was over
    serving: Maybe[Serving] = NOT_SERVED
    capacity: Maybe[Capacity] = NOT_SOUGHT
    error: ErrorInfo | None = None
    tags: dict[str, str] = {}

    def _repr_html_(self) -> str | None:
        """For a notebook."""
        return notebook.html(self)
