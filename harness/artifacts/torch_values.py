"""The tensors in what a torch module takes and gives. Imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# What an example may hold beside tensors: it stays as it is in every call.
CONSTANTS = (type(None), bool, int, float, complex, str, torch.dtype, torch.device)


def leaves(value: Any, numbers: bool = True) -> Iterator[Any]:
    """All that a nest of outputs holds, in its order: tensors, None, and what cannot be looked at.

    Mappings, sequences, dataclasses and whatever is registered with torch's own trees are looked
    into; with ``numbers``, they and numpy's arrays come as tensors; a nested tensor as its parts.
    """
    if isinstance(value, Tensor):
        yield from value.unbind() if value.is_nested else (value,)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from leaves(inner, numbers)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner, numbers)
    elif numbers and isinstance(value, bool | int | float | complex | np.number | np.ndarray):
        yield _number(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), numbers)
    else:
        inner = pytree.tree_leaves(value)
        if len(inner) == 1 and inner[0] is value:
            yield value
        else:
            for one in inner:
                yield from leaves(one, numbers)


def _number(value: Any) -> Any:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # an array of texts, a huge number
        return value


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a nest of outputs."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


def output_names(result: Any, taken: Collection[str] = ()) -> list[str] | None:
    """A name for every tensor in ``result``, by the keys or fields that it gives them under.

    None where it has no such names, or one that is no identifier, is ``taken``, or comes twice.
    """
    names: list[str] = []
    for key, value in _fields(result).items():
        count = len(tensors_in(value))
        names += [str(key)] if count == 1 else [f"{key}_{index}" for index in range(count)]
    good = all(name.isidentifier() and name not in taken for name in names)
    return names if names and good and len(set(names)) == len(names) else None


def _fields(result: Any) -> Mapping[Any, Any]:
    if isinstance(result, Mapping):
        return result
    if isinstance(result, tuple):
        return dict(zip(getattr(result, "_fields", ()), result, strict=False))
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {}


class Flat(nn.Module):
    """Gives the tensors of ``inner``'s outputs as a tuple, where a compiler takes nothing else."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        found = [leaf for leaf in leaves(self.inner(*args), numbers=False) if leaf is not None]
        for leaf in found:
            if not isinstance(leaf, Tensor):  # a compiler would keep the value of this one call
                raise TypeError(f"it gives a {type(leaf).__name__}, which is no tensor")
        return tuple(found)


def is_flat(result: Any) -> bool:
    """A tensor, or a tuple of them."""
    parts = result if isinstance(result, tuple | list) else (result,)
    return all(isinstance(part, Tensor) for part in parts)


class Nested(nn.Module):
    """Takes by position the tensors that ``inner`` takes in lists, dicts and beside constants."""

    def __init__(self, inner: nn.Module, held: Sequence[Any], nest: Any) -> None:
        """``held`` is what the flattened ``nest`` of arguments holds, a tensor for each input."""
        super().__init__()
        self.inner = inner
        self._nest = nest
        self._places = [i for i, leaf in enumerate(held) if isinstance(leaf, Tensor)]
        self._held = [None if isinstance(leaf, Tensor) else leaf for leaf in held]

    def call(self, *tensors: Tensor) -> Any:
        held = list(self._held)
        for place, tensor in zip(self._places, tensors, strict=True):
            held[place] = tensor
        return self.inner(*pytree.tree_unflatten(held, self._nest))


def flatten(module: nn.Module, named: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """A module that takes tensors alone, by position, and its inputs by name.

    ``named`` are the arguments of ``module`` in call order. What stands in a list or dict is named
    ``argument.place``. An argument of another kind is among the inputs, for the caller to refuse.
    """
    if all(isinstance(value, Tensor) for value in named.values()):
        return module, dict(named)
    for name, value in named.items():
        parts = pytree.tree_leaves(value)
        if parts and not isinstance(value, CONSTANTS) and not any(map(_is_tensor, parts)):
            return module, {name: value}  # numbers in a list are meant to be a tensor
    paths: Any
    paths, nest = pytree.tree_flatten_with_path(tuple(named.values()))
    held = [leaf for _, leaf in paths]
    names = list(named)
    inputs = {
        ".".join([names[path[0].idx], *map(_step, path[1:])]): leaf
        for path, leaf in paths
        if not isinstance(leaf, CONSTANTS)
    }
    return of_count(Nested, len(inputs))(module, held, nest).eval(), inputs


def of_count(kind: Any, count: int) -> Any:
    """The class with a ``forward`` of exactly so many arguments: torch.fx follows no ``*args``."""
    names = ", ".join(f"input_{index}" for index in range(count))
    forward = eval(f"lambda self, {names}: self.call({names})")
    return type(kind.__name__, (kind,), {"forward": forward})


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _step(key: Any) -> str:
    """Of a path into a nest: an index, a key or a name."""
    return next(
        (str(getattr(key, field)) for field in ("idx", "key", "name") if hasattr(key, field)),
        str(key),
    )
