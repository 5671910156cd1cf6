"""Two results and more: what may be compared, what differs, and what a policy makes of it.

The package can be called: ``harness.compare(a, b)`` is `harness.compare.asked.compare`, whether or
not somebody has imported a module of it before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harness.compare.asked import Asked
    from harness.compare.comparison import Comparison


class _Callable(ModuleType):
    def __call__(
        self, a: Asked, b: Asked, *, results: str | Path = "results", other_hardware: bool = False
    ) -> Comparison:
        """See `harness.compare.asked.compare`."""
        from harness.compare.asked import compare

        return compare(a, b, results=results, other_hardware=other_hardware)


sys.modules[__name__].__class__ = _Callable
