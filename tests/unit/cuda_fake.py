"""The CUDA runtime of ``cuda.bindings``, on host memory: every call is bound to the real signature.

Device memory is host memory that only this fake may touch. Work waits on its stream until somebody
waits for it, so that what is read too early is seen to be absent. Time is counted: a copy takes
0.25 ms, whatever else is put on a stream says for itself.
"""

from __future__ import annotations

import ctypes
import inspect
import threading
from collections.abc import Callable
from typing import Any

COPY_MS = 0.25
Work = Callable[[], None]


class FakeCuda:
    """Stands in for the module; ``real`` is the module itself."""

    def __init__(self, real: Any, devices: int = 2) -> None:
        self._real = real
        self._devices = devices
        self._current = threading.local()
        self._lock = threading.RLock()
        self._next = 0x1000
        self.now_ms = 0.0
        self.device: dict[int, Any] = {}  # address -> memory
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {}
        self.stream_device: dict[int, int] = {}
        self.events: dict[int, float | None] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.calls: list[str] = []
        self.faults: dict[str, list[Any]] = {}  # function -> [calls that succeed first, error]

    @property
    def live(self) -> dict[str, int]:
        """What is held and not given back, by kind; empty when all is freed."""
        kinds = ("device", "pinned", "streams", "events", "graphs", "executables")
        return {kind: len(held) for kind in kinds if (held := getattr(self, kind))}

    def fail(self, function: str, error: str, after: int = 0) -> None:
        """Let ``function`` fail from its call number ``after`` on."""
        self.faults[function] = [after, getattr(self._real.cudaError_t, error)]

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)  # what CUDA has not is an AttributeError here too
        if not callable(real) or isinstance(real, type):
            return real
        signature = inspect.signature(real)
        own = getattr(type(self), f"_do_{name}")

        def call(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
            bound = signature.bind(*args, **kwargs)
            with self._lock:
                self.calls.append(name)
                if name in self.faults and self.faults[name][0] <= 0:
                    values = (
                        1 if name.startswith(("cudaMalloc", "cudaStreamC", "cudaEventC")) else 0
                    )
                    return (self.faults[name][1], *(None,) * values)
                if name in self.faults:
                    self.faults[name][0] -= 1
                made = own(self, *bound.args)
            status = self._real.cudaError_t
            if isinstance(made, status):
                return (made,)
            return (status.cudaSuccess, *(() if made is None else (made,)))

        return call

    def _handle(self) -> int:
        self._next += 0x10
        return self._next

    def put(self, stream: int, work: Work) -> Any:
        """Queue ``work``; an error where the stream is not of the thread's device."""
        if self.stream_device.get(stream) != getattr(self._current, "device", 0):
            return self._real.cudaError_t.cudaErrorInvalidResourceHandle
        self.capturing.get(stream, self.streams[stream]).append(work)
        return None

    def flush(self, stream: int) -> None:
        """Do what is queued on ``stream``."""
        queue, self.streams[stream] = self.streams[stream], []
        for work in queue:
            work()

    def read(self, address: int, size: int) -> bytes:
        """Device memory, checked to be somebody's."""
        held = self.device[address]
        assert size <= ctypes.sizeof(held), "beyond the end of device memory"
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes) -> None:
        assert len(data) <= ctypes.sizeof(self.device[address]), "beyond the end of device memory"
        ctypes.memmove(address, data, len(data))

    # -- the calls, by their real names -----------------------------------------------------------

    def _do_cudaSetDevice(self, device: int) -> Any:  # noqa: N802
        if device >= self._devices:
            return self._real.cudaError_t.cudaErrorInvalidDevice
        self._current.device = device
        return None

    def _do_cudaRuntimeGetVersion(self) -> int:  # noqa: N802
        return 13050

    def _do_cudaDeviceSynchronize(self) -> None:  # noqa: N802
        for stream in list(self.streams):
            self.flush(stream)

    def _do_cudaMalloc(self, size: int) -> int:  # noqa: N802
        memory = (ctypes.c_ubyte * size)(*([0xAA] * min(size, 64)))
        self.device[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def _do_cudaFree(self, address: int) -> None:  # noqa: N802
        del self.device[address]  # a KeyError: freed twice, or never allocated

    def _do_cudaMallocHost(self, size: int) -> int:  # noqa: N802
        memory = (ctypes.c_ubyte * size)()
        self.pinned[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def _do_cudaFreeHost(self, address: int) -> None:  # noqa: N802
        del self.pinned[address]

    def _do_cudaStreamCreateWithFlags(self, flags: int) -> Any:  # noqa: N802
        assert flags == self._real.cudaStreamNonBlocking
        handle = self._handle()
        self.streams[handle] = []
        self.stream_device[handle] = getattr(self._current, "device", 0)
        return self._real.cudaStream_t(handle)

    def _do_cudaStreamDestroy(self, stream: Any) -> None:  # noqa: N802
        del self.streams[int(stream)]

    def _do_cudaStreamSynchronize(self, stream: Any) -> Any:  # noqa: N802
        if int(stream) in self.capturing:
            return self._real.cudaError_t.cudaErrorStreamCaptureUnsupported
        self.flush(int(stream))
        return None

    def _do_cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: Any, stream: Any
    ) -> Any:
        kinds = self._real.cudaMemcpyKind

        def work() -> None:
            self.now_ms += COPY_MS
            if kind == kinds.cudaMemcpyHostToDevice:
                self.write(target, ctypes.string_at(source, size))
            else:
                assert kind == kinds.cudaMemcpyDeviceToHost
                ctypes.memmove(target, self.read(source, size), size)

        return self.put(int(stream), work)

    def _do_cudaEventCreateWithFlags(self, flags: int) -> Any:  # noqa: N802
        assert flags == self._real.cudaEventDefault, "an event without timing"
        handle = self._handle()
        self.events[handle] = None
        return self._real.cudaEvent_t(handle)

    def _do_cudaEventDestroy(self, event: Any) -> None:  # noqa: N802
        del self.events[int(event)]

    def _do_cudaEventRecord(self, event: Any, stream: Any) -> Any:  # noqa: N802
        return self.put(int(stream), lambda: self.events.update({int(event): self.now_ms}))

    def _do_cudaEventElapsedTime(self, start: Any, end: Any) -> Any:  # noqa: N802
        first, last = self.events[int(start)], self.events[int(end)]
        if first is None or last is None:
            return self._real.cudaError_t.cudaErrorInvalidResourceHandle
        return last - first

    def _do_cudaStreamBeginCapture(self, stream: Any, mode: Any) -> None:  # noqa: N802
        assert mode == self._real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.capturing[int(stream)] = []

    def _do_cudaStreamEndCapture(self, stream: Any) -> Any:  # noqa: N802
        handle = self._handle()
        self.graphs[handle] = self.capturing.pop(int(stream))
        return self._real.cudaGraph_t(handle)

    def _do_cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:  # noqa: N802
        handle = self._handle()
        self.executables[handle] = list(self.graphs[int(graph)])
        return self._real.cudaGraphExec_t(handle)

    def _do_cudaGraphDestroy(self, graph: Any) -> None:  # noqa: N802
        del self.graphs[int(graph)]

    def _do_cudaGraphExecDestroy(self, executable: Any) -> None:  # noqa: N802
        del self.executables[int(executable)]

    def _do_cudaGraphLaunch(self, executable: Any, stream: Any) -> Any:  # noqa: N802
        for work in self.executables[int(executable)]:
            failed = self.put(int(stream), work)
            if failed:
                return failed
        return None

    def _do_cudaGetErrorString(self, error: Any) -> bytes:  # noqa: N802
        return self._real.cudaGetErrorString(error)[1]
