"""One small model in every artifact format, for whichever backend wants it.

``artifacts[format](folder)`` makes an `Artifact` and two sets of inputs that lead to other outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.protocols import Artifact, TensorSpec

pytest.register_assert_rewrite(
    "harness.testing.contract_backend", "harness.testing.contract_profiler"
)

Made = tuple[Artifact, Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]
SPECS = (TensorSpec("x", "float32", (2, 3, 8, 8)),)


def draw(seed: int) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return {spec.name: generator.standard_normal(spec.shape, dtype=np.float32) for spec in SPECS}


def onnx_artifact(folder: Path) -> Made:
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "weights"], ["conv"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("GlobalAveragePool", ["relu"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SPECS[0].shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 4, 1, 1))],
        [numpy_helper.from_array(weights, "weights")],
    )
    path = folder / "small.onnx"
    opset = helper.make_opsetid("", 17)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
    data = path.read_bytes()
    artifact = Artifact(
        "onnx", str(path), "", "fp32", hashlib.sha256(data).hexdigest(), len(data), SPECS
    )
    return artifact, draw(1), draw(2)


def torch_artifact(folder: Path) -> Made:
    specs = (TensorSpec("images", "float32", (2, 1, 8, 8)),)
    shape = specs[0].shape
    one, other = (np.random.default_rng(seed).random(shape, np.float32) for seed in (1, 2))
    artifact = Artifact("torch", "", "zoo:digits", "fp32", "", 0, specs)
    return artifact, {"images": one}, {"images": other}


def fake_artifact(folder: Path) -> Made:
    return Artifact("fake", "", "", "fp32", "", 0, SPECS), draw(1), draw(2)


ARTIFACTS: dict[str, Callable[[Path], Made]] = {
    "onnx": onnx_artifact,
    "torch": torch_artifact,
    "fake": fake_artifact,
}


@pytest.fixture
def artifacts() -> dict[str, Callable[[Path], Made]]:
    return ARTIFACTS
