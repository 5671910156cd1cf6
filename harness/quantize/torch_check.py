"""Whether each step of quantizing left the model what it was. Imports torch.

the module ── check_trace ── its graph ─> int8 layers ── check_program ── the TorchScript program
                                                         check_kernels: it has integer kernels
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import QuantizationError
from harness.protocols import Proof
from harness.quantize.job import QuantizeJob
from harness.quantize.torch_blame import REMEDY, blamed
from harness.quantize.torch_proof import sqnr_db

_SAME_DB = 30.0
_FLOATS = (torch.float16, torch.float32, torch.float64)


def check_trace(module: nn.Module, graph: nn.Module, examples: tuple[Tensor, ...]) -> None:
    """Raises `QuantizationError` where the traced graph is not the model."""
    with blamed(module, "cannot be compared with its trace"):
        found = _sameness(graph, module, examples)
    if found < _SAME_DB:
        raise QuantizationError(
            f"traced, the model computes something else than called (SQNR {found:.1f} dB): it does "
            "something aside from its forward, or keeps a state",
            REMEDY,
        )


def check_kernels(program: Any, job: QuantizeJob, proof: Proof) -> None:
    """At least one integer kernel that computes: conversions alone are no int8 model."""
    kinds = Counter(node.kind() for node in program.inlined_graph.nodes())
    if any(kind.startswith("quantized::") for kind in kinds):
        return
    if proof.left:
        text = "; ".join(f"{name} {why}" for name, why in proof.left.items())
        raise QuantizationError(f"no layer of this model can run in int8: {text}"[:600], REMEDY)
    found = sorted(kind for kind in kinds if not kind.startswith("prim::"))
    covered = (
        "dynamic quantization covers Linear, LSTM and GRU"
        if job.mode == "dynamic"
        else "this route covers convolutions, linear layers and what stands between them"
    )
    raise QuantizationError(
        f"no operator of this model can run in int8: it has {', '.join(found) or 'none at all'}",
        f"{covered}; {REMEDY}",
    )


def check_program(program: Any, converted: Any, examples: tuple[Tensor, ...]) -> None:
    """Freezing rewrites the graph that was proven; it has to compute the same."""
    with blamed(converted, "cannot run in int8"):
        for inputs in (examples, tuple(_other(tensor) for tensor in examples)):
            if (found := _sameness(program, converted, inputs)) < _SAME_DB:
                raise QuantizationError(
                    "TorchScript computes something else than the quantized layers "
                    f"(SQNR {found:.1f} dB)",
                    REMEDY,
                )


def _sameness(made: Any, exact: Any, inputs: tuple[Tensor, ...]) -> float:
    """SQNR in dB; inf for a model that does not agree with itself, of which nothing can be said."""
    once, again = exact(*copies(inputs)), exact(*copies(inputs))
    random = sqnr_db(again, once) < _SAME_DB
    return math.inf if random else sqnr_db(made(*copies(inputs)), once)


def _other(tensor: Tensor) -> Tensor:
    """Other values of the same kind: a program may have kept what it saw while it was traced."""
    return tensor.flip(-1) if tensor.dim() and tensor.dtype in _FLOATS else tensor


def copies(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A model may work in place."""
    return tuple(tensor.clone() for tensor in tensors)
