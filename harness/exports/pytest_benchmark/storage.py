"""pytest-benchmark's storage: ``FOLDER/Linux-CPython-3.11-64bit/0001_NAME.json``.

A bare ``--benchmark-compare`` takes the file with the highest number.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path

from harness.errors import ResultError
from harness.host.files import write_atomically

_LAST = 9999  # the storage looks for four digits, and never finds a fifth


def store(folder: Path, name: str, data: bytes) -> Path:
    """Write ``data`` under the next free number, and nobody else's. Raises `ResultError`."""
    place = folder / machine_id()
    draft = place / f"{os.getpid()}.new"  # no .json yet, so that no reader looks at it
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(draft, data)
        tame = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:80]
        return _numbered(place, tame, draft)
    except OSError as error:
        raise ResultError(f"{str(place)!r} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def machine_id() -> str:
    """What pytest-benchmark calls a machine: system and interpreter."""
    version = ".".join(platform.python_version_tuple()[:2])
    bits = platform.architecture()[0]
    return f"{platform.system()}-{platform.python_implementation()}-{version}-{bits}"


def _numbered(place: Path, name: str, draft: Path) -> Path:
    taken = [int(path.name[:4]) for path in place.iterdir() if re.match(r"\d{4}_", path.name)]
    number = max(taken, default=0)
    while (number := number + 1) <= _LAST:
        path = place / f"{number:04}_{name}.json"
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)  # unlike a rename, this never replaces
            return path
    raise ResultError(f"{str(place)!r} is full: {_LAST} is its last number", "use another folder")
