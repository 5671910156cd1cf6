"""Every field of a run has one record, and the record says all that others ask of it."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner

from harness.cli.run import command
from harness.records.cell import spec_cell
from harness.spec import BY_NAME, DEFINING, FIELDS, Field, RunSpec

# Fields that do not make two runs measurements of different things: how long and how carefully
# they measure, what they watch, and where they write.
BESIDE = {
    "artifact",
    "duration_s", "iterations", "precision_goal", "max_duration_s", "warmup_s", "max_warmup_s",
    "launches", "timeout_s", "cpus", "sample_rate_hz", "power_source", "idle_s", "require",
    "overhead_check", "operators", "allow_infinite", "tags", "out",
}  # fmt: skip


def test_every_field_of_a_run_has_one_record() -> None:
    assert sorted(field.name for field in FIELDS) == sorted(RunSpec.__struct_fields__)
    assert len(BY_NAME) == len(FIELDS)


def test_every_field_defines_a_cell_or_is_listed_as_not() -> None:
    assert {field.name for field in DEFINING} == set(BY_NAME) - BESIDE


def test_every_field_has_a_flag_with_a_text_of_its_own() -> None:
    shown = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    for field in FIELDS:
        assert f"{field.flag} {field.metavar}".strip() in shown
        assert " ".join(field.help.split()) in shown
    for column in ("flag", "help"):
        assert len({getattr(field, column) for field in FIELDS}) == len(FIELDS)


def test_what_belongs_to_a_field_is_a_field() -> None:
    assert {name for field in FIELDS for name in field.across or ()} <= set(BY_NAME)


OTHER = {
    "model": "other", "backend": "pytorch", "device": "cuda:1", "precision": "int8",
    "reference": "r.onnx",
    "batch_size": 2, "input_shapes": {"x": (1, 2)}, "batch_dim": "n", "inputs": "i.npz",
    "dataset": "d.npz", "scores": "s", "calibration": "c.npz", "calibration_method": "entropy",
    "quantization": "dynamic", "scenario": "throughput", "concurrency": 2,
    "rate": 10.0, "arrivals": "constant", "batching": "8:2ms",
    "latency_bound": ("p99=10ms",),
    "boundary": "transfer", "threads": 2, "inter_threads": 2, "seed": 1, "options": {"a": "b"},
}  # fmt: skip


@pytest.mark.parametrize("field", DEFINING, ids=lambda field: field.name)
def test_another_value_of_what_defines_a_cell_is_another_cell(field: Field) -> None:
    changed = msgspec.structs.replace(RunSpec(), **{field.name: OTHER[field.name]})
    assert spec_cell(changed).key != spec_cell(RunSpec()).key
    assert (spec_cell(changed).name != spec_cell(RunSpec()).name) == field.named
