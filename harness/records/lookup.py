"""Reach into a Result by a dotted path, as it reads in the JSON file."""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.maybe import Unavailable

NOT_MEASURED = Unavailable("not measured")


def lookup(record: Any, path: str) -> Any:
    """The value at ``path`` (``timing.latency_ms.p99``, ``timing.latency_ms.ci95.p99``).

    ``*name`` is the key that stands at ``name``, beside where the path has come: by
    ``energy.sources.*primary`` the source that ``energy.primary`` names. An `Unavailable` on the
    way is the answer. A key or a part that is not there is one too, `NOT_MEASURED`.
    """
    value, beside = record, record
    for step, named in _steps(path):
        if value is None or isinstance(value, Unavailable):
            break
        name = getattr(beside, step) if named else step
        found = value.get(name) if isinstance(value, dict) else getattr(value, name)
        beside, value = value, found
    return NOT_MEASURED if value is None else value


@cache  # an index reads thousands of files by the same paths
def _steps(path: str) -> tuple[tuple[str, bool], ...]:
    return tuple((step.removeprefix("*"), step.startswith("*")) for step in path.split("."))
