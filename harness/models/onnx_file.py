"""Reads an untrusted ONNX file: what goes in, what comes out. Builder only: imports onnx.

Weights are never executed and external data is opened only inside the model's own folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto
from onnx.inliner import inline_local_functions

from harness.errors import ModelError
from harness.models.onnx_index import Range, index_ranges
from harness.models.onnx_random import varying_outputs
from harness.models.shapes import (
    batch_reading,
    find_batch,
    resolve_output,
    resolve_shapes,
    symbol_sizes,
)
from harness.models.sources import check_external
from harness.protocols import Declared, Dim, TensorSpec

LIMIT_BYTES = 2**31 - 1  # protobuf's own
NUMPY_NAMES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
}

# of outputs alone: nothing draws them
OTHER_NAMES: Mapping[int, str] = {
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
    TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2",
    TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "uint4",
}


class OnnxStructure(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs to know of a graph, at one set of shapes.

    ``ranges`` are the values that integer inputs may take; ``external`` the data files beside it;
    ``batch_dim`` says in words which dimension was taken for the batch; ``varying`` are the outputs
    whose length something random decides.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ranges: dict[str, Range]
    external: tuple[str, ...]
    parameters: int
    batch_dim: str
    varying: tuple[str, ...]


def external_files(path: Path) -> tuple[str, ...]:
    """The files of weights beside ``path``, relative to its folder. Raises `ModelError`."""
    return _external_files(path, load(path))


def read_structure(
    path: Path,
    given: Mapping[str, tuple[int, ...]],
    batch_size: int,
    batch_dim: str | None = None,
) -> OnnxStructure:
    """The structure of ``path``, its shapes made concrete.

    Raises `ModelError` (`UsageError` for a shape given to no input), each one line.
    """
    model = load(path)
    external = _external_files(path, model)
    _check(path, model)
    declared = tuple(_declare(path, value) for value in real_inputs(model.graph))
    batch = find_batch(declared, batch_dim)
    specs = resolve_shapes(declared, given, batch_size, batch)
    shaped = _with_shapes(model, {spec.name: spec.shape for spec in specs})
    inferred = {value.name: _dims(value.type) for value in shaped.graph.output}
    unknown = [name for name, dims in inferred.items() if not _is_known(dims)]
    return OnnxStructure(
        inputs=specs,
        outputs=_outputs(model.graph, inferred, symbol_sizes(declared, specs)),
        ranges=index_ranges(shaped),
        external=external,
        parameters=_parameters(model.graph),
        batch_dim=batch_reading(declared, specs, batch, batch_size),
        varying=varying_outputs(shaped.graph, unknown),
    )


def load(path: Path) -> ModelProto:
    """The graph without its external data. Raises `ModelError`."""
    try:
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise ModelError(
                f"{path} is {size:,} bytes, more than an ONNX file can hold",
                "export it with its weights as external data",
            )
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(
            f"{path} is no ONNX file, or is cut short", "check where it came from"
        ) from error
    if model.ir_version > onnx.IR_VERSION and model.graph.output:
        raise ModelError(
            f"{path} has ONNX IR version {model.ir_version}, and the installed onnx "
            f"{onnx.__version__} reads up to {onnx.IR_VERSION}",
            "pip install -U onnx onnxruntime, or export it for an older one",
        )
    # protobuf reads nearly anything as an empty message
    if not (model.ir_version > 0 and model.opset_import and model.graph.output):
        raise ModelError(f"{path} is no ONNX model: it holds no graph", "check where it came from")
    return model


def real_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller must give: old files list their initializers too."""
    constants = {t.name for t in graph.initializer}
    constants |= {t.values.name for t in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in constants]


def _declare(path: Path, value: ValueInfoProto) -> Declared:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "value without a type").removesuffix("_type").replace("_", " ")
        raise ModelError(
            f"input {value.name!r} of {path} is no tensor but of the type {what}",
            "only tensor inputs can be drawn",
        )
    code = value.type.tensor_type.elem_type
    if code not in NUMPY_NAMES:
        name = TensorProto.DataType.Name(code).lower() if code else "of no type"
        raise ModelError(
            f"input {value.name!r} of {path} is {name}",
            f"inputs can be {', '.join(NUMPY_NAMES.values())}",
        )
    return Declared(name=value.name, dtype=NUMPY_NAMES[code], dims=_dims(value.type))


def _is_known(dims: tuple[Dim, ...] | None) -> bool:
    return dims is not None and all(isinstance(dim, int) for dim in dims)


