"""Who follows a run while it goes: the terminal, TensorBoard, a pipe."""

from __future__ import annotations

from typing import Protocol

from harness.protocols import Progress
from harness.records.result import Result


class Sink(Protocol):
    """Renders what the driver observed. Never computes a statistic."""

    def update(self, progress: Progress) -> None:
        """Called about twice a second while the run goes, and at each change of phase."""
        ...

    def close(self, result: Result | None) -> None:
        """The final result, or None when there is none. Called once."""
        ...
