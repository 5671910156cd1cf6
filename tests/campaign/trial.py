"""One try: a folder of its own, a command in it, and what is left when all is over."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

E2E = Path(__file__).parent.parent / "e2e"
RUN = (
    "run", "--backend", "fakes:Fake", "--option", "latency_us=1000", "--quiet", "--launches", "1",
    "--duration", "0.4", "--warmup", "0.05", "--max-warmup", "0.3", "--out", "results",
)  # fmt: skip
_GONE_S = 30.0  # until then every process has ended by itself


@dataclass
class Summary:
    """Of all tries of one kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    left_in_tmp: int | None = None  # None where nobody looked
    limits: str = ""  # the most of time and memory that a try took

    def __str__(self) -> str:
        parts = [f"{count} {what}" for what, count in self.counts.items()]
        parts.append(f"{len(self.faults)} faults")
        if self.left_in_tmp is not None:
            parts.append(f"{self.left_in_tmp} left in the temporary folder")
        parts += [self.limits] if self.limits else []
        return "\n".join([f"{self.kind}: {', '.join(parts)}", *(f"  {f}" for f in self.faults)])


class Place:
    """A folder with a cache and a temporary folder that all tries share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"
        self.tmp.mkdir()
        self._count = 0

    def new(self) -> Trial:
        self._count += 1
        folder = self.root / f"try-{self._count}"
        folder.mkdir()
        return Trial(folder, self)

    def environment(self) -> dict[str, str]:
        own = {"HARNESS_CACHE": str(self.root / "cache"), "TMPDIR": str(self.tmp)}
        return {**os.environ, **own, "PYTHONPATH": str(E2E)}

    def length_s(self) -> float:
        """How long an undisturbed run goes on here from its folder on, its model being ready."""
        self.new().harness(*RUN)
        trial = self.new()
        process = trial.start(*RUN)
        trial.wait_for_folder(process)
        began = time.monotonic()
        process.communicate(timeout=300)
        return time.monotonic() - began

    def left(self) -> int:
        """What lies in the temporary folder after one more run, which sweeps it."""
        self.new().harness(*RUN)
        names = [path.name for path in self.tmp.iterdir()]
        return sum(not name.endswith(".lock") for name in names)  # a lock is nobody's litter


class Trial:
    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        self._place = place

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *args],
            cwd=self.folder,
            env=self._place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def harness(self, *args: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def wait_for_folder(self, process: subprocess.Popen[str]) -> None:
        """Until the run has one, or is over."""
        while process.poll() is None and not list(self.folder.glob("results/**/run.journal")):
            time.sleep(0.002)

    def wait_for_moment(
        self, process: subprocess.Popen[str], chance: random.Random, length_s: float
    ) -> None:
        """A random moment: one in eight while it starts, the others while it has a folder."""
        if chance.random() < 1 / 8:
            time.sleep(chance.uniform(0, length_s))
            return
        self.wait_for_folder(process)
        time.sleep(chance.uniform(0, length_s))

    def processes(self) -> list[psutil.Process]:
        """Every process that was started in this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.folder) and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def faults(self) -> Iterator[str]:
        """What is wrong once all is over: processes that stay, runs without a readable result."""
        deadline = time.monotonic() + _GONE_S
        while (alive := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in alive:
            yield f"an orphan: {' '.join(process.cmdline())[:120]}"
            process.kill()
        for run in self.runs():
            if not (run / "result.json").exists():
                done = self.harness("recover", str(run))
                if done.returncode:
                    yield f"{sorted(p.name for p in run.iterdir())}: {done.stderr.strip()}"
                    continue
            yield from _faults_of(run)

    def runs(self) -> list[Path]:
        return [path.parent for path in self.folder.glob("results/**/run.journal")] + [
            path.parent for path in self.folder.glob("results/**/result.json")
            if not (path.parent / "run.journal").exists()
        ]  # fmt: skip

    def empty(self) -> int:
        """Run folders with nothing in them."""
        return sum(not any(path.iterdir()) for path in self.folder.glob("results/2*"))


def _faults_of(run: Path) -> Iterator[str]:
    """A result that does not read, or has another number of iterations than its samples."""
    from harness.records.samples import read_samples
    from harness.records.store import read_result

    try:
        result = read_result(run)
        timing = json.loads((run / "result.json").read_bytes())["timing"]
        if "iterations" in timing:
            kept = int(read_samples(run).timed.sum())
            if kept != timing["iterations"]:
                yield f"{run.name}: {timing['iterations']} iterations, {kept} in the samples"
        if (run / "samples.journal").exists() and (run / "samples.npz").exists():
            yield f"{run.name} ({result.status}): both the journal and what it became"
    except Exception as error:  # whatever it is, it is a fault
        yield f"{run.name}: {type(error).__name__}: {error}"


def tries(count: int, seed: int, kind: str, until_s: float) -> Iterator[random.Random]:
    """A random source for each try, the same for the same seed; none after ``until_s``."""
    for index in range(count):
        if time.monotonic() > until_s:
            return
        yield random.Random(f"{seed} {kind} {index}")


def place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="campaign-")
