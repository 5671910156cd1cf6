"""The script that puts our figures beside others' on a GPU: what of it needs none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.host.gpus import ORDER
from harness.maybe import Unavailable
from harness.protocols import TensorSpec

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu

    return gpu


class Fail(Exception):
    """As ONNX Runtime's: of no class that others share."""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Fail("[ONNXRuntimeError] : 1\n: FAIL"), "Fail: [ONNXRuntimeError] : 1 : FAIL"),
        (KeyError("median"), "KeyError: 'median'"),
    ],
)
def test_a_part_that_fails_is_a_line(
    script: Any, capsys: pytest.CaptureFixture[str], error: Exception, text: str
) -> None:
    def part() -> None:
        raise error

    script.attempt("tensorrt, batch 1", part)
    assert capsys.readouterr().out == f"tensorrt, batch 1        n/a: {text}\n"


def test_devices_count_as_in_a_run(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch would take the fastest one first, and the name above the figures another."""
    monkeypatch.setenv(ORDER, "")
    monkeypatch.setattr(script, "cuda_device", lambda device: Unavailable("none here"))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert script.main() == 3
    assert os.environ[ORDER] == "PCI_BUS_ID"


def test_our_loop_records_events_as_in_a_run(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        armed = 0

        def arm(self, iterations: int) -> None:
            self.armed = iterations
            self.enqueue = lambda: None

        def synchronize(self) -> None:
            """Nothing to wait for."""

    monkeypatch.setattr(script, "BLOCK_S", 0.01)
    session = Session()
    assert script.ours(session)() > 0
    assert session.armed == script.ARMED


def test_trtexec_is_given_shapes_only_where_sizes_are_open(script: Any, tmp_path: Path) -> None:
    """With shapes for a static model trtexec ends in an error."""
    onnx = pytest.importorskip("onnx")
    inputs = (TensorSpec("x", "float32", (4, 3)), TensorSpec("m", "float32", (2,)))
    for size, flags in ((4, []), ("batch", ["--shapes=x:4x3,m:2"])):
        kinds = {"x": (size, 3), "m": (2,)}
        made = [onnx.helper.make_tensor_value_info(n, 1, shape) for n, shape in kinds.items()]
        graph = onnx.helper.make_graph([], "g", made, [])
        onnx.save(onnx.helper.make_model(graph), str(tmp_path / "m.onnx"))
        assert script.trtexec_shapes(str(tmp_path / "m.onnx"), inputs) == flags
