"""The backends beside each other, through pytest: the fixture ``hwbench`` on two models.

    pytest benchmarks/test_backends.py --benchmark-only --hwbench-duration=5 --hwbench-launches=5
    pytest benchmarks/test_backends.py -k digits --hwbench-device=cuda

One table per model; a runtime or precision that is not here is skipped, with the reason. A baseline
comes from ``--benchmark-json=base.json`` or ``harness export``, and is held against later runs with
``--benchmark-compare=base.json``. An environment without a GPU skips what needs one: ``tensorrt``,
and everything on ``--hwbench-device=cuda``.

    pytest benchmarks/test_backends.py -k duel -s

lets ONNX Runtime, PyTorch and OpenVINO (``pip install ./plugins/openvino``) take turns on a thread,
and prints a row of a Markdown table for each model and precision: times by ONNX Runtime's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from harness.pytest_plugin.fixture import HwBench

BACKENDS = ("onnxruntime", "pytorch", "tensorrt")
ACCURACY_FLOOR = 0.95  # of the trained model; those with random weights have none to keep


def in_a_table_of_its_own(model: str) -> ParameterSet:
    return pytest.param(model, marks=pytest.mark.benchmark(group=f"{model} (s)"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", [in_a_table_of_its_own(name) for name in ("digits", "resnet18")])
def test_backends(hwbench: HwBench, model: str, backend: str, precision: str) -> None:
    device = "cuda" if backend == "tensorrt" else None  # None: what --hwbench-device says
    result = hwbench(model=model, backend=backend, precision=precision, device=device)
    if model == "digits":
        assert getattr(result.accuracy, "top1", 0) >= ACCURACY_FLOOR


RIVALS = ("onnxruntime", "pytorch", "openvino")
HEADER = f"| model | precision | {' | '.join(RIVALS)} |\n| --- | --- | --- | --- | --- |"


def harness(folder: Path, *arguments: str) -> Any:
    """What a command prints as JSON; one that fails is a failure with what it said."""
    command = [sys.executable, "-m", "harness", *arguments, "--json"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 5):
        pytest.fail(ran.stderr.strip().splitlines()[-1], pytrace=False)
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Those that are here, the first among them."""
    listed = harness(tmp_path_factory.mktemp("list"), "list", "backends")
    able = {one["name"] for one in listed if "details" in one["devices"].get("cpu", {})}
    missing = [name for name in RIVALS if name not in able]
    if missing:
        pytest.skip(f"{', '.join(missing)} cannot be used here: harness list backends")
    return RIVALS


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "bert_base"])
def test_duel(model: str, precision: str, rivals: tuple[str, ...], tmp_path: Path) -> None:
    """Every rival against ONNX Runtime, in turns on the same processor."""
    told = harness(
        tmp_path, "duel", "--model", model, "--precision", precision, "--threads", "1",
        "--across", f"backend={','.join(rivals)}", "--launches", "5", "--duration", "10",
    )  # fmt: skip
    cells = ["1"]
    for verdict in told["verdicts"]:
        low, high = verdict["interval"]
        cells.append(f"{verdict['ratio']:.2f} ({low:.2f} to {high:.2f})")
    print(f"\n{HEADER}\n| {model} | {precision} | {' | '.join(cells)} |")
    assert len(cells) == len(rivals)
    assert all(verdict["ratio"] > 0 for verdict in told["verdicts"])
