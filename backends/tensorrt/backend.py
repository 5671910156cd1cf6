"""TensorRT 11 and 10 on an NVIDIA GPU.

    ONNX file ── `build` ── plan ── `cache`
                             │
        one engine per backend object and artifact, shared by its sessions
                             │
        one context, stream and set of tensors (`io`) per session

    enqueue:      [event] [copies in] inference [copies out] [event]     all on the session's stream
    synchronize:  wait for the stream

With ``cuda_graph=on`` what lies between the events is captured once and launched as a graph. The
first inference of a context allocates and sets up; it is done before any capture.

Only NVIDIA's own packages are used (``tensorrt``, ``cuda.bindings``): no torch.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from harness.backends.common import unavailable
from harness.backends.cuda import Cuda, bindings
from harness.backends.tensorrt.engine import Loaded, Making, anywhere, platform
from harness.backends.tensorrt.inspect import inspect, operators, profile, shown
from harness.backends.tensorrt.library import TENSORRT, Library
from harness.backends.tensorrt.log import log_of
from harness.backends.tensorrt.options import CURRENT
from harness.backends.tensorrt.parse import examine
from harness.errors import (
    HarnessError,
    MeasurementFailed,
    ModelError,
    UsageError,
)
from harness.host.gpus import CudaDevice, cuda_device
from harness.maybe import Maybe, Unavailable, coded
from harness.protocols import (
    Artifact,
    Available,
    Description,
    Layer,
    Layers,
    Node,
    OperatorTimes,
    ProfiledInferences,
    SessionOptions,
    Wanted,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.protocols import Arrays

_FAILED = "failed to run the model"
_GRAPH_OFF = "use --option cuda_graph=off"


class TensorRtBackend:
    """Sessions of one backend object share the engine, each with a context of its own."""

    library = TENSORRT
    name = TENSORRT.backend
    options = TENSORRT.options
    default_device = "cuda"
    distributions = ("tensorrt-cu13", "cuda-bindings")

    def __init__(self) -> None:
        self._loaded: weakref.WeakValueDictionary[bytes, Loaded] = weakref.WeakValueDictionary()

    def availability(self, device: str) -> Available | Unavailable:
        found = _find(self.library, device)
        if isinstance(found, Unavailable):
            return found
        _, trt, chosen = found
        return Available(
            {
                "version": str(trt.__version__),
                "device": chosen.name,
                "compute_capability": chosen.compute_capability,
                "uuid": chosen.uuid,
                "driver": platform(trt, chosen).driver,
            }
        )

    def wants(self, precision: str, options: SessionOptions) -> Wanted:
        """TensorRT builds on the device it runs on, which the worker has; the other beforehand."""
        engine = self.compiled(precision, options)
        return engine if self.library.ahead_of_time or engine.of is None else engine.of

    def compiled(self, precision: str, options: SessionOptions) -> Wanted:
        library = self.library
        library.settings(options)
        if precision not in library.precisions:
            raise UsageError(
                f"{library.backend} runs the types that the ONNX graph has, and no {precision} "
                "graph is to be had",
                f"use --precision {' or '.join(library.precisions)}",
            )
        return Wanted(library.engine_format, of=Wanted("onnx", symmetric=True))

    def examine(self, source: Artifact, options: SessionOptions) -> list[Node]:
        """What the parser takes; it needs no GPU, only the library. Raises `BackendUnavailable`."""
        trt = self.library.load()
        if isinstance(trt, Unavailable):
            raise unavailable(trt)
        return examine(trt, log_of(trt, self.library.title), source.path)

    def make_artifact(
        self, source: Artifact, target: Path, options: SessionOptions
    ) -> dict[str, str]:
        """Build the engine of an ONNX file, on the device where it has to be the same one.

        Raises `BackendUnavailable` where that is not here, and what `build` raises.
        """
        library, where = self.library, None
        chosen = library.settings(options)
        if not library.ahead_of_time or chosen.targets == (CURRENT,):
            found = _find(library, options.device)
            if isinstance(found, Unavailable):
                raise unavailable(found)
            runtime, trt, device = found
            Cuda(runtime, device.index).use()
            where = platform(trt, device)
        else:
            trt = library.load()
            if isinstance(trt, Unavailable):
                raise unavailable(trt)
        making = Making(
            trt, library, where or anywhere(trt), source, example_inputs(source), options
        )
        made = making.plan()
        target.write_bytes(made.plan)
        return made.facts

    def prepare(
        self, artifact: Artifact, inputs: Arrays, options: SessionOptions
    ) -> TensorRtSession:
        library = self.library
        library.settings(options)
        found = _find(library, options.device)
        if isinstance(found, Unavailable):
            raise unavailable(found)
        if artifact.format not in ("onnx", library.engine_format):
            raise ModelError(f"{library.backend} runs onnx files, not {artifact.format!r}")
        runtime, trt, device = found
        key = msgspec.json.encode((artifact.path, artifact.sha256, options, _shapes(inputs)))
        loaded = self._loaded.get(key)
        if loaded is None:
            cuda = Cuda(runtime, device.index)
            loaded = Loaded(trt, library, cuda, device, artifact, inputs, options)
            self._loaded[key] = loaded
        return TensorRtSession(loaded, inputs, options)


def example_inputs(artifact: Artifact) -> Arrays:
    """The inputs that ``artifact`` will be run on; zeros where none are known."""
    import numpy as np

    if not artifact.bound:
        return {one.name: np.zeros(one.shape, one.dtype) for one in artifact.inputs}
    with np.load(artifact.bound, allow_pickle=False) as arrays:
        return dict(arrays)


def _shapes(inputs: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sorted(inputs.items())}


def _find(library: Library, device: str) -> tuple[Any, Any, CudaDevice] | Unavailable:
    """The CUDA runtime, TensorRT and the device, or why one of them is not to be had.

    The device comes first: without one, no library helps, and importing them takes a second.
    """
    if device == "cpu":
        return Unavailable(f"{library.title} runs on NVIDIA GPUs alone", "use --device cuda")
    try:
        chosen = cuda_device(device)
    except UsageError as error:
        return Unavailable(error.message, error.remedy)
    if isinstance(chosen, Unavailable):
        return _elsewhere(chosen)
    trt = library.load()
    if isinstance(trt, Unavailable):
        return trt
    runtime = bindings(library.pip)
    if isinstance(runtime, Unavailable):
        return runtime
    _, version = runtime.cudaRuntimeGetVersion()  # 13050 is 13.5
    chosen = cuda_device(device, (version // 1000, version % 1000 // 10))
    if isinstance(chosen, Unavailable):
        return _elsewhere(chosen)
    return runtime, trt, chosen


def _elsewhere(absent: Unavailable) -> Unavailable:
    """The same with a way out that this backend has: it runs on no CPU."""
    other = "use --backend onnxruntime --device cpu"
    return Unavailable(absent.unavailable, absent.remedy.replace("use --device cpu", other))


class TensorRtSession:
    """One stream. ``enqueue`` returns while the device works, but for outputs of unknown size."""

    enqueue: Callable[[], None]
    synchronize: Callable[[], None]
    asynchronous: bool
    compile_s: float  # where the library compiles kernels when a context is made

    def __init__(self, loaded: Loaded, inputs: Arrays, options: SessionOptions) -> None:
        self._loaded: Loaded | None = loaded
        self._owner = ExitStack()
        self._graph: Any = None
        self._context: Any = None
        self._cuda, self._thread = loaded.cuda, get_ident()
        self._timer = self._cuda.timer(self._record)
        try:
            self._open(loaded, inputs, options)
        except BaseException:
            self.close()
            raise

    def _open(self, loaded: Loaded, inputs: Arrays, options: SessionOptions) -> None:
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
        log = self._loaded_now().log
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
        log = self._loaded_now().log
        return log.failure(f"{log.title} {_FAILED}", MeasurementFailed)

    # -- between the timed calls ------------------------------------------------------------------

    def bind(self, inputs: Arrays) -> None:
        """Copy ``inputs`` over the bound ones. Raises `DataError`."""
        self._loaded_now()
        self._tensors.check_same(inputs)
        self._adopt()
        self._wait()
        self._tensors.fill(inputs)

    def outputs(self) -> dict[str, NDArray[Any]]:
        self._loaded_now()
        self._adopt()
        self._wait()
        return self._tensors.results()

    def arm(self, iterations: int) -> None:
        self._loaded_now()
        self._adopt()
        self._wait()
        self._timer.arm(iterations)
        self._wait()
        self.enqueue = self._timer.timed(self._enqueue) if iterations else self._enqueue

    def device_times_ms(self) -> NDArray[Any]:
        self._loaded_now()
        self._adopt()
        self._wait()
        return self._timer.times_ms()

    def device_memory(self) -> Mapping[str, Maybe[int]]:
        """Bytes that TensorRT and this session hold, as far as they tell."""
        loaded = self._loaded_now()
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
        loaded = self._loaded_now()
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
        loaded = self._loaded_now()
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
        self.enqueue = self.synchronize = _refuse
        with contextlib.suppress(HarnessError):  # what broke may break again; the rest is freed
            self._adopt()
            self._cuda.finish()
        self._timer.arm(0)
        self._graph = self._context = None
        self._owner.close()
        self._loaded = None

    def _loaded_now(self) -> Loaded:
        if self._loaded is None:
            _refuse()
        return self._loaded


def _refuse() -> NoReturn:
    raise MeasurementFailed("this session is closed", "prepare another one")
