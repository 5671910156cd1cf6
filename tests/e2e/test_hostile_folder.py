"""A working folder that came from elsewhere: nothing in it is run, or in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from running import environment

SHADOWS = ("random", "msgspec", "click", "numpy", "onnx", "json", "tempfile", "psutil", "rich")
SWEEP = """
launches = 1
[defaults]
duration_s = 0.05
warmup_s = 0
max_warmup_s = 0.05
no_tensorboard = true
sample_rate_hz = 0
[matrix]
model = ["digits"]
"""
QUICK = ("--duration", "0.05", "--warmup", "0", "--max-warmup", "0.05", "--sample-rate", "0",
         "--no-tensorboard", "--quiet")  # fmt: skip
CONSOLE = (str(Path(sys.executable).with_name("harness")),)
MODULE = (sys.executable, "-m", "harness")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Modules that leave a file in ``ran`` once they are imported, an ONNX model and a sweep."""
    (tmp_path / "ran").mkdir()
    here = tmp_path / "downloaded"
    here.mkdir()
    for name in SHADOWS:
        leaves = f"open({str(tmp_path / 'ran' / name)!r}, 'w')\nraise SystemExit(7)\n"
        (here / f"{name}.py").write_text(leaves)
    weight = numpy_helper.from_array(np.ones((8, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), here / "net.onnx")
    (here / "night.toml").write_text(SWEEP.replace("no_tensorboard = true\n", ""))
    return here


def answer(folder: Path, cache: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in environment(cache).items() if k != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_no_file_of_the_current_folder_is_imported(folder: Path, cache: Path) -> None:
    check(folder, cache, (*MODULE, "run", "--model", "net.onnx", *QUICK))
    # which python -m would itself take
    (folder / "harness").mkdir()
    (folder / "harness" / "__init__.py").write_text((folder / "json.py").read_text())
    check(folder, cache, (*CONSOLE, "run", "--model", "net.onnx", "--precision", "int8", *QUICK))
    check(folder, cache, (*CONSOLE, "sweep", "night.toml"))
    check(folder, cache, (*CONSOLE, "list", "backends"))


def check(folder: Path, cache: Path, command: tuple[str, ...]) -> None:
    ran = answer(folder, cache, *command)
    assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
    assert "fails to load" not in ran.stdout and "ended the process" not in ran.stdout
    assert list((folder.parent / "ran").iterdir()) == [], command
