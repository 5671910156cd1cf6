"""The real command line in processes of its own, with workers that misbehave on demand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

HERE = Path(__file__).parent


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Harness = Callable[..., Ran]


def environment(cache: Path, *path: Path) -> dict[str, str]:
    """Of the command: ``path`` comes to ``sys.path``."""
    folders = os.pathsep.join(map(str, (HERE, *path)))
    return {**os.environ, "PYTHONPATH": folders, "HARNESS_CACHE": str(cache)}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def harness(tmp_path: Path, cache: Path) -> Harness:
    """``harness(*args)`` in an empty folder; fails the test if it leaves a process behind."""

    def call(*args: str, timeout_s: float = 120, path: Sequence[Path] = ()) -> Ran:
        ran = subprocess.run(
            [sys.executable, "-m", "harness", *args],
            cwd=tmp_path,
            env=environment(cache, *path),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert_no_orphans(tmp_path)
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return call


@pytest.fixture
def start(tmp_path: Path, cache: Path) -> Callable[..., subprocess.Popen[str]]:
    """Like ``harness``, but returns while it runs."""

    def call(*args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *args],
            cwd=tmp_path,
            env=environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


def helpers(folder: Path) -> list[psutil.Process]:
    """Workers, samplers and builders that were started from ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            command, cwd = " ".join(process.cmdline()), process.cwd()
        except psutil.Error:
            continue
        if "harness." in command and cwd == str(folder):
            found.append(process)
    return found


def assert_no_orphans(folder: Path) -> None:
    _, alive = psutil.wait_procs(helpers(folder), timeout=5)
    for process in alive:
        process.send_signal(signal.SIGKILL)
    assert not alive
