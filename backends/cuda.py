"""CUDA as the adapters need it: memory, streams, events and graphs.

For runtimes that bring no such functions themselves, so that none has to import PyTorch for them:
NVIDIA's own ``cuda.bindings.runtime`` does the calls. Each returns a tuple of status and values;
here a status other than success becomes one of our errors, and whatever is acquired is given to an
`ExitStack`, so that it is released when the session closes or when preparing it fails half-way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from harness.backends.common import import_framework
from harness.backends.device_events import EventTimer
from harness.errors import HarnessError, MeasurementFailed
from harness.host.cuda_errors import cuda_failure

if TYPE_CHECKING:
    from numpy.typing import NDArray


PIP = "pip install cuda-bindings"


def bindings(remedy: str = PIP) -> Any:
    """The module ``cuda.bindings.runtime``, or why it cannot be imported."""
    return import_framework("cuda.bindings.runtime", "cuda-bindings", remedy)


class Cuda:
    """One device. ``runtime`` is the module ``cuda.bindings.runtime``."""

    def __init__(self, runtime: Any, index: int) -> None:
        self.runtime = runtime
        self.index = index
        kinds = runtime.cudaMemcpyKind
        self.to_device = kinds.cudaMemcpyHostToDevice
        self.to_host = kinds.cudaMemcpyDeviceToHost

    def check(self, result: tuple[Any, ...], what: str) -> Any:
        """The value of a call, or the values. Raises the error that its status stands for."""
        status, *values = result
        if status != self.runtime.cudaError_t.cudaSuccess:
            raise self.error(status, what)
        return values[0] if len(values) == 1 else tuple(values)

    def error(self, status: Any, what: str) -> HarnessError:
        """Our error for a failed call."""
        text, where = f"{status.name}: {self._text(status)}", f"{what} on cuda:{self.index}"
        return cuda_failure(text, where) or MeasurementFailed(f"{where}: {text}")

    def _text(self, status: Any) -> str:
        _, text = self.runtime.cudaGetErrorString(status)
        return text.decode(errors="replace") if isinstance(text, bytes) else "an error of CUDA"

    def use(self, what: str = "using the device") -> None:
        """Make the device this thread's: CUDA keeps that per thread, and starts with the first."""
        self.check(self.runtime.cudaSetDevice(self.index), what)

    def allocate(self, size: int, owner: ExitStack) -> int:
        """Device memory of ``size`` bytes, at least one; its address."""
        address = int(self.check(self.runtime.cudaMalloc(max(1, size)), f"allocating {size} bytes"))
        owner.callback(self.runtime.cudaFree, address)
        return address

    def pinned(self, shape: tuple[int, ...], dtype: Any, owner: ExitStack) -> NDArray[Any]:
        """An array in page-locked host memory, which the device copies from without a detour.

        It must not be touched once ``owner`` has closed.
        """
        import ctypes
        import math

        import numpy as np

        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        result = self.runtime.cudaMallocHost(max(1, size))
        address = int(self.check(result, f"pinning {size} bytes"))
        owner.callback(self.runtime.cudaFreeHost, address)
        memory = (ctypes.c_ubyte * max(1, size)).from_address(address)
        return np.frombuffer(memoryview(memory).cast("B"), kind, math.prod(shape)).reshape(shape)

    def stream(self, owner: ExitStack) -> Any:
        """A stream that does not wait for the legacy default stream."""
        flags = self.runtime.cudaStreamNonBlocking
        made = self.check(self.runtime.cudaStreamCreateWithFlags(flags), "creating a stream")
        owner.callback(self.runtime.cudaStreamDestroy, made)
        return made

    def event(self) -> Any:
        """An event that keeps its time, about half a microsecond fine."""
        flags = self.runtime.cudaEventDefault
        return self.check(self.runtime.cudaEventCreateWithFlags(flags), "creating an event")

    def timer(self, record: Callable[[Any], object]) -> EventTimer[Any]:
        """Of events that ``record`` puts on a stream."""
        release = self.runtime.cudaEventDestroy
        return EventTimer(self.event, record, self.elapsed_ms, release)

    def record(self, event: Any, stream: Any) -> None:
        """Put ``event`` on ``stream``."""
        (status,) = self.runtime.cudaEventRecord(event, stream)
        if status:
            raise self.error(status, "recording an event")

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have both happened."""
        return float(self.check(self.runtime.cudaEventElapsedTime(start, end), "reading events"))

    def wait(self, stream: Any) -> None:
        """Return when all work of ``stream`` is done."""
        self.check(self.runtime.cudaStreamSynchronize(stream), "waiting for the device")

    def finish(self) -> None:
        """Return when all work of the device is done."""
        self.check(self.runtime.cudaDeviceSynchronize(), "waiting for the device")

    def copy(self, target: int, source: int, size: int, kind: Any, stream: Any) -> None:
        """Start a copy on ``stream``."""
        if size:
            (status,) = self.runtime.cudaMemcpyAsync(target, source, size, kind, stream)
            if status:
                raise self.error(status, f"copying {size} bytes")

    def capture(self, work: Callable[[], object], stream: Any, owner: ExitStack) -> Any:
        """What ``work`` puts on ``stream``, as a graph to launch. The work is not done.

        Raises `MeasurementFailed` where some of it cannot be captured.
        """
        runtime = self.runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.check(runtime.cudaStreamBeginCapture(stream, mode), "capturing a CUDA graph")
        try:
            work()
        except BaseException:
            # The stream is of no use until its capture has ended; what went wrong is raised.
            status, graph = runtime.cudaStreamEndCapture(stream)
            if not status and graph is not None and int(graph):
                runtime.cudaGraphDestroy(graph)
            raise
        graph = self.check(runtime.cudaStreamEndCapture(stream), "capturing a CUDA graph")
        try:
            made = self.check(runtime.cudaGraphInstantiate(graph, 0), "making a CUDA graph")
        finally:
            runtime.cudaGraphDestroy(graph)
        owner.callback(runtime.cudaGraphExecDestroy, made)
        return made
