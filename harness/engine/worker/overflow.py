"""Which layers of a user's own quantized file can leave 16 bits, looked at after the window.

What Harness itself makes has weights of 7 bits where that matters (`harness.quantize.onnx_make`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.engine.wire.messages import Job
from harness.maybe import Maybe, Unavailable
from harness.records.result import NOT_OWN, Overflow, Overflows

_BATCHES = 8  # that activations are observed on
_INT8 = "int8"


class Feeds(Protocol):
    def feeds(self, most: int) -> Iterator[dict[str, NDArray[Any]]]: ...


def overflows_of(
    job: Job, operators: Maybe[dict[str, dict[str, int]]], batches: Feeds | None
) -> Maybe[Overflows]:
    """By the static bound, on the first of ``batches``, else on the bound inputs.

    Raises what onnx and its runtime raise.
    """
    artifact = job.artifact
    if artifact.format != "onnx" or artifact.quantization or job.options.device != "cpu":
        return NOT_OWN
    if isinstance(operators, Unavailable):
        return operators
    if not any(_INT8 in kinds for kinds in operators.values()):
        return NOT_OWN
    import onnx

    from harness.quantize.onnx import saturates_here
    from harness.quantize.onnx_overflow import overflows

    feeds = list(batches.feeds(_BATCHES)) if batches is not None else [_bound(job)]
    with tempfile.TemporaryDirectory(prefix="harness-overflow-") as folder:
        found = overflows(onnx.load(artifact.path), feeds, Path(folder, "model.onnx"))
    return Overflows(
        layers=tuple(
            Overflow(
                name=one.name, reached=one.reached, filters=one.filters, of=one.of,
                activation_max=one.activation_max,
            )
            for one in found
        ),
        samples=len(feeds) * job.batch_size,
        here=saturates_here(),
    )  # fmt: skip


def _bound(job: Job) -> dict[str, NDArray[Any]]:
    with np.load(job.inputs_path, allow_pickle=False) as arrays:
        return {spec.name: arrays[spec.name] for spec in job.artifact.inputs}
