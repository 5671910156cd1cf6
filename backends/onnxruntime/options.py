"""What the ONNX Runtime adapter can be asked for, decided without loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from harness.backends.common import chosen_options, cuda_index, is_cuda
from harness.errors import UsageError
from harness.host.cache_root import default_root
from harness.protocols import Option, SessionOptions, Wanted

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))

LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disable": "ORT_DISABLE_ALL",
}
# the default first
_ON, _OFF = ("on", "off"), ("off", "on")
OPTIONS = (
    Option("graph_optimization_level", tuple(LEVELS), "all", "how far the graph is optimised"),
    Option("execution_mode", ("sequential", "parallel"), "sequential", "of operators"),
    Option("allow_spinning", _ON, "on", "idle threads spin before they sleep"),
    Option("arena", _ON, "on", "keep memory for the next inference"),
    Option("deterministic", _OFF, "off", "the same bits each time"),
    Option("custom_ops", help="libraries of operators, parted as in PATH"),
    Option("provider", ("cuda", "tensorrt"), "cuda", "what runs the graph", "cuda"),
    Option("cuda_graph", _OFF, "off", "capture once, replay from then on", "cuda"),
    Option("tf32", _OFF, "off", "round FP32 products to TF32", "cuda"),
    Option(
        "conv_search", ("exhaustive", "heuristic", "default"), "exhaustive",
        "how cuDNN's algorithms are chosen", "cuda",
    ),
    Option(
        "arena_extend", ("next_power_of_two", "same_as_requested"), "next_power_of_two",
        "how device memory grows", "cuda",
    ),
)  # fmt: skip
# The CPU provider has no half-precision kernels to speak of: it casts such a graph to fp32 and
# runs that (fp16), or refuses to load it (bf16).
PRECISIONS = {False: ("fp32", "int8"), True: ("fp32", "int8", "fp16")}

_EXTEND = {"next_power_of_two": "kNextPowerOfTwo", "same_as_requested": "kSameAsRequested"}
_SWITCH = {"on": "1", "off": "0"}

Providers = list[tuple[str, dict[str, str]]]


def settings(options: SessionOptions) -> dict[str, str]:
    """Every option with its value in force. Raises `UsageError` naming the valid ones."""
    chosen = chosen_options("onnxruntime", options, OPTIONS)
    if options.inter_threads > 1 and chosen["execution_mode"] == "sequential":
        raise UsageError(
            f"--inter-threads {options.inter_threads} does nothing in sequential execution",
            "add --option execution_mode=parallel",
        )
    return chosen


def check_precision(precision: str, options: SessionOptions) -> None:
    """Raises `UsageError` for one without kernels on that device."""
    known = PRECISIONS[is_cuda(options)]
    if precision not in known:
        raise UsageError(
            f"onnxruntime has no {precision} kernels on {options.device}: it would compute in "
            "fp32 behind casts, or not at all",
            f"use --precision {' or '.join(known)}",
        )


def artifact(precision: str, options: SessionOptions) -> Wanted:
    """What to run. TensorRT takes no other INT8 than symmetric with biases in fp32; and the CUDA
    provider, which computes Q/DQ graphs in floating point, has no kernel for a bias in int32."""
    libraries = settings(options)["custom_ops"].split(os.pathsep)
    check_precision(precision, options)
    return Wanted(
        "onnx",
        symmetric=is_cuda(options),
        libraries=tuple(path for path in libraries if path),
    )


def wanted(options: SessionOptions) -> str:
    """The execution provider that was asked for."""
    if not is_cuda(options):
        return CPU
    return TENSORRT if settings(options)["provider"] == "tensorrt" else CUDA


def providers(
    options: SessionOptions, precision: str, stream: int | None, engines: Path
) -> Providers:
    """What to register, in order, with every option that steers speed.

    ``stream`` is a CUDA stream's handle, or None for the provider's own; ``engines`` a folder for
    TensorRT's engines.
    """
    if not is_cuda(options):
        return [(CPU, {})]
    chosen = settings(options)
    shared = {"device_id": str(cuda_index(options))}
    if stream is not None:
        shared |= {"has_user_compute_stream": "1", "user_compute_stream": str(stream)}
    cuda = {
        **shared,
        "use_tf32": _SWITCH[chosen["tf32"]],
        "cudnn_conv_algo_search": chosen["conv_search"].upper(),
        "arena_extend_strategy": _EXTEND[chosen["arena_extend"]],
        "do_copy_in_default_stream": "1",
    }
    if chosen["provider"] == "tensorrt":
        return [(TENSORRT, shared | _tensorrt(chosen, precision, engines)), (CUDA, cuda), (CPU, {})]
    return [(CUDA, cuda | {"enable_cuda_graph": _SWITCH[chosen["cuda_graph"]]}), (CPU, {})]


def _tensorrt(chosen: Mapping[str, str], precision: str, engines: Path) -> dict[str, str]:
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        "trt_fp16_enable": _SWITCH["on" if precision == "fp16" else "off"],
        "trt_int8_enable": _SWITCH["on" if precision == "int8" else "off"],
        "trt_cuda_graph_enable": _SWITCH[chosen["cuda_graph"]],
    }


def engines_folder(*what: object) -> Path:
    """Among the project's caches, for engines of exactly this model, runtime, GPU and options:
    ONNX Runtime itself runs an engine that it finds, whatever it was built from."""
    import hashlib  # for engines alone: a start on the CPU does without

    key = hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:32]
    return default_root() / "ort-tensorrt" / key
