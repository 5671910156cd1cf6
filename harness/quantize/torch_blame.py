"""Whose fault it is that torch raised: the submodule in which it happened. Imports torch."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator

from torch import nn

from harness.artifacts.torch_errors import cause
from harness.errors import QuantizationError

REMEDY = "use --backend onnxruntime, or --precision fp32"
_TYPES = re.compile(r"expects a Float Tensor, got (\w+)")


@contextlib.contextmanager
def blamed(module: nn.Module, what: str) -> Iterator[None]:
    """Whatever torch raises at one step, as the fault of the submodule in which it happened."""
    try:
        yield
    except Exception as error:  # tracing runs any code of the model
        if found := _TYPES.search(str(error)):
            raise QuantizationError(
                f"{_culprit(module, error)} has weights of type {found[1].lower()}, and this route "
                "takes float32 alone",
                "have the factory return the module in float32 (module.float()), with such inputs",
            ) from error
        raise QuantizationError(
            f"{_culprit(module, error)} {what}: {_line(error)}", REMEDY
        ) from error


def _culprit(module: nn.Module, error: Exception) -> str:
    """The innermost submodule whose own code stands in the error's traceback."""
    paths = {id(inner): path for path, inner in module.named_modules()}
    name = f"the model ({type(module).__name__})"
    for frame, line in traceback.walk_tb(error.__traceback__):
        found = frame.f_locals.get("self")
        path = paths.get(id(found))
        if path and isinstance(found, nn.Module):
            name = f"{path!r} ({type(found).__name__}, line {line})"
    return name


def _line(error: BaseException) -> str:
    return cause(error) or type(error).__name__
