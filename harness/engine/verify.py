"""What the worker checks after the window: finite outputs, fidelity, accuracy, precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.accuracy import accuracy
from harness.analysis.fidelity import fidelity
from harness.engine.messages import Job, Verified
from harness.errors import HarnessError
from harness.maybe import Maybe, Unavailable
from harness.protocols import Artifact, Backend, Session
from harness.records.result import Accuracy, Fidelity

Outputs = Mapping[str, NDArray[Any]]


def verify(backend: Backend, session: Session, job: Job) -> Verified:
    """Check one session whose window is over. Its bound inputs may be replaced.

    Fidelity and accuracy use the labelled samples where there are any, else the bound inputs.
    """
    outputs = session.outputs()
    description = session.describe()
    batches = None
    if job.evaluation_path:
        batches = _Batches(job.evaluation_path, job.artifact, job.batch_size)
    if batches is not None and not _non_finite(outputs):
        outputs = batches.run(session)
    if bad := _non_finite(outputs):
        return Verified(description, bad)
    return Verified(
        description,
        (),
        _fidelity(backend, job, outputs, batches),
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

    def run(self, session: Session) -> Outputs:
        """Every output that has one row a sample, over all samples."""
        count = len(self.labels)
        parts: dict[str, list[NDArray[Any]]] = {}
        for first in range(0, count, self._size):
            rows = np.arange(first, first + self._size) % count
            session.bind({name: self._feed(array, rows) for name, array in self._inputs.items()})
            session.enqueue()
            session.synchronize()
            for name, array in session.outputs().items():
                given = array[np.newaxis] if self._single else array
                if given.ndim and len(given) == self._size:
                    parts.setdefault(name, []).append(given[: count - first])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _feed(self, array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.ascontiguousarray(array[rows[0]] if self._single else array[rows])


def _reference_outputs(
    backend: Backend, job: Job, reference: Artifact, batches: _Batches | None
) -> Outputs:
    with np.load(job.inputs_path, allow_pickle=False) as arrays:
        inputs = dict(arrays)
    # A backend object shares the loaded model between its sessions, so the reference gets its own.
    session = type(backend)().prepare(reference, inputs, job.options)
    try:
        if batches is not None:
            return batches.run(session)
        session.enqueue()
        session.synchronize()
        return session.outputs()
    finally:
        session.close()


def _fidelity(
    backend: Backend, job: Job, outputs: Outputs, batches: _Batches | None
) -> Maybe[Fidelity]:
    if job.reference is None:
        return Unavailable("this run is the FP32 reference", "compare a reduced precision with it")
    try:
        reference = _reference_outputs(backend, job, job.reference, batches)
    except HarnessError as error:
        return Unavailable(f"the FP32 reference did not run: {error}", error.remedy)
    samples = len(batches.labels) if batches is not None else job.batch_size
    try:
        return fidelity(outputs, reference, samples)
    except HarnessError as error:  # an output whose size depends on the data, say
        return Unavailable(f"the outputs do not compare with FP32's: {error.message}")


def _accuracy(job: Job, outputs: Outputs, batches: _Batches | None) -> Maybe[Accuracy]:
    if batches is None:
        return Unavailable("no labelled data for this model", "give --dataset FILE.npz with labels")
    scores = next((a for a in outputs.values() if a.ndim == 2 and a.dtype.kind == "f"), None)
    if scores is None:
        return Unavailable("no output of this model looks like class scores", "")
    found = accuracy(scores, batches.labels)
    return Accuracy(
        dataset=job.evaluation_name,
        dataset_sha256=job.evaluation_sha256,
        samples=len(batches.labels),
        top1=found.top1,
        macro_f1=found.macro_f1,
        correct=found.correct,
    )
