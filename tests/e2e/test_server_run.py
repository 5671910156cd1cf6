"""``harness run --scenario server``: requests from a schedule, by the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records.samples import read_samples

FAKE = ("--backend", "harness.testing.fake_backend:FakeBackend", "--option", "latency_us=2000")


def harness(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *args],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.measures
def test_every_request_of_a_trace_is_served_once_and_counts_from_due(tmp_path: Path) -> None:
    """Two servers of 2 ms and more; pairs of requests, 20 ms from pair to pair."""
    trace = tmp_path / "trace.csv"
    trace.write_text("t_s\n" + "".join(f"{0.02 * (index // 2)}\n" for index in range(60)))
    ran = harness(
        tmp_path, "run", *FAKE, "--scenario", "server", "--arrivals", f"file:{trace}",
        "--concurrency", "2", "--warmup", "0.05", "--sample-rate", "0", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    samples = read_samples(tmp_path / "results" / result["id"])
    timed = samples.timed == 1
    assert samples.due_ns is not None
    due = np.sort(samples.due_ns[timed])
    assert len(due) == result["serving"]["requests"] == 60
    assert np.round((due - due[0]) / 1e6).tolist() == [20 * (index // 2) for index in range(60)]
    assert (samples.start_ns[timed] >= samples.due_ns[timed]).all()
    latencies = (samples.end_ns - samples.due_ns)[timed] / 1e6
    assert result["timing"]["latency_ms"]["median"] == pytest.approx(np.median(latencies))
    assert result["timing"]["latency_ms"]["min"] >= 2
    assert harness(tmp_path, "verify", "latest").returncode == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--scenario", "server"), "without --rate"),
        (("--scenario", "server", "--rate", "nan"), "--rate is 'nan'"),
        (("--scenario", "server", "--arrivals", "file:none.csv"), "'none.csv' cannot be read"),
        (("--rate", "5"), "--rate 5.0 in the latency scenario; add --scenario server"),
    ],
)
def test_what_makes_no_schedule_is_one_line(
    tmp_path: Path, args: tuple[str, ...], told: str
) -> None:
    ran = harness(tmp_path, "run", *args)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr and len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.measures
def test_a_capacity_leaves_its_answer_its_probes_and_its_curve(tmp_path: Path) -> None:
    ran = harness(
        tmp_path, "capacity", *FAKE, "--latency-bound", "p90=500ms", "--duration", "0.5",
        "--probes", "1", "--curve", "1", "--warmup", "0.05", "--sample-rate", "0", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["schema"] == "harness.capacity/1" and len(found["probes"]) == 1
    (below,) = found["curve"]
    assert below["rate_per_s"] == float(f"{found['capacity']['per_s'] / 2:.4g}")
    assert below["predicted_p50_ms"] >= 2 and below["p50_ms"] >= 2
    answer = found["capacity"]
    assert answer["limited_by"] == "p90=500ms"
    assert 0 < answer["per_s"] <= 1000 / 2  # each takes 2 ms at least
    folder = tmp_path / "results" / found["id"]
    assert json.loads((folder / "capacity.json").read_text()) == found
    told = [json.loads(path.read_text())["capacity"] for path in folder.glob("2*/result.json")]
    assert [one for one in told if "per_s" in one] == [answer]
    assert list(folder.glob("events.out.tfevents.*"))


def test_a_bound_that_no_rate_holds_is_one_line(tmp_path: Path) -> None:
    ran = harness(
        tmp_path, "capacity", *FAKE, "--latency-bound", "p99=1ms", "--duration", "0.2",
        "--warmup", "0.05", "--sample-rate", "0",
    )  # fmt: skip
    assert ran.returncode == 3
    assert "holds at no rate" in ran.stderr and len(ran.stderr.splitlines()) == 1
    assert harness(tmp_path, "capacity").returncode == 2
