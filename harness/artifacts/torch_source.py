"""Rebuilds a torch module from an artifact's ``source``. Builder and worker only: imports torch.

zoo:NAME               our architectures; digits with the weights that ship
factory:MODULE:NAME    the user's code, found in the working directory too
pt2:PATH               an exported program
torchscript:PATH       a file of torch.jit.save
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from harness.artifacts.pt2 import load_program
from harness.artifacts.torch_errors import cause
from harness.artifacts.torch_values import flatten, of_count
from harness.artifacts.torchscript import load_script
from harness.errors import ModelError
from harness.host import here
from harness.zoo import architecture
from harness.zoo.shipped import ASSETS


class ByName(nn.Module):
    """Takes by position what ``inner`` takes by name only."""

    def __init__(self, inner: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.names = names

    def call(self, *args: Tensor) -> Any:
        return self.inner(**dict(zip(self.names, args, strict=True)))


def _taking(inner: nn.Module, names: tuple[str, ...]) -> nn.Module:
    module: nn.Module = of_count(ByName, len(names))(inner, names)
    return module


class Loaded(msgspec.Struct, frozen=True):
    """A module in eval mode and, where the source has them, example inputs in call order."""

    module: Any
    examples: dict[str, Any] | None


def load_module(source: str, seed: int, device: str = "cpu") -> nn.Module:
    """The module in eval mode, its inputs by position in the artifact's order.

    ``device`` is where it will run: an exported program has the device of each tensor that it
    creates written into it. The weights of any other module are left for the caller to move.

    The same ``source`` and ``seed`` give the same zoo weights. Raises `ModelError`.
    """
    module: nn.Module = load(source, seed, device).module
    return module


def load(source: str, seed: int, device: str = "cpu") -> Loaded:
    """Like `load_module`, with the source's example inputs. Raises `ModelError`."""
    kind, _, rest = source.partition(":")
    torch.manual_seed(seed)
    if kind == "zoo":
        return Loaded(_zoo(rest), None)
    if kind == "factory":
        return _factory(rest)
    if kind == "pt2":
        return _program(Path(rest), device)
    if kind == "torchscript":
        return Loaded(load_script(Path(rest), device), None)
    raise ModelError(f"{source!r} is no source of a torch module")


def _zoo(name: str) -> nn.Module:
    model: nn.Module = architecture(name)()
    if name == "digits":
        with np.load(ASSETS / "digits.npz", allow_pickle=False) as weights:
            model.load_state_dict({key: torch.from_numpy(weights[key]) for key in weights.files})
    return model.eval()


def _program(path: Path, device: str) -> Loaded:
    program = load_program(path)
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    names = [str(name) for name in program.graph_signature.user_inputs]
    args, kwargs = program.example_inputs or ((), {})
    flat = [*args, *kwargs.values()]
    plain = len(flat) == len(names) and all(isinstance(value, Tensor) for value in flat)
    module = program.module()
    if kwargs:
        module = _taking(module, tuple(names)) if not args else module
    return Loaded(module, dict(zip(names, flat, strict=True)) if plain else None)


def _factory(text: str) -> Loaded:
    """Run the user's code. Whatever it raises is the model's fault, and says so."""
    made = _call(text)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        parts = [type(part).__name__ for part in made] if isinstance(made, tuple) else []
        what = f"({', '.join(parts)})" if parts else type(made).__name__
        raise ModelError(
            f"factory {text!r} returned {what}",
            "return (torch module, example inputs), the inputs a tuple or a dict of tensors",
        )
    module, examples = _evaluating(made[0]), made[1]
    if isinstance(examples, Tensor):
        examples = (examples,)
    if isinstance(examples, Mapping):
        module, named = _by_name(module, examples)
    elif isinstance(examples, tuple | list):
        named = dict(zip(_positional(module, len(examples)), examples, strict=True))
    else:
        named = {"examples": examples}
    module, named = flatten(module, named)
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"factory {text!r} gives {type(value).__name__} for input {name!r}",
                "give tensors, alone or in lists and dicts; numbers, texts and None stay as given",
            )
    if not named:
        raise ModelError(f"factory {text!r} gives no example inputs", "give at least one tensor")
    _make_lazy(text, module, tuple(named.values()))
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise ModelError(
            f"the module of factory {text!r} has weights on the meta device, which hold no values",
            "have it load them (load_state_dict with assign=True)",
        )
    return Loaded(_evaluating(module), named)


def _evaluating(module: nn.Module) -> nn.Module:
    """In eval mode; an exported program stays as it was exported, in whatever it stands."""
    try:
        return module.eval()
    except NotImplementedError:
        for inner in module.modules():
            inner.training = False
        return module


def _make_lazy(text: str, module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    """Lazy layers have no weights before they have seen an input."""
    if any(is_lazy(parameter) for parameter in (*module.parameters(), *module.buffers())):
        try:
            with torch.no_grad():
                module(*(example.clone() for example in examples))
        except Exception as error:
            raise _blame(text, error) from error


def _call(text: str) -> Any:
    name, _, attribute = text.partition(":")
    try:
        found: Any = here.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found()
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise _blame(text, error) from error
        raise ModelError(
            f"cannot import {error.name!r} for factory {text!r}",
            "run in the folder that holds it, or install it",
        ) from error
    except Exception as error:
        raise _blame(text, error) from error


def _blame(text: str, error: Exception) -> ModelError:
    said = f": {line}" if (line := cause(error)) else ""
    missing = isinstance(error, ModuleNotFoundError)
    return ModelError(
        f"factory {text!r} raised {type(error).__name__}{said}",
        "install it" if missing else "repair it",
    )


def _positional(module: nn.Module, count: int) -> list[str]:
    """``forward``'s own parameter names, as far as they name ``count`` positions."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in _parameters(module) if p.kind in kinds][:count]
    return names if len(names) == count else [f"input_{index}" for index in range(count)]


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    """Of ``forward``; a TorchScript module has a schema in place of a signature."""
    schema = getattr(module.forward, "schema", None)
    if schema is None:
        return list(inspect.signature(module.forward).parameters.values())
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(argument.name, kind) for argument in schema.arguments[1:]]


def _by_name(module: nn.Module, examples: Mapping[Any, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Call order for inputs given by name; a wrapper where position alone would not do."""
    named = {str(name): value for name, value in examples.items()}
    order = [parameter.name for parameter in _parameters(module) if parameter.name in named]
    if len(order) == len(named) and _positional(module, len(named)) == order:
        return module, {name: named[name] for name in order}
    return _evaluating(_taking(module, tuple(named))), named
