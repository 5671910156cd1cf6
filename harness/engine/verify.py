"""What the worker checks after the window: finite outputs, fidelity, accuracy, precision."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.accuracy import accuracy
from harness.analysis.fidelity import fidelity_of
from harness.engine.messages import Drawn, Job, Verified
from harness.errors import HarnessError
from harness.maybe import Maybe, Unavailable
from harness.protocols import Artifact, Backend, Session
from harness.records.result import Accuracy, Fidelity

Outputs = Mapping[str, NDArray[Any]]
BATCHES = 8  # that fidelity is over where inputs are drawn, the bound one included
_DRAWN_S, _DRAWN_BYTES = 10.0, 256 * 2**20  # no further batch beyond either


def verify(backend: Backend, session: Session, job: Job) -> Verified:
    """Check one session whose window is over. Its bound inputs may be replaced.

    Fidelity and accuracy use the labelled samples where there are any; else fidelity uses the bound
    inputs and, where these are drawn, some more.
    """
    outputs = session.outputs()
    description = session.describe()
    batches = None
    if job.evaluation_path:
        batches = _Batches(job.evaluation_path, job.artifact, job.batch_size)
    others: Outputs = {}
    if batches is not None and not _non_finite(outputs):
        outputs, others = batches.run(session)
    whole = {**outputs, **others}
    if bad := _non_finite(whole):
        return Verified(description, bad)
    return Verified(
        description,
        (),
        _fidelity(backend, job, session, whole, batches),
        _accuracy(job, outputs, batches),
    )


def _non_finite(outputs: Outputs) -> tuple[str, ...]:
    return tuple(name for name, array in outputs.items() if not _finite(array))


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


class _Batches:
    """Labelled samples, cut to the model's batch; the last batch wraps around to stay full.

    An input without a batch axis takes one sample a run.
    """

    def __init__(self, path: str, artifact: Artifact, batch_size: int) -> None:
        shapes = {spec.name: spec.shape for spec in artifact.inputs}
        with np.load(path, allow_pickle=False) as arrays:
            self._inputs = {name: arrays[name] for name in shapes}
            self.labels: NDArray[Any] = arrays["labels"]
        self._single = any(a.ndim > len(shapes[name]) for name, a in self._inputs.items())
        self._size = 1 if self._single else batch_size

    def run(self, session: Session) -> tuple[Outputs, Outputs]:
        """Over all samples: the outputs that have one row a sample, and the others, flat."""
        count = len(self.labels)
        parts: dict[str, list[NDArray[Any]]] = {}
        others: set[str] = set()
        for first in range(0, count, self._size):
            rows = np.arange(first, first + self._size) % count
            session.bind({name: self._feed(array, rows) for name, array in self._inputs.items()})
            session.enqueue()
            session.synchronize()
            for name, array in session.outputs().items():
                given = array[np.newaxis] if self._single else array
                if given.ndim and len(given) == self._size:
                    given = given[: count - first]
                else:
                    others.add(name)
                parts.setdefault(name, []).append(given)
        flat = {n: np.concatenate([array.ravel() for array in parts[n]]) for n in others}
        by_row = {n: np.concatenate(arrays) for n, arrays in parts.items() if n not in others}
        return by_row, flat

    def _feed(self, array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.ascontiguousarray(array[rows[0]] if self._single else array[rows])


def _fidelity(
    backend: Backend, job: Job, session: Session, outputs: Outputs, batches: _Batches | None
) -> Maybe[Fidelity]:
    """Over all labelled samples, or over the bound inputs and some that are drawn."""
    if job.reference is None:
        return Unavailable("this run is the FP32 reference", "compare a reduced precision with it")
    with np.load(job.inputs_path, allow_pickle=False) as arrays:
        inputs = dict(arrays)
    try:
        # A backend object shares the loaded model between its sessions, so the reference gets its
        # own.
        reference = type(backend)().prepare(job.reference, inputs, job.options)
    except HarnessError as error:
        return Unavailable(f"the FP32 reference did not run: {error}", error.remedy)
    pairs: list[tuple[Outputs, Outputs]]
    try:
        if batches is not None:
            by_row, others = batches.run(reference)
            pairs, samples = [(outputs, {**by_row, **others})], len(batches.labels)
            text, scores = job.evaluation_name, _scores(by_row)
        else:
            reference.enqueue()
            reference.synchronize()
            pairs = [(outputs, reference.outputs())]
            pairs += _further(session, reference, job, pairs[0])
            samples, scores = len(pairs) * job.batch_size, None
            text = "the bound inputs"
            if len(pairs) > 1:
                text += f" and {len(pairs) - 1} more drawn batches"
    except HarnessError as error:
        return Unavailable(f"the FP32 reference did not run: {error}", error.remedy)
    finally:
        reference.close()
    try:
        return fidelity_of(pairs, samples, inputs=text, scores=scores)
    except HarnessError as error:
        return Unavailable(f"the outputs do not compare with FP32's: {error.message}")


def _further(
    session: Session, reference: Session, job: Job, first: tuple[Outputs, Outputs]
) -> Iterator[tuple[Outputs, Outputs]]:
    """Outputs of both on further drawn inputs, within bounds of time and memory."""
    if job.drawn is None:
        return
    began, held = time.perf_counter(), _bytes(first)
    for index in range(1, BATCHES):
        if time.perf_counter() - began > _DRAWN_S or held > _DRAWN_BYTES:
            return
        pair = _both(session, reference, _drawn(job, job.drawn, index))
        if pair is None:
            return
        held += _bytes(pair)
        yield pair


def _drawn(job: Job, how: Drawn, index: int) -> dict[str, NDArray[Any]]:
    from harness.models.data import draw

    # the bound inputs have the seed itself, calibration the one after it
    return draw(job.artifact.inputs, how.ranges, how.seed + 1 + index)


def _both(
    session: Session, reference: Session, inputs: Mapping[str, NDArray[Any]]
) -> tuple[Outputs, Outputs] | None:
    """None where these inputs do not suit the model: it may refuse what was drawn by chance."""
    found = []
    try:
        for one in (session, reference):
            one.bind({name: array.copy() for name, array in inputs.items()})
            one.enqueue()
            one.synchronize()
            found.append(one.outputs())
    except Exception:  # the runtime's own: an enqueue is bare for the timed loop's sake
        return None
    return found[0], found[1]


def _bytes(pair: tuple[Outputs, Outputs]) -> int:
    return sum(array.nbytes for side in pair for array in side.values())


def _scores(outputs: Outputs) -> str | None:
    """The output that holds the class scores of labelled samples."""
    return next((n for n, a in outputs.items() if a.ndim == 2 and a.dtype.kind == "f"), None)


def _accuracy(job: Job, outputs: Outputs, batches: _Batches | None) -> Maybe[Accuracy]:
    if batches is None:
        return Unavailable("no labelled data for this model", "give --dataset FILE.npz with labels")
    name = _scores(outputs)
    if name is None:
        return Unavailable("no output of this model looks like class scores", "")
    found = accuracy(outputs[name], batches.labels)
    return Accuracy(
        dataset=job.evaluation_name,
        dataset_sha256=job.evaluation_sha256,
        samples=len(batches.labels),
        top1=found.top1,
        macro_f1=found.macro_f1,
        correct=found.correct,
    )
