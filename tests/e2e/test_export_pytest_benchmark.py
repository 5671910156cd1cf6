"""Real runs, exported, in the real command line of pytest-benchmark."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import environment

CELL = "digits/onnxruntime/cpu/fp32/b1/latency"
SHORT = ("--duration", "0.2", "--max-warmup", "0.5", "--launches", "2", "--no-tensorboard")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `0001_base.json`, of a real run, and `0002_slow.json`, the same 1.5 times as
    slow in every figure that is a time."""
    folder = tmp_path_factory.mktemp("night")
    harness(folder, "run", *SHORT, "--quiet")
    harness(folder, "export", "--format", "pytest-benchmark", "-o", "0001_base.json", "latest")
    slower(folder / "0001_base.json", folder / "0002_slow.json", 1.5)
    return folder


def harness(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "harness", *words]
    cache = folder / "cache"
    done = subprocess.run(
        command, cwd=folder, env=environment(cache), capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


def slower(base: Path, path: Path, factor: float) -> None:
    document = json.loads(base.read_bytes())
    for one in document["benchmarks"]:
        if one["group"].endswith("(s)"):
            kept = ("rounds", "iterations", "ops", "data", "outliers", "iqr_outliers",
                    "stddev_outliers")  # fmt: skip
            stats = one["stats"]
            stats |= {k: v * factor for k, v in stats.items() if k not in kept}
    path.write_text(json.dumps(document))


def compare(folder: Path, *words: str) -> str:
    """What ``pytest-benchmark compare`` prints; it must end well and complain of nothing."""
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0 and "Failed to load" not in done.stderr, done.stderr
    return done.stdout


def benchmarks(path: Path) -> dict[str, dict[str, Any]]:
    return {one["group"]: one for one in json.loads(path.read_bytes())["benchmarks"]}


def test_the_export_says_what_the_result_says(night: Path) -> None:
    (path,) = night.glob("results/*/result.json")
    result = json.loads(path.read_bytes())
    found = benchmarks(night / "0001_base.json")
    timing = result["timing"]
    latency = found["latency (s)"]["stats"]
    assert found["latency (s)"]["extra_info"]["iterations"] == timing["iterations"]
    if timing["iterations"] <= 10_000:  # else every k-th is a round
        assert latency["min"] * 1e3 == pytest.approx(timing["latency_ms"]["min"])
        assert latency["max"] * 1e3 == pytest.approx(timing["latency_ms"]["max"])
        assert latency["rounds"] == timing["iterations"]
    assert latency["median"] * 1e3 == pytest.approx(timing["latency_ms"]["median"], rel=0.01)
    medians = [launch["median_ms"] / 1e3 for launch in timing["launches"]]
    assert found["latency_median (s)"]["stats"]["data"] == pytest.approx(medians)
    (top1,) = found["top1 (share of 1, higher is better)"]["stats"]["data"]
    assert top1 == result["accuracy"]["top1"]


def test_compare_prints_a_table_per_metric(night: Path) -> None:
    out = compare(night, "0001_base.json", "0002_slow.json", "--time-unit=s")
    groups = benchmarks(night / "0001_base.json")
    assert {"latency (s)", "latency_median (s)", "memory_peak (bytes)"} <= set(groups)
    for group in groups:
        assert f"benchmark '{group}': 2 tests" in out
    assert f"{CELL} (0001_base)" in out and f"{CELL} (0002_slow)" in out


def test_between_takes_the_first_name_as_reference(night: Path) -> None:
    out = compare(night, "0002_slow.json", "0001_base.json", "--between=median,min")
    table = out.split("benchmark 'latency_median (s)'")[1].split("benchmark '")[0]
    assert re.findall(r"[+-]\d+\.\d%", table) == ["+50.0%", "+50.0%"]
    unchanged = out.split("benchmark 'memory_peak (bytes)'")[1].split("benchmark '")[0]
    assert re.findall(r"[+-]\d+\.\d%", unchanged) == ["+0.0%", "+0.0%"]


def test_csv_and_histogram(night: Path) -> None:
    words = ("--csv=table.csv", "--histogram=plots/h", "--columns=median,rounds")
    compare(night, "0001_base.json", *words)
    with (night / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows[f"{CELL}::latency"]["param:precision"] == "fp32"
    found = benchmarks(night / "0001_base.json")
    assert len(rows) == len(found)
    for one in found.values():
        assert float(rows[one["fullname"]]["median"]) == one["stats"]["median"]
    plots = [path.read_text() for path in (night / "plots").glob("h-*.svg")]
    assert len(plots) == len(found) and all(CELL in plot for plot in plots)


def test_a_storage_serves_the_command_line_too(night: Path) -> None:
    words = ("export", "--format", "pytest-benchmark", "-o", "store/", "latest")
    harness(night, *words)
    harness(night, *words)
    command = [sys.executable, "-m", "pytest_benchmark", "--storage=store", "compare", "0002"]
    done = subprocess.run(
        command, cwd=night, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0 and "benchmark 'latency (s)': 1 tests" in done.stdout
