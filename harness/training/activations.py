"""What chosen layers of a torch module put out, by hooks that are there for one pass alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DataError
from harness.training.arrays import is_tensor

_SHOWN = 8  # names, in a message


def of(model: Any, inputs: Any, layers: Sequence[str] | None = None) -> dict[str, Any]:
    """Layer name -> its output tensor, of one pass without gradients in evaluation mode.

    Of an output of several tensors the first counts. Raises `DataError`.
    """
    if not hasattr(model, "named_modules"):
        raise DataError(f"{type(model).__name__} has no layers", "give a torch module")
    modules = {name: one for name, one in model.named_modules() if name}
    chosen = [*layers] if layers is not None else [n for n, m in modules.items() if _is_leaf(m)]
    if unknown := [name for name in chosen if name not in modules]:
        some = ", ".join([*modules][:_SHOWN])
        raise DataError(f"{unknown[0]!r} is no layer of the model", f"there are {some}")
    found: dict[str, Any] = {}
    hooks = [modules[name].register_forward_hook(_keeping(found, name)) for name in chosen]
    training = {name: one.training for name, one in model.named_modules()}
    try:
        model.eval()
        with sys.modules["torch"].no_grad():
            _call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for name, one in model.named_modules():
            one.training = training[name]
    return found


def _is_leaf(module: Any) -> bool:
    return next(module.children(), None) is None


def _keeping(found: dict[str, Any], name: str) -> Any:
    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        tensor = next(iter(_tensors(output)), None)
        if tensor is not None:
            found[name] = tensor.detach()

    return keep


def _tensors(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        output = [*output.values()]
    parts = output if isinstance(output, list | tuple) else [output]
    return [part for part in parts if is_tensor(part)]


def _call(model: Any, inputs: Any) -> None:
    if isinstance(inputs, Mapping):
        model(**inputs)
    elif isinstance(inputs, tuple):
        model(*inputs)
    else:
        model(inputs)
