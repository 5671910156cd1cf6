"""Locks between processes, and what a child inherits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.host import lock

HOLD = """
import os, sys
from harness.host import lock
descriptor = os.open(sys.argv[1], os.O_RDONLY)
lock.take(descriptor, alone=sys.argv[2] == "alone")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("theirs", "shared"), [("alone", False), ("along", True)])
def test_a_lock_is_had_when_its_holder_is_gone(tmp_path: Path, theirs: str, shared: bool) -> None:
    path = tmp_path / "lock"
    path.touch()
    command = [sys.executable, "-c", HOLD, str(path), theirs]
    descriptor = os.open(path, os.O_RDONLY)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert lock.take(descriptor, alone=False) is shared
        assert not lock.take(descriptor)
        holder.kill()
        holder.wait()
        assert lock.take(descriptor)
    os.close(descriptor)


def test_a_block_holds_a_folder_and_lets_go(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with lock.held(tmp_path):
        assert not lock.take(descriptor)
    assert lock.take(descriptor)
    os.close(descriptor)


def test_what_is_not_there_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), lock.held(tmp_path / "gone"):
        raise AssertionError("inside")
