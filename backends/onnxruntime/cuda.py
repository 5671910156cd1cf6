"""ONNX Runtime on a CUDA device: inputs and outputs bound in device memory, a stream of its own.

    compute    run(binding)                                       outputs stay on the device
    transfer   pinned host -> device | run(binding) | device -> pinned host       one stream

The stream, the events and the pinned memory come from NVIDIA's bindings (`harness.backends.cuda`):
with them a run is only queued, and ``synchronize`` waits for the stream. Without them a run waits
for itself, there is no device time, and no ``transfer``. A stream belongs to an `InferenceSession`,
so each of our sessions loads the model anew.

    first inference    outputs are allocated by the runtime, then bound where they lie; those whose
                       size changes are allocated anew each time, which no graph and no copy allows
    cuda_graph=on      that inference is left out of the capture; of the next ones the runtime
                       warms up with two, captures one and replays it from then on

A provider that fails is never replaced by the CPU, and a node that the CPU would compute ends the
run: sessions are refused where the CPU was given nodes whose tensors are more than shapes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.backends.common import cuda_index, nothing, refuse_closed
from harness.backends.cuda import PIP, Cuda, bindings
from harness.backends.device_events import EventTimer
from harness.backends.onnxruntime.buffers import Buffers
from harness.backends.onnxruntime.module import (
    Loaded,
    check_declared,
    cudnn_version,
    line,
    load_libraries,
    raise_mapped,
    run_mapped,
)
from harness.backends.onnxruntime.options import TENSORRT, settings, wanted
from harness.backends.onnxruntime_values import RAW
from harness.backends.session import SessionBase, check_same, types_of
from harness.errors import BackendUnavailable, HarnessError, MeasurementFailed, ModelError
from harness.maybe import Maybe, Unavailable
from harness.protocols import Artifact, Description, SessionOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.protocols import Arrays

UNREADABLE = RAW | {"tensor(string)"}
_CAPTURE_RUNS = 3  # two that the runtime warms up with, and the one that it captures
_PLUG_IN = ", cuda-plugin-ep="  # in what the runtime says of its build
_SHOWN = 5
_FUSED = Unavailable(
    "TensorRT fuses the graph, and ONNX Runtime does not say in which precision its layers ran",
    "use --backend tensorrt, which reads it from the engine",
)
_NO_ARENA = Unavailable(
    "ONNX Runtime does not tell what its arena holds", "see process_bytes, the driver's figure"
)


class CudaSession(SessionBase[Loaded]):
    """One stream over a model of its own. After the first inference ``enqueue`` raises foreign
    exceptions, as on the CPU."""

    def __init__(
        self, artifact: Artifact, inputs: Arrays, options: SessionOptions, gpu: str
    ) -> None:
        import onnxruntime as ort

        provider = wanted(options)
        if provider == TENSORRT and settings(options)["tf32"] == "off":
            os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # the provider has no option for it
        load_libraries(ort, provider)
        self._owner = ExitStack()
        cuda, self._stream = _runtime(options, self._owner)
        self._cuda: Cuda | None = None if isinstance(cuda, Unavailable) else cuda
        self._untimed = cuda if isinstance(cuda, Unavailable) else None
        # Whatever they are told, TensorRT's provider waits for each replay of its graph, CUDA's for
        # each run that is no replay, where it is built as a plug-in.
        graph = settings(options)["cuda_graph"] == "on"
        waits = graph if provider == TENSORRT else not graph and _PLUG_IN in ort.get_build_info()
        self.asynchronous = self._cuda is not None and not waits
        handle = None if self._stream is None else int(self._stream)
        self._loaded: Loaded | None = None
        self._landings = self._owner.enter_context(ExitStack())
        try:
            loaded = Loaded(artifact, options, gpu, handle)
            check_declared(loaded.session.get_inputs(), inputs)
            self._shapes = types_of(inputs)
            self._buffers = Buffers(loaded.session, inputs, cuda_index(options))
            self._up = self._pin(inputs, options)
            self._down: list[tuple[NDArray[Any], int]] = []
        except HarnessError:
            self._owner.close()
            raise
        except Exception as error:
            self._owner.close()
            raise_mapped(error, "onnxruntime cannot use the device", ModelError)
        self._loaded = loaded
        self._timer = self._events()
        self._run = self._first
        self.enqueue = self._first
        self.synchronize = partial(self._cuda.wait, self._stream) if self._cuda else nothing
        try:
            self._refuse_fallback(loaded)
        except BaseException:
            self.close()
            raise

    def _pin(self, inputs: Arrays, options: SessionOptions) -> dict[str, NDArray[Any]]:
        """Pinned memory with ``inputs`` in it, where each inference uploads them."""
        if options.boundary != "transfer" or self._cuda is None:
            return {}
        made = {}
        for name, array in inputs.items():
            made[name] = self._cuda.pinned(array.shape, array.dtype, self._owner)
            made[name][...] = array
        return made

    def _events(self) -> EventTimer[Any] | None:
        cuda, stream = self._cuda, self._stream
        if cuda is None:
            return None
        return cuda.timer(lambda event: cuda.record(event, stream))

    def _refuse_fallback(self, loaded: Loaded) -> None:
        """Raises `MeasurementFailed` naming what the CPU would compute."""
        if loaded.on_cpu() == []:
            return
        fallen = loaded.profile(self._once_bound).fallen_back
        if fallen:
            rest = f" and {len(fallen) - _SHOWN} more" if len(fallen) > _SHOWN else ""
            raise MeasurementFailed(
                f"{len(fallen)} nodes would run on the CPU: {', '.join(fallen[:_SHOWN])}{rest}",
                f"{loaded.wanted} of this onnxruntime has no kernels for them in these types: "
                "try another precision or opset, or --device cpu",
            )

    def _once_bound(self, session: Any) -> None:
        """One inference of another session, on the same inputs."""
        arrays = {name: value.numpy() for name, value in self._buffers.inputs.items()}
        other = Buffers(session, arrays, self._buffers.index)
        session.run_with_iobinding(other.native, other.options(graph=False, wait=True))

    def _first(self) -> None:
        """Have the outputs allocated, bind them where they lie, and capture a graph if asked to."""
        loaded, buffers = self._open(), self._buffers
        graph = loaded.settings["cuda_graph"] == "on"
        run = loaded.session.run_with_iobinding

        def settle() -> None:
            run(buffers.native, buffers.options(graph=False, wait=True))
            buffers.keep_outputs(loaded.varying)
            self._refuse_changing(graph)
            for _ in range(_CAPTURE_RUNS if graph else 0):
                run(buffers.native, buffers.options(graph=True, wait=True))

        run_mapped(settle)
        options = buffers.options(graph=graph, wait=self._cuda is None)
        queue = buffers.anew(partial(run, buffers.native, options))
        self._run = self._around(queue)
        run_mapped(self._run)
        self.synchronize()
        self.enqueue = self._run

    def _refuse_changing(self, graph: bool) -> None:
        """Raises `MeasurementFailed` where what is asked for needs outputs that stay in place."""
        transfer = self._open().options.boundary == "transfer"
        names = list(self._buffers.changing)
        if transfer:
            names += [n for n in self._buffers.outputs if self._buffers.types[n] in UNREADABLE]
        if names and (graph or transfer):
            raise MeasurementFailed(
                f"{', '.join(names)} cannot be bound: its size changes, or numpy has not its type",
                "use --boundary compute" if transfer else "leave out --option cuda_graph=on",
            )

    def _around(self, queue: Callable[[], None]) -> Callable[[], None]:
        """``queue`` between its copies, where the boundary has them inside."""
        cuda, stream = self._cuda, self._stream
        if self._open().options.boundary != "transfer" or cuda is None:
            return queue
        ups = [
            (self._buffers.inputs[name].data_ptr(), int(host.ctypes.data), host.nbytes)
            for name, host in self._up.items()
        ]
        self._landings.close()  # of the outputs before, which may have had other shapes
        self._down = [self._landing(cuda, v) for v in self._buffers.outputs.values()]
        downs = [(int(host.ctypes.data), address, host.nbytes) for host, address in self._down]

        def transfer() -> None:
            for address, host, size in ups:
                cuda.copy(address, host, size, cuda.to_device, stream)
            queue()
            for host, address, size in downs:
                cuda.copy(host, address, size, cuda.to_host, stream)

        return transfer

    def _landing(self, cuda: Cuda, value: Any) -> tuple[NDArray[Any], int]:
        array = value.numpy()  # its type and shape
        return cuda.pinned(array.shape, array.dtype, self._landings), int(value.data_ptr())

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        loaded = self._open()
        check_same(self._shapes, inputs)
        self.synchronize()
        self._buffers.replace(inputs)
        for name, host in self._up.items():
            host[...] = inputs[name]
        if self._cuda is not None:
            self._cuda.use()
            self._cuda.finish()
        if loaded.settings["cuda_graph"] == "off":  # other data may have outputs of other shapes
            self._buffers.release_outputs()
            self.enqueue = self._first

    def outputs(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        self._open()
        self.synchronize()
        if self._down:
            pairs = zip(self._buffers.outputs, self._down, strict=True)
            return {name: np.array(host) for name, (host, _) in pairs}
        values = self._buffers.values()
        return {n: np.array(v.numpy()) for n, v in values.items() if self._readable(n, v)}

    def unseen(self) -> dict[str, str]:
        self._open()
        values, types = self._buffers.values(), self._buffers.types
        found = {n: f"a {types[n]}" for n, v in values.items() if not self._readable(n, v)}
        return {**found, **self._buffers.optionals}

    def _readable(self, name: str, value: Any) -> bool:
        """Whether numpy has its type: the runtime copies nothing else from a device."""
        return bool(value.is_tensor()) and self._buffers.types[name] not in UNREADABLE

    def arm(self, iterations: int) -> Unavailable | None:
        self._open()
        if self._timer is None:
            return self._untimed
        self._timer.arm(iterations)
        self.synchronize()
        self.enqueue = self._timer.timed(self._run) if iterations else self._run
        return None

    def device_times_ms(self) -> NDArray[np.float64]:
        import numpy as np

        if self._timer is None:
            return np.empty(0)
        self.synchronize()
        return self._timer.times_ms()

    def device_memory(self) -> Mapping[str, Maybe[int]]:
        return {"allocator_peak_bytes": _NO_ARENA}

    def reset_device_peak(self) -> None:
        """There is none."""

    def describe(self) -> Description:
        loaded = self._open()
        runtime = _runtime_facts(loaded, self._stream is not None)
        operators: Maybe[dict[str, dict[str, int]]]
        try:
            ran = loaded.profile(self._once_bound)
            operators, runtime["nodes_by_provider"] = ran.operators, ran.nodes_by_provider
        except (HarnessError, OSError, ValueError, KeyError) as error:
            operators = Unavailable(f"a profiled inference failed: {line(error)}")
        return Description(runtime, _FUSED if loaded.wanted == TENSORRT else operators)

    def profile_operators(self, inferences: int) -> Unavailable:
        """The profiler times how long a kernel's launch takes on the host, which says nothing."""
        return Unavailable(
            "ONNX Runtime's profiler times the launch of a kernel on a GPU, not the kernel",
            "use --backend pytorch or tensorrt, whose profilers read the device's clock",
        )

    def close(self) -> None:
        if self._loaded is None:
            return
        with contextlib.suppress(HarnessError):  # after a failed kernel CUDA answers nothing more
            self.synchronize()
            if self._timer is not None:
                self._timer.arm(0)
        self._loaded = None
        self.enqueue = self.synchronize = self._run = refuse_closed
        self._down.clear()
        self._up.clear()
        del self._buffers  # and with it the last hold on the model, before its stream goes
        self._stream = None
        self._owner.close()


