"""Which outputs may have another length in every inference, on the same inputs?

    RandomUniformLike ── Greater ── Compress ── audio [samples]        drawn anew, and so its length

Builder only: imports onnx.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import GraphProto, NodeProto

_RANDOM = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
    "Bernoulli", "Sampling",
}  # fmt: skip
# Operators of other domains are their authors' business: they may draw, too.
_KNOWN = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc"}


def varying_outputs(graph: GraphProto, open_outputs: Iterable[str]) -> tuple[str, ...]:
    """Those of ``open_outputs`` (whose shape nothing foretells) that something random reaches.

    ``graph`` has its functions inlined.
    """
    reached: set[str] = set()
    for node in graph.node:  # each behind those that it takes from
        if _draws(node) or not reached.isdisjoint(_uses(node)):
            reached.update(node.output)
    return tuple(name for name in open_outputs if name in reached)


def _draws(node: NodeProto) -> bool:
    if node.op_type in _RANDOM or node.domain not in _KNOWN:
        return True
    training = node.op_type == "Dropout" and len(node.input) > 2
    return training or any(_draws(inner) for graph in _nested(node) for inner in graph.node)


def _uses(node: NodeProto) -> Iterator[str]:
    """The values that a node takes, those that its nested graphs take from outside too."""
    yield from node.input
    for graph in _nested(node):
        for inner in graph.node:
            yield from _uses(inner)
        yield from (value.name for value in graph.output)


def _nested(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
