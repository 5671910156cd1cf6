"""From text to a checked value. Each refuses with the flag's name, the value and what to give."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

from harness.errors import UsageError


def parse_int(name: str, text: str, low: int, high: int) -> int:
    """``text`` as an integer in [low, high]. Raises `UsageError`."""
    try:
        value = int(text, 10)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise UsageError(f"{name} is {text!r}", f"give a whole number from {low} to {high}")
    return value


def parse_number(name: str, text: str, low: float, high: float) -> float:
    """``text`` as a finite number in [low, high]. Raises `UsageError`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} is {text!r}", f"give a number from {low:g} to {high:g}")
    return value


def parse_percentage(name: str, text: str, low: float, high: float) -> float:
    """``1%`` or ``0.01`` as a ratio in [low, high]. Raises `UsageError`."""
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} is {text!r}", f"give a percentage from {low:.2%} to {high:.0%}")
    return value


def parse_choice(name: str, text: str, choices: Sequence[str]) -> str:
    """``text``, one of ``choices``. Raises `UsageError` listing them."""
    if text not in choices:
        raise UsageError(f"{name} is {text!r}", f"choose one of {', '.join(choices)}")
    return text


def parse_pairs(
    name: str, texts: Sequence[str], form: str = "key=value", *, last: bool = False
) -> dict[str, str]:
    """``key=value`` texts as a dict, parted at the first equals sign or at the ``last``.

    Raises `UsageError`.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.rpartition("=") if last else text.partition("=")
        if not (equals and key.strip()):
            raise UsageError(f"{name} is {text!r}", f"give {form}")
        if key.strip() in pairs:
            raise UsageError(f"{name} names {key.strip()!r} twice", "give each key once")
        pairs[key.strip()] = value.strip()
    return pairs


def parse_shapes(name: str, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``input=1x3x224x224`` texts as shapes; ``input=scalar`` is 0-d. Raises `UsageError`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in parse_pairs(name, texts, "input=1x3x224x224", last=True).items():
        if value == "scalar":
            shapes[key] = ()
        elif re.fullmatch(r"\d+([x,]\d+)*", value):
            dims = re.split("[x,]", value)
            shapes[key] = tuple(parse_int(f"{name} {key}", dim, 0, 2**31 - 1) for dim in dims)
        else:
            raise UsageError(f"{name} {key} is {value!r}", "give sizes such as 1x3x224x224")
    return shapes


def parse_cpus(name: str, text: str) -> tuple[int, ...]:
    """``0-3,8`` as (0, 1, 2, 3, 8). Raises `UsageError`."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first, 10), int(last if dash else first, 10)
        except ValueError:
            low, high = -1, -1
        if not 0 <= low <= high <= 4095:
            raise UsageError(f"{name} is {text!r}", "give processors such as 0-3,8")
        cpus.update(range(low, high + 1))
    return tuple(sorted(cpus))


def parse_arrivals(name: str, text: str) -> str:
    """``poisson``, ``constant``, ``gamma:CV`` or ``file:PATH``. Raises `UsageError`."""
    kind, colon, rest = text.partition(":")
    if kind in ("poisson", "constant") and not colon:
        return text
    if kind == "gamma" and colon:
        return f"gamma:{parse_number(f'{name} gamma', rest, 0.01, 100):g}"
    if kind == "file" and rest:
        return f"file:{parse_text(name, rest)}"
    raise UsageError(
        f"{name} is {text!r}",
        "give poisson, constant, gamma:CV (such as gamma:2) or file:TRACE.csv",
    )


MOST_BATCHED = 64
_WAIT_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


def parse_batching(name: str, text: str) -> str:
    """``8:2ms``: so many at once, and the longest wait for it, in its plain form.

    Raises `UsageError`.
    """
    size, _, wait = text.replace(" ", "").partition(":")
    found = re.fullmatch(r"([0-9.]+)(us|µs|ms|s)", wait)
    if not found:
        raise UsageError(f"{name} is {text!r}", "give a batch size and a wait, such as 8:2ms")
    most = parse_int(f"{name} {text}: the batch", size, 2, MOST_BATCHED)
    wait_ms = parse_number(f"{name} {text}: the wait", found[1], 0, 60_000) * _WAIT_MS[found[2]]
    return f"{most}:{parse_number(name, str(wait_ms), 0, 60_000):g}ms"


def parse_bounds(name: str, texts: Sequence[str]) -> tuple[str, ...] | None:
    """``p99=10ms`` texts in their plain form, each quantile once; None where there are none.

    Raises `UsageError`.
    """
    found: dict[str, str] = {}
    for text in texts:
        shape = re.fullmatch(r"p(\d+(?:\.\d+)?)=([0-9.]+)(us|µs|ms|s)", text.replace(" ", ""))
        if not shape or not 0 < float(shape[1]) < 100:
            raise UsageError(f"{name} is {text!r}", "give a quantile and a time, such as p99=10ms")
        limit = parse_number(f"{name} {text}: the time", shape[2], 1e-6, 1e6) * _WAIT_MS[shape[3]]
        key = f"p{float(shape[1]):g}"
        if key in found:
            raise UsageError(f"{name} names {key} twice", "give each quantile once")
        found[key] = f"{key}={limit:g}ms"
    return tuple(found.values()) or None


def parse_device(name: str, text: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N`` in its long form. Raises `UsageError`."""
    if text == "cuda":
        return "cuda:0"
    if text != "cpu" and not re.fullmatch(r"cuda:\d{1,3}", text):
        raise UsageError(f"{name} is {text!r}", "give cpu, cuda or cuda:N")
    return text


def parse_text(name: str, text: str) -> str:
    """Non-empty text without control characters. Raises `UsageError`."""
    if not text or any(ord(char) < 32 for char in text):
        raise UsageError(f"{name} is {text!r}", "give a name or a path")
    return text


def parse_choices(name: str, texts: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """Each of ``texts`` once, all of them among ``choices``. Raises `UsageError`."""
    return tuple(dict.fromkeys(parse_choice(name, text, choices) for text in texts))


def choices(literal: Any) -> Callable[[str, str], str]:
    """A parser for one value of a `Literal`."""
    return lambda name, text: parse_choice(name, text, get_args(literal))


def number(low: float, high: float) -> Callable[[str, str], float]:
    """A parser for a number in [low, high]."""
    return lambda name, text: parse_number(name, text, low, high)


def integer(low: int, high: int) -> Callable[[str, str], int]:
    """A parser for a whole number in [low, high]."""
    return lambda name, text: parse_int(name, text, low, high)
