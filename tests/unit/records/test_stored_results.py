"""Results written by an earlier version load, and say what they said then.

``data/stored`` holds what version 0.1.0 of November 2026 left behind: runs on two backends, a sweep
of two nights' shape, a promoted baseline, an index, and the journal of a driver that was killed.
``figures.json`` beside it holds the status, the cell and every indexed figure of each run as that
version gave them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.main import main
from harness.records.samples import read_samples

STORED = Path(__file__).parents[2] / "data" / "stored"
FIGURES: dict[str, Any] = json.loads((STORED / "figures.json").read_text())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The stored folder in a place where an index may be written."""
    shutil.copytree(STORED / "results", tmp_path / "results")
    return tmp_path / "results"


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kept", [True, False], ids=["index as it was", "index built anew"])
def test_every_run_keeps_its_cell_and_its_figures(
    results: Path, capsys: pytest.CaptureFixture[str], kept: bool
) -> None:
    if not kept:
        (results / ".index.sqlite").unlink()
    rows = {row["id"]: row for row in ask(capsys, "list", "runs", "--results", str(results))}
    assert set(FIGURES) <= set(rows)
    for name, then in FIGURES.items():
        now = rows[name]
        assert now["status"] == then["status"]
        assert now["cell"]["name"] == then["cell"]
        assert now["cell"]["key"] == then["key"]
        for metric, value in then["values"].items():
            assert now["values"][metric] == pytest.approx(value, rel=1e-12), (name, metric)


def test_samples_give_back_the_median_of_their_launch(results: Path) -> None:
    folders = sorted(path.parent for path in results.glob("2*/samples.npz"))
    assert len(folders) == 4
    for folder in folders:
        samples = read_samples(folder)
        timed = samples.timed == 1
        launches = json.loads((folder / "result.json").read_text())["timing"]["launches"]
        for number, launch in enumerate(launches):
            of_launch = timed & (samples.launch == number)
            assert int(of_launch.sum()) == launch["iterations"]
            latency_ns = (samples.end_ns - samples.start_ns)[of_launch]
            assert np.median(latency_ns) / 1e6 == pytest.approx(launch["median_ms"], rel=1e-12)


def test_the_journal_of_a_killed_driver_is_read(results: Path) -> None:
    (journal,) = results.glob("2*/samples.journal")
    assert len(read_samples(journal.parent).start_ns) == 6813


def test_a_promoted_baseline_is_the_sweep_that_it_was_made_of(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "release", "stored-first", "--results", str(results)]) == 4
    assert "is on both sides" in capsys.readouterr().err
