"""Another load is a file, a name in the registry and one in the scenarios: a copy with one more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from harness import registry
from harness.spec.fields import Scenario

ROOT = Path(__file__).parents[2]
# Every inference is due a fixed time after the one before it, whether that has ended or not.
LOAD = '''
"""Inferences that are due every ten milliseconds, by one thread."""

import time

from harness.engine.loads.latency import Latency
from harness.engine.loads.threads import Threads
from harness.records.result import Check


class Beat(Latency):
    columns = ("start", "end", "due")
    counts_from = "due"
    pauses = False

    def mode(self, spec):
        return "one every 10 ms"

    def drive(self, timeline, sessions, job, peer):
        return _Beating(timeline, sessions)

    def checks(self, spec, taken):
        late = sum(int((one["start"] - one["due"] > 0).sum()) for t in taken for one in t.streams)
        return (Check(name="beat", verdict="pass", reason=f"{late} started after they were due"),)


class _Beating(Threads):
    def __init__(self, timeline, sessions):
        super().__init__(timeline, sessions)
        self._stream, self._session = timeline.streams[0], sessions[0]

    def window(self):
        stream, session = self._stream, self._session
        due, at = time.perf_counter_ns(), stream.written
        stream.window_start = at
        for index in range(at, at + 20):
            due += 10_000_000
            time.sleep(max(due - time.perf_counter_ns(), 0) / 1e9)
            start = time.perf_counter_ns()
            session.enqueue()
            session.synchronize()
            row = index % stream.capacity
            stream.starts[row], stream.ends[row] = start, time.perf_counter_ns()
            stream.columns["due"][row] = due
            stream.written = index + 1
        stream.window_end = stream.written
'''
EDITS = {
    "harness/registry.py": ('    "turns": "', '    "beat": "harness.engine.loads.beat:Beat",\n'),
    "harness/spec/fields.py": ('"latency", ', '"beat", '),
}
PROBE = """
import json, sys
from pathlib import Path
import numpy as np
import harness.spec
from harness.engine import driver

assert Path(sys.modules["harness"].__file__).is_relative_to(sys.argv[1])
asked = {"backend": "harness.testing.fake_backend:FakeBackend", "scenario": "beat", "out": "runs",
         "duration_s": "5", "warmup_s": "0.05", "sample_rate_hz": "0", "power_source": "none"}
outcome = driver.run(harness.spec.parse(asked))
result, folder = outcome.result, outcome.folder
with np.load(folder / "samples.npz") as packed:
    timed = packed["timed"] == 1
    latency = (packed["end_ns"] - packed["due_ns"])[timed] / 1e6
    warm = bool((packed["due_ns"] == packed["start_ns"])[~timed].all())
print(json.dumps({
    "mode": result.timing.mode, "iterations": result.timing.iterations, "warm": warm,
    "median_ms": result.timing.latency_ms.median, "from_due_ms": float(np.median(latency)),
    "scenario": result.timing.scenario, "timed": int(timed.sum()),
    "checks": [check.reason for check in result.validity if check.name == "beat"],
}))
"""


def edited(copy: Path) -> None:
    for name, (before, new) in EDITS.items():
        path = copy / name
        head, found, tail = path.read_text("utf-8").partition(before)
        assert found
        path.write_text(head + new + found + tail, "utf-8")
    (copy / "harness/engine/loads/beat.py").write_text(LOAD, "utf-8")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of the new scenario in the copy leaves."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        ROOT / "harness", copy / "harness", ignore=shutil.ignore_patterns("__pycache__")
    )
    edited(copy)
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, str(copy)],
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def test_the_new_scenario_runs_and_its_latency_counts_from_the_column_it_names(
    found: dict[str, Any],
) -> None:
    assert (found["scenario"], found["mode"]) == ("beat", "one every 10 ms")
    assert found["iterations"] == found["timed"] == 20
    assert found["median_ms"] == pytest.approx(found["from_due_ms"])


def test_outside_its_schedule_an_inference_was_due_when_it_started(found: dict[str, Any]) -> None:
    assert found["warm"] is True


def test_its_check_stands_beside_the_others(found: dict[str, Any]) -> None:
    assert found["checks"] == ["20 started after they were due"]


def test_every_scenario_is_a_load_and_a_duel_has_one_of_its_own() -> None:
    assert {*get_args(Scenario), "turns"} == set(registry.LOADS)
    for name in registry.LOADS:
        load = registry.load(name)
        assert load.columns[:2] == ("start", "end") and load.counts_from in load.columns
