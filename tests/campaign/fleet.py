"""A fleet of three nodes on this machine, and whatever can be killed or paused in it, at random.

Each night is 12 cells over three classes of machines, one of them absent. While it goes a worker,
a node, the head or the driver is killed with SIGKILL, a second driver is started, or a worker is
paused for longer than its lease; what was killed is started again, as a service manager would.
When the night is over each planned cell must have one row, every run that came back must lie in one
place, and in the end no process may be left.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from trial import E2E, Summary, place

KINDS = ("worker", "node", "head", "driver", "second driver", "pause")
NODES = {"a": "alpha", "b": "alpha", "c": "beta"}
NIGHT = """
name = "s"
launches = 1
[fleet]
wait_s = 60
lease_s = 8
retries = 50
[defaults]
backend = "fakes:Fake"
options = { latency_us = 1000 }
warmup_s = 0.05
max_warmup_s = 0.3
duration_s = 0.4
[matrix]
batch_size = [1, 2, 3, 4]
machine = ["alpha", "beta", "gamma"]
"""
_NIGHT_S = 600.0
_GONE_S = 90.0  # Ray's agents take a while to notice that their node was killed


class Fleet:
    """The head, the nodes and the drivers, each a process that is started again when it ended."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "tmp").mkdir()
        (root / "s.toml").write_text(NIGHT)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.environment = {
            **os.environ,
            "HARNESS_CACHE": str(root / "cache"),
            "TMPDIR": str(root / "tmp"),
            "PYTHONPATH": str(E2E),
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "harness", "fleet", *args],
                cwd=self.root, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        self.running[name] = process
        return process

    def keep_up(self) -> None:
        """Start again what has ended, the driver excepted."""
        host, _, port = self.address.rpartition(":")
        if self._over("head"):
            self.start("head", "head", "--host", host, "--port", port)
        for name, machine_class in NODES.items():
            if self._over(name) and _answers(self.address):
                self.start(name, "join", self.address, "--name", name, "--class", machine_class)

    def drive(self, name: str, night: str) -> None:
        self.start(name, "run", "s.toml", "--address", self.address, "--label", night)

    def _over(self, name: str) -> bool:
        return name not in self.running or self.running[name].poll() is not None

    def workers(self) -> list[psutil.Process]:
        """Ray's workers that measure just now, of this fleet."""
        found = []
        for name in NODES:
            with contextlib.suppress(psutil.Error, KeyError):
                children = psutil.Process(self.running[name].pid).children(recursive=True)
                found += [one for one in children if "ray::measure" in " ".join(one.cmdline())]
        return found

    def processes(self) -> list[psutil.Process]:
        """Every process that was started for this fleet: by its token."""
        token = self.environment["RAY_AUTH_TOKEN"]
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RAY_AUTH_TOKEN") == token:
                    found.append(process)
        return found

    def stop(self) -> None:
        """Ended as by a service manager: they take what they started with them."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GONE_S)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def run(count: int, seed: int, seconds: float) -> Iterator[Summary]:
    """Nights with ``count`` kills and pauses in all, or so many seconds."""
    summary = Summary("fleet")
    chance = random.Random(seed)
    until_s = time.monotonic() + seconds
    with place() as root:
        fleet = Fleet(Path(root))
        try:
            night = 0
            while summary.counts["disturbances"] < count and time.monotonic() < until_s:
                night += 1
                _night(fleet, f"n{night}", count, chance, summary, until_s)
                found = _faults(fleet.root / f"results/s-n{night}", summary)
                summary.faults += [f"seed {seed}, night {night}: {fault}" for fault in found]
        finally:
            fleet.stop()
            summary.faults += [f"seed {seed}: {fault}" for fault in _left(fleet)]
    yield summary


def _night(
    fleet: Fleet, label: str, count: int, chance: random.Random, summary: Summary, until_s: float
) -> None:
    """Until the night is over, disturbed every few seconds while any disturbance is left."""
    began = time.monotonic()
    folder = fleet.root / f"results/s-{label}"
    next_s = began + chance.uniform(1, 12)
    while time.monotonic() < began + _NIGHT_S:
        fleet.keep_up()
        if fleet._over("driver"):
            if _whole(folder):
                summary.counts["nights"] += 1
                return
            if _answers(fleet.address):
                fleet.drive("driver", label)
        if time.monotonic() > next_s and summary.counts["disturbances"] < count:
            if time.monotonic() < until_s:
                what = _disturb(fleet, label, chance)
                summary.counts["disturbances"] += what != "nothing"
                summary.counts[what] += 1
            next_s = time.monotonic() + chance.uniform(1, 9)
        time.sleep(0.2)
    summary.faults.append(f"{label}: not over after {_NIGHT_S:.0f} s")


def _disturb(fleet: Fleet, label: str, chance: random.Random) -> str:
    kind = chance.choice(KINDS)
    if kind == "second driver":
        if not fleet._over("second") or not _answers(fleet.address):
            return "nothing"
        fleet.drive("second", label)
        return kind
    if kind in ("worker", "pause"):
        workers = fleet.workers()
        if not workers:
            return "nothing"
        victim = chance.choice(workers)
        with contextlib.suppress(psutil.NoSuchProcess):
            if kind == "worker":
                victim.kill()
                return kind
            victim.suspend()
            time.sleep(10)
            victim.resume()
            return kind
        return "nothing"
    name = chance.choice(sorted(NODES)) if kind == "node" else kind
    if fleet._over(name):
        return "nothing"
    fleet.running[name].send_signal(signal.SIGKILL)
    fleet.running[name].wait()
    return kind


def _plan(folder: Path) -> list[dict[str, str]]:
    with contextlib.suppress(OSError, ValueError):
        tasks: list[dict[str, str]] = json.loads((folder / "fleet.json").read_bytes())["tasks"]
        return tasks
    return []


def _whole(folder: Path) -> bool:
    tasks = _plan(folder)
    return bool(tasks) and all((folder / task["id"] / "row.json").exists() for task in tasks)


def _faults(folder: Path, summary: Summary) -> Iterator[str]:
    """What is wrong with a night that is over."""
    tasks = {task["id"]: task for task in _plan(folder)}
    if len(tasks) != 12:
        yield f"{len(tasks)} tasks are planned, not 12"
    runs: Counter[str] = Counter()
    for name, task in tasks.items():
        try:
            row = json.loads((folder / name / "row.json").read_bytes())
        except (OSError, ValueError) as error:
            yield f"{name}: {error}"
            continue
        summary.counts[row["outcome"]] += 1
        wanted = "no-runner" if task["machine_class"] == "gamma" else "result"
        if row["outcome"] != wanted:
            yield f"{task['cell']} on {task['machine_class']}: {row['outcome']}: {row['cause']}"
        found = [path.parent.name for path in (folder / name).glob("*/result.json")]
        runs.update(found)
        if found != [row["run"]] * (row["outcome"] == "result"):
            yield f"{name}: holds {found}, its row says {row['run']!r}"
    aside = [path.parent.name for path in folder.glob(".fleet/aside/*/*/result.json")]
    summary.counts["set aside"] += len(aside)
    runs.update(aside)
    yield from (f"{run} is there {n} times" for run, n in runs.items() if n > 1)
    planned = {path.parent.parent.name for path in folder.glob("*/*/result.json")}
    yield from (f"{name} was never planned" for name in planned - set(tasks) - {"live"})


def _left(fleet: Fleet) -> Iterator[str]:
    deadline = time.monotonic() + _GONE_S
    while (alive := fleet.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            yield f"an orphan: {' '.join(process.cmdline())[:120]}"
            process.kill()
