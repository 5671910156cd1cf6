"""RunSpec: what to measure. Parsed from text in one place: every front end refuses alike."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from harness.errors import UsageError
from harness.protocols import Precision

Scenario = Literal["latency", "throughput"]
Boundary = Literal["compute", "transfer"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
QuantizationMode = Literal["static", "dynamic"]
Requirement = Literal["energy", "accuracy", "memory", "interval"]

DEFAULT_GOAL = 0.01
DEFAULT_FLOOR_S = 3.0
DEFAULT_CAP_S = 30.0
CUDA_MAX_WARMUP_S = 30.0  # clocks and temperature take longer to settle than latencies
CUDA_TIMEOUT_S = 600.0  # compilers and engine builders work in silence
MAX_STREAMS = 1024
_LIBRARIES = ("custom_ops",)  # options of backends that name native code
CUDA_CONCURRENCY = 2  # in the throughput scenario: the next is queued while one runs


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. Durations in seconds; ``None`` means *the default rule*, stated in the result."""

    model: str = "digits"
    backend: str = "onnxruntime"
    device: str = "cpu"
    precision: Precision = "fp32"
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
    allow_infinite: bool = False  # an infinite output is an answer
    seed: int = 0
    options: dict[str, str] = {}
    tags: dict[str, str] = {}
    out: str = "results"

    @property
    def goal(self) -> float | None:
        """The interval goal in force, or None for an exact duration or count."""
        if self.precision_goal is not None:
            return self.precision_goal
        fixed = self.iterations is not None or (
            self.duration_s is not None and self.max_duration_s is None
        )
        return None if fixed else DEFAULT_GOAL

    @property
    def floor_s(self) -> float:
        """The window lasts at least this long, unless a fixed count ends it."""
        if self.duration_s is not None:
            return self.duration_s
        return min(DEFAULT_FLOOR_S, self.cap_s)

    @property
    def cap_s(self) -> float:
        """The window ends here whatever the interval; infinite for a fixed count without a cap."""
        if self.max_duration_s is not None:
            return self.max_duration_s
        if self.iterations is not None:
            return math.inf
        if self.duration_s is not None:
            return self.duration_s if self.goal is None else max(self.duration_s, DEFAULT_CAP_S)
        return DEFAULT_CAP_S


def parse_int(name: str, text: str, low: int, high: int) -> int:
    """``text`` as an integer in [low, high]. Raises `UsageError`."""
    try:
        value = int(text, 10)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise UsageError(f"{name} is {text!r}", f"give a whole number from {low} to {high}")
    return value


def parse_number(name: str, text: str, low: float, high: float) -> float:
    """``text`` as a finite number in [low, high]. Raises `UsageError`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} is {text!r}", f"give a number from {low:g} to {high:g}")
    return value


def parse_percentage(name: str, text: str, low: float, high: float) -> float:
    """``1%`` or ``0.01`` as a ratio in [low, high]. Raises `UsageError`."""
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} is {text!r}", f"give a percentage from {low:.2%} to {high:.0%}")
    return value


def parse_choice(name: str, text: str, choices: Sequence[str]) -> str:
    """``text``, one of ``choices``. Raises `UsageError` listing them."""
    if text not in choices:
        raise UsageError(f"{name} is {text!r}", f"choose one of {', '.join(choices)}")
    return text


def parse_pairs(
    name: str, texts: Sequence[str], form: str = "key=value", *, last: bool = False
) -> dict[str, str]:
    """``key=value`` texts as a dict, parted at the first equals sign or at the ``last``.

    Raises `UsageError`.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.rpartition("=") if last else text.partition("=")
        if not (equals and key.strip()):
            raise UsageError(f"{name} is {text!r}", f"give {form}")
        if key.strip() in pairs:
            raise UsageError(f"{name} names {key.strip()!r} twice", "give each key once")
        pairs[key.strip()] = value.strip()
    return pairs


