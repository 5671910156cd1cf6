"""File locks that end with the process that holds them (``flock``).

A lock belongs to the open file, so a child that inherits the descriptor holds it, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def wait(descriptor: int) -> None:
    """Take the lock, as soon as nobody else holds it. Raises `OSError` where there are none."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def take(descriptor: int, *, alone: bool = True) -> bool:
    """Whether the lock could be had at once, ``alone`` or along with others.

    Raises `OSError` on a file system without locks.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(descriptor: int) -> None:
    """Hold it along with others, as soon as nobody holds it alone. Raises `OSError`."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """One process at a time is inside, of all that name the file or folder ``path``.

    Raises `OSError`.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        wait(descriptor)
        yield
    finally:
        os.close(descriptor)
