"""The shipped fake backend, fed with the artifact that ONNX backends get, and made to misbehave."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.protocols import Artifact, Available, SessionOptions, Unavailable, Wanted
from harness.testing.fake_backend import FakeBackend, FakeSession

if TYPE_CHECKING:
    from harness.protocols import Arrays

STAMP = struct.Struct("q")


class Fake(FakeBackend):
    """More options: ``late=METHOD:HOW`` makes a method of the session fail after the window (HOW is
    ``kill``, ``hang`` or ``raise``); ``grow_us`` makes each inference so much slower than the one
    before; ``beacon`` names a file that holds when the latest one began (ns, common clock)."""

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        super().wants(precision, _without_ours(options))
        return Wanted("onnx")

    def prepare(self, artifact: Artifact, inputs: Arrays, options: SessionOptions) -> FakeSession:
        session = super().prepare(artifact, inputs, _without_ours(options))
        return _misbehaving(session, options)


class GpuFake(Fake):
    """Says that it runs on a GPU, and computes on the CPU: for what is measured around a GPU."""

    def availability(self, device: str) -> Available | Unavailable:
        return Available({"version": "1"})


def _without_ours(options: SessionOptions) -> SessionOptions:
    kept = {k: v for k, v in options.options.items() if k not in ("grow_us", "beacon", "late")}
    return msgspec.structs.replace(options, options=kept)


def _misbehaving(session: FakeSession, options: SessionOptions) -> FakeSession:
    enqueue = session.enqueue
    grow_s = float(options.options.get("grow_us", "0")) / 1e6
    path = options.options.get("beacon")
    beacon = open_beacon(Path(path)) if path else None

    def behave() -> None:
        if beacon is not None:
            STAMP.pack_into(beacon, 0, time.perf_counter_ns())
        if grow_s:
            time.sleep(grow_s * session.inferences)
        enqueue()

    session.enqueue = behave  # type: ignore[method-assign]
    if late := options.options.get("late"):
        method, _, how = late.partition(":")
        setattr(session, method, lambda: _fail(how))
    return session


def _fail(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "hang":
        time.sleep(60)
    raise RuntimeError("as the test wants it")


def open_beacon(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), STAMP.size)


class Versioned(Fake):
    """As slow as the installed version of the distribution ``planted`` says: its ``WAIT_US``."""

    def prepare(self, artifact: Artifact, inputs: Arrays, options: SessionOptions) -> FakeSession:
        import planted  # type: ignore[import-not-found]

        given = {**options.options, "latency_us": str(planted.WAIT_US)}
        return super().prepare(artifact, inputs, msgspec.structs.replace(options, options=given))
