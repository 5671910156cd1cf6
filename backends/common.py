"""What the adapters share. It imports no framework."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from harness.errors import BackendUnavailable, MeasurementFailed, UsageError
from harness.maybe import Unavailable, explain
from harness.protocols import Option, SessionOptions

if TYPE_CHECKING:
    from harness.host.gpus import CudaDevice

# Nothing to wait for on a CPU. A function of ours would put a Python frame into the timed
# interval; clearing an empty list is a C call that takes nothing and returns None.
nothing: Callable[[], None] = list[None]().clear


def chosen_options(
    backend: str, options: SessionOptions, declared: Sequence[Option]
) -> dict[str, str]:
    """Every option that there is on this device, with the value in force.

    Raises `UsageError` naming the valid ones.
    """
    device = options.device.partition(":")[0]
    table = {one.name: one for one in declared if one.device in ("", device)}
    for key, value in options.options.items():
        if key not in table:
            raise UsageError(
                f"{backend} has no option {key!r}", f"choose one of {', '.join(table)}"
            )
        values = table[key].values
        if values and value not in values:
            raise UsageError(f"--option {key} is {value!r}", f"choose one of {', '.join(values)}")
    return {key: options.options.get(key, option.default) for key, option in table.items()}


def import_framework(module: str, title: str, remedy: str) -> ModuleType | Unavailable:
    """The imported framework, or why it cannot be: a broken installation raises anything."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return Unavailable(f"{title} is not installed", remedy)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Unavailable(f"{title} cannot be imported: {text}", remedy)


def find_cuda(
    backend: str, device: str, cuda: tuple[int, int] = (0, 0)
) -> CudaDevice | Unavailable:
    """The CUDA device that ``device`` names, for a runtime built for CUDA ``cuda``, or why not."""
    if re.fullmatch(r"cuda(:[0-9]{1,3})?", device) is None:
        return Unavailable(f"{backend} has no device {device!r}", "use --device cpu or cuda:N")
    from harness.host.gpus import cuda_device

    return cuda_device(device, cuda)


def cuda_version(text: str | None) -> tuple[int, int]:
    """``13.0`` as (13, 0); (0, 0) where it says nothing."""
    match = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else (0, 0)


def is_cuda(options: SessionOptions) -> bool:
    return options.device.startswith("cuda")


def cuda_index(options: SessionOptions) -> int:
    """The N of ``cuda:N``."""
    return int(options.device.partition(":")[2] or 0)


def refuse_closed() -> NoReturn:
    raise MeasurementFailed("this session is closed", "prepare another one")


def unavailable(why: Unavailable) -> BackendUnavailable:
    """``why`` as an error, without the code that programs go by."""
    return BackendUnavailable(explain(Unavailable(why.reason)), why.remedy)
