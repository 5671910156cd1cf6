"""Matrix products, a convolution and copies through PyTorch, on the run's device.

On a CUDA device they take what their kernels take, by the profiler that tells the operators' times:
a caller's clock would show what launching costs, and operators on a device go faster than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from harness.protocols import IdleLoad, RoofCall, RoofLoad, SessionOptions

_PRODUCTS = (384, 1024)
_PRODUCTS_ON_DEVICE = (1024, 4096, 8192)  # smaller ones leave most of a GPU idle
_CHANNELS, _SIDE = 256, 28
_IMAGES_ON_DEVICE = 64
_COPIES = (1 << 18, 1 << 21, 1 << 24, 1 << 27)
_CHAIN = 16
_IDLE = 64  # operators that compute next to nothing
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def roof_loads(device: Any, precision: str, options: SessionOptions) -> list[RoofLoad]:
    """In fp32, and in the run's precision; int8 on the CPU alone."""
    kinds = dict.fromkeys(("fp32", precision))
    found = list(_copies(device))
    for kind in kinds:
        if kind in _BYTES and not (kind == "int8" and device.type != "cpu"):
            found += _compute(device, kind)
    return found


def idle_load(device: Any) -> IdleLoad:
    """A chain of operators on one element each; on a device their kernels' times are not the
    host's, which alone is slowed."""
    import torch

    from harness.backends.pytorch.profile import profile_operators

    x = torch.ones(1, device=device)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(_IDLE):
                torch.neg(x)

    return IdleLoad(run, lambda inferences: profile_operators(run, None, inferences))


def _compute(device: Any, precision: str) -> Iterator[RoofLoad]:
    width = _BYTES[precision]
    for size in _PRODUCTS if device.type == "cpu" else _PRODUCTS_ON_DEVICE:
        yield RoofLoad(
            f"product {size} {precision}", "compute", precision, 2 * size**3, 3 * size**2 * width,
            partial(_product, device, precision, size),
        )  # fmt: skip
    images = 1 if device.type == "cpu" else _IMAGES_ON_DEVICE
    yield RoofLoad(
        f"convolution {precision}", "compute", precision, images * 2 * _CHANNELS**2 * 9 * _SIDE**2,
        (images * 2 * _CHANNELS * _SIDE**2 + 9 * _CHANNELS**2) * width,
        partial(_convolution, device, precision, images),
    )  # fmt: skip


def _copies(device: Any) -> Iterator[RoofLoad]:
    for moved in _COPIES:
        yield RoofLoad(
            f"copy {moved >> 10} KiB", "memory", "fp32", _CHAIN * moved, moved,
            partial(_copy, device, moved),
        )  # fmt: skip


def _call(device: Any, work: Callable[[], object], times: int = 1) -> RoofCall:
    import torch

    def call() -> None:
        with torch.inference_mode():
            for _ in range(times):
                work()

    return call if device.type == "cpu" else partial(_kernels_ms, device, call)


def _kernels_ms(device: Any, call: Callable[[], None]) -> float:
    """What the device computed for, on one stream."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities) as trace:
        call()
        torch.cuda.synchronize(device)
    results: Any = trace.profiler
    events = results.kineto_results.events()
    kernels = [e.duration_ns() for e in events if str(e.device_type()).endswith("CUDA")]
    if not kernels:
        raise RuntimeError("the profiler told no kernel")
    return sum(kernels) / 1e6


def _dtype(precision: str) -> Any:
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)


def _product(device: Any, precision: str, size: int) -> RoofCall:
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=_dtype(precision)) for _ in range(2))
    if precision != "int8":
        return _call(device, lambda: torch.mm(a, b))
    packed = torch.ops.quantized.linear_prepack(_weights(b), None)
    x = torch.quantize_per_tensor(a, 0.05, 128, torch.quint8)
    return _call(device, lambda: torch.ops.quantized.linear(x, packed, 1.0, 128))


def _convolution(device: Any, precision: str, images: int) -> RoofCall:
    import torch

    layout = torch.channels_last
    x = torch.randn(images, _CHANNELS, _SIDE, _SIDE, device=device, dtype=_dtype(precision))
    w = torch.randn(_CHANNELS, _CHANNELS, 3, 3, device=device, dtype=_dtype(precision))
    x, w = x.contiguous(memory_format=layout), w.contiguous(memory_format=layout)
    if precision != "int8":
        return _call(device, lambda: torch.nn.functional.conv2d(x, w, padding=1))
    prepack = torch.ops.quantized.conv2d_prepack
    packed = prepack(_weights(w), None, [1, 1], [1, 1], [1, 1], 1)
    quantized = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
    quantized = quantized.contiguous(memory_format=layout)
    return _call(device, lambda: torch.ops.quantized.conv2d(quantized, packed, 1.0, 128))


def _weights(values: Any) -> Any:
    import torch

    scales = torch.full((values.shape[0],), 0.05)
    zeros = torch.zeros(values.shape[0], dtype=torch.long)
    # of 7 bits, which no processor overruns
    return torch.quantize_per_channel(values.clamp(-3.1, 3.1), scales, zeros, 0, torch.qint8)


def _copy(device: Any, moved: int) -> RoofCall:
    """A kernel on a device: its copy engine is no way that an operator goes."""
    import torch

    source = torch.randn(moved // 8, device=device)
    target = torch.empty_like(source)
    if device.type == "cpu":
        return _call(device, lambda: target.copy_(source), _CHAIN)
    return _call(device, lambda: torch.neg(source, out=target), _CHAIN)
