"""ONNX Runtime on a CUDA device: inputs and outputs bound in device memory, a stream of its own.

    compute    run(binding)                                       outputs stay on the device
    transfer   pinned host -> device | run(binding) | device -> pinned host       one stream

The stream, the events and the pinned memory come from NVIDIA's bindings (`cuda_runtime`): with them
a run is only queued, and ``synchronize`` waits for the stream. Without them a run waits for itself,
there is no device time, and no ``transfer``. A stream belongs to an `InferenceSession`, so each of
our sessions loads the model anew.

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
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.backends.common import cuda_index, nothing, refuse_closed
from harness.backends.cuda_runtime import PIP, CudaError, CudaRuntime, Pinned, cuda_runtime
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
from harness.host.cuda_errors import cuda_failure
from harness.maybe import Maybe, Unavailable
from harness.protocols import Artifact, Description, SessionOptions, TensorSpec

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
        cuda, self._stream = _runtime(options)
        self._cuda: CudaRuntime | None = None if isinstance(cuda, Unavailable) else cuda
        self._untimed = cuda if isinstance(cuda, Unavailable) else None
        # Whatever they are told, TensorRT's provider waits for each replay of its graph, CUDA's for
        # each run that is no replay, where it is built as a plug-in.
        graph = settings(options)["cuda_graph"] == "on"
        waits = graph if provider == TENSORRT else not graph and _PLUG_IN in ort.get_build_info()
        self.asynchronous = self._cuda is not None and not waits
        handle = None if self._stream is None else int(self._stream)
        self._loaded: Loaded | None = None
        self._pinned: list[Pinned] = []
        try:
            loaded = Loaded(artifact, options, gpu, handle)
            check_declared(loaded.session.get_inputs(), inputs)
            self._shapes = types_of(inputs)
            self._buffers = Buffers(loaded.session, inputs, cuda_index(options))
            self._up, self._down = self._pin(inputs, options), list[tuple[Pinned, int]]()
        except HarnessError:
            self._free()
            raise
        except Exception as error:
            self._free()
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

    def _pin(self, inputs: Arrays, options: SessionOptions) -> list[tuple[Pinned, str]]:
        """Pinned memory with ``inputs`` in it, where each inference uploads them."""
        if options.boundary != "transfer" or self._cuda is None:
            return []
        made = []
        for name, array in inputs.items():
            pinned = self._new_pinned(self._cuda, array)
            pinned.array[...] = array
            made.append((pinned, name))
        return made

    def _events(self) -> EventTimer[Any] | None:
        cuda, stream = self._cuda, self._stream
        if cuda is None:
            return None
        return EventTimer(
            cuda.event,
            lambda event: cuda.record(event, stream),
            cuda.elapsed_ms,
            cuda.destroy_event,
        )

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
        up = [(self._buffers.inputs[name].data_ptr(), pinned) for pinned, name in self._up]
        for pinned, _ in self._down:  # of the outputs before, which may have had other shapes
            self._pinned.remove(pinned)
            cuda.free(pinned)
        down = self._down = [self._landing(cuda, v) for v in self._buffers.outputs.values()]

        def transfer() -> None:
            for address, pinned in up:
                cuda.upload(address, pinned, stream)
            queue()
            for pinned, address in down:
                cuda.download(pinned, address, stream)

        return transfer

    def _landing(self, cuda: CudaRuntime, value: Any) -> tuple[Pinned, int]:
        array = value.numpy()  # its type and shape
        return self._new_pinned(cuda, array), int(value.data_ptr())

    def _new_pinned(self, cuda: CudaRuntime, array: Any) -> Pinned:
        pinned = cuda.pinned(TensorSpec("", array.dtype.name, array.shape))
        self._pinned.append(pinned)
        return pinned

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        loaded = self._open()
        check_same(self._shapes, inputs)
        self.synchronize()
        self._buffers.replace(inputs)
        for pinned, name in self._up:
            pinned.array[...] = inputs[name]
        if self._cuda is not None:
            self._cuda.wait_for_all()
        if loaded.settings["cuda_graph"] == "off":  # other data may have outputs of other shapes
            self._buffers.release_outputs()
            self.enqueue = self._first

    def outputs(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        self._open()
        self.synchronize()
        if self._down:
            pairs = zip(self._buffers.outputs, self._down, strict=True)
            return {name: np.array(pinned.array) for name, (pinned, _) in pairs}
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
        with contextlib.suppress(CudaError):  # after a failed kernel CUDA answers nothing more
            self.synchronize()
            if self._timer is not None:
                self._timer.arm(0)
        self._loaded = None
        self.enqueue = self.synchronize = self._run = refuse_closed
        self._down.clear()
        self._up.clear()
        del self._buffers  # and with it the last hold on the model, before its stream goes
        self._free()

    def _free(self) -> None:
        """Pinned memory and the stream, which nothing may use any more."""
        cuda, stream, pinned = self._cuda, self._stream, self._pinned
        self._stream, self._pinned = None, []
        if cuda is None:
            return
        with contextlib.suppress(CudaError):
            for block in pinned:
                cuda.free(block)
            if stream is not None:
                cuda.destroy_stream(stream)


def _runtime(options: SessionOptions) -> tuple[CudaRuntime | Unavailable, Any]:
    """CUDA's functions and a stream, or why there are none. Raises `BackendUnavailable` where they
    are needed, or where the device cannot be had."""
    try:
        found = cuda_runtime(cuda_index(options))
        stream = None if isinstance(found, Unavailable) else found.stream()
    except CudaError as error:
        what = "cuda-bindings cannot use the device"  # of a CUDA of their own
        raise (
            cuda_failure(str(error), what) or BackendUnavailable(f"{what}: {error}", "see dmesg")
        ) from error
    if isinstance(found, Unavailable) and options.boundary == "transfer":
        raise BackendUnavailable(
            "--boundary transfer copies from pinned memory, which onnxruntime has none of: "
            f"{found.reason}",
            PIP,
        )
    return found, stream


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
