"""Streams, events and pinned memory of CUDA, through NVIDIA's own bindings (cuda-bindings).

For runtimes that bring no such functions themselves, so that none has to import PyTorch for them.
Every call of the bindings returns its error first; `CudaRuntime` raises it as `CudaError`.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from harness.backends.common import import_framework
from harness.maybe import Unavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import TensorSpec

PIP = "pip install cuda-bindings"


class CudaError(RuntimeError):
    """CUDA refused; the message holds the error's name and CUDA's own sentence."""


def cuda_runtime(index: int) -> CudaRuntime | Unavailable:
    """The functions for device ``index``, or why there are none. Raises `CudaError`."""
    module: Any = import_framework("cuda.bindings.runtime", "cuda-bindings", PIP)
    return module if isinstance(module, Unavailable) else CudaRuntime(module, index)


class CudaRuntime:
    """What a session needs of CUDA. Handles are the bindings' own objects."""

    def __init__(self, bindings: Any, index: int) -> None:
        self._bindings = bindings
        self.index = index
        self._done(bindings.cudaSetDevice(index))
        kinds = bindings.cudaMemcpyKind
        self._up, self._down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost

    def _done(self, answer: tuple[Any, ...]) -> Any:
        error, *values = answer
        if error != self._bindings.cudaError_t.cudaSuccess:
            _, text = self._bindings.cudaGetErrorString(error)
            raise CudaError(f"{error.name}: {text.decode(errors='replace')}")
        return values[0] if values else None

    def stream(self) -> Any:
        """One that does not wait for the default stream."""
        return self._done(
            self._bindings.cudaStreamCreateWithFlags(self._bindings.cudaStreamNonBlocking)
        )

    def destroy_stream(self, stream: Any) -> None:
        self._done(self._bindings.cudaStreamDestroy(stream))

    def wait(self, stream: Any) -> None:
        """Return when all that was queued on ``stream`` is done."""
        self._done(self._bindings.cudaStreamSynchronize(stream))

    def wait_for_all(self) -> None:
        self._done(self._bindings.cudaSetDevice(self.index))
        self._done(self._bindings.cudaDeviceSynchronize())

    def event(self) -> Any:
        """One that can be timed."""
        return self._done(self._bindings.cudaEventCreateWithFlags(self._bindings.cudaEventDefault))

    def destroy_event(self, event: Any) -> None:
        self._done(self._bindings.cudaEventDestroy(event))

    def record(self, event: Any, stream: Any) -> None:
        self._done(self._bindings.cudaEventRecord(event, stream))

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._done(self._bindings.cudaEventElapsedTime(start, end)))

    def upload(self, to: int, host: Pinned, stream: Any) -> None:
        """Queue a copy of ``host`` to the device address ``to``."""
        size = host.size_bytes
        self._done(self._bindings.cudaMemcpyAsync(to, host.address, size, self._up, stream))

    def download(self, host: Pinned, address: int, stream: Any) -> None:
        """Queue a copy from the device ``address`` to ``host``."""
        size = host.size_bytes
        self._done(self._bindings.cudaMemcpyAsync(host.address, address, size, self._down, stream))

    def pinned(self, spec: TensorSpec) -> Pinned:
        """Page-locked host memory for a tensor."""
        import numpy as np

        dtype = np.dtype(spec.dtype)
        size = int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
        flags = self._bindings.cudaHostAllocDefault
        address = int(self._done(self._bindings.cudaHostAlloc(max(size, 1), flags)))
        block: Any = (ctypes.c_ubyte * size).from_address(address)
        return Pinned(address, size, np.frombuffer(block, dtype).reshape(spec.shape))

    def free(self, host: Pinned) -> None:
        self._done(self._bindings.cudaFreeHost(host.address))


class Pinned:
    """Page-locked memory and an array over it, which must not outlive it."""

    def __init__(self, address: int, size_bytes: int, array: NDArray[Any]) -> None:
        self.address, self.size_bytes, self.array = address, size_bytes, array
