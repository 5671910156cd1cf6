"""``harness check --confirm`` for real: both builds measured again, in turn, side by side.

A bad build takes six times as long, and less than three times as long is no change: what another
guest does to the machine meanwhile is neither taken for a change, nor for a slower machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import builds
import pytest
from running import Harness

pytestmark = pytest.mark.measures

CELL = "digits/ours:Ours/cpu/fp32/b1/latency"
JUDGED = """
minimum_launches = 3
metrics = ["latency_median"]
[[limit]]
metric = "latency_median"
minimum_effect = 2.0
"""


GOOD_S, BAD_S = 0.001, 0.006


class Repository:
    """A project whose backend lies in the repository, so that each commit is a build."""

    def __init__(self, folder: Path, harness: Harness) -> None:
        self.folder, self._harness = folder, harness
        builds.git(folder, "init", "-q")
        (folder / ".gitignore").write_text("results\n__pycache__\nnight.txt\nenv-*\n*.toml\ntmp\n")

    def build(self, seconds: float) -> str:
        builds.write(self.folder, seconds, self.folder / "night.txt")
        return builds.commit(self.folder, str(seconds))

    def night(self, slowness: float) -> None:
        (self.folder / "night.txt").write_text(str(slowness))

    def measured(self) -> str:
        ran = self._harness("run", "--backend", "ours:Ours", *builds.QUICK)
        assert ran.code == 0, ran.err
        found: str = ran.result["id"]
        return found

    def policy(self, confirm: str) -> None:
        trust = 'trust = ["ours:Ours"]'
        text = f"{JUDGED}[confirm]\n{trust}\n{confirm}\n"
        (self.folder / "harness-policy.toml").write_text(text)


@pytest.fixture
def repository(tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Repository:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Repository(tmp_path, harness)


def test_what_the_commit_did_is_confirmed_and_what_the_night_did_is_not(
    repository: Repository, harness: Harness
) -> None:
    good = repository.build(GOOD_S)
    baseline = repository.measured()
    bad = repository.build(BAD_S)
    candidate = repository.measured()
    repository.policy('commits = "recorded"')

    red = harness("check", candidate, "--baseline", baseline, "--confirm", "--json")
    assert red.code == 1, red.err
    assert red.err == "measuring 1 cell again, both builds in turn\n"
    (case,) = (case for case in json.loads(red.out)["cases"] if case["kind"] == "regressed")
    assert "; confirmed side by side, paired rounds: worse by " in case["message"]
    (again,) = json.loads(red.out)["confirmations"]
    assert again["schema"] == "harness.comparison/1" and again["design"] == "paired rounds"
    assert again["cells"][0]["rows"][0]["verdict"] == "regressed"
    runs = list((repository.folder / "results" / ".confirm").glob("*/*-duel-*/*/result.json"))
    measured = [json.loads(path.read_bytes()) for path in runs]
    told = {run["tags"]["duel_variant"]: run["software"]["commit"] for run in measured}
    assert told == {"baseline": good, "candidate": bad}
    assert builds.git(repository.folder, "worktree", "list").count("\n") == 0  # none is left

    # the same two commits, told apart by nothing but a slow night
    repository.build(GOOD_S)
    repository.night(BAD_S / GOOD_S)
    slow_night = repository.measured()
    repository.night(1.0)
    calm = harness("check", slow_night, "--baseline", baseline, "--confirm", "--json")
    assert calm.code == 0, calm.out
    (case,) = (case for case in json.loads(calm.out)["cases"] if case["metric"])
    assert case["kind"] == "not confirmed"
    assert "not the software: side by side, " in case["message"]


def test_two_environments_are_two_builds(repository: Repository, harness: Harness) -> None:
    repository.build(GOOD_S)
    baseline = repository.measured()
    for name in ("good", "bad"):  # folders such as python -m venv makes
        home = repository.folder / f"env-{name}"
        (home / "bin").mkdir(parents=True)
        (home / "lib").mkdir()
        python = home / "bin" / "python"
        python.write_text(
            f'#!/bin/sh\nPYTHONPATH={home}/lib:$PYTHONPATH exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
    ours = repository.folder / "ours.py"
    (repository.folder / "env-good/lib/ours.py").write_text(ours.read_text())
    slower = ours.read_text().replace(str(GOOD_S), str(BAD_S))
    (repository.folder / "env-bad/lib/ours.py").write_text(slower)
    ours.write_text(slower)
    candidate = repository.measured()
    ours.unlink()  # the project itself is in neither: each environment has its own
    repository.policy('environments = {baseline = "env-good", candidate = "env-bad"}')
    red = harness("check", candidate, "--baseline", baseline, "--confirm", "--json")
    assert red.code == 1, red.err
    assert "; confirmed side by side, worse by " in red.out
    assert "no duel, so separate launches: baseline: backend 'ours:Ours' cannot be used" in red.err

    repository.policy('environments = {baseline = "gone", candidate = "env-bad"}')
    gone = harness("check", candidate, "--baseline", baseline, "--confirm")
    assert gone.code == 2
    assert "'gone' holds no bin/python; name a virtual environment" in gone.err
    (repository.folder / "harness-policy.toml").write_text(JUDGED)
    bare = harness("check", candidate, "--baseline", baseline, "--confirm")
    assert bare.code == 2
    assert "--confirm needs [confirm] in the policy" in bare.err
