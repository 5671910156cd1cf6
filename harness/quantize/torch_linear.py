"""INT8 linear layers on a CUDA device, by torchao: which ones, planned in a builder without a GPU.

    plan (here, CPU): one float inference shows each layer's shape ──> layers.json
    apply (worker, GPU): torchao replaces those layers' weights ──> int8 x int8 -> int32 in cuBLAS

Activations are ranged per row as they run, weights per output channel, both symmetric. The kernel
is ``torch._int_mm``, which takes more than 16 rows and sizes that are multiples of 8; for others
torchao computes in floating point, or on the CPU, without a word. So such layers stay as they are
and are named, and a model of which nothing is left is refused. PyTorch has no int8 convolutions on
CUDA at all: a model with convolutions is refused rather than emulated.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.artifacts.torch_linear import Plan
from harness.errors import QuantizationError, one_line
from harness.protocols import Quantization

LEAST_ROWS = 17  # torch._int_mm: "self.size(0) needs to be greater than 16"
MULTIPLE = 8
_INSTEAD = "use --backend tensorrt, or --backend onnxruntime --option provider=tensorrt"
_SHOWN = 3


def plan(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> Plan:
    """What can run in int8 kernels. Raises `QuantizationError` naming what cannot."""
    _refuse_modules(module, name)
    rows, seen = _rows(module, inputs, name)
    if seen:
        raise _no_convolutions(name, [f"{op}, called as a function" for op in sorted(seen)])
    linear = {path: inner for path, inner in module.named_modules() if type(inner) is nn.Linear}
    left = {
        path: why for path, inner in linear.items() if (why := _unfit(inner, rows.get(path, 0)))
    }
    layers = tuple(path for path in linear if path not in left)
    if not layers:
        found = "; ".join(f"{path} {why}" for path, why in list(left.items())[:_SHOWN])
        raise QuantizationError(
            f"no layer of {name} can run in int8 kernels of PyTorch on CUDA: "
            f"{found or 'it has no torch.nn.Linear'}",
            f"raise --batch-size above {LEAST_ROWS - 1} if rows are too few; or {_INSTEAD}",
        )
    return Plan(layers, left, _size_bytes(module, layers))


def write(found: Plan, target: Path) -> Quantization:
    """Save ``found`` for `harness.artifacts.torch_linear.apply`."""
    target.write_bytes(msgspec.json.encode(found))
    some = f"{len(found.layers)} of {len(found.layers) + len(found.left)} linear layers"
    return Quantization(
        route=f"torchao Int8DynamicActivationInt8WeightConfig, {some}",
        method="dynamic",
        scheme="symmetric int8 activations per row at run time, symmetric int8 weights per channel",
        calibration_source="none",
        calibration_sha256="",
        calibration_samples=0,
    )


def _unfit(layer: nn.Linear, rows: int) -> str:
    """Why the int8 kernel would not take it; empty if it would."""
    if layer.weight.dtype != torch.float32:
        return f"holds {str(layer.weight.dtype).removeprefix('torch.')}"
    if layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
        return f"is {layer.in_features}x{layer.out_features}, no multiples of {MULTIPLE}"
    if rows < LEAST_ROWS:
        return f"gets {rows} rows, at least {LEAST_ROWS} are needed" if rows else "is not called"
    return ""


def _refuse_modules(module: nn.Module, name: str) -> None:
    kinds = nn.modules.conv._ConvNd
    found = [path for path, inner in module.named_modules() if isinstance(inner, kinds)]
    if found:
        raise _no_convolutions(name, found)


def _no_convolutions(name: str, found: list[str]) -> QuantizationError:
    rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return QuantizationError(
        f"PyTorch has no int8 convolutions on CUDA, and {name} has "
        f"{', '.join(found[:_SHOWN])}{rest}",
        _INSTEAD,
    )


class _Convolutions(TorchDispatchMode):  # type: ignore[misc]  # torch is not followed
    """Notes the convolutions among the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if re.search(r"convolution|::conv\d", name := str(func.name())):
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


def _rows(
    module: nn.Module, inputs: tuple[Tensor, ...], name: str
) -> tuple[dict[str, int], set[str]]:
    """The fewest rows that each linear layer multiplies at once, and the convolutions called."""
    rows: dict[str, int] = {}

    def hook(path: str) -> Any:
        def note(_: nn.Module, args: tuple[Tensor, ...], __: Any) -> None:
            count = args[0].numel() // max(args[0].shape[-1], 1)
            rows[path] = min(rows.get(path, count), count)

        return note

    linear = [(path, inner) for path, inner in module.named_modules() if type(inner) is nn.Linear]
    handles = [inner.register_forward_hook(hook(path)) for path, inner in linear]
    watch = _Convolutions()
    try:
        with torch.no_grad(), watch:
            module(*inputs)
    except Exception as error:  # the model's own code, which may raise anything
        text = one_line(error)
        raise QuantizationError(f"{name} fails on its inputs: {text}", "repair it") from error
    finally:
        for handle in handles:
            handle.remove()
    return rows, watch.seen


def _size_bytes(module: nn.Module, layers: tuple[str, ...]) -> int:
    """Of weights in int8 with one float32 scale a row for ``layers``, as they are elsewhere."""
    state = (value for value in module.state_dict().values() if isinstance(value, Tensor))
    unique = {(tensor.data_ptr(), tensor.shape): tensor for tensor in state}
    total: int = sum(tensor.numel() * tensor.element_size() for tensor in unique.values())
    for path in layers:
        weight = module.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        total += weight.numel() * (1 - weight.element_size()) + 4 * weight.shape[0]
    return total
