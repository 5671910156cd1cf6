"""CONTRIBUTING's recipes, done in a copy of the package: what they name is all that it takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
RUN = ("--iterations", "60", "--warmup", "0", "--max-warmup", "0.1", "--launches", "2",
       "--sample-rate", "0", "--idle", "0")  # fmt: skip


class Added(NamedTuple):
    """A line, or more, put before the ``before`` of a file. Without that it is a new file."""

    text: str
    before: str = ""


METRIC = {
    "harness/records/result.py": Added(
        "    per_stream_s: Maybe[float] = NOT_KEPT\n", "    batch_size: int\n    concurrency: int\n"
    ),
    "harness/analysis/throughput.py": Added(
        "        per_stream_s=value / concurrency,\n", "        batch_size=batch_size,\n"
    ),
    "harness/records/metric.py": Added(
        '        Metric(name="per_stream", unit="1/s", better="higher", minimum_effect=0.02,\n'
        '               of_run=("throughput.per_stream_s",), by_default=True,\n'
        '               headline="throughput/per_stream_s", column="per_stream"),\n',
        '        Metric(name="first_inference"',
    ),
}
FORMAT = {
    "harness/exports/lines.py": Added(
        "from harness.compare.sides import measured\n"
        "from harness.exports.formats import Exported\n\n\n"
        "def export(results, paths):\n"
        "    rows = [f\"{r.id} {measured([r], 'per_stream').value!r}\\n\" for r in results]\n"
        '    return Exported("".join(rows).encode())\n'
    ),
    "harness/exports/formats.py": Added(
        '    "lines": "harness.exports.lines:export",\n', '    "csv": "harness.exports.csv:export"'
    ),
}
COLUMN = {
    "harness/compression/model.py": Added(
        '        Column("per_stream", "per_stream", "Per stream", "1/s", "higher", "always"),\n',
        '        Column("model_size_mb"',
    ),
    "harness/records/metric.py": Added("", ""),  # its `column=` stands in `METRIC`
}
# heading in CONTRIBUTING.md -> what is done
RECIPES: dict[str, Mapping[str, Added]] = {
    "A metric": METRIC, "An output format": FORMAT, "A column of the board": COLUMN,
}  # fmt: skip


class Copy(NamedTuple):
    root: Path
    runs: list[dict[str, Any]]

    def harness(self, *args: str) -> str:
        return harness(self.root, *args)

    @property
    def values(self) -> list[float]:
        return [run["throughput"]["per_stream_s"] for run in self.runs]


def harness(root: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *args],
        env={**os.environ, "PYTHONPATH": str(root), "HARNESS_CACHE": str(root / "cache")},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plant(root: Path, changes: Mapping[str, Added]) -> None:
    for name, added in changes.items():
        path = root / name
        if not added.before:
            path.exists() or path.write_text(added.text, "utf-8")
            continue
        before, found, after = path.read_text("utf-8").partition(added.before)
        assert found, f"{name} has no {added.before!r}"
        path.write_text(before + added.text + found + after, "utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The package as a wheel lays it out, with every recipe done, and two runs of it."""
    root = tmp_path_factory.mktemp("copy")
    clean = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "harness", root / "harness", ignore=clean)
    for folder in ("backends", "profiles"):
        shutil.copytree(ROOT / folder, root / "harness" / folder, ignore=clean)
    for changes in RECIPES.values():
        plant(root, changes)
    return Copy(root, [json.loads(harness(root, "run", *RUN, "--json")) for _ in range(2)])


@pytest.mark.parametrize("title", RECIPES)
def test_contributing_names_every_file_that_a_recipe_touches(title: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (section,) = re.findall(rf"### {title}\b.*?\n(.*?)(?=\n##)", text, re.DOTALL)
    named = re.findall(r"^\d+\. `([^`]+)`", section, re.MULTILINE)
    assert len(named) == len(RECIPES[title])
    for place, path in zip(named, RECIPES[title], strict=True):
        assert re.fullmatch(re.escape(place).replace("NAME", r"\w+") + r".*", path)


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    places = re.findall(r"`((?:harness|backends|profiles|tests|docs)/[^`]*)`", text)
    assert len(places) > 10
    assert [place for place in places if "NAME" not in place and not (ROOT / place).exists()] == []


def test_a_metric_is_in_the_result(copy: Copy) -> None:
    assert [run["throughput"]["inferences_per_s"] for run in copy.runs] == copy.values
    assert min(copy.values) > 0


def test_it_is_compared(copy: Copy) -> None:
    (cell,) = json.loads(copy.harness("compare", "latest~1", "latest", "--json"))["cells"]
    (row,) = [row for row in cell["rows"] if row["metric"] == "per_stream"]
    assert [row["a"], row["b"]] == copy.values


def test_it_is_in_tensorboard_and_on_the_board(copy: Copy) -> None:
    folder = copy.root / "results" / copy.runs[0]["id"]
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    for tag in ("throughput/per_stream_s", "digits/per_stream/fp32"):
        (event,) = accumulator.Scalars(tag)
        assert event.value == pytest.approx(copy.values[0], rel=1e-6)  # it keeps 32 bits


def test_it_is_exported_and_so_is_a_format_of_ones_own(copy: Copy) -> None:
    lines = copy.harness("export", "--format", "lines", "-o", "-", "results").splitlines()
    assert lines == [f"{run['id']} {v!r}" for run, v in zip(copy.runs, copy.values, strict=True)]
    table = copy.harness("export", "--format", "csv", "-o", "-", "latest")
    assert f",per_stream,1/s,higher,{copy.values[1]!r}," in table