def parse_shapes(name: str, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``input=1x3x224x224`` texts as shapes; ``input=scalar`` is 0-d. Raises `UsageError`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in parse_pairs(name, texts, "input=1x3x224x224", last=True).items():
        if value == "scalar":
            shapes[key] = ()
        elif re.fullmatch(r"\d+([x,]\d+)*", value):
            dims = re.split("[x,]", value)
            shapes[key] = tuple(parse_int(f"{name} {key}", dim, 0, 2**31 - 1) for dim in dims)
        else:
            raise UsageError(f"{name} {key} is {value!r}", "give sizes such as 1x3x224x224")
    return shapes


def parse_cpus(name: str, text: str) -> tuple[int, ...]:
    """``0-3,8`` as (0, 1, 2, 3, 8). Raises `UsageError`."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first, 10), int(last if dash else first, 10)
        except ValueError:
            low, high = -1, -1
        if not 0 <= low <= high <= 4095:
            raise UsageError(f"{name} is {text!r}", "give processors such as 0-3,8")
        cpus.update(range(low, high + 1))
    return tuple(sorted(cpus))


def parse_device(name: str, text: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N`` in its long form. Raises `UsageError`."""
    if text == "cuda":
        return "cuda:0"
    if text != "cpu" and not re.fullmatch(r"cuda:\d{1,3}", text):
        raise UsageError(f"{name} is {text!r}", "give cpu, cuda or cuda:N")
    return text


def parse_text(name: str, text: str) -> str:
    """Non-empty text without control characters. Raises `UsageError`."""
    if not text or any(ord(char) < 32 for char in text):
        raise UsageError(f"{name} is {text!r}", "give a name or a path")
    return text


def _choices(literal: Any) -> Callable[[str, str], str]:
    return lambda name, text: parse_choice(name, text, get_args(literal))


def _number(low: float, high: float) -> Callable[[str, str], float]:
    return lambda name, text: parse_number(name, text, low, high)


def _integer(low: int, high: int) -> Callable[[str, str], int]:
    return lambda name, text: parse_int(name, text, low, high)


def _requirements(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parse_choice(name, t, get_args(Requirement)) for t in texts))


# what an INT8 run alone makes use of
QUANTIZING = ("calibration", "calibration_method", "quantization")
_STANDARD = RunSpec()

# field -> parser(flag name, text); those in _LISTS take a sequence of texts
_SCALARS: dict[str, Callable[[str, str], Any]] = {
    "model": parse_text,
    "backend": parse_text,
    "device": parse_device,
    "precision": _choices(Precision),
    "batch_size": _integer(1, 1_000_000),
    "batch_dim": parse_text,
    "inputs": parse_text,
    "dataset": parse_text,
    "scores": parse_text,
    "calibration": parse_text,
    "calibration_method": _choices(CalibrationMethod),
    "quantization": _choices(QuantizationMode),
    "scenario": _choices(Scenario),
    "concurrency": _integer(1, MAX_STREAMS),
    "boundary": _choices(Boundary),
    "duration_s": _number(0.01, 86_400),
    "iterations": _integer(1, 1_000_000_000),
    "precision_goal": lambda name, text: parse_percentage(name, text, 0.0001, 1.0),
    "max_duration_s": _number(0.01, 86_400),
    "warmup_s": _number(0, 3_600),
    "max_warmup_s": _number(0, 3_600),
    "launches": _integer(1, 1_000),
    "timeout_s": _number(0.1, 86_400),
    "threads": _integer(1, 4_096),
    "inter_threads": _integer(1, 4_096),
    "cpus": parse_cpus,
    "sample_rate_hz": _number(0, 100),
    "power_source": parse_text,
    "idle_s": _number(0, 3_600),
    "seed": _integer(0, 2**32 - 1),
    "out": parse_text,
}
_LISTS: dict[str, Callable[[str, Sequence[str]], Any]] = {
    "input_shapes": parse_shapes,
    "require": _requirements,
    "options": parse_pairs,
    "tags": parse_pairs,
}


SWITCHES = ("overhead_check", "allow_infinite")


