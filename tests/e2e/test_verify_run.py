"""A published number can be checked: what the real command wrote agrees with its own data."""

from __future__ import annotations

import json
from pathlib import Path

from running import Harness


def test_what_a_run_wrote_is_sealed_and_agrees(harness: Harness, tmp_path: Path) -> None:
    """Two launches of two streams, whose throughput has one definition."""
    ran = harness(
        "run", "--scenario", "throughput", "--concurrency", "2", "--threads", "1",
        "--iterations", "400", "--launches", "2", "--quiet", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    (folder,) = (tmp_path / "results").iterdir()
    assert json.loads((folder / "result.json").read_bytes())["sha256"] == told["sha256"]
    beside = {path.name for path in folder.iterdir()} - {"result.json"}
    assert set(told["sha256"]) == beside >= {"samples.npz", "series.npz"}

    checked = harness("verify", "latest", "--json")
    assert checked.code == 0, checked.out
    (found,) = json.loads(checked.out)["runs"]
    assert found["verdict"] == "agrees"
    assert {one["state"] for one in found["files"]} == {"same"}
    agree = {one["figure"] for one in found["figures"] if one["state"] == "agrees"}
    rates = {f"timing.launches.{index}.inferences_per_s" for index in range(2)}
    assert rates | {"throughput.inferences_per_s", "timing.latency_ms.p90"} <= agree

    (folder / "samples.npz").write_bytes((folder / "series.npz").read_bytes())
    assert harness("verify", "latest").code == 1
