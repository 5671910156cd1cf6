"""An engine of TensorRT in use: one context, stream and set of tensors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from contextlib import ExitStack
from threading import get_ident
from typing import TYPE_CHECKING, Any

from harness.backends.common import refuse_closed
from harness.backends.session import SessionBase
from harness.backends.tensorrt.engine import Loaded
from harness.backends.tensorrt.inspect import inspect, operators, profile, shown
from harness.errors import (
    HarnessError,
    MeasurementFailed,
    ModelError,
    UsageError,
)
from harness.maybe import Maybe, Unavailable, coded
from harness.protocols import (
    Description,
    Layer,
    Layers,
    OperatorTimes,
    ProfiledInferences,
    SessionOptions,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays

_FAILED = "failed to run the model"
_GRAPH_OFF = "use --option cuda_graph=off"


class TensorRtSession(SessionBase[Loaded]):
    """One stream. ``enqueue`` returns while the device works, but for outputs of unknown size."""

    asynchronous: bool
    compile_s: float  # where the library compiles kernels when a context is made

    def __init__(self, loaded: Loaded, inputs: Arrays, options: SessionOptions) -> None:
        self._loaded = loaded
        self._owner = ExitStack()
        self._graph: Any = None
        self._context: Any = None
        self._cuda, self._thread = loaded.cuda, get_ident()
        self._timer = self._cuda.timer(self._record)
        try:
            self._set_up(loaded, inputs, options)
        except BaseException:
            self.close()
            raise

    def _set_up(self, loaded: Loaded, inputs: Arrays, options: SessionOptions) -> None:
        self._cuda.use()
        self._stream = self._cuda.stream(self._owner)
        self._handle = int(self._stream)
        self._tensors = loaded.tensors(self._stream, options.boundary == "transfer", self._owner)
        began = time.perf_counter()
        self._context = loaded.context()
        if loaded.compiles:
            self.compile_s = time.perf_counter() - began
        with loaded.log.mapped(f"{loaded.log.title} cannot bind the inputs", ModelError):
            self._tensors.prepare(self._context, inputs)
        self.asynchronous = not self._tensors.dynamic
        self.enqueue, self.synchronize = self._first, self._wait
        if loaded.settings.cuda_graph:
            self._capture(loaded)

    def _capture(self, loaded: Loaded) -> None:
        if self._tensors.dynamic:
            raise UsageError(
                "a CUDA graph cannot hold an output whose size depends on the data, as "
                f"{self._tensors.dynamic[0].name!r} does",
                _GRAPH_OFF,
            )
        self._first()  # which does more than the others, some of it not fit for a graph
        self._wait()
        what = "the inference cannot be captured as a CUDA graph"
        with loaded.log.mapped(what, UsageError, _GRAPH_OFF):
            try:
                self._graph = self._cuda.capture(self._work, self._stream, self._owner)
            except MeasurementFailed as error:
                raise UsageError(f"{what}: {error.message}", _GRAPH_OFF) from error
        self._launch()
        self._wait()

    # -- the timed calls --------------------------------------------------------------------------

    def _first(self) -> None:
        log = self._open().log
        with log.mapped(f"{log.title} {_FAILED}", MeasurementFailed):
            self._enqueue()
        self.enqueue = self._enqueue

    def _enqueue(self) -> None:
        if get_ident() != self._thread:
            self._adopt()
        if self._graph is None:
            self._work()
        else:
            self._launch()

    def _record(self, event: Any) -> None:
        if get_ident() != self._thread:
            self._adopt()
        self._cuda.record(event, self._stream)

    def _work(self) -> None:
        """One inference, copies and all, put on the stream call by call."""
        self._tensors.send()
        if not self._context.execute_async_v3(self._handle):
            raise self._failure()
        self._tensors.fetch()

    def _launch(self) -> None:
        (status,) = self._cuda.runtime.cudaGraphLaunch(self._graph, self._stream)
        if status:
            raise self._cuda.error(status, "launching the CUDA graph")

    def _wait(self) -> None:
        (status,) = self._cuda.runtime.cudaStreamSynchronize(self._stream)
        if status:
            raise self._cuda.error(status, "running the model")
        if not self.asynchronous:
            self._tensors.finish()

    def _adopt(self) -> None:
        """CUDA has a current device in each thread, and this is another one."""
        self._cuda.use()
        self._thread = get_ident()

    def _failure(self) -> HarnessError:
        for tensor in self._tensors.dynamic:
            if tensor.allocator.error is not None:
                error: HarnessError = tensor.allocator.error
                return error
        log = self._open().log
        return log.failure(f"{log.title} {_FAILED}", MeasurementFailed)

    # -- between the timed calls ------------------------------------------------------------------

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        self._open()
        self._tensors.check_same(inputs)
        self._adopt()
        self._wait()
        self._tensors.fill(inputs)

    def outputs(self) -> dict[str, NDArray[Any]]:
        self._open()
        self._adopt()
        self._wait()
        return self._tensors.results()

    def arm(self, iterations: int) -> None:
        self._open()
        self._adopt()
        self._wait()
        self._timer.arm(iterations)
        self._wait()
        self.enqueue = self._timer.timed(self._enqueue) if iterations else self._enqueue

    def device_times_ms(self) -> NDArray[Any]:
        self._open()
        self._adopt()
        self._wait()
        return self._timer.times_ms()

    def device_memory(self) -> Mapping[str, Maybe[int]]:
        """Bytes that TensorRT and this session hold, as far as they tell."""
        loaded = self._open()
        return {
            "allocator_peak_bytes": coded(
                "not_supported",
                f"{loaded.log.title} takes its memory from the driver and counts none of it",
                "see the driver's view of the process",
            ),
            "activation_bytes": loaded.activation_bytes,
            "io_bytes": self._tensors.io_bytes,
        }

    def reset_device_peak(self) -> None:
        """There is no peak to restart."""

    def describe(self) -> Description:
        loaded = self._open()
        self._adopt()
        runtime = loaded.facts | loaded.compiled()
        runtime["cuda_graph"] = "off" if self._graph is None else "on"
        runtime["data_dependent_outputs"] = str(len(self._tensors.dynamic))
        layers = self._layers(loaded)
        if isinstance(layers, Unavailable):
            return Description(runtime, layers, layers)
        times = self._times(loaded)
        told = {} if isinstance(times, Unavailable) else times
        total = times if isinstance(times, Unavailable) else sum(times.values())
        return Description(runtime, operators(layers), Layers(total, tuple(shown(layers, told))))

    def _layers(self, loaded: Loaded) -> list[Layer] | Unavailable:
        try:
            with loaded.log.mapped("the inspector failed", MeasurementFailed):
                return inspect(loaded.trt, loaded.engine, self._context)
        except HarnessError as error:
            return Unavailable(f"the engine's layers cannot be read: {error.message}")

    def _times(self, loaded: Loaded) -> dict[str, float] | Unavailable:
        """Layer times from a second context, on the same memory and stream."""
        try:
            context = loaded.context()
            with loaded.log.mapped("the profiled pass failed", MeasurementFailed):
                self._tensors.attach(context)
                self._tensors.send()
                found = profile(loaded.trt, context, lambda: self._profiled(context))
                return {name: sum(ms) / len(ms) for name, ms in found.items()}
        except HarnessError as error:
            return Unavailable(error.message, error.remedy)

    def profile_operators(self, inferences: int) -> Maybe[ProfiledInferences]:
        """Where the device's time goes, layer by layer, by TensorRT's profiler."""
        loaded = self._open()
        self._adopt()
        layers = self._layers(loaded)
        if isinstance(layers, Unavailable):
            return layers
        latency_ms: list[float] = []
        try:
            context = loaded.context()
            with loaded.log.mapped("the profiled pass failed", MeasurementFailed):
                self._tensors.attach(context)
                self._tensors.send()

                def run() -> None:
                    began = time.perf_counter_ns()
                    self._profiled(context)
                    latency_ms.append((time.perf_counter_ns() - began) / 1e6)

                times = profile(loaded.trt, context, run, inferences)
        except HarnessError as error:
            return Unavailable(error.message, error.remedy)
        return ProfiledInferences(
            profiler="TensorRT's profiler, in a context of its own",
            operators=tuple(
                OperatorTimes(
                    name=layer.name, type=layer.type, precision=layer.precision,
                    ms=tuple(times[layer.name]),
                )
                for layer in layers
                if layer.name in times
            ),
            latency_ms=tuple(latency_ms[-inferences:]),
            notes=("a layer's name lists what TensorRT fused into it",),
        )  # fmt: skip

    def _profiled(self, context: Any) -> None:
        if not context.execute_async_v3(self._handle):
            raise self._failure()
        self._cuda.wait(self._stream)

    def close(self) -> None:
        """Free everything. Whatever is still running is waited for first."""
        if self._loaded is None:
            return
        self.enqueue = self.synchronize = refuse_closed
        with contextlib.suppress(HarnessError):  # what broke may break again; the rest is freed
            self._adopt()
            self._cuda.finish()
        self._timer.arm(0)
        self._graph = self._context = None
        self._owner.close()
        self._loaded = None
