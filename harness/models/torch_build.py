"""What a builder makes with torch: descriptions of modules, and their ONNX exports."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from harness.artifacts.pt2 import load_program
from harness.artifacts.torch_source import Loaded, load
from harness.artifacts.torchscript import constants_of
from harness.errors import ModelError
from harness.models import data, torchscript_inputs
from harness.models.onnx_export import export_onnx
from harness.models.shapes import resolve_shapes, show
from harness.protocols import Declared, TensorSpec

EXAMPLES = "examples.npz"
MODEL = "model.onnx"
DRAWABLE = {
    torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8,
    torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchStructure(msgspec.Struct, frozen=True, kw_only=True):
    """A module as built. ``size_bytes`` is what ``torch.save`` writes of its state, by precision;
    ``examples`` says whether `EXAMPLES` lies beside this record.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
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
        outputs = _run(source, module, tuple(arrays.values()))
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
    return tuple(torch.from_numpy(arrays[spec.name]) for spec in inputs)


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
) -> int:
    """Write `MODEL` at ``batch_size``, and `EXAMPLES` where the source has its own; the number of
    parameters.
    """
    loaded = load(source, seed)
    specs, arrays = _example(source, loaded, seed, given, batch_size, folder, samples)
    names = [spec.name for spec in specs]
    size = _state_bytes(loaded.module)
    export_onnx(loaded.module, tuple(arrays.values()), folder / MODEL, names, size_bytes=size)
    return _parameters(loaded.module)


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
    data.save(folder / EXAMPLES, {name: value.numpy() for name, value in tensors.items()})
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
        if value.dtype == torch.bfloat16:
            raise ModelError(
                f"input {name!r} of {source} is bfloat16, which the files that keep inputs have no "
                "name for",
                "give float32 examples, and have forward cast them",
            )
        if value.dtype not in DRAWABLE:
            raise ModelError(
                f"input {name!r} of {source} is {str(value.dtype).removeprefix('torch.')}",
                "give integers, booleans or floats of 16, 32 or 64 bits",
            )
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
        fitted[name] = (value if rows is None else value[rows]).contiguous()
    return specs, fitted


def _run(source: str, module: nn.Module, args: tuple[Tensor, ...]) -> list[TensorSpec]:
    """The tensor outputs of one inference, named by position."""
    try:
        with torch.no_grad():
            leaves = tree_leaves(module(*args))
    except Exception as error:  # the user's code, which may raise anything
        lines = str(error).strip().splitlines()
        # TorchScript's interpreter has a trace first, and what happened last
        line = next(iter(lines[::-1] if "TorchScript" in str(lines[:1]) else lines), "")
        shapes = ", ".join(show(tuple(arg.shape)) for arg in args)
        raise ModelError(
            f"{source} fails on inputs of {shapes}: {type(error).__name__}: {line}",
            "give example inputs and a --batch-size that the module takes",
        ) from error
    return [
        TensorSpec(f"output_{index}", str(leaf.dtype).removeprefix("torch."), tuple(leaf.shape))
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor)
    ]


def _parameters(module: nn.Module) -> int:
    """Of a frozen TorchScript module the weights are constants of its program."""
    tensors = [*module.parameters()]
    if isinstance(module, torch.jit.ScriptModule):
        constants = constants_of(module).values()
        tensors += [t for t in constants if t.is_floating_point() and t.dim()]
    return sum(tensor.numel() for tensor in tensors)


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
    torch.save(dict(state), counter)
    return counter.count


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state without what `torch.nn.Module.get_extra_state` adds, which may be anything."""
    state = module.state_dict().items()
    return {name: value for name, value in state if isinstance(value, Tensor)}


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """In ``dtype`` as `torch.nn.Module.to` leaves it: weights that are shared stay shared."""
    made: dict[object, Tensor] = {}
    cast: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point():
            cast[name] = value
            continue
        same = (value.data_ptr(), value.dtype, value.shape, value.stride())
        cast[name] = made.setdefault(same if value.numel() else name, value.to(dtype))
    return cast


def _state_bytes(module: nn.Module) -> int:
    """Tied weights once."""
    unique = {(t.data_ptr(), t.shape, t.dtype): t for t in _tensors(module).values()}
    return sum(t.numel() * t.element_size() for t in unique.values())


def _state_sha256(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
    return digest.hexdigest()
