"""A night on a real Ray cluster on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from running import Harness, assert_no_orphans

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed; make test-fleet brings it (240 MB)",
)

NIGHT = """
name = "tiny"
launches = 1
[defaults]
iterations = 20
warmup_s = 0
threads = 1
[[include]]
model = "digits"
[[include]]
model = "absent.onnx"
[[include]]
batch_size = 2
machine = "jetson"
"""


def test_every_planned_cell_ends_in_one_row(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(NIGHT)
    ran = harness(
        "fleet", "run", "tiny.toml", "--local", "1", "--label", "x", "--json", timeout_s=180
    )
    assert ran.code == 3, ran.err
    assert ran.result["planned"] == 3
    assert ran.result["outcomes"] == {"result": 1, "failed": 1, "no-runner": 1}
    good, failed, absent = ran.result["rows"]
    assert good["status"] in ("complete", "degraded") and good["node"] == "local-1"
    (run,) = (tmp_path / "results/tiny-x" / good["task"]).glob("*/result.json")
    result = json.loads(run.read_bytes())
    assert result["id"] == good["run"] and result["tags"]["sweep"] == "tiny-x"
    assert result["spec"]["threads"] == 1
    assert result["software"]["environment"].get("OMP_NUM_THREADS") == os.environ.get(
        "OMP_NUM_THREADS"
    )  # Ray's own stays with Ray's workers
    held = {path.name for path in run.parent.iterdir()}
    assert "samples.npz" in held and any(name.startswith("events.out") for name in held)
    assert "absent.onnx" in failed["cause"]
    assert absent["cause"] == "local-1 lacks the name jetson"
    assert not (tmp_path / "results/tiny-x/live").exists()
    assert_no_orphans(tmp_path)

    checked = harness("check", "tiny-x", "--baseline", "tiny-x")
    assert checked.code == 3
    assert "fp32/b2/latency on jetson" in checked.out
    again = harness(
        "fleet", "run", "tiny.toml", "--local", "1", "--label", "x", "--json", timeout_s=180
    )
    assert again.result["rows"] == ran.result["rows"]
