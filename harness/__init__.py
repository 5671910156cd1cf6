"""Harness: what does this model really cost on this hardware?

    fp32 = harness.run(model="digits")
    int8 = harness.run(model="digits", precision="int8")
    harness.compare(fp32, int8)

`run` measures as ``harness run`` does, `duel` lets variants take turns, `read` finds a run again,
and `compare` judges two of them, or two sets. What goes wrong is a `harness.errors.HarnessError`.
Importing this package imports none of it: each name comes in when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.version import __version__

if TYPE_CHECKING:
    from harness.api import duel, read, run
    from harness.compare.asked import compare
    from harness.records.result import Result
    from harness.spec import RunSpec

__all__ = ["Result", "RunSpec", "__version__", "compare", "duel", "read", "run"]

# `compare` is the package of that name, which can be called
_HOMES = {
    "Result": "harness.records.result",
    "RunSpec": "harness.spec",
    "duel": "harness.api",
    "read": "harness.api",
    "run": "harness.api",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "compare":
        import_module(f"{__name__}.views.notebook")  # by which a comparison shows itself
        return import_module(f"{__name__}.compare")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
