"""``harness duel`` with the real command: what it leaves, what it says, and what ends it early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Harness, assert_no_orphans, helpers

from harness.records.samples import read_rounds, read_samples
from harness.records.store import read_result

FAKE = ("duel", "--backend", "fakes:Fake", "--warmup", "0", "--max-warmup", "0.2")
QUICK = (*FAKE, "--launches", "1", "--duration", "0.1")
SLOWER = ("--across", "option=latency_us=1000,latency_us=10000")


def the_duel(folder: Path) -> Path:
    (found,) = (folder / "results").glob("[0-9]*-duel-*")
    return found


def comparison(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((the_duel(folder) / "comparison.json").read_text())
    return found


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in the_duel(folder).glob("*/result.json"))


@pytest.mark.measures
def test_each_variant_leaves_a_run_and_the_duel_its_ratio(harness: Harness, tmp_path: Path) -> None:
    ran = harness(*QUICK, *SLOWER, "--json")

    assert ran.code == 0, ran.err
    found = comparison(tmp_path)
    assert json.loads(ran.out) == found
    assert found["schema"] == "harness.comparison/1"
    assert found["design"] == "paired rounds"
    (verdict,) = found["paired"]["verdicts"]
    assert verdict["ratio"] > 1
    assert verdict["verdict"] == "inconclusive"  # of one launch
    assert found["paired"]["rounds"] >= 8
    assert found["paired"]["ended"] == "launches"
    (cell,) = found["cells"]
    latency = next(row for row in cell["rows"] if row["metric"] == "latency_median")
    assert latency["ratio"] == verdict["ratio"]
    assert len(runs(tmp_path)) == 2
    for path in runs(tmp_path):
        result, samples, rounds = read_result(path), read_samples(path), read_rounds(path)
        assert result.tags["duel"] == the_duel(tmp_path).name
        assert result.id in {variant["run"] for variant in found["paired"]["variants"]}
        assert rounds is not None
        assert set(rounds.tolist()) == set(range(-1, found["paired"]["rounds"]))
        left_out = found["paired"]["design"]["left_out"]
        for number in range(found["paired"]["rounds"]):
            timed = samples.timed[rounds == number]
            assert not timed[:left_out].any()
            assert timed[left_out:].all()
        assert (samples.timed[rounds < 0] == 0).all()
        (resting,) = (check for check in result.validity if check.name == "resting")
        assert resting.verdict == "pass", resting.reason
        assert list(path.glob("events.out.tfevents.*"))
        assert harness("verify", str(path)).code == 0
    a, b = (the_duel(tmp_path) / variant["run"] for variant in found["paired"]["variants"])
    compared = json.loads(harness("compare", str(a), str(b), "--json").out)
    assert compared["design"] == "paired rounds"
    assert compared["cells"][0]["rows"][0]["ratio"] == verdict["ratio"]
    reversed_ = json.loads(harness("compare", str(b), str(a), "--json").out)
    assert reversed_["design"] == "separate launches"  # the duel has no such ratio
    turns = [_turns(path) for path in runs(tmp_path)]
    assert not any(a < d and c < b for a, b in turns[0] for c, d in turns[1])  # never both at once
    names = [path.name for path in the_duel(tmp_path).rglob("*")]
    assert [name for name in names if "journal" in name or "tmp" in name] == []
    assert b"duel/ratio/" in next(the_duel(tmp_path).glob("events.*")).read_bytes()


def _turns(run: Path) -> list[tuple[int, int]]:
    """When each began and ended, in ns."""
    samples, rounds = read_samples(run), read_rounds(run)
    assert rounds is not None
    inside = [rounds == number for number in np.unique(rounds[rounds >= 0])]
    return [(int(samples.start_ns[one][0]), int(samples.end_ns[one][-1])) for one in inside]


def test_a_model_against_itself_in_words(harness: Harness, tmp_path: Path) -> None:
    ran = harness(*QUICK, "--against-itself", "--option", "latency_us=500")

    assert ran.code == 0, ran.err
    assert "its twin takes " in ran.out
    assert "of itself's time, ±" in ran.out
    assert "launch 1/1, taking turns" in ran.err
    (cell,) = comparison(tmp_path)["cells"]
    assert not cell["apart"]


def test_environments_take_turns(harness: Harness, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    ran = harness(
        *QUICK, "--option", "latency_us=500", "--across", f"python={sys.executable},{other}"
    )

    assert ran.code == 0, ran.err
    (verdict,) = comparison(tmp_path)["paired"]["verdicts"]
    assert (verdict["a"], verdict["b"]) == (sys.executable, str(other))
    versions = [read_result(path).software.versions["python"] for path in runs(tmp_path)]
    assert versions[0] == versions[1]
    missing = harness(*QUICK, "--across", f"python={sys.executable},{tmp_path / 'none'}")
    assert missing.code == 2
    assert missing.err.count("\n") == 1
    assert "name an interpreter" in missing.err


def _wheel(folder: Path, version: str, wait_us: int) -> None:
    info = f"planted-{version}.dist-info"
    files = {
        "planted.py": f"WAIT_US = {wait_us}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: planted\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"planted-{version}-py3-none-any.whl", "w") as file:
        for name, text in files.items():
            file.writestr(name, text)


def test_the_version_that_made_a_change_is_named_with_its_operators(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this environment has no pip")
    for version, wait_us in (("1.0", 50), ("1.1", 300)):
        _wheel(tmp_path, version, wait_us)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    ran = harness("bisect", "--package", "planted", "1.0..1.1", "--model", "digits", "--backend",
                  "fakes:Versioned", "--precision-goal", "50%", "--json")  # fmt: skip

    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["before"], found["version"]) == ("1.0", "1.1")
    assert found["ratio"][1] > 1.01
    assert found["error"] < 0.01
    told = {one["name"]: (one["a_ms"], one["b_ms"]) for one in found["operators"]["rows"]}
    assert told["half"] == (pytest.approx(0.025), pytest.approx(0.15))  # of 0.05 and of 0.3 ms
    assert told["quarter"] == (pytest.approx(0.0125), pytest.approx(0.075))
    assert {one["verdict"] for one in found["operators"]["rows"]} == {"regressed"}


@pytest.mark.parametrize("arguments", [(), ("--across", "precision=fp32,int8", "--against-itself"),
                                       ("--against-itself", "--overhead-check"),
                                       ("--against-itself", "--scenario", "throughput",
                                        "--concurrency", "2")])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_runs(
    harness: Harness, tmp_path: Path, arguments: Sequence[str]
) -> None:
    ran = harness("duel", *arguments)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("fail", ["fail=raise,fail_at=prepare", "fail=kill,fail_at=0"])
def test_a_variant_that_cannot_run_is_named(harness: Harness, tmp_path: Path, fail: str) -> None:
    how, at = fail.split(",")
    ran = harness(*QUICK, "--option", at, "--across", f"option=fail=none,{how}")

    assert ran.code == 3
    assert f"harness: {how}: " in ran.err
    statuses = {read_result(path).status for path in runs(tmp_path)}
    assert "failed" in statuses
    assert comparison(tmp_path)["paired"]["ended"] == "failed"


def _until(event: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not event():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _second_launch(start: Callable[..., subprocess.Popen[str]], folder: Path) -> Any:
    """A duel whose first launch is on disk, in its second."""
    long = ("--launches", "2", "--duration", "0.5")
    process = start(*FAKE, *long, *SLOWER)
    _until(lambda: any((folder / "results").glob("*-duel-*/comparison.json")))
    return process


def _workers(folder: Path) -> list[Any]:
    name = "harness.engine.worker.main"
    return [process for process in helpers(folder) if name in " ".join(process.cmdline())]


def test_a_worker_that_is_killed_leaves_what_was_measured(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = _second_launch(start, tmp_path)
    _until(lambda: len(_workers(tmp_path)) > 0)
    _workers(tmp_path)[0].kill()

    _, err = process.communicate(timeout=600)

    assert process.returncode == 3
    assert "SIGKILL" in err
    assert_no_orphans(tmp_path)
    found = comparison(tmp_path)["paired"]
    assert found["ended"] == "failed"
    assert found["verdicts"][0]["ratio"] > 1  # of the first launch
    results = [read_result(path) for path in runs(tmp_path)]
    assert sorted(result.status for result in results) == ["failed", "interrupted"]
    assert all(len(result.timing.launches) >= 1 for result in results)  # type: ignore[union-attr]


def test_ctrl_c_keeps_what_was_measured(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = _second_launch(start, tmp_path)
    os.kill(process.pid, signal.SIGINT)

    process.communicate(timeout=600)

    assert process.returncode == 130
    assert_no_orphans(tmp_path)
    assert comparison(tmp_path)["paired"]["ended"] == "interrupted"
    assert {read_result(path).status for path in runs(tmp_path)} == {"interrupted"}


def test_a_driver_that_is_killed_leaves_the_ratio_so_far_and_runs_to_recover(
    harness: Harness, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = _second_launch(start, tmp_path)
    process.kill()
    process.communicate(timeout=600)

    assert_no_orphans(tmp_path)
    found = comparison(tmp_path)["paired"]
    assert found["ended"] == "going on"
    assert found["launches"] >= 1  # and the rounds of the second, where it had got so far
    assert found["verdicts"][0]["ratio"] > 1
    for journal in the_duel(tmp_path).glob("*/run.journal"):
        assert harness("recover", str(journal.parent)).code == 0
    assert len(runs(tmp_path)) == 2
    left_out = found["design"]["left_out"]
    for path in runs(tmp_path):
        samples, rounds = read_samples(path), read_rounds(path)
        assert rounds is not None
        first = (samples.launch == 0) & (rounds == 0)
        assert not samples.timed[first][:left_out].any()
        assert samples.timed[first][left_out:].all()
    assert {read_result(path).status for path in runs(tmp_path)} == {"interrupted"}
