"""Temporary folders that outlive nobody: what a killed process leaves, the next run removes.

    TMPDIR/harness-PID-XXXXXXXX/.harness-scratch      locked for as long as its owner lives

The kernel gives up the lock with the process, so whoever gets it knows that the owner is dead; a
process id says nothing from inside another container. Only folders of this name, of this user and
with this mark are removed, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from harness.host import lock

_MARK = ".harness-scratch"
_NAME = re.compile(r"harness-(\d+)-[a-z0-9_]{8}")


class Scratch:
    """A new temporary folder at ``path``; a context manager that removes it."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix=f"harness-{os.getpid()}-")
        new, mark = f"{self.path}/{_MARK}.new", f"{self.path}/{_MARK}"
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        lock.wait(self._fd)
        Path(new).rename(mark)  # only now, so that no mark is ever without its lock

    def remove(self) -> None:
        """Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def sweep() -> None:
    """Remove the folders of those that are dead."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if found := _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _sweep(entry, int(found[1]))


def _sweep(entry: os.DirEntry[str], pid: int) -> None:
    is_ours = entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    if not is_ours or not entry.is_dir(follow_symlinks=False):
        return
    try:
        fd = os.open(f"{entry.path}/{_MARK}", os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if not Path(f"/proc/{pid}").exists():
            os.rmdir(entry.path)  # noqa: PTH106  killed before it was marked: nothing is in it
        return
    try:
        if lock.take(fd):
            shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(fd)
