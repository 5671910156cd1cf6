"""`harness build`, and what it wrote measured by `harness run --artifact`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import Harness


def test_an_artifact_is_built_and_run(harness: Harness, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    built = harness("build", "--precision", "int8", "-o", "digits.artifact", "--json")
    assert built.code == 0, built.err
    told = built.result
    assert told["file_bytes"] == (tmp_path / "digits.artifact").stat().st_size > told["size_bytes"]
    assert told["nodes"] == [] and told["error"] is None
    assert not (tmp_path / "results").exists()
    ran = harness("run", "--artifact", "digits.artifact", "--iterations", "20", "--json")
    assert ran.code == 0, ran.err
    assert ran.result["spec"]["precision"] == "int8"
    assert ran.result["precision"]["file_size_bytes"] == told["size_bytes"]
    assert ran.result["accuracy"]["top1"] > 0.99


def test_without_a_gpu_an_engine_is_built_and_kept(harness: Harness, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    command = ("run", "--backend", "tensorrt-rtx", "--precision", "int8")
    ran = harness(*command)
    if ran.code == 0:
        pytest.skip("this machine has a GPU")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines()[-1].startswith("harness: tensorrt-rtx on cuda:0: ")
    assert list((tmp_path / "results").iterdir()) == []
    built = harness("build", *command[1:], "--json")
    told = built.result
    assert told["facts"]["engine"] == "from the cache"
    assert {node["taken"] for node in told["nodes"]} == {True}
    assert len(json.loads(built.out)["nodes"]) > 20
