"""The books that every session keeps: what is loaded until it is closed, and what may be bound."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from harness.backends.common import refuse_closed
from harness.errors import DataError

if TYPE_CHECKING:
    from harness.protocols import Arrays

L = TypeVar("L")


class Shared(Generic[L]):
    """What sessions of one backend object share, by what it was made of, while one is open."""

    def __init__(self) -> None:
        self._loaded: weakref.WeakValueDictionary[bytes, L] = weakref.WeakValueDictionary()

    def get(self, made_of: tuple[object, ...], load: Callable[[], L]) -> L:
        key = msgspec.json.encode(made_of)
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._loaded[key] = load()
        return loaded


class SessionBase(Generic[L]):
    """``_loaded`` is the model that is run; None once the session is closed.

    The two timed calls are attributes, so that an adapter may put the runtime's own methods there.
    """

    enqueue: Callable[[], None]
    synchronize: Callable[[], None]
    _loaded: L | None

    def _open(self) -> L:
        """What is loaded. Raises `MeasurementFailed` for a closed session."""
        if self._loaded is None:
            refuse_closed()
        return self._loaded


def types_of(inputs: Arrays) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Type and shape of each, as `check_same` takes them."""
    return {name: (array.dtype, array.shape) for name, array in inputs.items()}


def check_same(bound: Mapping[str, tuple[Any, tuple[int, ...]]], inputs: Arrays) -> None:
    """Raises `DataError` where ``inputs`` are not like those that are ``bound``."""
    if sorted(bound) != sorted(inputs):
        raise DataError(
            f"the inputs are {_list(inputs)}, the session has {_list(bound)}",
            "give every input once, under its own name",
        )
    for name, (dtype, shape) in bound.items():
        array = inputs[name]
        if (array.dtype, array.shape) != (dtype, shape):
            raise DataError(
                f"input {name!r} is {array.dtype} {array.shape}, the session has {dtype} {shape}",
                "prepare another session for another type or shape",
            )


def _list(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
