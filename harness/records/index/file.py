"""The index's database: opened, made anew where it is damaged, in memory where none can be.

It is known by its mark: what is a link, or a database of somebody else, is left as it is, and the
index is kept in memory.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.errors import ResultError
from harness.host import lock
from harness.records.cell import CELL_VERSION
from harness.records.index import sql as index_sql
from harness.records.index.figures import FIGURES_VERSION, NAMES

FILE_NAME = ".index.sqlite"
_LAYOUT = 2  # raise it with every change of the tables or of what a column means
_VERSION = zlib.crc32(repr((_LAYOUT, CELL_VERSION, FIGURES_VERSION, NAMES)).encode()) & 0x7FFFFFFF
_MARK = 0x48575249  # the application id of the file: HWRI
_BUSY_S = 300.0  # another process may be rebuilding a large folder
# what a new database would not mend: the disk, its permissions, other processes
_ELSEWHERE = ("BUSY", "LOCKED", "FULL", "READONLY", "IOERR", "CANTOPEN", "NOMEM", "PERM", "AUTH")
_SUFFIXES = ("", "-wal", "-shm", "-journal")
_T = TypeVar("_T")


class Database:
    """That of the folder ``results``. ``notes``: what was odd about it."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.notes: list[str] = []
        self._path = results / FILE_NAME
        self._open: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        if self._open is None:
            raise ValueError("use it as a context manager: with Index(results) as index")
        return self._open

    def open(self) -> None:
        self._open = self._connect()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def guarded(self, work: Callable[[], _T], refill: Callable[[], object] | None) -> _T:
        """Do ``work``, in a new database where this one turns out to be damaged: after ``refill``,
        if the work reads it. Raises `ResultError`."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _mapped(error, self.results) from error
        except (msgspec.MsgspecError, UnicodeError):
            pass  # a line that we did not write so
        self.close()
        with lock.held(self.results):
            self._start_over()
        self.open()
        try:
            if refill is not None:
                refill()
            return work()
        except (sqlite3.DatabaseError, msgspec.MsgspecError, UnicodeError) as error:
            raise _mapped(error, self.results) from error

    def _connect(self) -> sqlite3.Connection:
        if any(Path(f"{self._path}{suffix}").is_symlink() for suffix in _SUFFIXES):
            return self._in_memory(f"{FILE_NAME} is a link")
        writable = partial(os.access, mode=os.W_OK, effective_ids=True)
        if not writable(self.results) or (self._path.exists() and not writable(self._path)):
            return self._in_memory("it is not writable")
        try:
            with lock.held(self.results):
                try:
                    return self._prepared(str(self._path))
                except (sqlite3.DatabaseError, UnicodeError) as error:
                    if not _is_damage(error):
                        raise
                    self._start_over()
                    return self._prepared(str(self._path))
        except (sqlite3.OperationalError, OSError, _NotOurs) as error:
            return self._in_memory(str(error))

    def _in_memory(self, why: str) -> sqlite3.Connection:
        if self.results.exists():
            self.notes.append(f"the index of {str(self.results)!r} is kept in memory: {why}")
        return self._prepared(":memory:")

    def _start_over(self) -> None:
        self.notes.append("the index was damaged, and is built again")
        for suffix in _SUFFIXES:
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def _prepared(self, path: str) -> sqlite3.Connection:
        """A connection to a database that has our tables."""
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            _must_be_ours(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a cache may lose its last second
            index_sql.prepare(db)
            if (version := _version_of(db)) != _VERSION or not index_sql.is_whole(db):
                if version:
                    what = "damaged" if version == _VERSION else "of another version"
                    self.notes.append(f"the index was {what}, and is built again")
                with index_sql.transaction(db):
                    if _version_of(db) != _VERSION or not index_sql.is_whole(db):
                        _empty(db)  # nobody was faster
        except BaseException:
            db.close()
            raise
        return db


class _NotOurs(Exception):
    """The file is a database of somebody else."""


def _must_be_ours(db: sqlite3.Connection) -> None:
    """Raises `_NotOurs`, before anything is changed. An index of old has no mark, but a version."""
    mark = int(db.execute("PRAGMA application_id").fetchone()[0])
    if mark == _MARK:
        return
    version, tables = _version_of(db), index_sql.tables(db)
    of_old = version == _VERSION or (version and tables == index_sql.OURS)
    if mark or (tables and not of_old):
        raise _NotOurs(f"{FILE_NAME} is another program's database")


def _is_damage(error: Exception) -> bool:
    """Whether a new database would do better. An error of the module itself has no name: it could
    not decode what it read, a message of SQLite's that quotes the file included."""
    name = str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")
    return not name.startswith(_ELSEWHERE)


def _version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _empty(db: sqlite3.Connection) -> None:
    index_sql.clear(db)
    index_sql.complete(db)
    db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute(f"PRAGMA application_id = {_MARK}")


def _mapped(error: Exception, results: Path) -> ResultError:
    return ResultError(
        f"the index of {str(results)!r} cannot be used: {error}",
        f"free some space, wait for other processes, or delete {FILE_NAME}",
    )
