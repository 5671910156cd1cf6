"""One figure of a result, held against what it comes to when it is made again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from harness.errors import HarnessError
from harness.maybe import Maybe, Unavailable, explain
from harness.records.result import IN_TURNS, NOT_KEPT

T = TypeVar("T")
State = Literal["agrees", "differs", "not recomputed"]
_EQUAL = 1e-9  # relative: the libraries below sum in an order of their own


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure by its path in the result. ``why`` is set where it was not recomputed."""

    figure: str
    state: State
    recorded: Any
    recomputed: Any = None
    why: str = ""


def read(record: Any, path: str) -> Any:
    """As `harness.records.lookup.lookup`, into lists too; None where there is nothing."""
    value = record
    for name in path.split("."):
        if value is None or isinstance(value, Unavailable):
            return value
        if isinstance(value, tuple):
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value


def sane(make: Callable[[], T]) -> T | Unavailable:
    """What ``make`` gives; data that nobody measured can break any formula."""
    try:
        with np.errstate(all="ignore"):
            return make()
    except (ArithmeticError, LookupError, ValueError, HarnessError) as error:
        return Unavailable(f"the data make no sense: {type(error).__name__}: {error}")


def held(path: str, recorded: Any, again: Any, within: float = 0.0) -> Figure:
    if recorded in (NOT_KEPT, IN_TURNS):
        return unknown(path, None, "this result does not state it")
    recorded, again = _shown(recorded), _shown(again)
    state: State = "agrees" if _equal(recorded, again, within) else "differs"
    return Figure(figure=path, state=state, recorded=recorded, recomputed=again)


def _equal(one: Any, other: Any, within: float) -> bool:
    absent = [isinstance(value, Unavailable) for value in (one, other)]
    if any(absent):
        return all(absent)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other, [within] * len(one)))
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return False
    return math.isclose(one, other, rel_tol=_EQUAL, abs_tol=max(within, 1e-300))


def _shown(value: Any) -> Any:
    """As JSON has it: numbers are Python's own."""
    if isinstance(value, tuple):
        return tuple(map(_shown, value))
    return value.item() if isinstance(value, np.generic) else value


def without(path: str, record: Any, names: Sequence[str], why: Maybe[Any]) -> Iterator[Figure]:
    told = explain(why) if isinstance(why, Unavailable) else ""
    for name in names:
        yield unknown(f"{path}.{name}", _shown(getattr(record, name)), told)


def unknown(path: str, recorded: Any, why: str) -> Figure:
    return Figure(figure=path, state="not recomputed", recorded=recorded, why=why)
