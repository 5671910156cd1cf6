"""What the TensorRT adapter can be asked for, decided without loading TensorRT."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from harness.backends.common import chosen_options
from harness.errors import UsageError
from harness.protocols import SessionOptions

# option -> its values, the default first
CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimization_level": ("3", "0", "1", "2", "4", "5"),
    "tf32": ("off", "on"),
    "cuda_graph": ("off", "on"),
    "engine_cache": ("on", "off"),
    "timing_cache": ("on", "off"),
}
# option -> what it looks like; each is free text within these bounds
FREE: Mapping[str, str] = {
    "workspace_mib": "a whole number of mebibytes from 1 to 1048576",
    "batch_profile": "the smallest and largest batch of the engine, such as 1-32",
}
OPTIONS = (*CHOICES, *FREE)
# bf16: nothing here brings an ONNX graph there, and TensorRT runs the types that the graph has.
PRECISIONS = ("fp32", "int8", "fp16")
_WORKSPACE_MAX_MIB = 1_048_576


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every option with its value in force."""

    optimization_level: int
    tf32: bool
    cuda_graph: bool
    engine_cache: bool
    timing_cache: bool
    workspace_mib: int | None  # None: all of the device's memory
    batch_profile: tuple[int, int] | None  # None: the engine takes the measured shapes alone


def settings(options: SessionOptions) -> Settings:
    """The options in force. Raises `UsageError` naming the valid ones."""
    given = options.options
    unknown = [key for key in given if key not in OPTIONS]
    if unknown:
        raise UsageError(
            f"tensorrt has no option {unknown[0]!r}", f"choose one of {', '.join(OPTIONS)}"
        )
    choices = {key: value for key, value in given.items() if key in CHOICES}
    chosen = chosen_options("tensorrt", msgspec.structs.replace(options, options=choices), CHOICES)
    return Settings(
        optimization_level=int(chosen["optimization_level"]),
        tf32=chosen["tf32"] == "on",
        cuda_graph=chosen["cuda_graph"] == "on",
        engine_cache=chosen["engine_cache"] == "on",
        timing_cache=chosen["timing_cache"] == "on",
        workspace_mib=_workspace(given.get("workspace_mib")),
        batch_profile=_batches(given.get("batch_profile")),
    )


def _workspace(text: str | None) -> int | None:
    if text is None:
        return None
    size = int(text) if re.fullmatch(r"\d{1,7}", text, re.ASCII) else 0
    if not 1 <= size <= _WORKSPACE_MAX_MIB:
        raise _unfit("workspace_mib", text)
    return size


def _batches(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,7})-(\d{1,7})", text, re.ASCII)
    low, high = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= low <= high:
        raise _unfit("batch_profile", text)
    return low, high


def _unfit(key: str, text: str) -> UsageError:
    return UsageError(f"--option {key} is {text!r}", f"give {FREE[key]}")
