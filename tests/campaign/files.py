"""Mutated files of every kind that is read, each through a command that reads it.

    python tests/campaign/campaign.py files [--count 5000] [--seed 1] [--jobs 2] [--keep FOLDER]
    python tests/campaign/campaign.py files --first 500 --count 500    (the second 500 of a seed)

    corpus ──copy──> a folder of its own ──mutate a file──> fork: the command ──> code, CPU, memory

The command runs in a forked child that has everything imported, so that thousands are affordable;
limits of the kernel end what takes too long. Nothing may end in a traceback, take more than 10 s of
the processor, or more than 500 MB. A file that did lies in ``--keep``, with what was shown.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import corpus as corpora
from trial import Summary

LIMIT_S = 10  # of the processor
PATIENCE_S = 120  # of a child that waits for something
LIMIT_BYTES = 500_000_000
CODES = (0, 1, 2, 3, 4, 5, 125, 128, 130)
TRACEBACK = 70
ROOMS = ("analysis", "board", "cli", "compare", "compression", "exports", "models", "records",
         "report", "spec", "stats", "sweep", "tensorboard", "views")  # fmt: skip
WHOLE, NIGHTLY = "results/whole", f"results/{corpora.NIGHTLY}"
NIGHT = f"{NIGHTLY}/night-3"
KILLED = "results/20260101T000000Z-killed"

_READ = [
    ("show", "FOLDER"), ("show", "FOLDER", "--json"), ("compare", "FOLDER", "failed"),
    ("compare", NIGHTLY, "FOLDER"), ("report", "FOLDER", "-o", "out.html"),
    ("report", "results", "-o", "out.md"), ("export", "--format", "csv", "results"),
    ("export", "--format", "junit", "FOLDER"), ("export", "--format", "markdown", "results"),
    ("export", "--format", "pytest-benchmark", "FOLDER"),
    ("export", "--format", "compression-engine", "FOLDER"), ("list", "runs"),
    ("check", "FOLDER", "--baseline", "release"), ("check", NIGHTLY, "--baseline", "FOLDER"),
    ("check", NIGHTLY, "--baseline", "history"), ("history",), ("history", "*", "--json"),
    ("bisect", "digits/onnxruntime/cpu/int8/b1/latency"), ("index", "rebuild"),
    ("baseline", "promote", "FOLDER", "--name", "other"), ("compare", "results", "results"),
]  # fmt: skip
_SAMPLES = [("report", WHOLE, "-o", "out.html"),
            ("export", "--format", "pytest-benchmark", WHOLE)]  # fmt: skip
# file -> the commands that read it; one is drawn
KINDS: dict[str, list[tuple[str, ...]]] = {
    f"{WHOLE}/result.json": [tuple(w.replace("FOLDER", WHOLE) for w in c) for c in _READ],
    f"{NIGHT}/result.json": [tuple(w.replace("FOLDER", NIGHT) for w in c) for c in _READ],
    f"{WHOLE}/samples.npz": _SAMPLES,
    f"{KILLED}/samples.journal": [("recover", KILLED)],
    f"{KILLED}/run.journal": [("recover", KILLED), ("recover",), ("list", "runs")],
    f"{KILLED}/series.journal": [("recover", KILLED)],
    f"{NIGHTLY}/sweep.json": [("check", NIGHTLY, "--baseline", "release")],
    f"{NIGHTLY}/attempts.jsonl": [("check", NIGHTLY, "--baseline", "release")],
    "results/baselines/release.json": [
        ("baseline", "show", "release"), ("baseline", "list"),
        ("check", NIGHTLY, "--baseline", "release"),
        ("baseline", "promote", NIGHTLY, "--name", "release"),
    ],
    "results/acknowledged.json": [("history",), ("check", NIGHTLY, "--baseline", "history")],
    "results/.index.sqlite": [("list", "runs"), ("history",), ("show", "latest@main"),
                              ("index", "rebuild"), ("compare", "@5d4140", NIGHTLY)],
    "harness-policy.toml": [("check", NIGHTLY, "--baseline", "release")],
    "night.toml": [("sweep", "night.toml", "--dry-run"),
                   ("sweep", "night.toml", "--dry-run", "--json")],
    "engine.json": [("import", "engine.json", "--logdir", "log")],
    "meter.csv": [("METER",)],
    "net.onnx": [("BUILD", "fp32", ""), ("BUILD", "int8", "")],
    "data.npz": [("BUILD", "fp32", "dataset"), ("BUILD", "int8", "calibration")],
}  # fmt: skip


class Outcome(NamedTuple):
    """``harm`` is empty where all held; ``cpu_s`` and ``peak_bytes`` are the child's."""

    harm: str
    cpu_s: float
    peak_bytes: int


def run(
    count: int,
    seed: int,
    seconds: float,
    jobs: int = 2,
    keep: Path | None = None,
    first: int = 0,
) -> Iterator[Summary]:
    """So many mutated files of a seed, ``jobs`` at a time, no new one after ``seconds``."""
    with tempfile.TemporaryDirectory(prefix="mutated-files-") as scratch:
        corpus = Path(scratch) / "corpus"
        corpora.make(corpus)
        began = time.monotonic()
        outcomes = campaign(corpus, range(first, first + count), seed, jobs, keep, began + seconds)
        yield summed(outcomes, time.monotonic() - began)


