"""Processors whose time is rationed slow an operator and its roof alike: the share stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.measures
PERIOD_US, QUOTA_US = 10_000, 1_000
MEASURE = """
import sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from harness.analysis.operators import of_launch, over_launches
from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.engine.worker.operators import measured, throttles
from harness.protocols import Artifact, SessionOptions, TensorSpec

shape = (1, 128, 28, 28)
weights = np.full((128, 128, 3, 3), 0.01, np.float32)
nodes = [helper.make_node("Conv", ["x" if i == 0 else f"t{i}", "w"], [f"t{i + 1}"], name=f"c{i}",
                          pads=[1, 1, 1, 1]) for i in range(4)]
graph = helper.make_graph(
    nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
    [helper.make_tensor_value_info("t4", TensorProto.FLOAT, shape)],
    [numpy_helper.from_array(weights, "w")])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
     sys.argv[1])
backend, options = OnnxRuntimeBackend(), SessionOptions(threads=1)
artifact = Artifact("onnx", sys.argv[1], "", "fp32", "", 0, (TensorSpec("x", "float32", shape),))
session = backend.prepare(artifact, {"x": np.ones(shape, np.float32)}, options)
stopped = throttles()
profiled = session.profile_operators(5)
plain_ms = float(np.median(profiled.latency_ms))
wanted = ("convolution fp32", "copy 2048 KiB")
loads = [load for load in backend.roof_loads("fp32", options) if load.name in wanted]
roofs = tuple(measured(loads, plain_ms if throttles() > stopped else 0.0))
found = over_launches([of_launch(profiled, plain_ms, roofs)], plain_ms)
print(found.model.roof.share)
"""


@contextmanager
def rationed(name: str) -> Iterator[Path]:
    """A control group of a tenth of a processor; whoever is written to its ``cgroup.procs``."""
    version_1, version_2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    try:
        if (version_1 / "cpu.cfs_quota_us").exists():
            group = version_1 / name
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        else:
            group = version_2 / name
            group.mkdir()
            (group / "cpu.max").write_text(f"{QUOTA_US} {PERIOD_US}")
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no quota of processor time can be set here: {error}")
    try:
        yield group
    finally:
        group.rmdir()


def share_of_roof(model: Path, group: Path | None = None) -> float:
    """Of all operators of a model, in a process of its own."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model)], capture_output=True, text=True, check=True,
        preexec_fn=enter, timeout=120,
    )  # fmt: skip
    return float(done.stdout.splitlines()[-1])


def test_a_quota_slows_the_operators_and_their_roof_alike(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    with rationed(f"harness-test-{os.getpid()}") as group:
        slow = share_of_roof(tmp_path / "a.onnx", group)
        stopped = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    free = share_of_roof(tmp_path / "b.onnx")
    assert int(stopped["nr_throttled"]) > 20
    # a tenth of the time is there: were one of the two not slowed, it would be ten times as much
    assert free / 3 < slow < 3 * free
