"""What `import harness` gives, and what it costs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from made_runs import made

import harness
from harness.errors import ResultError, UsageError
from harness.records.result import Result
from harness.spec import RunSpec, parse, texts, unparse

LOADED = "import harness, json, sys; print(json.dumps(sorted(sys.modules)))"
AFTER = "import harness.compare.match, harness; print(harness.compare.__call__.__doc__)"


def said_by(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_importing_it_imports_none_of_it() -> None:
    before = set(json.loads(said_by("import json, sys; print(json.dumps(sorted(sys.modules)))")))
    loaded = set(json.loads(said_by(LOADED))) - before
    assert {name for name in loaded if name.startswith("harness")} == {"harness", "harness.version"}
    heavy = {"numpy", "msgspec", "click", "rich", "torch", "tensorboardX", "onnxruntime", "psutil"}
    assert not heavy & loaded


def test_all_is_what_there_is() -> None:
    assert harness.__all__ == sorted(harness.__all__)
    assert set(harness.__all__) <= set(dir(harness))
    for name in set(harness.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(harness, name)), name
    assert harness.Result is Result
    assert harness.RunSpec is RunSpec
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'runs'"):
        harness.runs  # noqa: B018


def test_compare_is_callable_whoever_imported_its_package_first() -> None:
    assert "harness.compare.asked.compare" in said_by(AFTER)


def test_runs_are_read_and_compared_by_name_or_as_they_are(tmp_path: Path) -> None:
    runs = [made(1.0), made(2.0)]
    for run in runs:
        (tmp_path / run.id).mkdir()
        (tmp_path / run.id / "result.json").write_bytes(msgspec.json.encode(run))
    assert harness.read(runs[0].id, tmp_path) == runs[0]
    assert harness.read(tmp_path / runs[1].id, "elsewhere") == runs[1]

    whole = harness.compare(*runs, results=tmp_path)
    (cell,) = whole.cells
    (median,) = [row for row in cell.rows if row.metric == "latency_median"]
    assert (median.a, median.b, median.verdict) == (1.0, 2.0, "regressed")
    assert harness.compare(runs[0].id, tmp_path / runs[1].id, results=tmp_path) == whole
    # sets of one and two runs are matched by cell
    (cell,) = harness.compare(runs[:1], runs, results=tmp_path).cells
    assert [len(side.ids) for side in (cell.a, cell.b) if side] == [1, 2]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="nowhere"):
        harness.read("nowhere", tmp_path)
    with pytest.raises(ResultError, match="has no results"):
        harness.compare([], made(1.0), results=tmp_path)


def test_a_field_that_is_wrong_is_named_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="--precision is 'int3'"):
        harness.run(precision="int3")
    with pytest.raises(UsageError, match="'modle' is no field of a run"):
        harness.run(RunSpec(), modle="digits")


def test_fields_may_be_pythons_or_texts() -> None:
    fields = {"batch_size": 4, "cpus": (0, 2), "input_shapes": {"x": (1, 3)}, "options": {"a": "b"},
              "overhead_check": True, "duration_s": None}  # fmt: skip
    spec = parse(texts(fields))
    assert (spec.batch_size, spec.cpus, spec.options) == (4, (0, 2), {"a": "b"})
    assert (spec.input_shapes, spec.overhead_check) == ({"x": (1, 3)}, True)
    assert parse({**unparse(spec), **texts({"batch_size": "8"})}).batch_size == 8
