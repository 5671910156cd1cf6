"""``harness check --confirm`` for real: both builds measured again, in turn, side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import Harness

CELL = "digits/ours:Ours/cpu/fp32/b1/latency"
BACKEND = '''
import time
from pathlib import Path
from harness.testing.fake_backend import FakeBackend

class Ours(FakeBackend):
    """As slow as this commit, on a night that is as slow as a file says."""
    def artifact_format(self, precision, options):
        return "onnx"
    def prepare(self, artifact, inputs, options):
        session = super().prepare(artifact, inputs, options)
        night = Path(NIGHT)
        seconds = SECONDS * (float(night.read_text()) if night.exists() else 1)
        session.enqueue = lambda: time.sleep(seconds)
        return session
'''
RUN = ("run", "--backend", "ours:Ours", "--duration", "0.1", "--warmup", "0", "--max-warmup", "0.2",
       "--sample-rate", "0", "--launches", "3", "--no-tensorboard", "--json")  # fmt: skip
JUDGED = """
minimum_launches = 3
metrics = ["latency_median"]
[[limit]]
metric = "latency_median"
minimum_effect = 0.1
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    ran = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


class Repository:
    """A project whose backend lies in the repository, so that each commit is a build."""

    def __init__(self, folder: Path, harness: Harness) -> None:
        self.folder, self._harness = folder, harness
        git(folder, "init", "-q")
        (folder / ".gitignore").write_text("results\n__pycache__\nnight.txt\nenv-*\n*.toml\ntmp\n")

    def build(self, seconds: float) -> str:
        text = BACKEND.replace("SECONDS", str(seconds))
        text = text.replace("NIGHT", repr(str(self.folder / "night.txt")))
        (self.folder / "ours.py").write_text(text)
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-q", "--allow-empty", "-m", str(seconds))
        return git(self.folder, "rev-parse", "HEAD")

    def night(self, slowness: float) -> None:
        (self.folder / "night.txt").write_text(str(slowness))

    def measured(self) -> str:
        ran = self._harness(*RUN)
        assert ran.code == 0, ran.err
        found: str = ran.result["id"]
        return found

    def policy(self, confirm: str) -> None:
        (self.folder / "harness-policy.toml").write_text(f"{JUDGED}[confirm]\n{confirm}\n")


@pytest.fixture
def repository(tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Repository:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Repository(tmp_path, harness)


def test_what_the_commit_did_is_confirmed_and_what_the_night_did_is_not(
    repository: Repository, harness: Harness
) -> None:
    good = repository.build(0.001)
    baseline = repository.measured()
    bad = repository.build(0.0015)
    candidate = repository.measured()
    repository.policy('commits = "recorded"')

    red = harness("check", candidate, "--baseline", baseline, "--confirm", "--json")
    assert red.code == 1, red.err
    assert "measuring 1 cell again" in red.err
    (case,) = (case for case in json.loads(red.out)["cases"] if case["kind"] == "regressed")
    assert "; confirmed side by side, worse by " in case["message"]
    again = list((repository.folder / "results" / ".confirm").glob("*/*/*/result.json"))
    commits = [json.loads(path.read_bytes())["software"]["commit"] for path in again]
    assert sorted(commits) == sorted([good] * 3 + [bad] * 3)
    assert git(repository.folder, "worktree", "list").count("\n") == 0  # none is left

    # the same two commits, told apart by nothing but a slow night
    repository.build(0.001)
    repository.night(1.5)
    slow_night = repository.measured()
    repository.night(1.0)
    calm = harness("check", slow_night, "--baseline", baseline, "--confirm", "--json")
    assert calm.code == 0, calm.out
    (case,) = (case for case in json.loads(calm.out)["cases"] if case["metric"])
    assert case["kind"] == "not confirmed"
    assert "not the software: side by side, " in case["message"]


def test_two_environments_are_two_builds(repository: Repository, harness: Harness) -> None:
    repository.build(0.001)
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
    slower = ours.read_text().replace("0.001", "0.0015")
    (repository.folder / "env-bad/lib/ours.py").write_text(slower)
    ours.write_text(slower)
    candidate = repository.measured()
    ours.unlink()  # the project itself is in neither: each environment has its own
    repository.policy('environments = {baseline = "env-good", candidate = "env-bad"}')
    red = harness("check", candidate, "--baseline", baseline, "--confirm", "--json")
    assert red.code == 1, red.err
    assert "; confirmed side by side, worse by " in red.out

    repository.policy('environments = {baseline = "gone", candidate = "env-bad"}')
    gone = harness("check", candidate, "--baseline", baseline, "--confirm")
    assert gone.code == 2
    assert "'gone' holds no bin/python; name a virtual environment" in gone.err
    (repository.folder / "harness-policy.toml").write_text(JUDGED)
    bare = harness("check", candidate, "--baseline", baseline, "--confirm")
    assert bare.code == 2
    assert "--confirm needs [confirm] in the policy" in bare.err