def _outputs(
    graph: GraphProto, inferred: Mapping[str, tuple[Dim, ...] | None], sizes: Mapping[str, int]
) -> tuple[TensorSpec, ...]:
    """Every tensor of numbers once. What is inferred counts before what the file declares."""
    found: dict[str, TensorSpec] = {}
    for value in graph.output:
        dtype = {**NUMPY_NAMES, **OTHER_NAMES}.get(value.type.tensor_type.elem_type)
        if dtype is not None:
            dims, told = inferred.get(value.name), _dims(value.type)
            if dims is None:
                dims = told
            elif told is not None and len(told) == len(dims):
                pairs = zip(dims, told, strict=True)
                dims = tuple(new if isinstance(new, int) else old for new, old in pairs)
            declared = Declared(name=value.name, dtype=dtype, dims=dims)
            found[value.name] = resolve_output(declared, sizes)
    return tuple(found.values())


def _dims(kind: TypeProto) -> tuple[Dim, ...] | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in kind.tensor_type.shape.dim)


def _dim(dim: Any) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return str(dim.dim_param) if dim.HasField("dim_param") and dim.dim_param else None


def _with_shapes(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ModelProto:
    """A copy with concrete inputs, its functions inlined and shapes inferred as far as possible."""
    shaped = inline_local_functions(model) if model.functions else ModelProto()
    if not model.functions:
        shaped.CopyFrom(model)
    for value in shaped.graph.input:
        if value.name in shapes:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            shape.SetInParent()
            for size in shapes[value.name]:
                shape.dim.add().dim_value = size
    # exporters write symbols into outputs and intermediate values, which would outlive inference
    del shaped.graph.value_info[:]
    for value in shaped.graph.output:
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(shaped, data_prop=True)
    except (
        Exception
    ):  # inference is a help, not a verdict: runtimes know operators that onnx does not
        return shaped


def _check(path: Path, model: ModelProto) -> None:
    """The official checker, on the structure alone: data files were checked before."""
    bare = ModelProto()
    bare.CopyFrom(model)
    for value in _values(bare.graph):
        if value.type.WhichOneof("value") == "tensor_type":
            # the checker wants a shape of every output, runtimes do not
            value.type.tensor_type.shape.SetInParent()
    for tensor in _tensors(bare.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            # an empty tensor passes where one whose file the checker cannot find would not
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
            tensor.dims[:] = [0]
            tensor.raw_data = b""
    try:
        onnx.checker.check_model(bare, full_check=False)
    except onnx.checker.ValidationError as error:
        line = next((text for text in str(error).splitlines() if text.strip()), "no reason given")
        raise ModelError(f"{path} is not valid ONNX: {line.strip()}", "export it again") from error


def _values(graph: GraphProto) -> Iterator[ValueInfoProto]:
    """Inputs and outputs, those of nested graphs too."""
    yield from (*graph.input, *graph.output)
    for node in graph.node:
        for attribute in node.attribute:
            for nested in (attribute.g, *attribute.graphs):
                yield from _values(nested)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every constant tensor, those of nested graphs and attributes too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for nested in attribute.graphs:
                yield from _tensors(nested)


def _external_files(path: Path, model: ModelProto) -> tuple[str, ...]:
    """The data files, each inside the folder and long enough. Raises `ModelError`."""
    needed: dict[str, int] = {}
    graphs = [model.graph]
    tensors = [t for graph in graphs for t in _tensors(graph)]
    for function in model.functions:
        graph = GraphProto(node=function.node)
        tensors += list(_tensors(graph))
    for tensor in tensors:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        end = _number(path, entries, "offset") + _number(path, entries, "length")
        needed[location] = max(needed.get(location, 0), end)
    for location, end in needed.items():
        size = check_external(path, location)
        if size < end:
            raise ModelError(
                f"{path.parent / location} is cut short: {size:,} bytes of at least {end:,}",
                "copy it again",
            )
    return tuple(needed)


def _number(path: Path, entries: Mapping[str, str], key: str) -> int:
    text = entries.get(key, "0")
    if not text.isdecimal():
        raise ModelError(f"external data of {path} has the {key} {text!r}", "export it again")
    return int(text)


def _parameters(graph: GraphProto) -> int:
    """Elements of floating-point or 8-bit constants: weights, not shapes and indices."""
    kinds = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
    kinds |= {TensorProto.INT8, TensorProto.UINT8}
    total = 0
    for tensor in graph.initializer:
        if tensor.data_type in kinds:
            count = 1
            for dim in tensor.dims:
                count *= dim
            total += count
    return total
