"""What the worker checks after the window: finite outputs, fidelity, accuracy, precision.

Whatever fails here costs its own figure alone: what was measured in the window stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.analysis.accuracy import Scores, accuracy, find_scores
from harness.analysis.fidelity import fidelity_of
from harness.engine.wire.messages import Drawn, Job, Looked, Verified
from harness.engine.worker.overflow import overflows_of
from harness.engine.worker.repeat import changed_outputs, differing
from harness.errors import HarnessError
from harness.maybe import Maybe, Unavailable
from harness.models.data import LABELS
from harness.protocols import Artifact, Backend, Description, Session, Unseen
from harness.records.result import Accuracy, Fidelity

Outputs = Mapping[str, NDArray[Any]]
T = TypeVar("T")
BATCHES = 8  # that fidelity is over where inputs are drawn, the bound one included
_DRAWN_S, _DRAWN_BYTES = 10.0, 256 * 2**20  # no further batch beyond either


def verify(backend: Backend, session: Session, job: Job) -> Verified:
    """Check one session whose window is over. Its bound inputs may be replaced.

    Fidelity and accuracy use all samples that were given; else fidelity uses the bound inputs and,
    where these are drawn, some more.
    """
    outputs = _attempt(session.outputs, "the outputs cannot be read")
    described = _attempt(session.describe, "the runtime does not describe itself")
    if isinstance(described, Unavailable):
        described = Description({}, described)
    looked = _look(session, outputs)
    changed: Maybe[tuple[str, ...]]
    if isinstance(outputs, Unavailable):
        changed = outputs
    else:
        again = partial(changed_outputs, session, outputs, job.inputs_path)
        changed = _attempt(again, "the bound inputs did not run once more")
    batches = None
    if job.evaluation_path:
        batches = Batches(job.evaluation_path, job.artifact, job.batch_size)
    by_row, whole = outputs, outputs
    if batches is not None and not isinstance(looked, Unavailable) and not looked.nan:
        ran = _attempt(partial(batches.run, session), "the samples did not run")
        if isinstance(ran, Unavailable):
            by_row = whole = ran
        else:
            by_row, whole = ran[0], {**ran[0], **ran[1]}
            looked = _join(looked, _look(session, whole))
    bad = _unfit(whole, looked)
    scores = _scores(job, by_row, batches)
    kinds = described.operators
    return Verified(
        described,
        looked,
        bad or _fidelity(backend, job, session, whole, batches, scores),
        bad or _accuracy(job, scores, batches),
        changed,
        _attempt(lambda: overflows_of(job, kinds, batches), "its sums cannot be bounded"),
    )


def _attempt(call: Callable[[], T], what: str) -> Maybe[T]:
    try:
        return call()
    except HarnessError as error:
        return Unavailable(f"{what}: {error.message}", error.remedy)
    except Exception as error:  # a runtime's own
        text = " ".join(str(error).split())
        return Unavailable(f"{what}: {type(error).__name__}: {text}")


def _look(session: Session, outputs: Maybe[Outputs]) -> Maybe[Looked]:
    """What the outputs hold; absent where not one could be looked at."""
    if isinstance(outputs, Unavailable):
        return outputs
    unseen = dict(session.unseen()) if isinstance(session, Unseen) else {}
    if not any(array.size for array in outputs.values()):
        told = ", ".join(f"{name} is {what}" for name, what in unseen.items())
        told = told or ", ".join(f"{name} is empty" for name in outputs)
        return Unavailable(f"no output could be looked at{': ' * bool(told)}{told}")
    return Looked(
        nan=tuple(name for name, array in outputs.items() if _any(np.isnan, array)),
        infinite=tuple(name for name, array in outputs.items() if _any(np.isinf, array)),
        unseen=unseen,
    )


def _any(test: Callable[[NDArray[Any]], NDArray[np.bool_]], array: NDArray[Any]) -> bool:
    return array.dtype.kind in "fc" and bool(test(array).any())


def _join(first: Looked, second: Maybe[Looked]) -> Looked:
    if isinstance(second, Unavailable):
        return first
    return Looked(
        nan=tuple(dict.fromkeys(first.nan + second.nan)),
        infinite=tuple(dict.fromkeys(first.infinite + second.infinite)),
        unseen=first.unseen,
    )


def _unfit(outputs: Maybe[Outputs], looked: Maybe[Looked]) -> Unavailable | None:
    """Why nothing can be compared, if so."""
    if isinstance(outputs, Unavailable):
        return outputs
    if isinstance(looked, Unavailable):
        return looked
    return Unavailable(f"NaN in {', '.join(looked.nan)}") if looked.nan else None


class Batches:
    """Samples, cut to the model's batch; the last batch wraps around to stay full.

    An input without a batch axis takes the first sample of each batch. ``labels``: None where the
    samples have none.
    """

    def __init__(self, path: str, artifact: Artifact, batch_size: int) -> None:
        self._shapes = {spec.name: spec.shape for spec in artifact.inputs}
        with np.load(path, allow_pickle=False) as arrays:
            self._inputs = {name: arrays[name] for name in self._shapes}
            labelled = LABELS in arrays.files and LABELS not in self._shapes
            self.labels: NDArray[Any] | None = arrays[LABELS] if labelled else None
        counted = self._inputs.values() if self.labels is None else [self.labels]
        self.count = next(map(len, counted), 1)
        self._size = batch_size
        self._batched = any(self._has_batch(name) for name in self._shapes)

    def run(self, session: Session) -> tuple[Outputs, Outputs]:
        """Over all samples: the outputs that have one row a sample, and the others, flat."""
        parts: dict[str, list[NDArray[Any]]] = {}
        others: set[str] = set()
        for first in range(0, self.count, self._size):
            rows = np.arange(first, first + self._size) % self.count
            session.bind({name: self._feed(name, rows) for name in self._inputs})
            session.enqueue()
            session.synchronize()
            for name, array in session.outputs().items():
                given = array if self._batched or array.shape[:1] == (1,) else array[np.newaxis]
                if given.ndim and len(given) == self._size:
                    given = given[: self.count - first]
                else:
                    others.add(name)
                parts.setdefault(name, []).append(given)
        flat = {n: np.concatenate([array.ravel() for array in parts[n]]) for n in others}
        by_row = {n: np.concatenate(arrays) for n, arrays in parts.items() if n not in others}
        return by_row, flat

    def feeds(self, most: int) -> Iterator[dict[str, NDArray[Any]]]:
        """The first batches by input name, at most ``most`` of them."""
        for first in range(0, self.count, self._size)[:most]:
            rows = np.arange(first, first + self._size) % self.count
            yield {name: self._feed(name, rows) for name in self._inputs}

    def first(self, name: str, samples: NDArray[Any]) -> NDArray[Any]:
        """The first batch of one input."""
        return self._feed(name, np.arange(self._size) % len(samples))

    def _has_batch(self, name: str) -> bool:
        return bool(self._inputs[name].ndim == len(self._shapes[name]))

    def _feed(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        chosen = self._inputs[name][rows if self._has_batch(name) else rows[:1]]
        return np.ascontiguousarray(chosen).reshape(self._shapes[name])


def _fidelity(
    backend: Backend,
    job: Job,
    session: Session,
    outputs: Maybe[Outputs],
    batches: Batches | None,
    scores: Maybe[Scores],
) -> Maybe[Fidelity]:
    """Over all samples, or over the bound inputs and some that are drawn."""
    artifact = job.reference
    if artifact is None:
        return Unavailable("this run is the FP32 reference", "compare a reduced precision with it")
    if isinstance(outputs, Unavailable):
        return outputs
    with np.load(job.inputs_path, allow_pickle=False) as arrays:
        inputs = dict(arrays)
    failed = "the FP32 reference did not run"
    # A backend object shares the loaded model between its sessions, so the reference gets its own.
    reference = _attempt(lambda: type(backend)().prepare(artifact, inputs, job.options), failed)
    if isinstance(reference, Unavailable):
        return reference
    try:
        random = _attempt(partial(_disagreement, reference), failed)
        if random is not None:
            return random
        pairs = _attempt(partial(_pairs, session, reference, job, outputs, batches), failed)
    finally:
        reference.close()
    if isinstance(pairs, Unavailable):
        return pairs
    more = f" and {len(pairs) - 1} more drawn batches" if len(pairs) > 1 else ""
    return _attempt(
        lambda: fidelity_of(
            pairs,
            batches.count if batches is not None else len(pairs) * job.batch_size,
            inputs=job.evaluation_name if batches is not None else f"the bound inputs{more}",
            scores=_class_scores(scores),
        ),
        "the outputs do not compare with FP32's",
    )


def _disagreement(reference: Session) -> Unavailable | None:
    """Why FP32 is no reference: it gives two answers to one input."""
    runs = []
    for _ in range(2):
        reference.enqueue()
        reference.synchronize()
        runs.append(reference.outputs())
    once, again = runs
    moving = differing(once, again)
    if not moving:
        return None
    return Unavailable(
        f"the model is random itself: in FP32 too, {moving[0]!r} is another one each time",
        "switch off its dropout or sampling, or have it draw from a generator with a fixed seed",
    )


def _pairs(
    session: Session,
    reference: Session,
    job: Job,
    outputs: Outputs,
    batches: Batches | None,
) -> list[tuple[Outputs, Outputs]]:
    """Ours and the reference's outputs on the same inputs."""
    if batches is not None:
        by_row, others = batches.run(reference)
        return [(outputs, {**by_row, **others})]
    reference.enqueue()
    reference.synchronize()
    first = (outputs, reference.outputs())
    return [first, *_further(session, reference, job, first)]


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


