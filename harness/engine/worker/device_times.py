"""Device time, in a stretch of its own between warm-up and window.

    warm-up ── stretch: events recorded in `enqueue` ── read, filed ── [steady] ── window

Recording a pair of events takes the host time that belongs to no inference: about 13 of 2,560 us of
a ResNet-50 on an H100, which is no more than two loops by hand differed by, but does not shrink
with the model. So the window has none. Of several sessions each has the device to itself in turn.

The worker writes one array a session into its own temporary folder, which goes with it; the driver
reads it while the worker waits.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.engine.wire.timeline import Stream
from harness.errors import MeasurementFailed
from harness.maybe import Maybe, Unavailable
from harness.protocols import DeviceTimed, Session

Times = NDArray[np.float64]
STRETCH_S = 1.0
FEWEST, MOST = 5, 1 << 16  # a session; the latter are about as many pairs as a device gives out


def measure(
    sessions: Sequence[Session], streams: Sequence[Stream], iterations: int
) -> Maybe[list[Times]]:
    """The device times in ms of each session's stretch, ``iterations`` at most; none of sessions
    that are of no such kind. The streams have warmed up, which shows how many fit.
    """
    timed = [session for session in sessions if isinstance(session, DeviceTimed)]
    if len(timed) < len(sessions) or not iterations:
        return []
    measured: list[Times] = []
    for session, stream in zip(timed, streams, strict=True):
        times = _stretch(session, min(iterations, _fitting(stream)))
        if isinstance(times, Unavailable):
            return times
        measured.append(times)
    return measured


def _stretch(session: Any, count: int) -> Maybe[Times]:
    absent = session.arm(count)
    if absent is not None:
        return Unavailable(absent.reason, absent.remedy)
    enqueue, synchronize = session.enqueue, session.synchronize
    for _ in range(count):
        enqueue()
        synchronize()
    times = np.asarray(session.device_times_ms(), dtype=np.float64)
    session.arm(0)
    return times


def _fitting(stream: Stream) -> int:
    """How many iterations the stretch takes, from the last few of the warm-up."""
    last = stream.written
    first = max(0, last - 100, last - stream.capacity)
    if last - first < 2:
        return FEWEST
    began, ended = (stream.starts[i % stream.capacity] for i in (first, last - 1))
    each_s = max(ended - began, 1) / (last - first - 1) / 1e9
    return min(MOST, max(FEWEST, math.ceil(STRETCH_S / each_s)))


def save(times: Sequence[Times]) -> str:
    """The path of a new file with ``times``, in this process's temporary folder."""
    descriptor, path = tempfile.mkstemp(prefix="device-times-", suffix=".npz")
    with os.fdopen(descriptor, "wb") as file:
        np.savez(file, *times)
    return path


def load(path: str) -> list[Times]:
    """What `save` wrote. Raises `MeasurementFailed`."""
    try:
        with np.load(Path(path), allow_pickle=False) as arrays:
            return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise MeasurementFailed(
            f"the worker's device times cannot be read: {error}", "see whether the disk is full"
        ) from error
