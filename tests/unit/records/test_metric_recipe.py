"""Another metric is one record: a copy of the package with one more, and where it arrives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
RECORD = """
        Metric(
            name="window", unit="s", better="lower", minimum_effect=0.02,
            of_run=("timing.window_s",), of_launch="window_s", by_default=True, short="win",
            headline="timing/window_s", column="loss",
        ),
"""
PROBE = """
import csv, io, json, sys
from pathlib import Path
import msgspec
from made_runs import made
from harness.cli.main import main
from harness.compare.comparison import compare_runs
from harness.compression.entries import entry_of
from harness.exports.csv import export
from harness.records.figures import figures, single
from harness.records.index.figures import NAMES, read_figures
from harness.tensorboard.live import headline_values

assert Path(sys.modules["harness"].__file__).is_relative_to(sys.argv[1])
runs = [made(1.0), made(2.0)]
paths = [Path(f"{position}.json") for position in range(2)]
for run, path in zip(runs, paths):
    path.write_bytes(msgspec.json.encode(run))
rows = {row.metric: row for row in compare_runs(*runs).cells[0].rows}
lines = csv.DictReader(io.StringIO(export(runs[:1], paths[:1]).data.decode()))
print(json.dumps({
    "run": single(runs[0], "window"),
    "launches": figures(runs[:1], "window"),
    "index": dict(zip(NAMES, read_figures("0.json").values))["window"],
    "headline": headline_values(runs[0])["timing/window_s"],
    "board": entry_of(runs[0]).figures["loss"].value,
    "compared": [rows["window"].a, rows["window"].verdict],
    "csv": [line["value"] for line in lines if line["metric"] == "window"],
}))
sys.stdout.flush()
main(["compare", *map(str, paths)])
"""


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the copy knows of the new metric, and what its ``compare`` prints."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        ROOT / "harness", copy / "harness", ignore=shutil.ignore_patterns("__pycache__")
    )
    registry = copy / "harness" / "records" / "metric.py"
    before, here, after = registry.read_text("utf-8").partition("    for metric in (\n")
    assert here
    registry.write_text(before + here + RECORD + after, "utf-8")
    path = os.pathsep.join([str(copy), str(ROOT / "tests" / "unit")])
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, str(copy)],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"},
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout, ran.stderr
    first, _, shown = ran.stdout.partition("\n")
    return json.loads(first), shown


def test_a_metric_arrives_everywhere_by_its_record_alone(
    arrived: tuple[dict[str, Any], str],
) -> None:
    found, _ = arrived
    whole = found["run"]
    assert whole > 0
    assert found["index"] == found["headline"] == found["board"] == whole
    assert [float(value) for value in found["csv"]] == [whole]
    # each launch's window is as long as 2000 inferences of its median
    assert found["launches"] == [1.99, 2.01, 2.0, 1.995, 2.005]
    assert found["compared"] == [whole, "regressed"]


def test_it_has_a_line_in_the_terminal(arrived: tuple[dict[str, Any], str]) -> None:
    _, shown = arrived
    assert any(line.startswith("window ") for line in shown.splitlines())
