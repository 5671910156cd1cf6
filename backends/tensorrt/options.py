"""What the TensorRT adapter can be asked for, decided without loading TensorRT."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from harness.backends.common import chosen_options
from harness.errors import UsageError
from harness.protocols import Option, SessionOptions

_WORKSPACE = "a whole number of mebibytes from 1 to 1048576"
_BATCHES = "the smallest and largest batch of the engine, such as 1-32"
OPTIONS = (
    Option(
        "optimization_level", ("3", "0", "1", "2", "4", "5"), "3", "how long the builder searches"
    ),
    Option("tf32", ("off", "on"), "off", "round FP32 products to TF32"),
    Option("cuda_graph", ("off", "on"), "off", "capture once, replay from then on"),
    Option("engine_cache", ("on", "off"), "on", "keep the engine for the next run"),
    Option("timing_cache", ("on", "off"), "on", "keep what the builder timed"),
    Option("workspace_mib", help=f"{_WORKSPACE}; default: all of the device's"),
    Option("batch_profile", help=f"{_BATCHES}; default: the measured one alone"),
)
# bf16: nothing here brings an ONNX graph there, and TensorRT runs the types that the graph has.
PRECISIONS = ("fp32", "int8", "fp16")
_WORKSPACE_MAX_MIB = 1_048_576


# of TensorRT for RTX
TARGETS = "portable, current (the GPU's own), or a list such as sm86,sm89,sm120"
SPECIALIZATION = ("eager", "lazy", "none")
CURRENT = "current"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every option with its value in force; None: this library has no such option."""

    optimization_level: int | None
    tf32: bool
    cuda_graph: bool
    engine_cache: bool
    timing_cache: bool
    workspace_mib: int | None  # None: all of the device's memory
    batch_profile: tuple[int, int] | None  # None: the engine takes the measured shapes alone
    targets: tuple[str, ...] | None = None  # empty: what the library calls portable
    runtime_cache: bool | None = None
    specialization: str | None = None


def settings(
    options: SessionOptions, backend: str = "tensorrt", declared: Sequence[Option] = OPTIONS
) -> Settings:
    """The options in force. Raises `UsageError` naming the valid ones."""
    chosen = chosen_options(backend, options, declared)
    level, cached = chosen.get("optimization_level"), chosen.get("runtime_cache")
    return Settings(
        optimization_level=None if level is None else int(level),
        tf32=chosen["tf32"] == "on",
        cuda_graph=chosen["cuda_graph"] == "on",
        engine_cache=chosen["engine_cache"] == "on",
        timing_cache=chosen.get("timing_cache") == "on",
        workspace_mib=_workspace(options.options.get("workspace_mib")),
        batch_profile=_batches(options.options.get("batch_profile")),
        targets=None if "targets" not in chosen else _targets(chosen["targets"]),
        runtime_cache=None if cached is None else cached == "on",
        specialization=chosen.get("specialization"),
    )


def described(chosen: Settings) -> dict[str, str]:
    """The options of building in force, as they are given on the command line."""
    low_high, level, targets = chosen.batch_profile, chosen.optimization_level, chosen.targets
    told = {
        "tf32": "on" if chosen.tf32 else "off",
        "workspace_mib": "all" if chosen.workspace_mib is None else str(chosen.workspace_mib),
        "batch_profile": "the batch alone" if low_high is None else f"{low_high[0]}-{low_high[1]}",
    }
    if level is not None:
        told |= {
            "optimization_level": str(level),
            "timing_cache": "on" if chosen.timing_cache else "off",
        }
    if targets is not None:
        told["targets"] = ",".join(targets) or "portable"
    return told


def _targets(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.lower().split(",")))
    if names == ("portable",):
        return ()
    if names == (CURRENT,) or all(re.fullmatch(r"sm\d{2,3}", name, re.ASCII) for name in names):
        return names
    raise UsageError(f"--option targets is {text!r}", f"give {TARGETS}")


def _workspace(text: str | None) -> int | None:
    if text is None:
        return None
    size = int(text) if re.fullmatch(r"\d{1,7}", text, re.ASCII) else 0
    if not 1 <= size <= _WORKSPACE_MAX_MIB:
        raise UsageError(f"--option workspace_mib is {text!r}", f"give {_WORKSPACE}")
    return size


def _batches(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,7})-(\d{1,7})", text, re.ASCII)
    low, high = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= low <= high:
        raise UsageError(f"--option batch_profile is {text!r}", f"give {_BATCHES}")
    return low, high
