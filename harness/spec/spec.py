"""RunSpec: what to measure. Parsed from text in one place: every front end refuses alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from harness import registry
from harness.errors import UsageError
from harness.protocols import Precision
from harness.spec.artifact_file import filled
from harness.spec.fields import (
    BY_NAME,
    FIELDS,
    Boundary,
    CalibrationMethod,
    Field,
    QuantizationMode,
    Requirement,
    Scenario,
)

DEFAULT_GOAL = 0.01
TURNS = "paired rounds"  # the tag ``design`` of a run that took turns with others in a duel
DEFAULT_FLOOR_S = 3.0
DEFAULT_CAP_S = 30.0
DEFAULT_SCHEDULE_S = 10.0  # of requests as they come
MOST_REQUESTS = 1 << 22  # of a launch
CUDA_MAX_WARMUP_S = 30.0  # clocks and temperature take longer to settle than latencies
CUDA_TIMEOUT_S = 600.0  # compilers and engine builders work in silence
# files that are models whether they exist or not; in the order in which names lose them
MODEL_SUFFIXES = (".pt", ".pth", ".onnx", ".pt2")
_LIBRARIES = ("custom_ops",)  # options of backends that name native code
CUDA_CONCURRENCY = 2  # in the throughput scenario: the next is queued while one runs


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. Durations in seconds; ``None`` means *the default rule*, stated in the result."""

    model: str = "digits"
    artifact: str | None = None  # a file of ``harness build``, in place of making one
    backend: str = registry.DEFAULT_BACKEND
    device: str = "cpu"
    precision: Precision = "fp32"
    reference: str | None = None  # the FP32 model, where ``model`` has its precision already
    batch_size: int = 1
    input_shapes: dict[str, tuple[int, ...]] = {}
    batch_dim: str | None = None
    inputs: str | None = None
    dataset: str | None = None
    scores: str | None = None  # the output that accuracy is of
    calibration: str | None = None
    calibration_method: CalibrationMethod = "minmax"
    quantization: QuantizationMode = "static"
    scenario: Scenario = "latency"
    rate: float | None = None  # requests a second, of the server scenario
    arrivals: str | None = None  # how they come; poisson there
    batching: str | None = None  # how many at once, and how long one waits for that: 8:2ms
    latency_bound: tuple[str, ...] | None = None  # p99=10ms
    concurrency: int = 1
    boundary: Boundary = "compute"
    # The window: ``duration_s`` alone is exact; with a goal or a cap it is the floor.
    duration_s: float | None = None
    iterations: int | None = None
    precision_goal: float | None = None  # relative half-width of the median's 95 % interval
    max_duration_s: float | None = None
    warmup_s: float = 0.5
    max_warmup_s: float = 10.0
    launches: int = 1
    timeout_s: float = 120.0  # without any progress of the worker
    threads: int | None = None
    inter_threads: int = 1
    cpus: tuple[int, ...] | None = None
    sample_rate_hz: float | None = None  # 10, or 20 with a fast power sensor; 0: no sampler
    power_source: str = "auto"
    idle_s: float | None = None
    require: tuple[Requirement, ...] = ()
    overhead_check: bool = False
    operators: bool = False  # profile them after the window
    allow_infinite: bool = False  # an infinite output is an answer
    seed: int = 0
    options: dict[str, str] = {}
    tags: dict[str, str] = {}
    out: str = "results"

    @property
    def in_turns(self) -> bool:
        """Whether a duel measures it: another figure than that of a run by itself, after a rest."""
        return self.tags.get("design") == TURNS

    @property
    def conversion(self) -> Precision:
        """The precision that the model is brought to; ``fp32`` where it is run as it is."""
        return self.precision if self.reference is None else "fp32"

    @property
    def goal(self) -> float | None:
        """The interval goal in force, or None for an exact duration or count."""
        if self.precision_goal is not None:
            return self.precision_goal
        if self.scheduled:
            return None
        fixed = self.iterations is not None or (
            self.duration_s is not None and self.max_duration_s is None
        )
        return None if fixed else DEFAULT_GOAL

    @property
    def scheduled(self) -> bool:
        """Whether a schedule says when inferences start, and ends the window."""
        return self.scenario == "server"

    @property
    def trace(self) -> str | None:
        """The file that says when requests come."""
        kind, _, path = (self.arrivals or "").partition(":")
        return path if kind == "file" else None

    @property
    def batch_rule(self) -> tuple[int, float] | None:
        """How many due requests are taken at once, and how long the first waits for that, in s."""
        if self.batching is None:
            return None
        most, _, wait = self.batching.partition(":")
        return int(most), float(wait.removesuffix("ms")) / 1e3

    @property
    def floor_s(self) -> float:
        """The window lasts at least this long, unless a fixed count ends it."""
        if self.duration_s is not None:
            return self.duration_s
        if self.scheduled:
            return DEFAULT_SCHEDULE_S
        return min(DEFAULT_FLOOR_S, self.cap_s)

    @property
    def cap_s(self) -> float:
        """The window ends here whatever the interval; infinite for a fixed count without a cap."""
        if self.max_duration_s is not None:
            return self.max_duration_s
        if self.iterations is not None or self.trace is not None:
            return math.inf
        if self.scheduled:
            return self.floor_s
        if self.duration_s is not None:
            return self.duration_s if self.goal is None else max(self.duration_s, DEFAULT_CAP_S)
        return DEFAULT_CAP_S


