"""A duel in TensorBoard: the ratio and its interval, narrowing while it goes.

    duel/ratio/{variant}    and duel/ratio_ci_low/..., duel/ratio_ci_high/..., duel/half_width/...

    duel/energy_ratio/{variant}, and its _ci_low and _ci_high: gross, if there was a meter
    duel/net_energy_ratio/{variant}: likewise

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
        found = {
            f"duel/{kind}/{tag_name(variant)}": value
            for variant, (ratio, low, high) in ratios.items()
            for kind, value in (
                ("ratio", ratio),
                ("ratio_ci_low", low),
                ("ratio_ci_high", high),
                ("half_width", (high - low) / 2 / ratio),
            )
        }
        self._write(rounds, found)

    def energy(
        self, rounds: int, kind: str, ratios: Mapping[str, tuple[float, float, float]]
    ) -> None:
        """The same of joules an inference; ``kind``: ``energy_ratio`` or ``net_energy_ratio``."""
        found = {
            f"duel/{kind}{end}/{tag_name(variant)}": value
            for variant, ratio in ratios.items()
            for end, value in zip(("", "_ci_low", "_ci_high"), ratio, strict=True)
        }
        self._write(rounds, found)

    def _write(self, rounds: int, scalars: Mapping[str, float]) -> None:
        if self.problem is not None:
            return
        try:
            if self._file is None:
                now_s = time.time()
                name = f"events.out.tfevents.{now_s:.0f}.harness"
                self._file = EventFile(self._folder / name, now_s)
            feed = self._file.at(rounds)
            for name, value in scalars.items():
                feed.scalar(name, value)
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
