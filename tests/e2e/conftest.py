"""The real command line in processes of its own, with workers that misbehave on demand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from running import Harness, Ran, assert_no_orphans, environment


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def harness(tmp_path: Path, cache: Path) -> Harness:
    """``harness(*args)`` in an empty folder; fails the test if it leaves a process behind."""

    def call(*args: str, timeout_s: float = 600, path: Sequence[Path] = ()) -> Ran:
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