_STANDARD = RunSpec()


def flag(field: str) -> str:
    """The command-line flag of a spec field: ``duration_s`` is ``--duration``."""
    return BY_NAME[field].flag


def parse(values: Mapping[str, Any]) -> RunSpec:
    """A validated spec from texts (lists of texts for repeatable flags; absent or None: default).

    Raises `UsageError` naming the flag and the value.
    """
    parsed: dict[str, Any] = {}
    for field, value in filled(values).items():
        if value is None:
            continue
        if field not in BY_NAME:
            raise UsageError(f"{field!r} is no field of a run", "see harness run --help")
        parsed[field] = _parsed(BY_NAME[field], value)
    if "device" not in parsed and ":" not in parsed.get("backend", ":"):
        device = registry.declared(parsed["backend"]).default_device
        parsed["device"] = _parsed(BY_NAME["device"], device)
    if parsed.get("device", "cpu") != "cpu":
        parsed = _cuda_defaults(parsed.get("scenario", "latency")) | parsed
    if parsed.get("scenario") == "server":
        parsed.setdefault("arrivals", "poisson")
    return _consistent(RunSpec(**parsed))


def texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values``, which may be Python's, as `parse` takes them; None is not given."""
    return {field: _texts(value) for field, value in values.items() if value is not None}


def _texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [f"{key}={_joined(one)}" for key, one in value.items()]
    if isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value):
        return ",".join(map(str, value))  # processors
    return value


def _parsed(field: Field, value: Any) -> Any:
    if field.parse is None:
        return bool(value)
    if field.many:
        return field.parse(field.flag, [_utf8(field.flag, str(text)) for text in value])
    return field.parse(field.flag, _utf8(field.flag, str(value)))


def _cuda_defaults(scenario: str) -> dict[str, Any]:
    """The defaults that differ on a GPU."""
    several = {"concurrency": CUDA_CONCURRENCY} if scenario == "throughput" else {}
    return {"max_warmup_s": CUDA_MAX_WARMUP_S, "timeout_s": CUDA_TIMEOUT_S, **several}


def shown(spec: RunSpec) -> dict[str, str | int]:
    """The facts that stand beside a run wherever runs stand beside each other."""
    values = {field.name: getattr(spec, field.name) for field in FIELDS if field.shown}
    return {name: "default" if value is None else value for name, value in values.items()}


def unparse(spec: RunSpec) -> dict[str, Any]:
    """The values that `parse` makes ``spec`` of: what differs from the defaults, as texts."""
    on_cuda = _cuda_defaults(spec.scenario) if spec.device != "cpu" else {}
    standard = RunSpec(device=_default_device(spec.backend), **on_cuda)
    values: dict[str, Any] = {}
    for field in RunSpec.__struct_fields__:
        value = getattr(spec, field)
        if value == getattr(standard, field):
            continue
        if isinstance(value, dict):
            values[field] = [f"{key}={_joined(one)}" for key, one in value.items()]
        elif BY_NAME[field].many:
            values[field] = list(value)
        elif isinstance(value, tuple):
            values[field] = ",".join(map(str, value))
        else:
            values[field] = value if isinstance(value, bool) else str(value)
    return values


def _default_device(backend: str) -> str:
    """Empty for a plug-in: a stored spec may name anybody's code, which is not run to find out."""
    if backend not in registry.BACKENDS:
        return ""
    return str(_parsed(BY_NAME["device"], registry.declared(backend).default_device))


