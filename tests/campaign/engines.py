"""Every zoo model at every precision through the real parser and builder of TensorRT for RTX.

    make engines

Needs no GPU, and some minutes: the INT8 graphs are calibrated and proven first. The built-in model
is built at every precision in `make test`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.zoo import ZOO

pytest.importorskip("tensorrt_rtx_bindings")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("model", sorted(ZOO))
def test_an_engine_is_built(model: str, precision: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            sys.executable, "-m", "harness", "build", "--model", model, "--precision", precision,
            "--backend", "tensorrt-rtx", "--target", "sm89", "--json",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["error"] is None
    assert {node["taken"] for node in told["nodes"]} == {True}
    assert int(told["facts"]["network_layers"]) >= len(told["nodes"]) // 2
    assert told["size_bytes"] > 100_000
