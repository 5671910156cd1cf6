"""The formats of ``harness export``: what each is called, and who writes it.

A writer takes the results, oldest first, and returns the file. It is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from harness.errors import UsageError
from harness.records.result import Result

Exporter = Callable[[Sequence[Result]], bytes]

# name -> "module:function"
FORMATS: dict[str, str] = {
    "compression-engine": "harness.board.from_results:export",
}


def exporter(name: str) -> Exporter:
    """The writer of the format ``name``. Raises `UsageError` that lists the formats."""
    if name not in FORMATS:
        raise UsageError(f"--format is {name!r}", f"choose one of {', '.join(FORMATS)}")
    module, _, function = FORMATS[name].partition(":")
    found: Exporter = getattr(importlib.import_module(module), function)
    return found
