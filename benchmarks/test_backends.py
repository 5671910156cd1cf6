"""The backends beside each other, through pytest: the fixture ``hwbench`` on two models.

    pytest benchmarks/test_backends.py --benchmark-only --hwbench-duration=5 --hwbench-launches=5
    pytest benchmarks/test_backends.py -k digits --hwbench-device=cuda

One table per model; a runtime or precision that is not here is skipped, with the reason. A baseline
comes from ``--benchmark-json=base.json`` or ``harness export``, and is held against later runs with
``--benchmark-compare=base.json``. An environment without a GPU skips what needs one: ``tensorrt``,
and everything on ``--hwbench-device=cuda``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
