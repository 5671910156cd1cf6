"""What a TorchScript file takes: it names its inputs, with types and shapes only if it was traced.

For each input the first that says it: ``--input-shape`` (float32, unless one of the others has the
type), the user's samples (along axis 0), what the module was traced with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.artifacts.torchscript import inputs_of, traced_inputs
from harness.errors import ModelError, UsageError
from harness.models import data
from harness.models.shapes import resolve_shapes
from harness.protocols import Declared, Dim, TensorSpec


def find(
    path: Path,
    module: Any,
    given: Mapping[str, tuple[int, ...]],
    batch_size: int,
    samples: Path | None,
    seed: int,
) -> tuple[tuple[TensorSpec, ...], dict[str, data.Array]]:
    """The inputs in call order, and a batch of them: the first of ``samples``, else drawn.

    Raises `ModelError` where the inputs are not known, `UsageError` for a shape given to none.
    """
    names, optional = inputs_of(path, module)
    for name in given:
        if name not in names:
            raise UsageError(
                f"--input-shape names {name!r}, which is no input of {path}",
                f"its inputs are {', '.join(names)}",
            )
    held = data.read_shapes(samples, names) if samples else {}
    traced = _traced(path, names)
    declared = []
    for name in _used(names, optional, {*given, *held, *traced}):
        dims, dtype = _dims(name, given, held, traced)
        if dims is None:
            raise _unknown(path, [n for n in names if n not in optional])
        declared.append(Declared(name=name, dtype=dtype, dims=dims))
    specs = resolve_shapes(declared, given, batch_size)
    if samples is None:
        return specs, data.draw(specs, {}, seed)
    read = data.read_samples(samples, "--inputs", specs, batch_size, labelled=False, infinite=True)
    return specs, data.take(read.arrays, specs, batch_size)


_Known = Mapping[str, tuple[str, tuple[Dim, ...]]]


def _used(names: Sequence[str], optional: Sequence[str], known: set[str]) -> list[str]:
    """Calls are by position: what may be left out is, behind the last input that is known."""
    last = max((i for i, n in enumerate(names) if n in known or n not in optional), default=-1)
    return list(names[: last + 1])


def _dims(
    name: str, given: Mapping[str, tuple[int, ...]], held: _Known, traced: _Known
) -> tuple[tuple[Dim, ...] | None, str]:
    dtype, dims = held.get(name) or traced.get(name) or ("float32", None)
    return given.get(name, dims), dtype


def _traced(path: Path, names: Sequence[str]) -> _Known:
    """With the batch left open where all inputs share axis 0."""
    tensors = traced_inputs(path) or []
    if len(tensors) > len(names):
        return {}
    counts = {tensor.shape[0] if tensor.dim() else None for tensor in tensors}
    batched = len(counts) == 1 and counts != {None}
    return {
        name: (
            str(tensor.dtype).removeprefix("torch."),
            ("batch", *tensor.shape[1:]) if batched else tuple(tensor.shape),
        )
        for name, tensor in zip(names, tensors, strict=False)
    }


def _unknown(path: Path, names: Sequence[str]) -> ModelError:
    example = " ".join(f"--input-shape {name}=1x3x224x224" for name in names)
    return ModelError(
        f"{path} is a TorchScript file that does not say what its inputs are: "
        f"{', '.join(names) or 'it has none'}",
        f"give --inputs FILE.npz with arrays of these names, or, for float32, {example}, with its "
        "own sizes",
    )
