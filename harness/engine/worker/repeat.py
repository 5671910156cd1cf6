"""Whether the window ran on the inputs that were bound, by the outputs that it ended with.

    window ... last inference ─> outputs        the same as
    bind the same inputs anew ─> outputs        the same as     (or nothing can be told:
    bind them once more       ─> outputs                         the model is random, or counts)

A model that works in place on its inputs, on a runtime that hands them over, gives others at first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.maybe import Maybe, Unavailable
from harness.models.data import arrays
from harness.protocols import Session

Outputs = Mapping[str, NDArray[Any]]
_REPEATED = 1e-3  # of the largest value: as far apart two runs of one model may be
_PATIENCE_S = 10.0  # no second inference where the first took as long


def changed_outputs(session: Session, outputs: Outputs, inputs_path: str) -> Maybe[tuple[str, ...]]:
    """The outputs that are no longer those of the bound inputs, which are bound anew for it."""
    inputs = dict(arrays(inputs_path))
    began = time.perf_counter()
    once = _anew(session, inputs)
    if time.perf_counter() - began > _PATIENCE_S:
        return Unavailable("an inference takes too long to repeat it")
    if moving := differing(once, _anew(session, inputs)):
        return Unavailable(f"{moving[0]!r} is another one each time: the model is random or counts")
    return differing(outputs, once)


def _anew(session: Session, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
    session.bind({name: array.copy() for name, array in inputs.items()})
    session.enqueue()
    session.synchronize()
    return session.outputs()


def differing(once: Outputs, again: Outputs) -> tuple[str, ...]:
    """Names of the outputs that two inferences do not have in common."""
    return tuple(name for name in once if not same(once[name], again.get(name)))


def same(once: NDArray[Any], again: NDArray[Any] | None) -> bool:
    """But for what the order of a sum over threads may change."""
    if again is None or once.shape != again.shape:
        return False
    if once.dtype.kind not in "fc":
        return np.array_equal(once, again)
    scale = float(np.abs(once[np.isfinite(once)]).max(initial=0.0))
    return np.allclose(once, again, rtol=0.0, atol=_REPEATED * scale, equal_nan=True)