def arguments(values: Mapping[str, Any]) -> list[str]:
    """``values`` as `parse` takes them, on the command line of ``harness run``."""
    flags: list[str] = []
    for field, value in values.items():
        if isinstance(value, bool):
            flags += [flag(field)] if value else []
        else:
            texts = value if BY_NAME[field].many else [value]
            flags += [f"{flag(field)}={text}" for text in texts]
    return flags


def again(spec: RunSpec, launches: int, out: str = "results") -> list[str]:
    """The arguments of ``harness run`` that measure ``spec`` once more, as a run of its own."""
    asked = msgspec.structs.replace(spec, launches=launches, out=out, tags={})
    return arguments(unparse(asked))


def code_named_by(spec: RunSpec) -> list[str]:
    """What a run of ``spec`` executes by a name that stands in it: Python, or a library."""
    models = [name for name in (spec.model, spec.reference) if name is not None]
    names = [m for m in models if ":" in m and not m.lower().endswith(MODEL_SUFFIXES)]
    names += [spec.backend] * (":" in spec.backend)
    return names + [spec.options[key] for key in _LIBRARIES if key in spec.options]


def _joined(value: Any) -> str:
    """A shape or a text, as it stands behind the equals sign."""
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value)) or "scalar"
    return str(value)


def _utf8(name: str, text: str) -> str:
    """``text`` itself, if a result file and a path can hold it. Raises `UsageError`."""
    if "\0" in text:
        raise UsageError(f"{name} is {text!r}", "give text without null characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # a byte of the command line that is no UTF-8
        raise UsageError(f"{name} is {text!r}", "give text in UTF-8") from error
    return text


def _consistent(spec: RunSpec) -> RunSpec:
    if spec.cap_s < spec.floor_s:
        raise UsageError(
            f"--max-duration {spec.cap_s:g} is below --duration {spec.floor_s:g}", "raise the cap"
        )
    if spec.max_warmup_s < spec.warmup_s:
        raise UsageError(
            f"--max-warmup {spec.max_warmup_s:g} is below --warmup {spec.warmup_s:g}",
            "raise the cap",
        )
    if spec.concurrency > 1 and spec.scenario == "latency":
        raise UsageError(
            f"--concurrency {spec.concurrency} in the latency scenario, which runs one at a time",
            "add --scenario throughput",
        )
    _suits_scenario(spec)
    if spec.reference is not None and spec.precision == "fp32":
        raise UsageError(
            f"--reference {spec.reference} with --precision fp32, which is the reference itself",
            "say what the model's precision is, such as --precision int8, or leave it out",
        )
    for field in FIELDS if spec.conversion != "int8" else ():
        if field.quantizing and getattr(spec, field.name) != getattr(_STANDARD, field.name):
            raise _quantizes_nothing(spec, field)
    return spec


def _suits_scenario(spec: RunSpec) -> None:
    """Raises `UsageError` for flags that the scenario has no use for, or lacks."""
    for field in FIELDS:
        value = getattr(spec, field.name)
        useless = spec.scenario in field.not_in
        if field.scenarios and spec.scenario not in field.scenarios:
            useless = True
        if useless and value != getattr(_STANDARD, field.name):
            given = field.flag if value is True else f"{field.flag} {value}"
            remedy = f"add --scenario {field.scenarios[0]}" if field.scenarios else "leave it out"
            raise UsageError(f"{given} in the {spec.scenario} scenario", remedy)
    if not spec.scheduled:
        return
    if spec.trace is None and spec.rate is None:
        raise UsageError("--scenario server without --rate", "give --rate, in requests a second")
    if spec.trace is not None and spec.rate is not None:
        raise UsageError(
            f"--rate {spec.rate:g} with --arrivals {spec.arrivals}, which says when requests come",
            "leave one out",
        )
    if spec.batching is not None and spec.batch_size != 1:
        raise UsageError(
            f"--batching {spec.batching} with --batch-size {spec.batch_size}", "leave one out"
        )
    asked = spec.iterations or (spec.rate or 0.0) * spec.floor_s
    if asked > MOST_REQUESTS:
        raise UsageError(
            f"{asked:,.0f} requests are too many", f"lower --rate or --duration: {MOST_REQUESTS:,}"
        )


def _quantizes_nothing(spec: RunSpec, field: Field) -> UsageError:
    given = f"{field.flag} {getattr(spec, field.name)}"
    if spec.reference is not None:
        return UsageError(f"{given} with --reference, which quantizes nothing", "leave one out")
    return UsageError(
        f"{given} with --precision {spec.precision}, which quantizes nothing",
        "add --precision int8, or leave it out",
    )
