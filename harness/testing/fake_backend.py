"""A backend without a framework: outputs equal inputs, latency and failures come on demand.

Registered like any other (``harness.testing.fake_backend:FakeBackend``), so the real driver and
worker can be tested against workers that crash, hang or compute nonsense at a known iteration.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import BackendUnavailable, DataError, MeasurementFailed, UsageError
from harness.maybe import Maybe
from harness.protocols import (
    Artifact,
    Available,
    Description,
    OperatorTimes,
    Option,
    ProfiledInferences,
    SessionOptions,
    Unavailable,
    Wanted,
)
from harness.testing.clock import ManualClock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays

PRECISIONS = ("fp32", "int8")
FAILURES = ("none", "raise", "nan", "segfault", "kill", "exit", "hang")


class FakeBackend:
    """Options, each as text: ``latency_us`` (0), ``fail`` (one of `FAILURES`), ``fail_at`` (0),
    ``device_us`` (none), ``asynchronous`` (``off``).

    ``fail_at`` counts a session's inferences from 0 (warm-up included), or is ``prepare``. ``nan``
    spoils the floating-point outputs from that inference on; ``exit`` leaves the process with
    status 7. With a ``clock`` the latency is added to it; otherwise the inference sleeps.

    ``device_us`` makes sessions `DeviceTimed`: their inference i since `arm` took that long plus i
    nanoseconds on a device that also has an allocator. ``asynchronous=on`` makes them so: a device
    with one queue for all sessions starts each inference when the one before has ended.
    """

    name = "fake"
    options = (
        Option("latency_us", default="0", help="how long an inference takes"),
        Option("fail", FAILURES, "none", "how an inference fails"),
        Option("fail_at", default="0", help="which one, or prepare"),
        Option("device_us", help="device time of an inference"),
        Option("asynchronous", ("off", "on"), "off", "inferences overlap"),
    )

    def __init__(self, clock: ManualClock | None = None) -> None:
        self._clock = clock
        self._queue = FakeQueue()

    def availability(self, device: str) -> Available | Unavailable:
        if device != "cpu":
            return Unavailable(f"the fake backend has no {device}", "use --device cpu")
        return Available({"version": "1"})

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        _Plan(options)
        if precision not in PRECISIONS:
            raise UsageError(f"fake has no {precision}", f"use {' or '.join(PRECISIONS)}")
        return Wanted("fake", of=Wanted("onnx"))

    def make_artifact(self, source: Artifact, target: Path, options: SessionOptions) -> None:
        """The fake format is the graph itself, which no session looks at."""
        target.write_bytes(Path(source.path).read_bytes())

    def prepare(self, artifact: Artifact, inputs: Arrays, options: SessionOptions) -> FakeSession:
        available = self.availability(options.device)
        if isinstance(available, Unavailable):
            raise BackendUnavailable(available.reason, available.remedy)
        plan = _Plan(options)
        if plan.fail_at == -1:
            _fail(plan.fail)
        if plan.device_ns is None:
            return FakeSession(artifact, inputs, plan, self._clock)
        return FakeDeviceSession(artifact, inputs, plan, self._clock, self._queue)


class _Plan:
    """The options, parsed. Raises `UsageError`. ``fail_at`` is -1 for ``prepare``."""

    def __init__(self, options: SessionOptions) -> None:
        known = {option.name: option.default for option in FakeBackend.options}
        for key in options.options:
            if key not in known:
                raise UsageError(f"fake has no option {key!r}", f"choose one of {', '.join(known)}")
        given = {**known, **options.options}
        if given["fail"] not in FAILURES:
            raise UsageError(
                f"--option fail is {given['fail']!r}", f"choose one of {', '.join(FAILURES)}"
            )
        try:
            self.latency_ns = int(float(given["latency_us"]) * 1000)
            self.fail_at = -1 if given["fail_at"] == "prepare" else int(given["fail_at"])
            device_us = given["device_us"] or ("0" if given["asynchronous"] == "on" else "")
            self.device_ns = int(float(device_us) * 1000) if device_us else None
        except (ValueError, OverflowError) as error:
            raise UsageError(f"a fake option is no number: {error}", "give a number") from error
        if self.latency_ns < 0 or self.fail_at < -1:
            raise UsageError("a fake option is negative", "give 0 or more")
        self.fail = given["fail"]
        self.asynchronous = given["asynchronous"] == "on"


def _fail(how: str) -> None:
    if how == "raise":
        raise RuntimeError("the fake backend was told to raise")
    if how in ("segfault", "kill"):
        os.kill(os.getpid(), signal.SIGSEGV if how == "segfault" else signal.SIGKILL)
    if how == "exit":
        os._exit(7)
    if how == "hang":
        threading.Event().wait()


class FakeSession:
    """Copies its inputs to outputs of the same names. ``inferences`` counts them."""

    def __init__(
        self, artifact: Artifact, inputs: Arrays, plan: _Plan, clock: ManualClock | None
    ) -> None:
        self.inferences = 0
        self.closed = False
        self._artifact = artifact
        self._plan = plan
        self._clock = clock
        self._inputs = {name: np.array(array) for name, array in inputs.items()}
        self._outputs: dict[str, NDArray[Any]] = {}

    def bind(self, inputs: Arrays) -> None:
        self._open()
        if inputs.keys() != self._inputs.keys():
            raise DataError(
                f"the inputs are {', '.join(inputs)}, the session has {', '.join(self._inputs)}"
            )
        for name, old in self._inputs.items():
            new = inputs[name]
            if (new.dtype, new.shape) != (old.dtype, old.shape):
                raise DataError(
                    f"input {name!r} is {new.dtype} {new.shape}, not {old.dtype} {old.shape}"
                )
        self._inputs = {name: np.array(inputs[name]) for name in self._inputs}

    def enqueue(self) -> None:
        self._open()
        if self.inferences == self._plan.fail_at:
            _fail(self._plan.fail)
        self.inferences += 1
        self._outputs = self._inputs

    def synchronize(self) -> None:
        if self._clock is not None:
            self._clock.advance(self._plan.latency_ns)
        elif self._plan.latency_ns:
            time.sleep(self._plan.latency_ns / 1e9)

    def outputs(self) -> Mapping[str, NDArray[Any]]:
        self._open()
        spoilt = self._plan.fail == "nan" and self.inferences > self._plan.fail_at
        return {name: _copy(array, spoilt) for name, array in self._outputs.items()}

    def describe(self) -> Description:
        runtime = {"version": "1", "latency_us": f"{self._plan.latency_ns / 1000:g}"}
        return Description(runtime, {"Identity": {self._artifact.precision: 2}})

    def profile_operators(self, inferences: int) -> ProfiledInferences:
        """Half of the latency in one operator, and a quarter in another."""
        latency_ms = self._plan.latency_ns / 1e6
        for _ in range(inferences):
            self.enqueue()
            self.synchronize()
        return ProfiledInferences(
            profiler="the fake backend's",
            operators=tuple(
                OperatorTimes(
                    name=name,
                    type="Identity",
                    precision=self._artifact.precision,
                    ms=(share * latency_ms,) * inferences,
                    fused=(name,),
                )
                for name, share in (("half", 0.5), ("quarter", 0.25))
            ),
            latency_ms=(latency_ms,) * inferences,
        )

    def close(self) -> None:
        self.closed = True

    def _open(self) -> None:
        if self.closed:
            raise MeasurementFailed("this session is closed", "prepare another one")


class FakeQueue:
    """A device that works on one inference at a time, in the order in which they were started."""

    def __init__(self) -> None:
        self._free_ns = 0

    def start(self, latency_ns: int) -> int:
        """When the inference started now will have ended."""
        self._free_ns = max(time.perf_counter_ns(), self._free_ns) + latency_ns
        return self._free_ns


class FakeDeviceSession(FakeSession):
    """A `FakeSession` with device times and device memory, asynchronous where the plan says so."""

    def __init__(
        self,
        artifact: Artifact,
        inputs: Arrays,
        plan: _Plan,
        clock: ManualClock | None,
        queue: FakeQueue,
    ) -> None:
        super().__init__(artifact, inputs, plan, clock)
        self.asynchronous = plan.asynchronous
        self._queue = queue
        self._ready_ns = 0
        self._armed = self._armed_at = self._peak_at = 0

    def enqueue(self) -> None:
        super().enqueue()
        if self.asynchronous:
            self._ready_ns = self._queue.start(self._plan.latency_ns)

    def synchronize(self) -> None:
        if not self.asynchronous:
            super().synchronize()
            return
        while (left_ns := self._ready_ns - time.perf_counter_ns()) > 0:
            time.sleep(left_ns / 1e9)

    def arm(self, iterations: int) -> None:
        self._armed, self._armed_at = iterations, self.inferences

    def device_times_ms(self) -> NDArray[np.float64]:
        done = min(self._armed, self.inferences - self._armed_at)
        return ((self._plan.device_ns or 0) + np.arange(done)) / 1e6

    def device_memory(self) -> Mapping[str, Maybe[int]]:
        """A peak of 1000 bytes and one more for each inference since the last reset."""
        return {"allocator_peak_bytes": 1000 + self.inferences - self._peak_at}

    def reset_device_peak(self) -> None:
        self._peak_at = self.inferences


def _copy(array: NDArray[Any], spoilt: bool) -> NDArray[Any]:
    copy = np.array(array)
    if spoilt and copy.dtype.kind == "f":
        copy.fill(np.nan)
    return copy
