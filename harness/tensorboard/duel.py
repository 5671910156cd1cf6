"""A duel in TensorBoard: the ratio and its interval, narrowing while it goes.

    duel/ratio/{variant}    and duel/ratio_ci_low/..., duel/ratio_ci_high/..., duel/half_width/...

A step is a round. The events lie in the duel's folder, beside those of its runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from harness.host.names import tag_name
from harness.tensorboard.events import EventFile, ended


class DuelEvents:
    """Writes what it is told at once; where that fails, `problem` says why, and it ends."""

    def __init__(self, folder: Path) -> None:
        self.problem: str | None = None
        self._folder = folder
        self._file: EventFile | None = None

    def update(self, rounds: int, ratios: Mapping[str, tuple[float, float, float]]) -> None:
        """``ratios``: variant -> ratio to the first, and the ends of its interval."""
        if self.problem is not None:
            return
        try:
            if self._file is None:
                now_s = time.time()
                name = f"events.out.tfevents.{now_s:.0f}.harness"
                self._file = EventFile(self._folder / name, now_s)
            feed = self._file.at(rounds)
            for variant, (ratio, low, high) in ratios.items():
                name = tag_name(variant)
                feed.scalar(f"duel/ratio/{name}", ratio)
                feed.scalar(f"duel/ratio_ci_low/{name}", low)
                feed.scalar(f"duel/ratio_ci_high/{name}", high)
                feed.scalar(f"duel/half_width/{name}", (high - low) / 2 / ratio)
            self._file.flush()
        except (OSError, ImportError) as error:
            self.problem = ended(error)

    def close(self) -> None:
        """Idempotent."""
        file, self._file = self._file, None
        if file is not None and self.problem is None:
            try:
                file.close()
            except OSError as error:
                self.problem = ended(error)
