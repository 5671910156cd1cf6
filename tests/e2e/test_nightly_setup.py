"""The nightly set-up of examples/nightly, used as it is documented."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import builds
import pytest
import yaml
from running import environment

from harness.spec import RunSpec
from harness.sweep.locks import held, needs

pytestmark = pytest.mark.measures

SETUP = Path(__file__).parents[2] / "examples" / "nightly"
SWEEP = """
launches = 5
[defaults]
backend = "ours:Ours"
duration_s = 0.1
warmup_s = 0
sample_rate_hz = 0
[matrix]
model = ["digits"]
"""
POLICY = """
metrics = ["latency_median"]
[[limit]]
metric = "latency_median"
minimum_effect = 2.0
"""
# less than that is no change: what else the machine does meanwhile is never taken for one
GOOD_S, BAD_S = 0.001, 0.006


class Lab:
    """A folder with the files of the example, and a shell in it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        shutil.copytree(SETUP, folder, dirs_exist_ok=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "harness").write_text(
            f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n'
        )
        (folder / "bin" / "harness").chmod(0o755)
        (folder / "harness-policy.toml").write_text(POLICY)
        (folder / "tmp").mkdir()
        self.environment = {
            **environment(cache, folder),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "TMPDIR": str(folder / "tmp"),  # of the locks
            "GITHUB_STEP_SUMMARY": str(folder / "step-summary.md"),
        }
        (folder / "nightly.toml").write_text(SWEEP)
        self.build(GOOD_S)

    def build(self, latency_s: float) -> None:
        """Tonight's software takes this long for the same cell."""
        builds.write(self.folder, latency_s)

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    return Lab(folder, tmp_path_factory.mktemp("cache"))


def test_first_night_then_green_then_red(lab: Lab) -> None:
    first = lab.shell("./nightly.sh nightly.toml release --label 1")
    assert first.returncode == 4, first.stderr
    assert "tonight is the first: harness baseline promote" in first.stderr
    promoted = lab.shell("harness baseline promote results/nightly-1 --name release --reason first")
    assert promoted.returncode == 0, promoted.stderr

    green = lab.shell("./nightly.sh nightly.toml release --label 2")
    assert green.returncode == 0, green.stdout + green.stderr

    lab.build(BAD_S)
    red = lab.shell("./nightly.sh nightly.toml release --label 3")
    assert red.returncode == 1, red.stdout + red.stderr
    gate = lab.folder / "results" / "nightly-3" / "gate"
    assert "digits/ours:Ours/cpu/fp32/b1/latency" in (gate / "summary.md").read_text()
    assert sorted(file.name for file in gate.iterdir()) == [
        "junit.xml", "report.json", "summary.md",
    ]  # fmt: skip


def test_a_sweep_that_cannot_begin_is_no_verdict(lab: Lab) -> None:
    """1 would say that something is worse."""
    assert lab.shell("./nightly.sh nowhere.toml").returncode == 2
    with held(needs([RunSpec()]), 0, folder=lab.folder / "tmp"):
        busy = lab.shell("./nightly.sh nightly.toml release --label busy --wait 1s")
    assert busy.returncode == 3
    assert "another sweep holds" in busy.stderr
    assert not (lab.folder / "results" / "nightly-busy" / "gate").exists()


def test_the_workflow_publishes_a_red_summary(lab: Lab) -> None:
    """Its steps as the runner runs them, after the red night above."""
    workflow = yaml.safe_load((lab.folder / "github-workflow.yml").read_text())
    steps = {step["name"]: step for step in workflow["jobs"]["nightly"]["steps"] if "name" in step}
    judge = steps["Measure and judge"]["run"].strip() + " --label 4"
    assert lab.shell(judge).returncode == 1
    publish = steps["Publish the summary"]
    assert publish["if"] == "always()"
    assert lab.shell(publish["run"]).returncode == 0
    summary = (lab.folder / "step-summary.md").read_text()
    assert summary == (lab.folder / "results/nightly-4/gate/summary.md").read_text()
    assert "regressed" in summary

    (lab.folder / "step-summary.md").unlink()
    assert lab.shell(judge.replace("nightly.toml", "nowhere.toml")).returncode == 2
    assert lab.shell(publish["run"]).returncode == 0
    assert (lab.folder / "step-summary.md").read_text() == ""  # not that of another night


def test_the_cron_line_runs_the_script(lab: Lab) -> None:
    lines = (lab.folder / "crontab").read_text().splitlines()
    line = next(line for line in lines if line.startswith("0 2 * * * "))
    command = line.removeprefix("0 2 * * * ").replace("/srv/bench/nightly", str(lab.folder))
    command = command.replace("nightly.sh >", "nightly.sh nightly.toml release --label 4 >")
    assert lab.shell(command).returncode == 1  # the night of the workflow, judged again
    assert "regressed" in (lab.folder / "last.log").read_text()


def test_the_systemd_units_are_sound(lab: Lab) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = []
    for name in ("harness-nightly.service", "harness-nightly.timer"):
        path = lab.folder / name
        path.write_text(path.read_text().replace("/srv/bench/nightly", str(lab.folder)))
        units.append(str(path))
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in ran.stderr.splitlines() if "harness-nightly" in line]
    assert complaints == []
