"""OpenVINO under Harness's own contract, and what it runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from harness_openvino.backend import OpenVinoBackend

from harness.errors import UsageError
from harness.maybe import Unavailable
from harness.protocols import Artifact, SessionOptions, TensorSpec, Wanted
from harness.testing.contract_backend import BackendContract, Subject, infer
from harness.zoo.shipped import ASSETS

SHAPE = (1, 1, 8, 8)


def digits(precision: str = "fp32", path: Path = ASSETS / "digits.onnx") -> Artifact:
    data = path.read_bytes()
    return Artifact(
        "onnx", str(path), "zoo:digits", precision, hashlib.sha256(data).hexdigest(), len(data),
        (TensorSpec("images", "float32", SHAPE),), (TensorSpec("logits", "float32", (1, 10)),),
    )  # fmt: skip


def draw(seed: int) -> dict[str, Any]:
    return {"images": np.random.default_rng(seed).random(SHAPE, np.float32)}


class TestContract(BackendContract):
    @pytest.fixture(params=["latency", "throughput"])
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        options = SessionOptions(options={"hint": request.param})
        return Subject(OpenVinoBackend, digits(), draw(1), draw(2), "openvino", options)


def test_the_outputs_are_those_of_the_model() -> None:
    session = OpenVinoBackend().prepare(digits(), draw(1), SessionOptions())
    expected = ort.InferenceSession(ASSETS / "digits.onnx").run(None, draw(1))[0]
    np.testing.assert_allclose(infer(session)["logits"], expected, rtol=1e-4, atol=1e-4)
    session.close()


def test_what_runs_is_read_back() -> None:
    options = SessionOptions(threads=1, options={"streams": "1"})
    session = OpenVinoBackend().prepare(digits(), draw(1), options)
    told = session.describe()
    session.close()
    assert told.runtime["inference_num_threads"] == "1"
    assert told.runtime["performance_hint"] == "LATENCY"
    assert not isinstance(told.operators, Unavailable)
    assert told.operators["Convolution"] == {"fp32": 8}
    assert "Const" not in told.operators


def test_precisions_that_it_brings_the_graph_to_by_itself() -> None:
    backend = OpenVinoBackend()
    assert backend.wants("int8", SessionOptions()) == Wanted("onnx")
    assert backend.wants("bf16", SessionOptions()) == Wanted("onnx", precision="fp32")
    capable = backend.availability("cpu").details["capabilities"].split(", ")  # type: ignore[union-attr]
    if "BF16" not in capable:
        with pytest.raises(UsageError, match="this CPU has no bf16 for OpenVINO: it can do"):
            backend.prepare(digits("bf16"), draw(1), SessionOptions())
    else:
        backend.prepare(digits("bf16"), draw(1), SessionOptions()).close()


@pytest.mark.parametrize(
    ("options", "told"),
    [({"streams": "0"}, "--option streams"), ({"hint": "speed"}, "--option hint"),
     ({"device": "gpu"}, "no option 'device'")],
)  # fmt: skip
def test_what_it_refuses(options: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        OpenVinoBackend().wants("fp32", SessionOptions(options=options))