def _scores(job: Job, outputs: Maybe[Outputs], batches: Batches | None) -> Maybe[Scores]:
    """The class scores of labelled samples, or of those that the user names."""
    if isinstance(outputs, Unavailable):
        return outputs
    if job.scores is None and (batches is None or batches.labels is None):
        return Unavailable("no labelled data for this model")
    return find_scores(outputs, job.scores)


def _class_scores(scores: Maybe[Scores]) -> str | None:
    """The output of several classes, whose argmax can be compared."""
    return None if isinstance(scores, Unavailable) or scores.single else scores.output


def _accuracy(job: Job, scores: Maybe[Scores], batches: Batches | None) -> Maybe[Accuracy]:
    labels = batches.labels if batches is not None else None
    if labels is None:
        return Unavailable("no labelled data for this model", "give --dataset FILE.npz with labels")
    if isinstance(scores, Unavailable):
        return scores
    found = _attempt(lambda: accuracy(scores.array, labels), "there is no accuracy")
    if isinstance(found, Unavailable):
        return found
    return Accuracy(
        dataset=job.evaluation_name,
        dataset_sha256=job.evaluation_sha256,
        samples=len(labels),
        top1=found.top1,
        macro_f1=found.macro_f1,
        correct=found.correct,
        scores=scores.reading,
    )
