"""What a builder makes with torch: descriptions of modules, and their ONNX exports."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from harness.artifacts.pt2 import load_program
from harness.artifacts.torch_errors import cause
from harness.artifacts.torch_source import Loaded, load
from harness.artifacts.torch_values import Flat, is_flat, leaves, output_names
from harness.artifacts.torchscript import constants_of
from harness.errors import ModelError
from harness.maybe import Maybe, Unavailable
from harness.models import data, torchscript_inputs
from harness.models.onnx_export import export_onnx
from harness.models.shapes import resolve_shapes, show
from harness.protocols import Declared, TensorSpec

EXAMPLES = "examples.npz"
MODEL = "model.onnx"
_KERNELS = re.compile(r"= (?:quantized|onednn)::")
REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchStructure(msgspec.Struct, frozen=True, kw_only=True):
    """A module as built. ``size_bytes`` is what ``torch.save`` writes of its state, by precision;
    ``examples`` says whether `EXAMPLES` lies beside this record.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Maybe[int]
    size_bytes: dict[str, int]
    sha256: str
    examples: bool


class _Counter(io.BytesIO):
    """A file that only counts."""

    count = 0

    def write(self, chunk: Any) -> int:
        self.count += len(chunk)
        return len(chunk)


def describe(
    source: str,
    seed: int,
    inputs: Sequence[TensorSpec] | None,
    outputs: Sequence[TensorSpec] | None,
    given: Mapping[str, tuple[int, ...]],
    batch_size: int,
    folder: Path,
    samples: Path | None = None,
) -> TorchStructure:
    """Build the module once. Inputs and outputs that the caller does not know come from the
    source's examples, which are kept, and from one inference on them; those of a TorchScript file
    from ``samples``, the user's own, and what `torchscript_inputs` finds beside them.
    """
    loaded = load(source, seed)
    module = loaded.module
    if inputs is None:
        inputs, arrays = _example(source, loaded, seed, given, batch_size, folder, samples)
        outputs = _run(source, module, arrays)
    state = _tensors(module)
    path = _script(source)
    return TorchStructure(
        inputs=tuple(inputs),
        outputs=tuple(outputs or ()),
        parameters=_parameters(module),
        size_bytes=_sizes(state) if path is None else _script_sizes(path, module),
        sha256=_state_sha256(state),
        examples=(folder / EXAMPLES).exists(),
    )


def example_tensors(
    inputs: Sequence[TensorSpec], arrays: Mapping[str, data.Array]
) -> tuple[Tensor, ...]:
    return tuple(
        torch.from_numpy(arrays[spec.name]).to(getattr(torch, spec.dtype)) for spec in inputs
    )


def export_zoo(
    name: str,
    seed: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[str],
    ranges: Mapping[str, tuple[int, int]],
    folder: Path,
) -> int:
    """Write `MODEL` with a free batch; the number of parameters."""
    module = load(f"zoo:{name}", seed).module
    pairs = [TensorSpec(s.name, s.dtype, (2, *s.shape[1:])) for s in inputs]
    example = example_tensors(pairs, data.draw(pairs, ranges, seed))
    names = [spec.name for spec in inputs]
    size = _state_bytes(module)
    export_onnx(module, example, folder / MODEL, names, outputs, batched=True, size_bytes=size)
    return sum(parameter.numel() for parameter in module.parameters())


def export_example(
    source: str,
    seed: int,
    given: Mapping[str, tuple[int, ...]],
    batch_size: int,
    folder: Path,
    samples: Path | None = None,
) -> Maybe[int]:
    """Write `MODEL` at ``batch_size``, and `EXAMPLES` where the source has its own; the number of
    parameters.
    """
    loaded = load(source, seed)
    specs, arrays = _example(source, loaded, seed, given, batch_size, folder, samples)
    names = [spec.name for spec in specs]
    size = _state_bytes(loaded.module)
    module, outputs = _plain(source, loaded.module, arrays)
    args = tuple(arrays.values())
    export_onnx(module, args, folder / MODEL, names, size_bytes=size, wanted=outputs or ())
    return _parameters(loaded.module)


