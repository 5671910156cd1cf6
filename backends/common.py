"""What the adapters share. It imports no framework."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from harness.errors import UsageError
from harness.maybe import Unavailable
from harness.protocols import SessionOptions

# Nothing to wait for on a CPU. A function of ours would put a Python frame into the timed
# interval; clearing an empty list is a C call that takes nothing and returns None.
nothing: Callable[[], None] = list[None]().clear


def chosen_options(
    backend: str, options: SessionOptions, table: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Every option of ``table`` (its values, the default first) with the value in force.

    Raises `UsageError` naming the valid ones.
    """
    for key, value in options.options.items():
        if key not in table:
            raise UsageError(
                f"{backend} has no option {key!r}", f"choose one of {', '.join(table)}"
            )
        if value not in table[key]:
            raise UsageError(
                f"--option {key} is {value!r}", f"choose one of {', '.join(table[key])}"
            )
    return {key: options.options.get(key, values[0]) for key, values in table.items()}


def import_framework(module: str, title: str, remedy: str) -> ModuleType | Unavailable:
    """The imported framework, or why it cannot be: a broken installation raises anything."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return Unavailable(f"{title} is not installed", remedy)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Unavailable(f"{title} cannot be imported: {text}", remedy)
