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

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends.common import unavailable
from harness.backends.cuda import Cuda, bindings
from harness.backends.session import Shared
from harness.backends.tensorrt.engine import Loaded, Making, anywhere, platform
from harness.backends.tensorrt.library import TENSORRT, Library
from harness.backends.tensorrt.log import log_of
from harness.backends.tensorrt.options import CURRENT
from harness.backends.tensorrt.parse import examine
from harness.backends.tensorrt.session import TensorRtSession
from harness.errors import (
    ModelError,
    UsageError,
)
from harness.host.gpus import CudaDevice, cuda_device
from harness.maybe import Unavailable
from harness.protocols import (
    Artifact,
    Available,
    Node,
    SessionOptions,
    Wanted,
)

if TYPE_CHECKING:
    from harness.protocols import Arrays


class TensorRtBackend:
    """Sessions of one backend object share the engine, each with a context of its own."""

    library = TENSORRT
    name = TENSORRT.backend
    options = TENSORRT.options
    default_device = "cuda"
    distributions = ("tensorrt-cu13", "cuda-bindings")

    def __init__(self) -> None:
        self._shared: Shared[Loaded] = Shared()

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

        def load() -> Loaded:
            cuda = Cuda(runtime, device.index)
            return Loaded(trt, library, cuda, device, artifact, inputs, options)

        made_of = (artifact.path, artifact.sha256, options, _shapes(inputs))
        return TensorRtSession(self._shared.get(made_of, load), inputs, options)


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