def summed(outcomes: list[tuple[str, Outcome]], seconds: float) -> Summary:
    """One line of figures, and a fault for each file that did harm."""
    slowest = max((outcome.cpu_s for _, outcome in outcomes), default=0)
    largest = max((outcome.peak_bytes for _, outcome in outcomes), default=0)
    summary = Summary(f"mutated files of {len(KINDS)} kinds")
    summary.counts["files"] = len(outcomes)
    summary.limits = (
        f"at most {slowest:.1f} s of the processor and {largest / 1e6:.0f} MB, "
        f"in {seconds:.0f} s altogether"
    )
    harms = Counter(f"{kind}: {outcome.harm}" for kind, outcome in outcomes if outcome.harm)
    for harm, times in harms.most_common():
        summary.faults += [harm] * times
    return summary


def campaign(
    corpus: Path, numbers: range, seed: int, jobs: int, keep: Path | None, until_s: float
) -> list[tuple[str, Outcome]]:
    """(kind, outcome) of these tries, ``jobs`` at a time. The kinds take turns."""
    import_all()
    originals = [(corpus / kind).read_bytes() for kind in KINDS]
    running: dict[int, tuple[str, int, Path, bytes]] = {}
    found: list[tuple[str, Outcome]] = []
    for number in numbers:
        if time.monotonic() > until_s:
            break
        if len(running) >= jobs:
            found.append(_ended(running, seed, keep))
        chance = random.Random(f"{seed}-{number}")
        kind = list(KINDS)[number % len(KINDS)]
        data = corpora.mutated((corpus / kind).read_bytes(), originals, chance)
        folder = Path(tempfile.mkdtemp(dir=corpus.parent))
        shutil.copytree(corpus, folder / "w", symlinks=True)
        (folder / "w" / kind).write_bytes(data)
        pid = _fork(folder, chance.choice(KINDS[kind]))
        running[pid] = (kind, number, folder, data)
    while running:
        found.append(_ended(running, seed, keep))
    return found


def import_all() -> None:
    """In the parent, once. Without torch: the files read here need none."""
    for room in ROOMS:
        package = importlib.import_module(f"harness.{room}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if info.name.rpartition(".")[2] not in ("torch_build", "train_digits"):
                importlib.import_module(info.name)
    importlib.import_module("harness.quantize.onnx")


def _fork(folder: Path, words: tuple[str, ...]) -> int:
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = TRACEBACK
    try:
        os.chdir(folder / "w")
        os.environ["HARNESS_CACHE"] = str(folder / "cache")
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.write(log, (" ".join(words) + "\n").encode())
        used = resource.getrusage(resource.RUSAGE_SELF)
        end_s = int(used.ru_utime + used.ru_stime) + LIMIT_S + 1
        resource.setrlimit(resource.RLIMIT_CPU, (end_s, end_s))
        signal.alarm(PATIENCE_S)
        code = command(words)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(words: tuple[str, ...]) -> int:
    """The exit code of one command; of a reader that has none, 0 where it raised nothing odd."""
    readers: dict[str, Callable[..., int]] = {"METER": _meter, "BUILD": _build}
    if words[0] in readers:
        return readers[words[0]](*words[1:])
    from harness.cli.main import main

    return main(words)


def _meter() -> int:
    from harness.profiles.power.external import ExternalSource
    from harness.protocols import ProfilerContext

    source = ExternalSource(ProfilerContext(pid=os.getpid(), power_source="external:meter.csv"))
    if source.open().__class__.__name__ == "Available":
        source.read()
    source.close()
    return 0


def _build(precision: str, data: str) -> int:
    """What the process does that prepares a model, without starting one."""
    from harness.models.builder import answer
    from harness.models.builder_client import Job
    from harness.protocols import Wanted
    from harness.spec import parse

    fields = {"model": "net.onnx", "precision": precision, **({data: "data.npz"} if data else {})}
    answer(Job(spec=parse(fields), wanted=Wanted("onnx"), root="cache"))
    return 0


def _ended(
    running: dict[int, tuple[str, int, Path, bytes]], seed: int, keep: Path | None
) -> tuple[str, Outcome]:
    pid, status, used = os.wait3(0)
    kind, number, folder, data = running.pop(pid)
    log = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
    cpu_s, peak_bytes = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
    outcome = Outcome(_harm(status, log, cpu_s, peak_bytes), cpu_s, peak_bytes)
    if outcome.harm and keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{seed}-{number}-{Path(kind).name}").write_bytes(data)
        (keep / f"{seed}-{number}.log").write_text(log)
    shutil.rmtree(folder, ignore_errors=True)
    return kind, outcome


def _harm(status: int, log: str, cpu_s: float, peak_bytes: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM) or cpu_s > LIMIT_S:
        return f"longer than {LIMIT_S} s"
    if code not in CODES:
        return f"code {code}, {log.splitlines()[0]}: {log.strip().splitlines()[-1][:120]}"
    if "Traceback" in log:
        return f"traceback: {log.strip().splitlines()[-1][:120]}"
    return f"{peak_bytes / 1e6:.0f} MB" if peak_bytes > LIMIT_BYTES else ""
