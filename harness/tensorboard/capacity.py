"""A capacity in TensorBoard: its curve, with the rate as the step.

capacity/p50_ms, p99_ms, utilization, joules_per_request,
capacity/net_joules_per_request                                of the server runs
capacity/predicted_p50_ms, capacity/predicted_p99_ms           by the service times
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.tensorboard.events import EventFile

_MEASURED = ("p50_ms", "p99_ms", "utilization", "joules_per_request", "net_joules_per_request")
_PREDICTED = ("p50_ms", "p99_ms")


def write_curve(folder: Path, found: Mapping[str, Any]) -> None:
    """Into an event file in ``folder``; nothing where none can be written."""
    now_s = time.time()
    with contextlib.suppress(OSError, ImportError):
        file = EventFile(folder / f"events.out.tfevents.{now_s:.0f}.harness", now_s)
        _write(file, "capacity/", [*found["probes"], *found["curve"]], _MEASURED)
        _write(file, "capacity/predicted_", found["predicted"], _PREDICTED)
        file.close()


def _write(file: EventFile, prefix: str, points: Any, names: tuple[str, ...]) -> None:
    for point in sorted(points, key=lambda one: one["rate_per_s"]):
        feed = file.at(round(point["rate_per_s"]))
        for name in names:
            if isinstance(point[name], int | float):
                feed.scalar(prefix + name, point[name])
