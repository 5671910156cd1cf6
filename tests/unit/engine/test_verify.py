"""What the worker finds out after the window, with a real runtime: fidelity over which samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis.fidelity_check import fidelity_check
from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.engine.wire.messages import Drawn, Job, Verified
from harness.engine.worker import verify as verifying
from harness.engine.worker.verify import BATCHES, _disagreement, verify
from harness.maybe import Unavailable
from harness.protocols import Artifact, SessionOptions, TensorSpec
from harness.records.result import Fidelity, OutputFidelity

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

ROWS, WIDTH, TOKENS = 10, 6, 4
TABLE = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
SPECS = (TensorSpec("ids", "int64", (2, TOKENS)),)


def encoder(path: Path, table: NDArray[np.float32]) -> Artifact:
    """Hands its ids on, and sums what a table holds of them."""
    nodes = [
        helper.make_node("Identity", ["ids"], ["token_ids"]),
        helper.make_node("Gather", ["table", "ids"], ["gathered"]),
        helper.make_node("ReduceMean", ["gathered"], ["embedding"], axes=[1], keepdims=0),
        helper.make_node("ReduceMax", ["embedding"], ["largest"], keepdims=0),
    ]
    ids = ("batch", TOKENS)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ids)],
        [
            helper.make_tensor_value_info("token_ids", TensorProto.INT64, ids),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ("batch", WIDTH)),
            helper.make_tensor_value_info("largest", TensorProto.FLOAT, ()),
        ],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return Artifact("onnx", str(path), "", "fp32", "", 0, SPECS)


def verified(folder: Path, table: NDArray[np.float32], **job: Any) -> Verified:
    """Of a run of ``table``, whose reference is `TABLE`."""
    inputs = {"ids": np.arange(2 * TOKENS).reshape(2, TOKENS)}
    np.savez(folder / "inputs.npz", **inputs)
    ours, theirs = encoder(folder / "int8.onnx", table), encoder(folder / "fp32.onnx", TABLE)
    backend, options = OnnxRuntimeBackend(), SessionOptions()
    session = backend.prepare(ours, inputs, options)
    session.enqueue()
    session.synchronize()
    asked = Job(ours, str(folder / "inputs.npz"), options, 2, reference=theirs, **job)
    return verify(backend, session, asked)


def fidelity(found: Verified) -> Fidelity:
    assert isinstance(found.fidelity, Fidelity)
    return found.fidelity


def test_drawn_inputs_are_several_batches_within_their_ranges(tmp_path: Path) -> None:
    """The bound ids see rows 0 to 7 alone; what is wrong with the others shows in drawn ones."""
    table = TABLE.copy()
    table[8:] += 1.0
    found = fidelity(verified(tmp_path, table, drawn=Drawn({"ids": (0, ROWS)}, 0)))
    assert found.samples == 2 * BATCHES
    assert found.inputs == "the bound inputs and 7 more drawn batches"
    ids = found.outputs["token_ids"]
    assert isinstance(ids, OutputFidelity)
    assert (ids.elements, ids.equal) == (2 * BATCHES * TOKENS, 1.0)
    assert not isinstance(found.max_abs_error, Unavailable) and found.max_abs_error >= 0.25
    alone = fidelity(verified(tmp_path, table))
    assert (alone.samples, alone.inputs) == (2, "the bound inputs")
    assert alone.max_abs_error == 0.0


def test_ids_that_come_through_do_not_hide_embeddings_that_do_not(tmp_path: Path) -> None:
    found = fidelity(verified(tmp_path, TABLE[::-1].copy(), drawn=Drawn({"ids": (0, ROWS)}, 0)))
    assert found.output in ("embedding", "largest")
    assert isinstance(found.cosine, float) and found.cosine < 0.9
    assert fidelity_check(found, "int8", labelled=False).verdict == "warn"
    assert "class scores" in found.top1_agreement.reason  # type: ignore[union-attr]


def test_inputs_that_the_model_refuses_end_the_drawing(tmp_path: Path) -> None:
    found = fidelity(verified(tmp_path, TABLE, drawn=Drawn({"ids": (ROWS, ROWS + 5)}, 0)))
    assert found.samples == 2


@pytest.mark.parametrize("name", ["_DRAWN_S", "_DRAWN_BYTES"])
def test_drawing_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(verifying, name, -1)
    found = fidelity(verified(tmp_path, TABLE, drawn=Drawn({"ids": (0, ROWS)}, 0)))
    assert found.samples == 2


def test_labelled_samples_are_all_used_and_outputs_without_a_row_a_sample_too(
    tmp_path: Path,
) -> None:
    ids = np.random.default_rng(1).integers(0, ROWS, (5, TOKENS))
    np.savez(tmp_path / "labelled.npz", ids=ids, labels=np.zeros(5, np.int64))
    path = str(tmp_path / "labelled.npz")
    made = verified(tmp_path, TABLE + np.float32(1), evaluation_path=path, evaluation_name="ours")
    found = fidelity(made)
    assert (found.samples, found.inputs, found.top1_output) == (5, "ours", "embedding")
    assert found.top1_agreement == 1.0
    largest, embedding = found.outputs["largest"], found.outputs["embedding"]
    assert isinstance(largest, OutputFidelity) and isinstance(embedding, OutputFidelity)
    assert (largest.elements, embedding.elements) == (3, 5 * WIDTH)  # of three batches of two
    assert largest.max_abs_error == pytest.approx(1.0, rel=1e-5)


class Repeated:
    """A reference that gives ``answers``, one after the other."""

    def __init__(self, *answers: list[float]) -> None:
        self._answers = [np.array(answer, np.float32) for answer in answers]

    def enqueue(self) -> None:
        self._now = self._answers.pop(0)

    def synchronize(self) -> None:
        pass

    def outputs(self) -> dict[str, NDArray[np.float32]]:
        return {"y": self._now}


def test_a_model_that_disagrees_with_itself_is_no_reference() -> None:
    dropped: Any = Repeated([0.0, 2.0, 4.0], [1.0, 0.0, 4.0])
    found = _disagreement(dropped)
    assert isinstance(found, Unavailable)
    assert found.reason == "the model is random itself: in FP32 too, 'y' is another one each time"
    rounded: Any = Repeated([1.0, 2.0, np.nan], [1.0, 2.000001, np.nan])
    assert _disagreement(rounded) is None
