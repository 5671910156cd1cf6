"""The tensors of an engine: their memory, and what moves them.

    boundary=compute    device input ──── inference ──── device output
    boundary=transfer   pinned host ─copy─ device ─ inference ─ device ─copy─ pinned host
                        └──────────────── what is timed ────────────────┘

An output whose size depends on the data has no memory until TensorRT asks for some while it runs.
Its copy to the host can start only once its size is known, so `finish` makes it.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.backends.cuda import Cuda
from harness.backends.session import check_same
from harness.errors import DataError, HarnessError, MeasurementFailed, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays

# tensorrt.DataType -> numpy; numpy has nothing for the rest (bf16, fp8, ...)
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


class Tensor:
    """One input or output. ``host`` is pinned where copies are timed, or where it must lie there.

    ``allocator`` is set for an output whose size depends on the data.
    """

    def __init__(self, name: str, dtype: np.dtype[Any], on_host: bool) -> None:
        self.name = name
        self.dtype = dtype
        self.on_host = on_host  # TensorRT itself reads or writes it in host memory
        self.shape: tuple[int, ...] = ()
        self.address = 0  # on the device; that of ``host`` where it is on_host
        self.host: NDArray[Any] | None = None
        self.allocator: Any = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Tensors:
    """All tensors of one session, bound to a context by `attach`."""

    def __init__(
        self, trt: Any, engine: Any, cuda: Cuda, stream: Any, transfer: bool, owner: ExitStack
    ) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._trt = trt
        self._cuda = cuda
        self._stream = stream
        self._transfer = transfer
        self._owner = owner
        # (target, source, bytes) of the copies that are timed
        self._sends: list[tuple[int, int, int]] = []
        self._fetches: list[tuple[int, int, int]] = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
            tensor = Tensor(name, _dtype(name, engine.get_tensor_dtype(name)), host)
            tensor.shape = tuple(engine.get_tensor_shape(name))
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (self.inputs if is_input else self.outputs).append(tensor)

    @property
    def dynamic(self) -> list[Tensor]:
        """The outputs whose size depends on the data."""
        return [tensor for tensor in self.outputs if tensor.allocator is not None]

    @property
    def io_bytes(self) -> int:
        """Device memory of all inputs and outputs, as far as it is known."""
        sizes = (t.allocator.size if t.allocator else t.nbytes for t in self._all if not t.on_host)
        return sum(sizes)

    @property
    def _all(self) -> list[Tensor]:
        return [*self.inputs, *self.outputs]

    def prepare(self, context: Any, inputs: Arrays) -> None:
        """Allocate everything for the shapes of ``inputs``, attach it, and fill the inputs.

        Raises `ModelError` where the engine does not take them, `MeasurementFailed` for lack of
        memory.
        """
        for tensor in self.inputs:
            array = inputs[tensor.name]
            if array.dtype != tensor.dtype:
                raise ModelError(
                    f"input {tensor.name!r} is {array.dtype}, the engine takes {tensor.dtype}"
                )
            self._place(tensor, array.shape)
        for tensor in self.outputs:
            if tensor.on_host:  # a shape itself: its size is known, and shapes are inferred into it
                self._place(tensor, tensor.shape)
        self.fill(inputs)
        self._attach_inputs(context)
        for tensor in self.outputs:
            if tensor.on_host:
                continue
            shape = tuple(context.get_tensor_shape(tensor.name))
            if any(size < 0 for size in shape):
                tensor.allocator = _allocator(self._trt, self._cuda, self._owner)
            else:
                self._place(tensor, shape)
        self._attach_outputs(context)
        self._plan_copies()

    def _plan_copies(self) -> None:
        """Addresses are looked up here once, and not in each inference."""
        for tensor in self._all:
            if not self._transfer or tensor.on_host or tensor.host is None:
                continue
            host, device = int(tensor.host.ctypes.data), tensor.address
            if tensor in self.inputs:
                self._sends.append((device, host, tensor.nbytes))
            else:
                self._fetches.append((host, device, tensor.nbytes))

    def _place(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        tensor.shape = tuple(shape)
        if self._transfer or tensor.on_host:
            tensor.host = self._cuda.pinned(tensor.shape, tensor.dtype, self._owner)
        if tensor.on_host and tensor.host is not None:
            tensor.address = int(tensor.host.ctypes.data)
        else:
            tensor.address = self._cuda.allocate(tensor.nbytes, self._owner)

    def attach(self, context: Any) -> None:
        """Bind another context of the same engine to the same memory."""
        self._attach_inputs(context)
        self._attach_outputs(context)

    def _attach_inputs(self, context: Any) -> None:
        for tensor in self.inputs:
            if not context.set_input_shape(tensor.name, tensor.shape):
                raise ModelError(
                    f"the engine does not take {tensor.shape} as input {tensor.name!r}"
                )
            _bound(context.set_tensor_address(tensor.name, tensor.address), tensor)
        for tensor in self.outputs:
            if tensor.on_host:
                _bound(context.set_tensor_address(tensor.name, tensor.address), tensor)
        open_ones = context.infer_shapes()
        if open_ones:
            raise ModelError(f"TensorRT cannot tell the shapes of {', '.join(open_ones)}")

    def _attach_outputs(self, context: Any) -> None:
        for tensor in self.outputs:
            if tensor.allocator is not None:
                _bound(context.set_output_allocator(tensor.name, tensor.allocator), tensor)
            else:
                _bound(context.set_tensor_address(tensor.name, tensor.address), tensor)

    def fill(self, inputs: Arrays) -> None:
        """Put ``inputs`` where an inference takes them from, and wait until they are there."""
        arrays = {tensor.name: np.asarray(inputs[tensor.name], order="C") for tensor in self.inputs}
        for tensor in self.inputs:
            array = arrays[tensor.name]
            if tensor.host is not None:
                np.copyto(tensor.host, array)
            else:
                data = int(array.ctypes.data)
                kind = self._cuda.to_device
                self._cuda.copy(tensor.address, data, tensor.nbytes, kind, self._stream)
        self._cuda.wait(self._stream)  # before ``arrays`` goes

    def check_same(self, inputs: Arrays) -> None:
        """Raises `DataError` where ``inputs`` are not like those that are bound."""
        check_same({t.name: (t.dtype, t.shape) for t in self.inputs}, inputs)
        for tensor in self.inputs:
            array = inputs[tensor.name]
            held = tensor.host if tensor.on_host else None
            if held is not None and not np.array_equal(held, array):
                raise DataError(
                    f"input {tensor.name!r} decides shapes, so the engine is built for its values",
                    "prepare another session for other values",
                )

    def send(self) -> None:
        """Start copying the inputs to the device; nothing where they are there already."""
        for target, source, size in self._sends:
            self._cuda.copy(target, source, size, self._cuda.to_device, self._stream)

    def fetch(self) -> None:
        """Start copying the outputs of known size to the host; nothing where they stay."""
        for target, source, size in self._fetches:
            self._cuda.copy(target, source, size, self._cuda.to_host, self._stream)

    def finish(self) -> None:
        """Settle the outputs of unknown size once the inference is done, and copy them if asked."""
        for tensor in self.dynamic:
            if not tensor.allocator.address:
                continue  # nothing has run yet
            tensor.shape = tensor.allocator.shape
            tensor.address = tensor.allocator.address
            if self._transfer:
                tensor.host = self._download(tensor)

    def results(self) -> dict[str, NDArray[Any]]:
        """Copies of the outputs on the host, of an inference that is done."""
        self.finish()
        return {
            t.name: np.array(t.host) if t.host is not None else self._download(t)
            for t in self.outputs
        }

    def _download(self, tensor: Tensor) -> NDArray[Any]:
        array = np.empty(tensor.shape, tensor.dtype)
        kind = self._cuda.to_host
        self._cuda.copy(int(array.ctypes.data), tensor.address, tensor.nbytes, kind, self._stream)
        self._cuda.wait(self._stream)
        return array


def _dtype(name: str, kind: Any) -> np.dtype[Any]:
    found = _DTYPES.get(kind.name)
    if found is None:
        raise ModelError(
            f"tensor {name!r} is {kind.name}, which numpy has no type for",
            "give the model float32 inputs and outputs",
        )
    return np.dtype(found)


def _bound(accepted: bool, tensor: Tensor) -> None:
    if not accepted:
        raise MeasurementFailed(f"TensorRT refused the memory of {tensor.name!r}")


def _allocator(trt: Any, cuda: Cuda, owner: ExitStack) -> Any:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        """Gives an output the memory it turns out to need; it grows and never shrinks.

        TensorRT calls it in the middle of an inference, so what it raises is kept for the caller.
        """

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = 0
            self.size = 0
            self.shape: tuple[int, ...] = ()
            self.error: HarnessError | None = None
            self._memory = ExitStack()
            owner.push(self._memory)

        def reallocate_output(
            self, tensor_name: str, memory: int, size: int, alignment: int
        ) -> int:
            if not self.address or size > self.size:
                try:
                    self._memory.close()  # frees what was too small, when the device is done
                    self.address = cuda.allocate(size, self._memory)
                    self.size = size
                except HarnessError as error:
                    self.address, self.error = 0, error
            return self.address

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()