def flag(field: str) -> str:
    """The command-line flag of a spec field: ``duration_s`` is ``--duration``."""
    named = {"input_shapes": "input_shape", "options": "option", "tags": "tag", "out": "results"}
    name = named.get(field, field).removesuffix("_s").removesuffix("_hz")
    return "--" + name.replace("_", "-")


def parse(values: Mapping[str, Any]) -> RunSpec:
    """A validated spec from texts (lists of texts for repeatable flags; absent or None: default).

    Raises `UsageError` naming the flag and the value.
    """
    parsed: dict[str, Any] = {}
    for field, value in values.items():
        if value is None:
            continue
        if field in _SCALARS:
            parsed[field] = _SCALARS[field](flag(field), _utf8(flag(field), str(value)))
        elif field in _LISTS:
            texts = [_utf8(flag(field), str(text)) for text in value]
            parsed[field] = _LISTS[field](flag(field), texts)
        elif field in SWITCHES:
            parsed[field] = bool(value)
        else:
            raise UsageError(f"{field!r} is no field of a run", "see harness run --help")
    if parsed.get("backend") == "tensorrt":
        parsed.setdefault("device", "cuda:0")
    if parsed.get("device", "cpu") != "cpu":
        parsed = _cuda_defaults(parsed.get("scenario", "latency")) | parsed
    return _consistent(RunSpec(**parsed))


def _cuda_defaults(scenario: str) -> dict[str, Any]:
    """The defaults that differ on a GPU."""
    several = {"concurrency": CUDA_CONCURRENCY} if scenario == "throughput" else {}
    return {"max_warmup_s": CUDA_MAX_WARMUP_S, "timeout_s": CUDA_TIMEOUT_S, **several}


def unparse(spec: RunSpec) -> dict[str, Any]:
    """The values that `parse` makes ``spec`` of: what differs from the defaults, as texts."""
    on_cuda = _cuda_defaults(spec.scenario) if spec.device != "cpu" else {}
    device = "cuda:0" if spec.backend == "tensorrt" else "cpu"
    standard = RunSpec(device=device, **on_cuda)
    values: dict[str, Any] = {}
    for field in RunSpec.__struct_fields__:
        value = getattr(spec, field)
        if value == getattr(standard, field):
            continue
        if isinstance(value, dict):
            values[field] = [f"{key}={_joined(one)}" for key, one in value.items()]
        elif field in _LISTS:
            values[field] = list(value)
        elif isinstance(value, tuple):
            values[field] = ",".join(map(str, value))
        else:
            values[field] = value if isinstance(value, bool) else str(value)
    return values


def arguments(values: Mapping[str, Any]) -> list[str]:
    """``values`` as `parse` takes them, on the command line of ``harness run``."""
    flags: list[str] = []
    for field, value in values.items():
        if isinstance(value, bool):
            flags += [flag(field)] if value else []
        else:
            texts = value if field in _LISTS else [value]
            flags += [f"{flag(field)}={text}" for text in texts]
    return flags


def again(spec: RunSpec, launches: int, out: str = "results") -> list[str]:
    """The arguments of ``harness run`` that measure ``spec`` once more, as a run of its own."""
    asked = msgspec.structs.replace(spec, launches=launches, out=out, tags={})
    return arguments(unparse(asked))


def code_named_by(spec: RunSpec) -> list[str]:
    """What a run of ``spec`` executes by a name that stands in it: Python, or a library."""
    factory = ":" in spec.model and not spec.model.lower().endswith((".onnx", ".pt2"))
    names = [spec.model] * factory + [spec.backend] * (":" in spec.backend)
    return names + [spec.options[key] for key in _LIBRARIES if key in spec.options]


def _joined(value: Any) -> str:
    """A shape or a text, as it stands behind the equals sign."""
    if isinstance(value, tuple):
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
    for field in QUANTIZING if spec.precision != "int8" else ():
        value = getattr(spec, field)
        if value != getattr(_STANDARD, field):
            raise UsageError(
                f"{flag(field)} {value} with --precision {spec.precision}, which quantizes nothing",
                "add --precision int8, or leave it out",
            )
    return spec
