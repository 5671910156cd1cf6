"""After the window: of what the accuracy is, what the outputs hold, and that no failure spreads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import floats, measured, prepared, save, value

from harness.engine.wire.messages import Job, Looked
from harness.engine.worker.repeat import changed_outputs
from harness.engine.worker.verify import verify
from harness.errors import DataError, MeasurementFailed, UsageError
from harness.maybe import Unavailable
from harness.protocols import Artifact, SessionOptions
from harness.records.result import Accuracy, Fidelity
from harness.testing.fake_backend import FakeBackend, FakeSession

X, W = floats(60, 8), floats(8, 3, seed=1)
# features that point anywhere but at the right class
WRONG = np.concatenate([-W, floats(8, 5, seed=2) * 3], axis=1)


def labelled(folder: Path, labels: Any, **arrays: Any) -> str:
    np.savez(folder / "d.npz", labels=labels, **(arrays or {"x": X}))
    return str(folder / "d.npz")


def two_heads(folder: Path, copies: int = 1) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "wf"], ["features"]),
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
    ]
    outputs = [value("features", ["batch", 8 * copies]), value("logits", ["batch", 3])]
    constants = {"wf": np.tile(WRONG, (1, copies)), "w": W}
    return save(folder / "m.onnx", nodes, [value("x", ["batch", 8])], outputs, constants)


@pytest.mark.parametrize("copies", [1, 8])
@pytest.mark.parametrize("batch_size", ["1", "7"])
def test_accuracy_is_of_the_output_that_is_named(
    tmp_path: Path, copies: int, batch_size: str
) -> None:
    path, dataset = two_heads(tmp_path, copies), labelled(tmp_path, (X @ W).argmax(1))
    common: dict[str, Any] = {"dataset": dataset, "batch_size": batch_size}

    absent = measured(path, **common)[1].accuracy
    named = measured(path, scores="logits", **common)[1].accuracy
    other = measured(path, scores="features", **common)[1].accuracy

    assert absent == Unavailable(
        "2 outputs could hold the class scores: features, logits", "name one: --scores logits"
    )
    assert isinstance(named, Accuracy) and isinstance(other, Accuracy)
    assert (named.top1, named.scores, named.samples) == (1.0, "logits (--scores)", 60)
    assert (other.top1, other.scores) == (0.0, "features (--scores)")


def test_an_output_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'y', which is no output of .*are features, logits"):
        prepared(two_heads(tmp_path), scores="y")


def test_one_probability_a_sample(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
    ]
    inputs, outputs = [value("x", ["batch", 8])], [value("p", ["batch", 1])]
    path = save(tmp_path / "m.onnx", nodes, inputs, outputs, {"w": W[:, :1]})
    right = (X @ W[:, 0] > 0).astype(np.int64)

    for labels in (right, np.zeros(60, np.int64)):
        absent = measured(path, dataset=labelled(tmp_path, labels))[1].accuracy
        assert isinstance(absent, Unavailable) and absent.remedy.startswith("--scores p takes it")
    found = measured(path, dataset=labelled(tmp_path, right), scores="p", batch_size="4")[
        1
    ].accuracy
    assert isinstance(found, Accuracy)
    assert (found.top1, found.scores) == (1.0, "p > 0.5 (--scores)")
    with pytest.raises(DataError, match="'labels' holds 2, the model has 2 classes"):
        prepared(path, dataset=labelled(tmp_path, right + 1), scores="p")


def masked(folder: Path, mask: float) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Add", ["t", "m"], ["y"]),
    ]
    constants = {"w": W, "m": np.array([0, mask, 0], np.float32)}
    inputs, outputs = [value("x", ["batch", 8])], [value("y", ["batch", 3])]
    return save(folder / "m.onnx", nodes, inputs, outputs, constants)


def test_minus_infinity_is_an_answer(tmp_path: Path) -> None:
    scores = X @ W
    scores[:, 1] = -np.inf
    path = masked(tmp_path, -np.inf)
    _, found = measured(path, dataset=labelled(tmp_path, scores.argmax(1)))
    assert found.looked == Looked(infinite=("y",))
    assert isinstance(found.accuracy, Accuracy) and found.accuracy.top1 == 1.0


def test_nan_is_none(tmp_path: Path) -> None:
    path = masked(tmp_path, np.nan)
    _, found = measured(path, dataset=labelled(tmp_path, np.zeros(60, np.int64)))
    assert found.looked == Looked(nan=("y",))
    assert found.accuracy == Unavailable("NaN in y")


def area(folder: Path) -> Path:
    nodes = [
        helper.make_node("Sqrt", ["area"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    inputs, outputs = [value("area", ["batch", 8])], [value("y", ["batch", 3])]
    return save(folder / "m.onnx", nodes, inputs, outputs, {"w": W})


@pytest.mark.parametrize("batch_size", ["1", "5"])
def test_inputs_are_bound_without_labels(tmp_path: Path, batch_size: str) -> None:
    np.savez(tmp_path / "inputs.npz", area=np.abs(floats(16, 8)) + 1, more=np.zeros(3))
    given: dict[str, Any] = {"inputs": str(tmp_path / "inputs.npz"), "batch_size": batch_size}
    path = area(tmp_path)

    assert measured(path, batch_size=batch_size)[1].looked == Looked(nan=("y",))
    made, found = measured(path, **given)
    reduced, int8 = measured(path, precision="int8", **given)

    assert found.looked == Looked()
    assert made.model.input_data == f"inputs.npz, first samples ({batch_size})"
    with np.load(made.inputs_path) as bound:
        assert np.array_equal(bound["area"], (np.abs(floats(16, 8)) + 1)[: int(batch_size)])
    assert isinstance(found.accuracy, Unavailable)
    assert found.accuracy.reason == "no labelled data for this model"
    assert isinstance(int8.fidelity, Fidelity) and int8.fidelity.samples == 16
    assert reduced.artifact.quantization is not None
    assert reduced.artifact.quantization.calibration_source == "file"


def test_inputs_for_the_clock_and_a_dataset_for_the_accuracy(tmp_path: Path) -> None:
    given = np.abs(floats(4, 8, seed=3)) + 1
    np.savez(tmp_path / "inputs.npz", area=given)
    areas = np.abs(X)
    dataset = labelled(tmp_path, (np.sqrt(areas) @ W).argmax(1), area=areas)
    made, found = measured(area(tmp_path), inputs=str(tmp_path / "inputs.npz"), dataset=dataset)
    with np.load(made.inputs_path) as bound:
        assert np.array_equal(bound["area"], given[:1])
    assert isinstance(found.accuracy, Accuracy) and found.accuracy.top1 == 1.0


def test_samples_for_inputs_with_and_without_a_batch(tmp_path: Path) -> None:
    """An image and a scalar that scales it: each sample has its own."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Mul", ["t", "s"], ["y"]),
    ]
    inputs = [value("x", ["batch", 8]), value("s", [])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", ["batch", 3])], {"w": W})
    signs = np.where(np.arange(60) % 2, 1, -1).astype(np.float32)
    dataset = labelled(tmp_path, ((X @ W) * signs[:, None]).argmax(1), x=X, s=signs)
    found = measured(path, dataset=dataset)[1].accuracy
    assert isinstance(found, Accuracy) and (found.top1, found.samples) == (1.0, 60)


# failures, each of which costs its own figure


class Broken:
    """A session that holds ``arrays`` and fails where it is told to."""

    def __init__(self, arrays: Mapping[str, Any], fails: tuple[str, ...] = ()) -> None:
        self.arrays, self.fails = arrays, fails

    def _do(self, what: str) -> None:
        if what in self.fails:
            raise RuntimeError(f"no {what}\nwhatever")

    def bind(self, inputs: Any) -> None:
        self._do("bind")

    def enqueue(self) -> None:
        self._do("enqueue")

    def synchronize(self) -> None: ...

    def outputs(self) -> Any:
        self._do("outputs")
        return self.arrays

    def describe(self) -> Any:
        raise MeasurementFailed("no description", "look")

    def close(self) -> None: ...


def checked(folder: Path, session: Broken) -> Any:
    np.savez(folder / "d.npz", x=np.zeros((2, 1)), labels=[0, 1])
    artifact = Artifact(
        format="fake", path="", source="", precision="fp32", sha256="", size_bytes=0, inputs=()
    )
    job = Job(artifact, "", SessionOptions(), 1, evaluation_path=str(folder / "d.npz"))
    return verify(FakeBackend(), session, job)


UNREAD = "the outputs cannot be read: RuntimeError: no outputs whatever"


@pytest.mark.parametrize(
    ("session", "looked", "accuracy"),
    [
        (Broken({"y": np.ones((1, 2))}, ("outputs",)), UNREAD, UNREAD),
        (Broken({"y": np.ones((1, 2))}, ("enqueue",)), None,
         "the samples did not run: RuntimeError: no enqueue whatever"),
        (Broken({}), "no output could be looked at", "no output could be looked at"),
        (Broken({"y": np.ones((1, 0))}), "no output could be looked at: y is empty",
         "no output could be looked at: y is empty"),
        (Broken({"y": np.array([["a", "b"]], object)}), None, "no output looks like class scores"),
    ],
)  # fmt: skip
def test_a_failure_costs_its_own_figure(
    tmp_path: Path, session: Broken, looked: str | None, accuracy: str
) -> None:
    found = checked(tmp_path, session)
    assert found.description.operators == Unavailable(
        "the runtime does not describe itself: no description", "look"
    )
    assert found.looked == (Unavailable(looked) if looked else Looked())
    assert found.accuracy.reason.startswith(accuracy)


def test_outputs_that_nobody_can_look_at_are_told(tmp_path: Path) -> None:
    class Partly(Broken):
        def unseen(self) -> Mapping[str, str]:
            return {"words": "text"}

    assert checked(tmp_path, Partly({})).looked == Unavailable(
        "no output could be looked at: words is text"
    )
    assert checked(tmp_path, Partly({"y": np.ones((1, 2))})).looked == Looked(
        unseen={"words": "text"}
    )


class Counting(FakeSession):
    """Changes its inputs in place, or gives another output each time."""

    def __init__(self, how: str, inputs: dict[str, Any]) -> None:
        self.how, self.calls = how, 0
        self.bind(inputs)

    def bind(self, inputs: Mapping[str, Any]) -> None:
        self.x = np.array(inputs["x"])

    def enqueue(self) -> None:
        self.calls += 1
        if self.how == "in place":
            self.x *= 0.5
        self.y = self.x + (self.calls if self.how == "counts" else 0)

    def synchronize(self) -> None:
        pass

    def outputs(self) -> dict[str, Any]:
        return {"y": self.y.copy()}


@pytest.mark.parametrize(
    ("how", "right"),
    [
        ("", ()),
        ("in place", ("y",)),
        ("counts", Unavailable("'y' is another one each time: the model is random or counts")),
    ],
)
def test_inputs_changed_in_place_are_seen(tmp_path: Path, how: str, right: Any) -> None:
    inputs = {"x": floats(2, 3)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    session = Counting(how, inputs)
    for _ in range(5):
        session.enqueue()
    assert changed_outputs(session, session.outputs(), str(tmp_path / "inputs.npz")) == right
