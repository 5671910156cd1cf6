"""A torch model's graph for TensorBoard, by torch's own tracer. Imports torch and TensorBoard."""

from __future__ import annotations

import warnings
from typing import Any


class NoGraph(Exception):
    """The model has no graph that could be drawn; the text says why."""


def trace(model: Any, inputs: Any) -> bytes:
    """A serialised GraphDef. Raises `NoGraph`."""
    try:
        from torch.utils.tensorboard._pytorch_graph import graph
    except ImportError as error:
        raise NoGraph(f"{error}; pip install 'hw-harness[torch,board]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer is deprecated, without a successor here
            definition, _ = graph(model, inputs)
        drawn: bytes = definition.SerializeToString()
    except Exception as error:  # the tracer runs the model, which may raise anything
        line = next(iter(str(error).splitlines()), "")
        raise NoGraph(f"{type(error).__name__}: {line}") from error
    return drawn
