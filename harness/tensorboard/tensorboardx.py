"""tensorboardX's parts, imported without the torch that its import brings along."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any


def part(name: str) -> Any:
    """The module ``tensorboardX.{name}``. Raises `ImportError`, whatever is wrong with it."""
    with _without_torch():
        try:
            return importlib.import_module(f"tensorboardX.{name}")
        except Exception as error:  # protobuf has its own kinds for a version that does not fit
            raise ImportError(f"tensorboardX cannot be imported: {error}") from error


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Make ``import torch`` fail inside.

    tensorboardX imports torch, where it is installed, only to name a type in its annotations: 1.2 s
    of processor time, in the very seconds in which the worker loads the model. A None in
    `sys.modules` is the documented way to say *not importable*; without torch it uses numpy's type.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
