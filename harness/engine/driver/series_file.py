"""``series.npz``: every reading of every sensor, of one launch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.sampled import Sampled
from harness.host.files import write_atomically


def save_series(sampled: Sampled, path: Path) -> None:
    """Write every series as a compressed npz file, whole or not at all.

    Per profiler ``times_ns.PROFILER`` and ``values.PROFILER.CHANNEL``; ``wall_ns`` has rows of
    (common clock, wall clock since 1970). Raises `ResultError` where the disk refuses.
    """
    arrays: dict[str, Any] = {"wall_ns": sampled.walls_ns.reshape(-1, 2)}
    absent = {channel.name for channel in sampled.channels if channel.unavailable is not None}
    for profiler, names in sampled.profilers.items():
        times_ns = sampled.series[names[0]][0] if names else np.empty(0, np.int64)
        arrays[f"times_ns.{profiler}"] = times_ns
        for name in names:
            if name not in absent:
                arrays[f"values.{profiler}.{name}"] = sampled.series[name][1]
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    write_atomically(path, packed.getvalue())