def _plain(
    source: str, module: nn.Module, inputs: Mapping[str, Tensor]
) -> tuple[nn.Module, list[str] | None]:
    """With outputs that the exporter takes: no dataclass, no dict of a class of its own; and what
    they are called.
    """
    args = tuple(inputs.values())
    if any(arg.is_complex() for arg in args):
        raise ModelError(
            f"{source} takes complex numbers, and an ONNX graph takes them as pairs of real ones",
            "run it with --backend pytorch",
        )
    if isinstance(module, torch.jit.ScriptModule):
        return module, None
    with torch.no_grad(), _mapped(source, args):
        result = module(*(arg.clone() for arg in args))
    if not any(isinstance(leaf, Tensor) for leaf in leaves(result)):
        raise ModelError(
            f"{source} gives no tensor, and an ONNX graph gives nothing else",
            "run it with --backend pytorch",
        )
    plain = module if is_flat(result) else Flat(module).eval()
    return plain, output_names(result, inputs)


def export_program(path: Path, folder: Path) -> int:
    """Write `MODEL` with the program's own free dimensions; the number of parameters."""
    program = load_program(path)
    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    export_onnx(program, (), folder / MODEL, size_bytes=size)
    return sum(parameter.numel() for parameter in program.parameters())


def _script(source: str) -> Path | None:
    kind, _, path = source.partition(":")
    return Path(path) if kind == "torchscript" else None


def _example(
    source: str,
    loaded: Loaded,
    seed: int,
    given: Mapping[str, tuple[int, ...]],
    batch_size: int,
    folder: Path,
    samples: Path | None,
) -> tuple[tuple[TensorSpec, ...], dict[str, Tensor]]:
    """The inputs and one batch of them; the source's own are kept as `EXAMPLES`."""
    if (path := _script(source)) is not None:
        specs, arrays = torchscript_inputs.find(
            path, loaded.module, given, batch_size, samples, seed
        )
        return specs, dict(zip(arrays, example_tensors(specs, arrays), strict=True))
    specs, tensors = _fit(source, loaded, given, batch_size)
    arrays = {s.name: tensors[s.name].to(getattr(torch, s.array_dtype)).numpy() for s in specs}
    data.save(folder / EXAMPLES, arrays)
    return specs, tensors


def _fit(
    source: str, loaded: Loaded, given: Mapping[str, tuple[int, ...]], batch_size: int
) -> tuple[tuple[TensorSpec, ...], dict[str, Tensor]]:
    """The examples at ``batch_size``: where all share axis 0, it is the batch, repeated or cut."""
    if loaded.examples is None:
        raise ModelError(
            f"{source.partition(':')[2]} holds no example inputs",
            "save the program with the example inputs that torch.export.export was given",
        )
    examples = {name: value.detach().cpu() for name, value in loaded.examples.items()}
    for name, value in examples.items():
        _check_kept(source, name, value)
    counts = {value.shape[0] if value.ndim else None for value in examples.values()}
    batched = len(counts) == 1 and counts != {None} and counts != {0}
    declared = [
        Declared(
            name=name,
            dtype=str(value.dtype).removeprefix("torch."),
            dims=("batch", *value.shape[1:]) if batched else tuple(value.shape),
        )
        for name, value in examples.items()
    ]
    specs = resolve_shapes(declared, given, batch_size)
    fitted = {}
    for name, value in examples.items():
        rows = torch.arange(batch_size) % value.shape[0] if batched else None
        rowed = value if rows is None else value[rows]
        fitted[name] = rowed.as_subclass(Tensor).resolve_conj().resolve_neg().contiguous()
    return specs, fitted


def _check_kept(source: str, name: str, value: Tensor) -> None:
    """Raises `ModelError` for an example that no file of arrays can hold."""
    dtype = str(value.dtype).removeprefix("torch.")
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else "sparse"
        raise ModelError(
            f"input {name!r} of {source} is a {kind} tensor",
            "give a dense one, and have forward convert it",
        )
    try:
        np.dtype(TensorSpec(name, dtype, ()).array_dtype)
    except TypeError as error:
        raise ModelError(
            f"input {name!r} of {source} is {dtype}, which no file of arrays can hold",
            "give a type that numpy has, and have forward convert it",
        ) from error


