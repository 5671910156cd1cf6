"""Reach into a Result by a dotted path, as it reads in the JSON file."""

from __future__ import annotations

from typing import Any

from harness.maybe import Unavailable


def lookup(record: Any, path: str) -> Any:
    """The value at ``path`` (``timing.latency_ms.p99``, ``timing.latency_ms.ci95.p99``).

    An `Unavailable` on the way is the answer. A key or a part that is not there is one too.
    """
    value = record
    for name in path.split("."):
        if value is None or isinstance(value, Unavailable):
            break
        value = value.get(name) if isinstance(value, dict) else getattr(value, name)
    return Unavailable("not measured") if value is None else value