def _runtime(options: SessionOptions, owner: ExitStack) -> tuple[Cuda | Unavailable, Any]:
    """CUDA's functions and a stream, or why there are none. Raises `BackendUnavailable` where they
    are needed, or where the device cannot be had."""
    module = bindings()
    if not isinstance(module, Unavailable):
        cuda = Cuda(module, cuda_index(options))
        try:
            cuda.use("using cuda-bindings")  # of a CUDA of their own
            return cuda, cuda.stream(owner)
        except MeasurementFailed as error:
            if error.remedy:
                raise
            raise BackendUnavailable(error.message, "see dmesg") from error
    if options.boundary == "transfer":
        raise BackendUnavailable(
            "--boundary transfer copies from pinned memory, which onnxruntime has none of: "
            f"{module.reason}",
            PIP,
        )
    return module, None


def _runtime_facts(loaded: Loaded, own_stream: bool) -> dict[str, str]:
    import onnxruntime as ort

    session = loaded.session
    read = session.get_session_options()
    given = session.get_provider_options()
    facts = {
        "version": ort.__version__,
        "build": ort.get_build_info().removeprefix("ORT Build Info: "),
        "provider": loaded.wanted,
        "providers": ", ".join(session.get_providers()),
        "stream": "one of its own" if own_stream else f"the provider's; for one of its own: {PIP}",
        "cudnn": cudnn_version(),
        "tf32": loaded.settings["tf32"],
        "cuda_graph": loaded.settings["cuda_graph"],
        "graph_optimization_level": read.graph_optimization_level.name,
        "binding": "inputs and outputs bound in device memory",
        "boundary": loaded.options.boundary,
        "int8": "TensorRT's own kernels"
        if loaded.wanted == TENSORRT
        else "CUDA has no int8 convolutions here: Q/DQ graphs compute in floating point",
    }
    for name, value in sorted(given.get(loaded.wanted, {}).items()):
        if value and not name.endswith(("_stream", "_alloc", "_free", "_cache", "bytestream")):
            facts[f"option {name}"] = str(value)
    return facts
