"""torch module or exported program to an ONNX file. Loaded in a builder only: imports torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import Dim, ExportedProgram

from harness.errors import ModelError

# protobuf cannot hold 2 GiB; above this the weights go to a file beside the model
INLINE_LIMIT_BYTES = 1_500_000_000


def export_onnx(
    model: torch.nn.Module | ExportedProgram,
    example: tuple[Any, ...],
    target: Path,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    *,
    batched: bool = False,
    size_bytes: int = 0,
    wanted: Sequence[str] = (),
) -> None:
    """Write ``target``. With ``batched``, axis 0 of every input is the dimension ``batch``;
    ``wanted`` are names for the outputs where the graph has no other use for them.

    Raises `ModelError` with the exporter's own first line.
    """
    # the exporter takes a dimension of size 1 for a constant, so examples of a free batch have two
    shapes = tuple({0: Dim("batch", min=1)} for _ in example) if batched else None
    try:
        with _quiet():
            # torch.export takes no TorchScript; the exporter before it takes nothing else
            torch.onnx.export(
                model,
                example,
                target,
                input_names=list(input_names) if input_names else None,
                output_names=list(output_names) if output_names else None,
                dynamic_shapes=shapes,
                dynamo=not isinstance(model, torch.jit.ScriptModule),
                external_data=size_bytes > INLINE_LIMIT_BYTES,
            )
        _strip(target, wanted)
    except Exception as error:  # the exporter raises many types, none of them documented
        line = next((line for line in _causes(error) if line), type(error).__name__)
        raise ModelError(
            f"the model cannot be exported to ONNX: {line}", "run it with --backend pytorch"
        ) from error


def _strip(path: Path, wanted: Sequence[str]) -> None:
    """Take out the stack traces that the exporter leaves: they hold paths of this machine, and
    would make the same model another file elsewhere.
    """
    model = onnx.load(path, load_external_data=False)
    del model.metadata_props[:]
    for graph in _graphs(model.graph):
        del graph.metadata_props[:]
        values = (*graph.input, *graph.output, *graph.value_info)
        for part in (*graph.node, *graph.initializer, *values):
            del part.metadata_props[:]
            part.doc_string = ""
    _tell_outputs_apart(model.graph)
    _rename_outputs(model.graph, wanted)
    onnx.save(model, path)


def _tell_outputs_apart(graph: onnx.GraphProto) -> None:
    """A module may hand an input through, or give a tensor twice; ONNX wants a name for each."""
    taken = {value.name for value in (*graph.input, *graph.initializer)}
    for index, output in enumerate(graph.output):
        if output.name in taken:
            name = f"{output.name}_{index}"
            graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
            output.name = name
        taken.add(output.name)


def _rename_outputs(graph: onnx.GraphProto, wanted: Sequence[str]) -> None:
    given = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    used = {n for part in _graphs(graph) for node in part.node for n in (*node.input, *node.output)}
    if len(wanted) != len(graph.output) or used.union(given) & set(wanted):
        return
    new = dict(zip((output.name for output in graph.output), wanted, strict=True))
    for part in _graphs(graph):
        for node in part.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
        for value in (*part.output, *part.value_info):
            value.name = new.get(value.name, value.name)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for nested in (attribute.g, *attribute.graphs):
                if nested.node:
                    yield from _graphs(nested)


def _causes(error: BaseException) -> Iterator[str]:
    """The first line of the innermost cause, then outwards."""
    chain = [error]
    while (inner := chain[-1].__cause__) is not None:
        chain.append(inner)
    for link in reversed(chain):
        yield f"{type(link).__name__}: {str(link).strip().splitlines()[0]}" if str(link) else ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter narrates on stdout and warns about its own internals."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
