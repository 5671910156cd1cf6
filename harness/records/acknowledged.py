"""Changes of level that somebody has accepted, with who and why: ``results/acknowledged.json``.

An accepted change is no incident any more, and its level is the one that later nights are held to.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from pathlib import Path

import msgspec

from harness.errors import ResultError
from harness.host import lock
from harness.host.files import write_atomically
from harness.records.store import read_bytes

FILE_NAME = "acknowledged.json"
SCHEMA = "harness.acknowledged/1"


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """One change: of a cell on a machine in a metric, dated by the first night of the new level."""

    cell: str  # its name, for people; ``key`` is the identity
    key: str
    fingerprint: str
    metric: str
    night: str
    started_at: str  # of that night
    ratio: float
    at: str
    by: str
    reason: str


class _File(msgspec.Struct, frozen=True):
    schema: str = SCHEMA
    changes: tuple[Acknowledged, ...] = ()


def read(results: Path) -> tuple[Acknowledged, ...]:
    """All that was accepted in the folder ``results``. Raises `ResultError` for a damaged file."""
    path = results / FILE_NAME
    try:
        if not path.exists():
            return ()
        found = msgspec.json.decode(read_bytes(path), type=_File)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{str(path)!r} cannot be read: {error}", "restore the file") from error
    if found.schema != SCHEMA:
        raise ResultError(
            f"{str(path)!r} has schema {found.schema!r:.60}, not {SCHEMA}",
            "upgrade with pip install -U hw-harness",
        )
    return found.changes


def add(results: Path, change: Acknowledged) -> None:
    """Accept one more. Raises `ResultError`."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.held(results))  # nobody adds between reading and writing
        except OSError as error:
            raise ResultError(f"{str(results)!r} cannot be opened: {error.strerror}") from error
        whole = _File(changes=(*read(results), change))
        data = msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"
        write_atomically(results / FILE_NAME, data)


def who() -> str:
    """The person, as the machine or the CI system knows them."""
    try:
        return os.environ.get("GITHUB_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return f"user {os.getuid()}"
