"""TensorRT for RTX on an NVIDIA GPU: the adapter of TensorRT with the other library.

    builder's process    ONNX file ── parser and builder, no GPU needed ── engine, kept
    worker               engine ── compiled for the GPU at hand ── inference

All in which the two differ is here and in what `harness.backends.tensorrt.library.Library` holds.
"""

from __future__ import annotations

from harness.backends.tensorrt.backend import TensorRtBackend
from harness.backends.tensorrt.library import Library
from harness.backends.tensorrt.options import OPTIONS, SPECIALIZATION, TARGETS
from harness.protocols import Option

# An engine for RTX is not tuned by timing kernels: it has no search, and no cache of timings.
_SHARED = ("tf32", "cuda_graph", "engine_cache", "workspace_mib", "batch_profile")

LIBRARY = Library(
    backend="tensorrt-rtx",
    title="TensorRT for RTX",
    module="tensorrt_rtx_bindings",
    distribution="tensorrt-rtx",
    extra="tensorrt-rtx",
    majors=(1,),
    options=(
        Option(
            "targets",
            default="portable",
            help=f"architectures that the engine is for: {TARGETS}",
        ),
        *(option for option in OPTIONS if option.name in _SHARED),
        Option("runtime_cache", ("on", "off"), "on", "keep what is compiled when loading"),
        Option("specialization", SPECIALIZATION, "eager", "when kernels for a shape are compiled"),
    ),
    ahead_of_time=True,
)


class TensorRtRtxBackend(TensorRtBackend):
    """`TensorRtBackend` with TensorRT for RTX."""

    library = LIBRARY
    name = LIBRARY.backend
    options = LIBRARY.options
    distributions = ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings", "cuda-bindings")
