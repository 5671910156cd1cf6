"""The schema file that ships is the one that the types say, and golden results fit it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from harness.records import schema
from harness.records.result import Result
from harness.records.store import read_result
from harness.testing.results import fake_failure, fake_result

GOLDEN = sorted((Path(__file__).parents[2] / "data").glob("result-schema-*.json"))
VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema.generate()))


def test_the_file_is_current() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    current = schema.PATH.read_text(encoding="utf-8") == schema.generate()
    assert current, "run python -m harness.records.schema"


def test_there_is_a_golden_result_of_every_version() -> None:
    assert [path.name for path in GOLDEN] == ["result-schema-1.json"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_results_load_and_validate(path: Path) -> None:
    result = read_result(path)
    assert isinstance(result, Result) and result.id.startswith("20261121T")
    assert list(VALIDATOR.iter_errors(json.loads(path.read_text()))) == []


def test_the_first_golden_result_still_means_the_same() -> None:
    assert read_result(GOLDEN[0]) == fake_result()


@pytest.mark.parametrize("result", [fake_result(), fake_failure()], ids=["degraded", "failed"])
def test_what_is_written_validates(result: Result) -> None:
    assert list(VALIDATOR.iter_errors(json.loads(msgspec.json.encode(result)))) == []


@pytest.mark.parametrize(
    ("part", "value"),
    [("status", "fine"), ("schema", "harness.result/2"), ("timing", {"unavailable": 3}), ("id", 7)],
)
def test_the_schema_refuses_what_is_wrong(part: str, value: object) -> None:
    raw = json.loads(msgspec.json.encode(fake_result()))
    raw[part] = value
    assert not VALIDATOR.is_valid(raw)
