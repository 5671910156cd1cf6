"""Device time of the timed iterations: armed before the window, fetched and filed after it.

    warm-up ── arm ── [steady] ── window: events recorded in `enqueue` ── fetch, save ── [timed]

The worker writes one array a stream into its own temporary folder, which goes with it; the driver
reads it while the worker waits. Nothing of this lies between two clock reads.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.engine.wire.messages import Job
from harness.engine.wire.timeline import Stream
from harness.errors import MeasurementFailed
from harness.maybe import Maybe
from harness.protocols import DeviceTimed, Session

Times = NDArray[np.float64]
MOST = 1 << 16  # pairs of events a stream: about as many as a device gives out without complaint
_MARGIN = 1.5  # a window may run faster than the warm-up did


def arm(sessions: Sequence[Session], streams: Sequence[Stream], job: Job) -> Maybe[bool]:
    """Have every session record events from its next inference on. False: they are of no such kind.

    The streams have warmed up, which has shown how many iterations the window will hold.
    """
    timed = [session for session in sessions if isinstance(session, DeviceTimed)]
    if len(timed) < len(sessions) or not job.arm_iterations:
        return False
    for session, stream in zip(timed, streams, strict=True):
        absent = session.arm(min(job.arm_iterations, MOST, _expected(stream, job.arm_s)))
        if absent is not None:
            return absent
    return True


def _expected(stream: Stream, seconds: float) -> int:
    """How many iterations fit into ``seconds``, from the last few of the warm-up."""
    last = stream.written
    first = max(0, last - 100, last - stream.capacity)
    if not math.isfinite(seconds) or last - first < 2:
        return MOST
    began, ended = (stream.starts[i % stream.capacity] for i in (first, last - 1))
    each_s = max(ended - began, 1) / (last - first - 1) / 1e9
    return math.ceil(_MARGIN * seconds / each_s) + 1


def fetch(sessions: Sequence[Session], streams: Sequence[Stream]) -> list[Times]:
    """The device times in ms of the timed iterations, one array a stream; the events are let go."""
    found: list[Times] = []
    for session, stream in zip(sessions, streams, strict=True):
        assert isinstance(session, DeviceTimed)
        times = np.asarray(session.device_times_ms(), dtype=np.float64)
        found.append(times[: stream.window_end - stream.window_start])
        session.arm(0)
    return found


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
