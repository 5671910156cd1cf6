"""The process that makes variants of a model and has them answer: ``python -m`` it, JSON lines.

A quantizer's library, or a kernel, may end its process; the ledger itself goes on and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness import errors
from harness.errors import DataError, HarnessError, QuantizationError, one_line
from harness.host.child import ending
from harness.host.lifetime import end_with_parent
from harness.maybe import Unavailable, explain
from harness.protocols import Artifact, SessionOptions
from harness.quantize.job import QuantizeJob


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. ``fp32``'s inputs and outputs are those of every variant."""

    backend: str
    options: SessionOptions
    fp32: Artifact
    job: QuantizeJob
    folder: str
    samples: str  # .npz to choose on
    batch_size: int
    scores: str | None
    environment: dict[str, str] = {}


class MadeLayer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    sqnr_db: float | None
    apart_db: float | None = None
    overflow: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """``kind``: ``answers`` of the files fp32 and int8, ``alone`` (one layer in INT8, and its
    answers), ``without`` (write INT8 without these layers)."""

    kind: str
    names: tuple[str, ...] = ()
    target: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    layers: tuple[MadeLayer, ...] = ()
    correct: tuple[str, ...] = ()  # one text a model: '1' a sample that was answered right
    labelled: bool = True
    failure: str = ""
    remedy: str = ""
    error: str = ""  # class of the failure, in harness.errors


class Workshop:
    """Our end of it. Every method raises the `HarnessError` that the process met."""

    def __init__(self, setup: Setup) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.ledger.workshop"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._setup = setup

    def start(self) -> tuple[MadeLayer, ...]:
        """Make the INT8 model; its layers."""
        return self._ask(self._setup).layers

    def answers(self) -> tuple[str, str, bool]:
        """Of FP32 and of INT8, and whether they are held against labels."""
        found = self._ask(Order(kind="answers"))
        fp32, int8 = found.correct
        return fp32, int8, found.labelled

    def alone(self, name: str) -> str:
        """Answers of FP32 with the layer ``name`` in INT8."""
        return self._ask(Order(kind="alone", names=(name,))).correct[0]

    def without(self, names: Sequence[str], target: Path) -> None:
        """Write INT8 with the layers ``names`` in FP32 to ``target``."""
        self._ask(Order(kind="without", names=tuple(names), target=str(target)))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, order: msgspec.Struct) -> Reply:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(msgspec.json.encode(order) + b"\n")
            stdin.flush()
            line = stdout.readline()
        except (OSError, ValueError):  # it is gone, or was let go
            line = b""
        if not line:
            raise QuantizationError(
                f"the process that makes variants {ending(self._process.wait())}",
                "free some memory, or run the model with --precision int8 to see why",
            )
        reply = msgspec.json.decode(line, type=Reply)
        if reply.failure:
            kind = getattr(errors, reply.error, QuantizationError)
            raise kind(reply.failure, reply.remedy)
        return reply


class _Worker:
    """The other end."""

    def __init__(self, setup: Setup) -> None:
        from harness.quantize.onnx_mixed import Mixer

        self._setup, self._folder = setup, Path(setup.folder)
        self._mixer = Mixer(Path(setup.fp32.path), self._folder, setup.job)
        self._truth: Any = None

    def layers(self) -> Reply:
        overflow = {
            one.name: f"two products reach {one.reached} in {one.filters} of {one.of} filters, "
            f"activations up to {one.activation_max}"
            for one in self._mixer.overflows
        }
        made = tuple(
            MadeLayer(
                name=layer.name, nodes=layer.nodes, operators=layer.operators,
                sqnr_db=layer.sqnr_db, apart_db=layer.apart_db,
                overflow=next((overflow[n] for n in layer.nodes if n in overflow), ""),
            )
            for layer in self._mixer.layers
        )  # fmt: skip
        return Reply(layers=made)

    def do(self, order: Order) -> Reply:
        if order.kind == "answers":
            labelled = self._set_truth()
            files = (Path(self._setup.fp32.path), self._mixer.int8)
            return Reply(correct=tuple(map(self._correct, files)), labelled=labelled)
        if order.kind == "alone":
            target = self._folder / "alone.onnx"
            self._mixer.alone(order.names[0], target)
            found = self._correct(target)
            target.unlink()
            target.with_name(f"{target.name}.data").unlink(missing_ok=True)
            return Reply(correct=(found,))
        self._mixer.without(order.names, Path(order.target))
        return Reply()

    def _set_truth(self) -> bool:
        """The labels; without any, what FP32 answers. Whether there are labels."""
        batches, scores = self._scores(Path(self._setup.fp32.path))
        self._truth = scores.argmax(axis=1) if batches.labels is None else batches.labels
        return batches.labels is not None

    def _correct(self, path: Path) -> str:
        from harness.analysis.accuracy import accuracy

        return accuracy(self._scores(path)[1], self._truth).correct

    def _scores(self, path: Path) -> tuple[Any, Any]:
        import numpy as np

        from harness import registry
        from harness.analysis.accuracy import find_scores
        from harness.engine.worker.verify import Batches

        setup = self._setup
        artifact = msgspec.structs.replace(setup.fp32, path=str(path), sha256=str(path))
        batches = Batches(setup.samples, artifact, setup.batch_size)
        with np.load(setup.samples, allow_pickle=False) as arrays:
            first = {
                spec.name: batches.first(spec.name, arrays[spec.name]) for spec in artifact.inputs
            }
        session = registry.backend(setup.backend).prepare(artifact, first, setup.options)
        try:
            by_row, _ = batches.run(session)
        finally:
            session.close()
        found = find_scores(by_row, setup.scores)
        if isinstance(found, Unavailable):
            raise DataError(f"there are no answers to count: {explain(found)}", "name --scores")
        return batches, found.array


def main() -> int:
    end_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    worker: _Worker | None = None
    for line in sys.stdin.buffer:
        try:
            if worker is None:
                setup = msgspec.json.decode(line, type=Setup)
                os.environ.update(setup.environment)
                worker = _Worker(setup)
                reply = worker.layers()
            else:
                reply = worker.do(msgspec.json.decode(line, type=Order))
        except HarnessError as error:
            reply = Reply(failure=error.message, remedy=error.remedy, error=type(error).__name__)
        except Exception as error:  # a library's own
            text = f"a variant of the model cannot be made or run: {one_line(error)}"
            reply = Reply(failure=text, remedy="report this line", error="QuantizationError")
        answers.write(msgspec.json.encode(reply) + b"\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
