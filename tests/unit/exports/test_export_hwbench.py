"""What ``hwbench`` makes of a test's arguments, and the clock that replays a measurement."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import UsageError
from harness.pytest_plugin.fixture import ReplayClock, spec_of
from harness.pytest_plugin.hardware import differences
from harness.spec import RunSpec, parse


@pytest.mark.parametrize(
    ("fields", "told", "spec"),
    [({}, {}, RunSpec()),
     ({}, {"precision": "int8", "launches": "5", "duration_s": "2"},
      RunSpec(precision="int8", launches=5, duration_s=2.0)),
     ({"precision": "fp32", "duration_s": 3}, {"precision": "int8", "duration_s": "2"},
      RunSpec(duration_s=3.0)),
     ({"iterations": 7}, {"duration_s": "2"}, RunSpec(iterations=7)),
     ({"precision_goal": 0.05}, {"duration_s": "2"}, RunSpec(precision_goal=0.05)),
     ({"backend": None}, {"backend": "pytorch"}, RunSpec(backend="pytorch")),
     ({"input_shapes": {"x": (1, 3), "s": ()}, "options": {"n": 1}, "cpus": [0, 2]}, {},
      RunSpec(input_shapes={"x": (1, 3), "s": ()}, options={"n": "1"}, cpus=(0, 2))),
     ({"tags": {"a": "b=c"}, "require": ["energy"], "overhead_check": True}, {},
      RunSpec(tags={"a": "b=c"}, require=("energy",), overhead_check=True)),
     ({"backend": "tensorrt"}, {}, parse({"backend": "tensorrt"}))],
)  # fmt: skip
def test_a_tests_own_arguments_come_first(
    fields: dict[str, Any], told: dict[str, Any], spec: RunSpec
) -> None:
    assert spec_of(fields, told) == spec


@pytest.mark.parametrize("fields", [{"colour": "red"}, {"batch_size": 0}, {"device": "tpu"}])
def test_arguments_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        spec_of(fields, {})


def test_the_clock_replays_rounds_exactly() -> None:
    rounds = [0.1, 0.2, 0.3, 1e-9, 86_400.1]
    clock = ReplayClock()
    clock.load(rounds)
    found = []
    for _ in rounds:
        start = clock()
        found.append(clock() - start)
    assert found == rounds


def test_only_factors_of_both_sides_differ_until_a_test_has_run() -> None:
    saved, here = {"cpu": "A", "gpu": "X", "os": "Linux"}, {"cpu": "B", "os": "Linux", "isa": "avx"}
    assert differences(saved, here) == "cpu (A there, B here)"
    assert differences(saved, here, everything=True) == (
        "cpu (A there, B here), gpu (X there, absent here), isa (absent there, avx here)"
    )
    assert not differences(saved, saved, everything=True)
