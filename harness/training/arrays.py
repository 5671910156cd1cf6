"""Numbers from wherever they come: floats, lists, numpy arrays and, once imported, torch tensors.

torch is looked up in `sys.modules`: whoever passes a tensor has imported it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.training.measures import Array

# Elements of a tensor that its histogram is drawn from: a bin's share is then known to 0.4 %.
SAMPLE = 16_384


def is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(value: Any) -> Array:
    """``value`` on the host, bfloat16 widened to float32. Raises `DataError`."""
    if is_tensor(value):
        value = _host(value.detach())
    elif isinstance(value, (list, tuple)) and any(map(is_tensor, value)):
        value = [to_numpy(part) for part in value]
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:  # ragged lists, objects with strange conversions
        raise DataError(f"no array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"no array of numbers: {type(value).__name__} of {array.dtype}")
    return array


def to_float(name: str, value: Any) -> float:
    """The one number in ``value``. Raises `DataError` that names it."""
    if type(value) is float:
        return value
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name!r} is no single number: {value!r:.60}") from error


def sample(value: Any, limit: int = SAMPLE) -> Array:
    """At most ``limit`` of the elements, without a copy of the others.

    Every k-th one in memory order. k has no factor in common with the size, so that no row or
    channel is left out where its length divides k.
    """
    if not is_tensor(value):
        flat = np.asarray(to_numpy(value)).reshape(-1)
        return flat[:: _stride(flat.size, limit)]
    tensor = value.detach()
    if tensor.layout is not sys.modules["torch"].strided:
        tensor = tensor.coalesce().values() if tensor.is_sparse else tensor.to_dense()
    if tensor.dim() == 4 and not tensor.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)  # channels last, most likely
    flat = tensor.reshape(-1)
    return _host(flat[:: _stride(flat.numel(), limit)])


def _stride(size: int, limit: int) -> int:
    stride = max(1, math.ceil(size / limit))
    while stride > 1 and math.gcd(stride, size) > 1:
        stride += 1
    return stride


def _host(tensor: Any) -> Array:
    torch = sys.modules["torch"]
    if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    array: Array = tensor.resolve_conj().resolve_neg().cpu().numpy()
    return array


# -- the parameters of a model -------------------------------------------------------------------


def gradients(model: Any) -> dict[str, Any]:
    """name -> gradient, of those parameters that have one. A mapping is taken as it is."""
    if isinstance(model, Mapping):
        return {str(name): value for name, value in model.items() if value is not None}
    return {name: p.grad for name, p in _named(model) if p.grad is not None}


def weights(model: Any) -> dict[str, Any]:
    """name -> parameter. A mapping is taken as it is."""
    if isinstance(model, Mapping):
        return {str(name): value for name, value in model.items()}
    return dict(_named(model))


def _named(model: Any) -> Iterable[tuple[str, Any]]:
    if not hasattr(model, "named_parameters"):
        raise DataError(
            f"{type(model).__name__} has no parameters",
            "give a torch module, or arrays by parameter name",
        )
    named: Iterable[tuple[str, Any]] = model.named_parameters()
    return named


def norms(arrays: Mapping[str, Any]) -> dict[str, float]:
    """name -> L2 norm. Tensors are reduced where they are, and fetched together."""
    tensors = {name: value for name, value in arrays.items() if is_tensor(value)}
    found = dict(zip(tensors, _tensor_norms(list(tensors.values())), strict=True))
    return {
        name: found[name]
        if name in found
        else float(np.linalg.norm(to_numpy(value).reshape(-1).astype(np.float64)))
        for name, value in arrays.items()
    }


def _tensor_norms(tensors: list[Any]) -> list[float]:
    if not tensors:
        return []
    torch = sys.modules["torch"]
    with torch.no_grad():
        dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]
        dense = [t if t.is_floating_point() or t.is_complex() else t.float() for t in dense]
        single = [
            torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32))
            for t in dense
        ]
        device = single[0].device
        fetched: list[float] = torch.stack([n.to(device, torch.float64) for n in single]).tolist()
    return fetched


def by_layer(parameter_norms: Mapping[str, float]) -> dict[str, float]:
    """module path -> the joint norm of its own parameters."""
    layers: dict[str, list[float]] = {}
    for name, norm in parameter_norms.items():
        layers.setdefault(name.rpartition(".")[0] or name, []).append(norm)
    return {layer: math.hypot(*parts) for layer, parts in layers.items()}
