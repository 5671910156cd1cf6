"""A TensorBoard event file that never disturbs the training that writes it.

Events are appended in one write about every two seconds. One that cannot be written (disk full,
folder gone) ends the file for good: `QuietEventFile.problem` says why, a warning is logged once,
and every later call returns at once.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from harness.tensorboard.events import EventFile

LOGGER = logging.getLogger("harness.training")
FLUSH_S = 2.0


class NoEvents:
    """The event file of a logger that is switched off."""

    problem: str | None = "the logger is switched off"

    def add(self, tag: str, value: float | dict[str, Any], step: int) -> None:
        pass

    def graph(self, definition: bytes) -> None:
        pass

    def flush(self) -> None:
        pass

    def fail(self, problem: str) -> None:
        pass

    def close(self) -> None:
        pass


class QuietEventFile(EventFile):
    """One event file in ``folder``, which must exist. Raises `OSError` if it cannot be begun."""

    def __init__(self, folder: Path) -> None:
        now_s = time.time()
        super().__init__(folder / f"events.out.tfevents.{now_s:.0f}.{os.getpid()}.harness", now_s)
        self.problem: str | None = None
        self._flushed_s = now_s

    def add(
        self,
        tag: str,
        value: float | dict[str, Any],
        step: int,
        wall_time_s: float | None = None,
    ) -> None:
        if self.problem is not None:
            return
        now_s = time.time() if wall_time_s is None else wall_time_s
        super().add(tag, value, step, now_s)
        if not 0 <= now_s - self._flushed_s <= FLUSH_S:
            self.flush()

    def graph(self, definition: bytes) -> None:
        if self.problem is None:
            super().graph(definition)

    def flush(self) -> None:
        """Hand to the system what is pending; `problem` where that fails."""
        if self.problem is not None:
            return
        self._flushed_s = time.time()
        try:
            super().flush()
        except OSError as error:
            self.fail(f"TensorBoard events end here: {error.strerror or error}")

    def fail(self, problem: str) -> None:
        """End the file; said once."""
        if self.problem is None:
            self.problem = problem
            LOGGER.warning("%s; training goes on", problem)

    def close(self) -> None:
        """Idempotent; what comes later is dropped."""
        super().close()
        self.problem = self.problem or "the log is closed"
