"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.errors import ResultError


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all; what was there stays on failure. Raises `ResultError`.

    A link stays one, and so does a device: ``/dev/null`` is written to, never replaced.
    """
    if _is_device(path):
        try:
            path.write_bytes(data)
        except OSError as error:
            raise _unwritable(path, error) from error
        return
    with atomically(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that becomes ``path`` at the end of the block, unless that raises.

    A link stays one. Raises `ResultError` where the disk refuses.
    """
    target = _target(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def opened_to_append(path: Path) -> BinaryIO:
    """``path`` itself to append to, made where it is not there yet.

    Raises `ResultError` where it is a link, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(path, flags, 0o666), "ab")
    except OSError as error:
        refuse_links(path)
        raise _unwritable(path, error) from error


def refuse_links(*paths: Path) -> None:
    """Raises `ResultError` for one that is a link: a folder from elsewhere may lead anywhere."""
    for path in paths:
        if path.is_symlink():
            raise ResultError(f"{str(path)!r} is a link, and is not written through", "remove it")


def _unwritable(path: Path, error: OSError) -> ResultError:
    return ResultError(f"{str(path)!r} cannot be written: {cause(error)}")


def _target(path: Path) -> Path:
    """Where a link leads; ``path`` itself where that is for the writing to report."""
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError):  # too long a name, links in a circle
        return path


def _is_device(path: Path) -> bool:
    """Or a pipe, or a socket."""
    try:
        mode = path.stat().st_mode
    except OSError:  # not there yet, or for the writing to report
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def cause(error: OSError) -> str:
    """In words."""
    if isinstance(error, FileExistsError):  # of a folder that is asked for with exist_ok
        return "a file is in its place"
    return error.strerror or str(error)