def _run(source: str, module: nn.Module, inputs: Mapping[str, Tensor]) -> list[TensorSpec]:
    """The tensor outputs of one inference, by their own names or by position."""
    args = tuple(inputs.values())
    with torch.no_grad(), _mapped(source, args):
        result = module(*args)
        found = list(leaves(result))
    for leaf in found:
        if isinstance(leaf, Iterator | Awaitable):
            raise ModelError(
                f"{source} returns a {type(leaf).__name__}, which computes when it is read, after "
                "forward",
                "have forward return a list",
            )
    places = {f"output_{i}": leaf for i, leaf in enumerate(found) if isinstance(leaf, Tensor)}
    names: Collection[str] = output_names(result, inputs) or ()
    names = names if len(names) == len(places) else places
    return [
        TensorSpec(name, str(leaf.dtype).removeprefix("torch."), tuple(leaf.shape))
        for name, leaf in zip(names, places.values(), strict=True)
    ]


@contextlib.contextmanager
def _mapped(source: str, args: tuple[Tensor, ...]) -> Iterator[None]:
    """What the module raises on these inputs, as `ModelError`."""
    try:
        yield
    except Exception as error:  # the user's code, which may raise anything
        shapes = ", ".join(show(tuple(arg.shape)) for arg in args)
        said = f": {line}" if (line := cause(error)) else ""
        memory = isinstance(error, MemoryError) or re.search("allocate memory|out of memory", line)
        raise ModelError(
            f"{source} fails on inputs of {shapes}: {type(error).__name__}{said}",
            "use a smaller batch or model"
            if memory
            else "give example inputs and a --batch-size that the module takes",
        ) from error


def _parameters(module: nn.Module) -> Maybe[int]:
    """Of a frozen TorchScript module the weights are constants of its program."""
    script = isinstance(module, torch.jit.ScriptModule)
    if _KERNELS.search(str(module.inlined_graph)) if script else _is_quantized(module):
        return Unavailable(
            "its weights are packed for integer kernels, which do not say how many there are",
            "see the model that it was quantized from",
        )
    tensors = [*module.parameters()]
    if script:
        constants = constants_of(module).values()
        tensors += [t for t in constants if t.is_floating_point() and t.dim()]
    count: int = sum(tensor.numel() for tensor in tensors)
    return count


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    reduced = {name: _saved_bytes(_cast(state, dtype)) for name, dtype in REDUCED.items()}
    return {"fp32": _saved_bytes(state), **reduced}


def _script_sizes(path: Path, module: Any) -> dict[str, int]:
    """Of the file, and of the same file with its weights cast, which changes ``module``."""
    sizes = {"fp32": path.stat().st_size}
    for precision, dtype in REDUCED.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sizes[precision] = len(module.to(dtype).save_to_buffer())
    return sizes


def _saved_bytes(state: Mapping[str, Tensor]) -> int:
    counter = _Counter()
    try:
        torch.save(dict(state), counter)
    except Exception:  # a tensor of a class that cannot be pickled
        counter = _Counter()
        torch.save({name: value.as_subclass(Tensor) for name, value in state.items()}, counter)
    return counter.count


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the state; packed weights and extra state hold some in nests of their own."""
    found = {}
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            found[name] = value
            continue
        for index, leaf in enumerate(tree_leaves(value)):
            if isinstance(leaf, Tensor):
                found[f"{name}.{index}"] = leaf
    return found


def _is_quantized(module: nn.Module) -> bool:
    return any(value.is_quantized for value in _tensors(module).values())


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """In ``dtype`` as `torch.nn.Module.to` leaves it: weights that are shared stay shared."""
    made: dict[object, Tensor] = {}
    cast: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point():
            cast[name] = value
            continue
        same = _place(value)
        cast[name] = made.setdefault(name if same is None else same, value.to(dtype))
    return cast


def _place(value: Tensor) -> object | None:
    """The same for the same weights; None for those that share nothing, or have no one place."""
    try:
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
    except (RuntimeError, NotImplementedError):  # sparse ones, and classes without a storage
        return None
    return place if value.numel() else None


def _state_bytes(module: nn.Module) -> int:
    """Tied weights once."""
    unique = {_place(t) or name: t for name, t in _tensors(module).items()}
    return sum(t.numel() * t.element_size() for t in unique.values())


def _state_sha256(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_content(tensor))
    return digest.hexdigest()


def _content(tensor: Tensor) -> Any:
    """The bytes of its values."""
    tensor = tensor.detach().cpu()
    try:
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        dense = tensor.as_subclass(Tensor).resolve_conj().contiguous()
        return dense.reshape(-1).view(torch.uint8).numpy().data if dense.numel() else b""
    except (RuntimeError, NotImplementedError, TypeError):  # a class without a storage of its own
        file = io.BytesIO()
        torch.save(tensor, file)
        return file.getbuffer()
