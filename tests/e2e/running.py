"""What the end-to-end tests share: the command's environment, what it answers, what it leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

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
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**own, "PYTHONPATH": folders, "HARNESS_CACHE": str(cache)}


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
    _, alive = psutil.wait_procs(helpers(folder), timeout=60)
    for process in alive:
        process.send_signal(signal.SIGKILL)
    assert not alive
