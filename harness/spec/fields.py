"""The fields of a run, one record each: all that the rest needs to know of one stands here.

The command line takes its flags, metavars and help from these records, `harness.spec.parse` its
parsers, sweeps their keys, `harness.records.cell` what makes two runs measurements of one thing,
and comparisons and exports what to call it. A field of `harness.spec.RunSpec` that is not here
fails a test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

from harness.protocols import Precision
from harness.spec import parsers

Scenario = Literal["latency", "throughput", "server"]
Boundary = Literal["compute", "transfer"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
QuantizationMode = Literal["static", "dynamic"]
Requirement = Literal["energy", "accuracy", "memory", "interval"]

MAX_STREAMS = 1024

# How a field takes part in the cell's key: by its value, as a file by its stem, or not at all.
Identity = Literal["value", "file", "no"]


class Field(NamedTuple):
    """One field of a run.

    ``parse`` gets the flag's name and its text, or a sequence of texts where ``many``; a field
    without it is a switch. ``across``: cells may be compared that differ in it, and in the fields
    that it names, which belong to it; None: they may not.
    """

    name: str  # of the attribute of a `RunSpec`, and the key in a result, a sweep and a policy
    flag: str
    metavar: str
    help: str
    parse: Callable[[str, Any], Any] | None
    identity: Identity = "no"
    many: bool = False
    later: bool = False  # in the key where it is given alone: older cells keep theirs
    aliases: tuple[str, ...] = ()  # flags that scripts may still use
    named: bool = False  # its value stands in the cell's name
    shown: bool = False  # among the facts of a row in TensorBoard's HPARAMS and in the board
    across: tuple[str, ...] | None = None
    quantizing: bool = False  # of use where the precision is int8, and refused elsewhere
    scenarios: tuple[str, ...] = ()  # of use in these alone, and refused in others; empty: in all
    not_in: tuple[str, ...] = ()  # scenarios that have no use for it, and refuse it


FIELDS: tuple[Field, ...] = (
    Field(
        "model", "--model", "NAME|FILE|MODULE:FACTORY",
        "A zoo model (default: digits), an ONNX, .pt2 or TorchScript file, or a factory.",
        parsers.parse_text, "file", named=True,
        across=("input_shapes", "batch_dim", "inputs", "dataset", "scores", "calibration",
                "reference"),
    ),
    Field(
        "artifact", "--artifact", "FILE",
        "What harness build made of a model: it is run, and says the rest itself.",
        parsers.parse_text,
    ),
    Field(
        "backend", "--backend", "NAME",
        "onnxruntime (default), pytorch, a plug-in, or module:Class.",
        parsers.parse_text, "value", named=True, shown=True, across=("options",),
    ),
    Field(
        "device", "--device", "DEVICE", "cpu (default), cuda or cuda:N.",
        parsers.parse_device, "value", named=True, shown=True, across=("options",),
    ),
    Field(
        "precision", "--precision", "PRECISION", "fp32 (default), int8, fp16 or bf16.",
        parsers.choices(Precision), "value", named=True,
        across=("calibration", "calibration_method", "quantization", "reference"),
    ),
    Field(
        "reference", "--reference", "NAME|FILE|MODULE:FACTORY",
        "What --model was quantized from: it is run as it is, and held against this.",
        parsers.parse_text, "file", later=True,
    ),
    Field(
        "batch_size", "--batch-size", "N", "Samples per inference. Default: 1.",
        parsers.integer(1, 1_000_000), "value", named=True, shown=True, across=("input_shapes",),
    ),
    Field(
        "batch_dim", "--batch-dim", "NAME",
        "The open dimension that is the batch; none where there is none.",
        parsers.parse_text, "value", later=True,
    ),
    Field(
        "inputs", "--inputs", "FILE.npz",
        "Inputs by name to measure on. Default: drawn at random.",
        parsers.parse_text, "file", later=True,
    ),
    Field(
        "dataset", "--dataset", "FILE.npz", "Inputs by name, and labels: measures accuracy.",
        parsers.parse_text, "file",
    ),
    Field(
        "scores", "--scores", "OUTPUT",
        "The output that holds the class scores, where several could.",
        parsers.parse_text, "value", later=True,
    ),
    Field(
        "calibration", "--calibration", "FILE.npz", "Inputs by name to calibrate INT8 on.",
        parsers.parse_text, "file", quantizing=True,
    ),
    Field(
        "calibration_method", "--calibration-method", "METHOD",
        "minmax (default), entropy or percentile.",
        parsers.choices(CalibrationMethod), "value", quantizing=True, across=(),
    ),
    Field(
        "quantization", "--quantization", "MODE", "static (default) or dynamic.",
        parsers.choices(QuantizationMode), "value", quantizing=True,
        across=("calibration", "calibration_method"),
    ),
    Field(
        "scenario", "--scenario", "SCENARIO",
        "latency (default: one at a time), throughput or server.",
        parsers.choices(Scenario), "value", named=True, shown=True,
    ),
    Field(
        "rate", "--rate", "PER_SECOND", "Requests a second in the server scenario.",
        parsers.number(0.001, 1_000_000), "value", later=True, across=(), scenarios=("server",),
    ),
    Field(
        "arrivals", "--arrivals", "PROCESS",
        "poisson (default), constant, gamma:CV or file:TRACE.csv.",
        parsers.parse_arrivals, "file", later=True, across=("rate",), scenarios=("server",),
    ),
    Field(
        "latency_bound", "--latency-bound", "pQ=TIME",
        "What latency must hold, such as p99=10ms: a check of a server run; of capacity the goal.",
        parsers.parse_bounds, "value", many=True, later=True, scenarios=("server",),
    ),
    Field(
        "batching", "--batching", "N:WAIT",
        "Up to N due requests at once, waiting for WAIT at most, such as 8:2ms.",
        parsers.parse_batching, "value", later=True, across=(), scenarios=("server",),
    ),
    Field(
        "concurrency", "--concurrency", "N",
        "Streams at once, or servers on one queue. Default: 1; throughput on a GPU: 2.",
        parsers.integer(1, MAX_STREAMS), "value", shown=True, across=(),
    ),
    Field(
        "boundary", "--boundary", "BOUNDARY",
        "compute (default: on the device) or transfer (host to host).",
        parsers.choices(Boundary), "value", shown=True,
    ),
    Field(
        "duration_s", "--duration", "SECONDS",
        "Length of the timed window; with a goal or a cap, its floor.",
        parsers.number(0.01, 86_400),
    ),
    Field(
        "iterations", "--iterations", "N", "Exactly so many timed iterations.",
        parsers.integer(1, 1_000_000_000),
    ),
    Field(
        "precision_goal", "--precision-goal", "PERCENT",
        "Stop when the median is known to ± this. Default: 1% in 3 to 30 s.",
        lambda name, text: parsers.parse_percentage(name, text, 0.0001, 1.0),
        not_in=("server",),
    ),
    Field(
        "max_duration_s", "--max-duration", "SECONDS", "Cap of the timed window.",
        parsers.number(0.01, 86_400), not_in=("server",),
    ),
    Field(
        "warmup_s", "--warmup", "SECONDS",
        "Shortest warm-up; it ends when latencies are steady. Default: 0.5.",
        parsers.number(0, 3_600),
    ),
    Field(
        "max_warmup_s", "--max-warmup", "SECONDS", "Longest warm-up. Default: 10; on a GPU 30.",
        parsers.number(0, 3_600),
    ),
    Field(
        "launches", "--launches", "K",
        "Fresh worker processes; a comparison needs five. Default: 1.",
        parsers.integer(1, 1_000),
    ),
    Field(
        "timeout_s", "--timeout", "SECONDS",
        "Give up on a worker without progress for so long. Default: 120; on a GPU 600.",
        parsers.number(0.1, 86_400),
    ),
    Field(
        "threads", "--threads", "N", "Threads per inference. Default: one a physical core.",
        parsers.integer(1, 4_096), "value", shown=True, across=(),
    ),
    Field(
        "inter_threads", "--inter-threads", "N", "Threads between operators. Default: 1.",
        parsers.integer(1, 4_096), "value", across=(),
    ),
    Field(
        "cpus", "--cpus", "LIST", "Processors for the worker, such as 0-3,8.", parsers.parse_cpus
    ),
    Field(
        "sample_rate_hz", "--sample-rate", "HZ",
        "Rate of the profilers; 0 switches them off. Default: 10 or 20.",
        parsers.number(0, 100),
    ),
    Field(
        "power_source", "--power-source", "SOURCE",
        "auto (default), none, powercap, hwmon, jetson, pyrapl, external:FILE.",
        parsers.parse_text,
    ),
    Field(
        "idle_s", "--idle", "SECONDS",
        "Idle before and after, for net energy. Default: what the meter needs.",
        parsers.number(0, 3_600),
    ),
    Field(
        "seed", "--seed", "N", "Seed of drawn inputs, weights and arrivals. Default: 0.",
        parsers.integer(0, 2**32 - 1), "value",
    ),
    Field(
        "out", "--results", "DIR", "Where the run's folder goes. Default: results.",
        parsers.parse_text, aliases=("--out",),
    ),
    Field(
        "input_shapes", "--input-shape", "NAME=1x3x224x224",
        "Fixes an input's symbolic dimensions.",
        parsers.parse_shapes, "value", many=True,
    ),
    Field(
        "options", "--option", "KEY=VALUE",
        "An option of the backend, such as compile=inductor.",
        parsers.parse_pairs, "value", many=True, across=(),
    ),
    Field("tags", "--tag", "KEY=VALUE", "Kept with the result.", parsers.parse_pairs, many=True),
    Field(
        "require", "--require", "QUANTITY",
        "Exit 3 if energy, accuracy, memory or interval is absent.",
        lambda name, texts: parsers.parse_choices(name, texts, get_args(Requirement)), many=True,
    ),
    Field(
        "overhead_check", "--overhead-check", "", "Measure what the measuring itself costs.", None,
        not_in=("server",),
    ),
    Field(
        "operators", "--operators", "",
        "Profile the operators after the window: where the time goes, and how far from the roof.",
        None,
    ),
    Field(
        "allow_infinite", "--allow-infinite", "",
        "An infinite output is an answer: no failure.", None,
    ),
)  # fmt: skip
BY_NAME = {field.name: field for field in FIELDS}

# What makes two runs measurements of one thing, in the order of the command line's flags.
DEFINING = tuple(field for field in FIELDS if field.identity != "no")

# What decides the artifact that a run loads: the flags of ``harness build``, and what stands in its
# file. The device is that of the machine at hand.
BUILDING = (
    "model", "backend", "precision", "reference", "batch_size", "batch_dim", "inputs", "dataset",
    "scores", "calibration", "calibration_method", "quantization", "seed", "input_shapes",
    "options",
)  # fmt: skip
