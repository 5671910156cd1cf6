"""What TensorRT's ONNX parser takes, and in which words it refuses the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.backends.tensorrt.log import Log
from harness.errors import BackendUnavailable, ModelError, one_line
from harness.protocols import Node

_ERRORS_SHOWN = 3
_REMEDY = "replace the operator, or run it with --backend onnxruntime"
# A refusal is often a line of the parser's source, whose text is what was meant for its user.
_TEXT = re.compile(r'&&\s*"(.+)"', re.DOTALL)
_CONDITION = re.compile(r"(Assertion failed: )?(false|0)")
# What the parser says of CUDA on a machine without it has nothing to do with the model.
_NOISE = re.compile(r"^\[checkMacros\.cpp::catchCudaError.*$", re.MULTILINE)


def network_flags(trt: Any) -> int:
    """TensorRT 11 ignores the flag; on 10 the default is weak typing."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def parse(trt: Any, log: Log, network: Any, path: str) -> None:
    """Fill ``network`` from the file. Raises `ModelError` naming the nodes that are refused."""
    parser = _parser(trt, log, network)
    if parser.parse_from_file(path):  # unlike bytes, a file has its external data beside it
        return
    rejected = [_in_words(error) for error in _errors(parser)]
    if not rejected:
        raise log.failure(f"{log.title} cannot parse {path}", ModelError)
    shown = list(dict.fromkeys(rejected))
    more = f" (and {len(shown) - _ERRORS_SHOWN} more)" if len(shown) > _ERRORS_SHOWN else ""
    raise ModelError(
        f"{log.title} cannot parse {path}: {'; '.join(shown[:_ERRORS_SHOWN])}{more}", _REMEDY
    )


def examine(trt: Any, log: Log, path: str) -> list[Node]:
    """Every node of the graph in ``path``, and whether the parser takes it.

    Raises `ModelError` where the file as a whole is refused, `BackendUnavailable` where no builder
    can be made.
    """
    from onnx import load

    nodes = load(path, load_external_data=False).graph.node
    with log.mapped(f"{log.title} cannot start a builder", BackendUnavailable):
        builder = trt.Builder(log.native)
    with log.mapped(f"{log.title} cannot parse {path}", ModelError, _REMEDY):
        network = builder.create_network(network_flags(trt))  # the parser does not hold it
        parser = _parser(trt, log, network)
        whole = parser.parse_from_file(path)
        errors = _errors(parser)
        reached = _reached(trt, log, builder, path, whole)
    refused: dict[int, list[str]] = {}
    for error in errors:
        refused.setdefault(error.node(), []).append(_in_words(error, named=False))
    if -1 in refused and not whole:
        raise ModelError(f"{log.title} cannot parse {path}: {'; '.join(refused[-1])}", _REMEDY)
    return [
        Node(
            node.name or f"#{index}",
            node.op_type,
            False if index in refused else (True if index in reached else None),
            "; ".join(dict.fromkeys(refused.get(index, ()))),
        )
        for index, node in enumerate(nodes)
    ]


def _reached(trt: Any, log: Log, builder: Any, path: str, whole: bool) -> set[int] | range:
    """The nodes that the parser takes, those after a refused one included."""
    if whole:
        return range(1 << 31)
    network = builder.create_network(network_flags(trt))
    parser = _parser(trt, log, network)
    if not hasattr(parser, "supports_model_v2"):  # before TensorRT 10.1
        return set()
    parser.supports_model_v2(Path(path).read_bytes(), path)
    parts = range(parser.num_subgraphs)
    return {node for part in parts for node in parser.get_subgraph_nodes(part)}


def _parser(trt: Any, log: Log, network: Any) -> Any:
    trt.init_libnvinfer_plugins(log.native, "")  # some operators of ONNX are plug-ins
    return trt.OnnxParser(network, log.native)


def _errors(parser: Any) -> list[Any]:
    return [parser.get_error(index) for index in range(parser.num_errors)]


def _in_words(error: Any, *, named: bool = True) -> str:
    """One of the parser's errors, the node first. Errors of the whole file have no node."""
    operator, name = error.node_operator(), error.node_name()
    text = _meant(error.desc())
    if not operator and not name:
        return text
    if not named and not error.local_function_stack_size():
        return text
    return f"node {name or error.node()!r} ({operator or 'of unknown operator'}): {text}"


def _meant(text: str) -> str:
    """What the parser's ``text`` is meant to say."""
    meant = _TEXT.search(text)
    if meant:
        return one_line(meant[1])
    if _CONDITION.fullmatch(text.strip()):
        return "the parser has no such operator"
    return one_line(_NOISE.sub("", text))
