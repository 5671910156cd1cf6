"""Concrete shapes: a model's symbolic dimensions meet ``--batch-size`` and ``--input-shape``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from harness.errors import ModelError, UsageError
from harness.protocols import Declared, Dim, TensorSpec

NO_BATCH = "none"  # for --batch-dim
_BATCH_NAME = re.compile(r"[^*+/]*batch[^*+/]*", re.IGNORECASE)
_BATCH_LETTERS = re.compile(r"n|b|bs|bsz", re.IGNORECASE)  # the batch at axis 0, anything elsewhere
# What is named like this is a length, and measured at the size of the batch it would be no use.
_LENGTHS = re.compile(
    r"seq|sequence|len|lengths?|times?|steps?|tokens?|ctx|context|past|total|text|words?|chars?"
    r"|frames?|samples?|points?|nodes?|edges?|box|boxes|anchors?|patch|patches|query|queries"
    r"|features?|channels?|height|width|rows?|columns?|pixels?|vertex|vertices|faces?"
)
_LETTERS = frozenset("cdhklmstw")  # alone: torch's s0 and s77 say nothing


class Batch(msgspec.Struct, frozen=True):
    """The symbols that stand for the batch, and how that is known.

    ``by`` is name, position or --batch-dim; empty where no symbol is the batch. ``refused`` says
    that the user has ruled out any.
    """

    symbols: frozenset[str] = frozenset()
    by: str = ""
    refused: bool = False


def find_batch(inputs: Sequence[Declared], asked: str | None = None) -> Batch:
    """The batch that ``asked`` names (`NO_BATCH`: there is none), else the symbols that are named
    like one, else the first symbol at an axis 0 that can hardly be anything else.

    Raises `UsageError` for a name that no input has.
    """
    dims = [(axis, dim) for i in inputs for axis, dim in enumerate(i.dims or ())]
    symbols = [dim for _, dim in dims if isinstance(dim, str)]
    if asked is not None:
        return _asked(asked, symbols)
    first = {dim for axis, dim in dims if axis == 0}
    named = frozenset(
        s
        for s in symbols
        if _BATCH_NAME.fullmatch(s) or (s in first and _BATCH_LETTERS.fullmatch(s))
    )
    if named:
        return Batch(named, "name")
    inner = {dim for axis, dim in dims if axis > 0}
    for declared in inputs:
        dim = declared.dims[0] if declared.dims and len(declared.dims) > 1 else None
        if isinstance(dim, str) and dim not in inner and not _is_length(dim):
            return Batch(frozenset({dim}), "position")
    return Batch()


def _asked(name: str, symbols: Sequence[str]) -> Batch:
    if name in symbols:
        return Batch(frozenset({name}), "--batch-dim")
    if name == NO_BATCH:
        return Batch(refused=True)
    known = ", ".join(dict.fromkeys(symbols)) or "without names"
    raise UsageError(
        f"--batch-dim names {name!r}, which is no open dimension of the model",
        f"its open dimensions are {known}; give {NO_BATCH} where none is the batch",
    )


def _is_length(symbol: str) -> bool:
    """Whether a part of the name says length, or the name is an expression."""
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]+", symbol)
    lengths = any(_LENGTHS.fullmatch(word.lower()) for word in words)
    return lengths or symbol.lower() in _LETTERS or bool(set("*+/") & set(symbol))


def batch_reading(
    inputs: Sequence[Declared], resolved: Sequence[TensorSpec], batch: Batch, batch_size: int
) -> str:
    """In words, which dimension was taken for the batch."""
    if batch.symbols:
        named = [dim for i in inputs for dim in i.dims or () if dim in batch.symbols]
        how = batch.by if batch.by.startswith("-") else f"by {batch.by}"
        return f"{', '.join(map(str, dict.fromkeys(named)))} ({how})"
    for declared, spec in zip(inputs, resolved, strict=True):
        if not batch.refused and _may_be_batch(declared, spec) and spec.shape[0] == batch_size:
            return f"dimension 0 of {declared.name} (by position)"
    return NO_BATCH


def resolve_shapes(
    inputs: Sequence[Declared],
    given: Mapping[str, tuple[int, ...]],
    batch_size: int,
    batch: Batch | None = None,
) -> tuple[TensorSpec, ...]:
    """Every input with a concrete shape; ``batch`` as `find_batch` finds it by default.

    Raises `UsageError` for a ``given`` shape that names no input, and `ModelError` for one that
    does not fit, for a fixed batch other than ``batch_size`` and for a dimension left open.
    """
    _check_names(inputs, given)
    batch = find_batch(inputs) if batch is None else batch
    known = dict.fromkeys(batch.symbols, batch_size)
    for declared in inputs:
        if declared.name in given:
            _learn(declared, given[declared.name], known, batch, batch_size)
    resolved = tuple(
        TensorSpec(i.name, i.dtype, _shape(i, given.get(i.name), known, batch_size, batch))
        for i in inputs
    )
    _check_fixed_batch(inputs, resolved, batch, batch_size)
    _check_elements(inputs, resolved)
    return resolved


def resolve_output(declared: Declared, known: Mapping[str, int]) -> TensorSpec:
    """An output's shape as far as it is known before a run; -1 stands for what is not."""
    dims = (None,) if declared.dims is None else declared.dims
    sizes = (known.get(d, -1) if isinstance(d, str) else d for d in dims)
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
    declared: Declared, shape: tuple[int, ...], known: dict[str, int], batch: Batch, size: int
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
            if dim in batch.symbols:
                remedy = f"--batch-size {given} sets that dimension" if given else "give 1 or more"
                if batch.by == "position":
                    remedy += f"; if {dim} is no batch, add --batch-dim {NO_BATCH}"
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
    batch: Batch,
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
        if size is None and dim is None and axis == 0 and len(declared.dims) > 1:
            size = None if batch.symbols or batch.refused else batch_size
        if size is None:
            remedy = f"give {_flag(declared, known)}"
            if dim is not None and not batch.symbols and not batch.refused:
                remedy += f"; or, if it is the batch, --batch-dim {dim}"
            raise ModelError(
                f"input {declared.name!r} leaves dimension {axis} ({dim or 'unnamed'}) open", remedy
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


def _may_be_batch(declared: Declared, spec: TensorSpec) -> bool:
    """Whether axis 0 is the batch by position: a symbol would have been found before."""
    first = declared.dims[0] if declared.dims else None
    return len(spec.shape) > 1 and not isinstance(first, str)


def _check_fixed_batch(
    inputs: Sequence[Declared], resolved: Sequence[TensorSpec], batch: Batch, batch_size: int
) -> None:
    """Without a batch symbol, the first input of rank 2 or more says what the batch is."""
    if batch.symbols:
        return
    no_batch = f", or --batch-dim {NO_BATCH} where that is no batch"
    for declared, spec in zip(inputs, resolved, strict=True):
        if batch.refused or not _may_be_batch(declared, spec):
            continue
        if spec.shape[0] == batch_size:
            return
        if spec.shape[0] == 0:
            raise _empty(declared, spec)
        if declared.dims is None or declared.dims[0] is None:
            message = f"--input-shape {spec.name}={show(spec.shape)} has a batch of"
            remedy = f"add --batch-size {spec.shape[0]}"
        else:
            message = f"the model's input {spec.name!r} ({show(spec.shape)}) has a fixed batch of"
            remedy = f"use --batch-size {spec.shape[0]}, or export it with a dynamic batch"
        raise ModelError(
            f"{message} {spec.shape[0]}, --batch-size is {batch_size}", remedy + no_batch
        )
    if batch_size != 1:
        raise ModelError(
            f"the model has no batch dimension, --batch-size is {batch_size}",
            "use --batch-size 1, or name the dimension with --batch-dim",
        )


def _check_elements(inputs: Sequence[Declared], resolved: Sequence[TensorSpec]) -> None:
    """An empty cache beside a token is a case of its own; of nothing at all nothing is computed."""
    if resolved and all(0 in spec.shape for spec in resolved):
        raise _empty(inputs[0], resolved[0])


def _empty(declared: Declared, spec: TensorSpec) -> ModelError:
    axis = spec.shape.index(0)
    if declared.dims is None or declared.dims[axis] != 0:
        text = f"--input-shape {spec.name}={show(spec.shape)}"
        return ModelError(f"{text} holds no element", f"give dimension {axis} a size of 1 or more")
    return ModelError(
        f"the model fixes dimension {axis} of its input {spec.name!r} at 0, which runtimes take "
        "literally: there is nothing to compute",
        "open that dimension with the onnx package, and save the file again: "
        f"....type.tensor_type.shape.dim[{axis}].dim_param = 'batch'",
    )


def show(dims: Sequence[Dim]) -> str:
    """``1x3x224x224``; ``?`` for an unnamed dimension, ``scalar`` for rank 0."""
    return "x".join("?" if dim is None else str(dim) for dim in dims) or "scalar"


def sample_shape(shape: tuple[int, ...], batch_size: int) -> tuple[int, ...]:
    """The shape of one sample: without axis 0 where that is the batch, else the whole shape."""
    return shape[1:] if shape and shape[0] == batch_size else shape
