"""Concrete shapes: a model's symbolic dimensions meet ``--batch-size`` and ``--input-shape``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from harness.errors import ModelError, UsageError
from harness.protocols import TensorSpec

Dim = int | str | None
_BATCH_NAME = re.compile(r"(^|_)(batch|batch_?size|bs|n|b)(_|\d*$)", re.IGNORECASE)


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output as its model declares it. A dim is a size, a symbol, or None (unnamed).

    ``dims`` is None where even the rank is not declared. ``dtype`` is a numpy name.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...] | None


def batch_symbols(inputs: Sequence[Declared]) -> set[str]:
    """The symbols that stand for the batch: those named like one, else the first at an axis 0."""
    symbols = [dim for i in inputs for dim in i.dims or () if isinstance(dim, str)]
    named = {symbol for symbol in symbols if _BATCH_NAME.search(symbol)}
    first = [i.dims[0] for i in inputs if i.dims and isinstance(i.dims[0], str)]
    return named or set(first[:1])


def resolve_shapes(
    inputs: Sequence[Declared], given: Mapping[str, tuple[int, ...]], batch_size: int
) -> tuple[TensorSpec, ...]:
    """Every input with a concrete shape.

    Raises `UsageError` for a ``given`` shape that names no input, and `ModelError` for one that
    does not fit, for a fixed batch other than ``batch_size`` and for a dimension left open.
    """
    _check_names(inputs, given)
    batch = batch_symbols(inputs)
    known = dict.fromkeys(batch, batch_size)
    for declared in inputs:
        if declared.name in given:
            _learn(declared, given[declared.name], known, batch, batch_size)
    resolved = tuple(
        TensorSpec(i.name, i.dtype, _shape(i, given.get(i.name), known, batch_size, bool(batch)))
        for i in inputs
    )
    _check_fixed_batch(inputs, resolved, batch, batch_size)
    return resolved


def resolve_output(declared: Declared, known: Mapping[str, int]) -> TensorSpec:
    """An output's shape as far as it is known before a run; -1 stands for what is not."""
    sizes = (known.get(d, -1) if isinstance(d, str) else d for d in declared.dims or (None,))
    return TensorSpec(declared.name, declared.dtype, tuple(-1 if s is None else s for s in sizes))


def symbol_sizes(inputs: Sequence[Declared], resolved: Sequence[TensorSpec]) -> dict[str, int]:
    """What each symbol came to."""
    return {
        dim: size
        for declared, spec in zip(inputs, resolved, strict=True)
        for dim, size in zip(declared.dims or (), spec.shape, strict=False)
        if isinstance(dim, str)
    }


def _check_names(inputs: Sequence[Declared], given: Mapping[str, tuple[int, ...]]) -> None:
    names = [i.name for i in inputs]
    for name in given:
        if name not in names:
            raise UsageError(
                f"--input-shape names {name!r}, which is no input of the model",
                f"its inputs are {', '.join(names) or 'none'}",
            )


def _learn(
    declared: Declared, shape: tuple[int, ...], known: dict[str, int], batch: set[str], size: int
) -> None:
    """Check a given shape against the declared one and note what its symbols come to."""
    dims = declared.dims if declared.dims is not None else (None,) * len(shape)
    text = f"--input-shape {declared.name}={show(shape)}"
    if len(dims) != len(shape):
        raise ModelError(
            f"{text} has {len(shape)} dimensions, the model declares {show(dims)}",
            f"give {len(dims)} sizes",
        )
    for dim, given in zip(dims, shape, strict=True):
        if isinstance(dim, int) and dim != given:
            raise ModelError(f"{text} does not fit {show(dims)}", f"{dim} is fixed in the model")
        if isinstance(dim, str) and known.setdefault(dim, given) != given:
            if dim in batch:
                remedy = f"--batch-size {given} sets that dimension"
                raise ModelError(f"{text} has a batch of {given}, --batch-size is {size}", remedy)
            raise ModelError(
                f"{text} makes {dim!r} {given}, another input makes it {known[dim]}",
                "give shapes that agree",
            )


def _shape(
    declared: Declared,
    given: tuple[int, ...] | None,
    known: Mapping[str, int],
    batch_size: int,
    has_batch: bool,
) -> tuple[int, ...]:
    if given is not None:
        return given
    if declared.dims is None:
        raise ModelError(
            f"input {declared.name!r} declares no shape", f"give {_flag(declared, known)}"
        )
    sizes: list[int] = []
    for axis, dim in enumerate(declared.dims):
        size = known.get(dim) if isinstance(dim, str) else dim
        if size is None and dim is None and axis == 0 and not has_batch:
            size = batch_size
        if size is None:
            raise ModelError(
                f"input {declared.name!r} leaves dimension {axis} ({dim or 'unnamed'}) open",
                f"give {_flag(declared, known)}",
            )
        sizes.append(size)
    return tuple(sizes)


def _flag(declared: Declared, known: Mapping[str, int]) -> str:
    """An example of the flag, with what is known filled in."""
    if declared.dims is None:
        return f"--input-shape {declared.name}=1x3x224x224, with its own sizes"
    sizes = [known.get(d, d) if isinstance(d, str) else d for d in declared.dims]
    text = "x".join(str(s) if isinstance(s, int) else "SIZE" for s in sizes)
    return f"--input-shape {declared.name}={text}, such as {declared.name}=" + "x".join(
        str(s) if isinstance(s, int) else "224" for s in sizes
    )


def _check_fixed_batch(
    inputs: Sequence[Declared], resolved: Sequence[TensorSpec], batch: set[str], batch_size: int
) -> None:
    """Without a batch symbol, the first input of rank 2 or more says what the batch is."""
    if batch:
        return
    for declared, spec in zip(inputs, resolved, strict=True):
        if len(spec.shape) < 2:
            continue
        if spec.shape[0] == batch_size:
            return
        if declared.dims is None or declared.dims[0] is None:
            message = f"--input-shape {spec.name}={show(spec.shape)} has a batch of"
            remedy = f"add --batch-size {spec.shape[0]}"
        else:
            message = f"the model's input {spec.name!r} ({show(spec.shape)}) has a fixed batch of"
            remedy = f"use --batch-size {spec.shape[0]}, or export it with a dynamic batch"
        raise ModelError(f"{message} {spec.shape[0]}, --batch-size is {batch_size}", remedy)
    if batch_size != 1:
        raise ModelError(
            f"the model has no batch dimension, --batch-size is {batch_size}", "use --batch-size 1"
        )


def show(dims: Sequence[Dim]) -> str:
    """``1x3x224x224``; ``?`` for an unnamed dimension, ``scalar`` for rank 0."""
    return "x".join("?" if dim is None else str(dim) for dim in dims) or "scalar"


def sample_shape(shape: tuple[int, ...], batch_size: int) -> tuple[int, ...]:
    """The shape of one sample: without axis 0 where that is the batch, else the whole shape."""
    return shape[1:] if shape and shape[0] == batch_size else shape
