"""A few of the wheel's models, through the campaign that goes over all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SCRIPT = Path(__file__).parents[1] / "campaign" / "campaign.py"
WAYS = ("fp32", "int8 static", "int8 dynamic")


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_a_sample_of_the_wheels_models_has_no_fault() -> None:
    command = [sys.executable, str(SCRIPT), "onnx", "--count", "4"]
    # those that the wheel has as files; it takes 15 s to make the others
    command += ["--kind", "pytorch-operator", "--kind", "pytorch-converted"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for way, line in zip(WAYS, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"onnx's wheel, {way}: ") and line.endswith(", 0 faults")
        assert sum(map(int, re.findall(r"(\d+) (?:ran|refused)", line))) == 4
