"""What the Compression Board shows, whichever way it came in: event files, results or an import.

    Board ── Entry (one model at one precision, from one source)
               ├─ figures: metric name -> Figure, value with its interval
               ├─ missing: metric name -> why there is none
               └─ ratios against the reference precision, the AURORA score with its components

Pure records. `harness.compression.ratios` computes the ratios and the score; the TensorBoard tab
and the report draw a board as JSON and compute nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.analysis.roofline import Roofline


class Column(msgspec.Struct, frozen=True):
    """A figure of the board. ``tag`` is its step in a TensorBoard tag, ``{model}/{tag}/int8``.

    ``in_table``: ``always``, ``where known`` (to any entry), or not at all; elsewhere it is chosen.
    """

    name: str
    tag: str
    title: str
    unit: str
    better: str  # lower | higher | none
    in_table: str = ""
    head: str = ""  # of the table, where the title is too long


METRICS: dict[str, Column] = {
    metric.name: metric
    for metric in (
        Column("accuracy", "accuracy", "Accuracy", "", "higher", "always"),
        Column("f1_score", "f1_score", "F1 score", "", "higher"),
        Column("precision", "precision", "Precision", "", "higher"),
        Column("recall", "recall", "Recall", "", "higher"),
        Column("sensitivity", "sensitivity", "Sensitivity", "", "higher"),
        Column("specificity", "specificity", "Specificity", "", "higher"),
        Column("loss", "loss", "Loss", "", "lower"),
        Column("latency_ms", "latency", "Latency", "ms", "lower", "always"),
        Column("latency_std_ms", "latency_std", "Latency std", "ms", "lower"),
        Column("throughput_per_s", "throughput", "Throughput", "1/s", "higher"),
        Column("model_size_mb", "model_size", "Model size", "MB", "lower", "always", "Size"),
        Column("memory_mb", "memory", "Memory", "MB", "lower", "always"),
        Column("gpu_memory_mb", "gpu_memory", "GPU memory", "MB", "lower", "where known"),
        Column("energy_j", "energy", "Energy per inference", "J", "lower", "always", "Energy"),
        Column("power_mw", "energy", "Power", "mW", "lower", "where known"),
    )
}


# Nothing that was measured has these at 0: a 0 stands for a meter or a column that was not there.
NEVER_ZERO = (
    "latency_ms",
    "throughput_per_s",
    "model_size_mb",
    "memory_mb",
    "energy_j",
    "power_mw",
)


# What else must be alike, where both entries give it, for one to be the reference of the other.
# The content is that of the FP32 source: an INT8 model knows what it was made from.
PAIRED_BY = (
    "backend", "device", "machine", "batch_size", "scenario", "boundary", "concurrency", "threads",
    "latency_statistic", "model_sha256",
)  # fmt: skip


class Figure(msgspec.Struct, frozen=True):
    """A value, in the unit of its metric, with its 95 % interval where one is known."""

    value: float
    low: float | None = None
    high: float | None = None


class Histogram(msgspec.Struct, frozen=True):
    """Latencies counted in bins: ``counts[i]`` lies between ``edges_ms[i]`` and the next edge."""

    edges_ms: tuple[float, ...]
    counts: tuple[float, ...]


class Judgement(msgspec.Struct, frozen=True):
    """What `harness.compare` says of one metric of an entry and its reference.

    ``ratio`` is the entry's figure over the reference's, ``low`` and ``high`` its 95 % interval;
    None where nothing was tested. ``design`` says what was held against what.
    """

    verdict: str  # improved | regressed | unchanged | inconclusive | not comparable
    reason: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    doubt: str = ""
    design: str = ""


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A system at one rate, in requests a second. ``verdict`` is a probe's: whether it held."""

    rate_per_s: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    utilization: float | None = None  # busy time over servers x time
    joules: float | None = None  # a request
    verdict: str = ""


class LatencyBound(msgspec.Struct, frozen=True):
    """``p99=10ms``; ``figure`` is its quantile as `CurvePoint` has it, empty for others."""

    text: str
    limit_ms: float
    figure: str = ""


class CapacityCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The highest rate that holds ``bounds``, with its 95 % interval or ``why_no_interval``."""

    run: str
    per_s: float
    bounds: tuple[LatencyBound, ...]
    limit: str  # what limits, in words
    ended: str
    measured: tuple[CurvePoint, ...]
    predicted: tuple[CurvePoint, ...]
    low: float | None = None
    high: float | None = None
    why_no_interval: str = ""


class PooledRun(msgspec.Struct, frozen=True, kw_only=True):
    """One of the runs that an entry pools. ``figures`` are its own, by metric."""

    run: str
    status: str
    started_at: str = ""
    launches: int = 0
    figures: dict[str, float] = {}
    error: str = ""


class Aurora(msgspec.Struct, frozen=True):
    """The score is never shown without its components (ratios, above 1 is better).

    ``weights`` are those used, adding up to 1; ``penalty`` (0 to 1, a factor of the score) is below
    1 where more accuracy was lost than is tolerated. `harness.compression.ratios.aurora`.
    """

    score: float
    components: dict[str, float]
    missing: tuple[str, ...] = ()
    weights: dict[str, float] = {}
    penalty: float = 1.0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One model at one precision. ``ratios`` are against ``reference``, a precision.

    ``runs``: those that are pooled, the newest last, as comparisons pool them; ``run`` is the
    newest that finished. ``setting``: how it was measured and quantized, as far as the entries of
    its model differ in that. ``judged``: by metric, what of the ratios is certain.
    """

    model: str
    precision: str
    run: str  # the TensorBoard run, the run id or the imported file
    status: str = "complete"  # running | complete | degraded | failed | interrupted | imported
    random_weights: bool = False
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    derived: dict[str, str] = {}  # metric name -> how the figure was computed from others
    latencies: Histogram | None = None
    reference: str | None = None
    reference_run: str | None = None  # which of several runs it was compared with
    ratios: dict[str, float] = {}  # size_ratio, speedup, accuracy_drop, energy_ratio, ...
    aurora: Aurora | None = None
    info: dict[str, str] = {}  # `PAIRED_BY`, and library, category, input_shape, method, ...
    extra: dict[str, Any] = {}  # of an imported file: the fields that are no figures, verbatim
    setting: str = ""
    runs: tuple[PooledRun, ...] = ()
    launches: int = 0  # of all runs; 0 where nobody knows
    judged: dict[str, Judgement] = {}
    advice: str = ""  # what would decide, where a judgement is open
    capacity: CapacityCurve | None = None  # of the newest run that `harness capacity` began with
    roofline: Roofline | None = None  # of the newest run whose operators were profiled


class Board(msgspec.Struct, frozen=True, kw_only=True):
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()  # what could not be read, and why; what not to believe at sight
    # Of an imported file, verbatim: what it says of each model beside its precisions, and beside
    # its models.
    extra: dict[str, dict[str, Any]] = {}
    file_extra: dict[str, Any] = {}
