"""Where a layer stands in a model, and how torch is told to leave it in FP32. Imports torch."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from torch import fx


class Place(NamedTuple):
    """A module by its path, or the ``nth`` call (from 0) of a function within that module."""

    path: str
    function: Any = None  # as in the graph: a callable, or the name of a method
    nth: int = 0

    def leave(self, mapping: Any) -> None:
        """Have a `torch.ao.quantization.QConfigMapping` leave this layer in FP32."""
        if self.function is None:
            mapping.set_module_name(self.path, None)
        else:
            mapping.set_module_name_object_type_order(self.path, self.function, self.nth, None)

    def __str__(self) -> str:
        if self.function is None:
            return self.path
        name = str(getattr(self.function, "__name__", self.function))
        called = f"{name} {self.nth + 1}" if self.nth else name
        return f"{self.path}.{called}" if self.path else called


def places_of(graph: fx.GraphModule) -> dict[str, Place]:
    """The place of each node of a graph that `prepare_fx` made, by the node's name."""
    scopes = graph.meta["_observed_graph_module_attrs"].node_name_to_scope
    calls: Counter[Any] = Counter()
    places: dict[str, Place] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            places[node.name] = Place(str(node.target))
        elif node.op in ("call_function", "call_method"):
            path = scopes.get(node.name, ("", None))[0]
            places[node.name] = Place(path, node.target, calls[path, node.target])
            calls[path, node.target] += 1
    return places
