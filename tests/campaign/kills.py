"""kill -9 of driver, worker, sampler and sweep, each at random moments of its life."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from trial import RUN, Place, Summary, Trial, place, tries

KINDS = ("driver", "worker", "sampler", "sweep")
PROGRAMS = {"worker": "harness.engine.worker.main", "sampler": "harness.engine.sampler.main"}
SWEEP = """
name = "s"
launches = 2
[defaults]
backend = "fakes:Fake"
options = { latency_us = 1000 }
warmup_s = 0.05
max_warmup_s = 0.3
duration_s = 0.4
[matrix]
batch_size = [1, 2]
"""


def run(count: int, seed: int, seconds: float, kinds: Sequence[str] = KINDS) -> Iterator[Summary]:
    """``count`` kills of each; at most so many seconds in all."""
    for kind in kinds:
        until_s = time.monotonic() + seconds / len(kinds)
        with place() as root:
            ground, summary = Place(Path(root)), Summary(f"kills of the {kind}")
            length_s = ground.length_s()
            for index, chance in enumerate(tries(count, seed, kind, until_s)):
                trial = ground.new()
                what = _sweep(trial, chance, length_s) if kind == "sweep" else _run(
                    trial, chance, length_s, kind
                )  # fmt: skip
                summary.counts["tries"] += 1
                summary.counts[what] += 1
                faults = list(trial.faults())
                summary.counts["results"] += len(list(trial.folder.glob("results/**/result.json")))
                summary.faults += [f"seed {seed}, {kind} {index}: {fault}" for fault in faults]
            summary.left_in_tmp = ground.left()
        yield summary


def _run(trial: Trial, chance: random.Random, length_s: float, kind: str) -> str:
    process = trial.start(*RUN)
    trial.wait_for_moment(process, chance, length_s)
    victim = psutil.Process(process.pid) if kind == "driver" else _wait_for(trial, process, kind)
    what = "over before"
    if victim is not None and process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
            what = "killed"
    process.communicate(timeout=300)
    return what if kind != "driver" or trial.runs() else "killed before it had a folder"


def _wait_for(trial: Trial, process: subprocess.Popen[str], kind: str) -> psutil.Process | None:
    """The worker or sampler that is there, or comes; None where the run ends first."""
    while process.poll() is None:
        for one in trial.processes():
            try:
                if PROGRAMS[kind] in " ".join(one.cmdline()):
                    return one
            except psutil.Error:
                continue
        time.sleep(0.01)
    return None


def _sweep(trial: Trial, chance: random.Random, length_s: float) -> str:
    (trial.folder / "s.toml").write_text(SWEEP)
    process = trial.start("sweep", "s.toml", "--label", "k")
    trial.wait_for_moment(process, chance, 3 * length_s)
    what = "killed" if process.poll() is None else "over before"
    process.kill()
    process.communicate(timeout=300)
    return what
