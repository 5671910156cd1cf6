"""The index of a results folder: every run's figures in a database that can be deleted any time.

    results/.../result.json ─scan─> new or changed? ─read_figures─> .index.sqlite ──> series, runs
       (the truth)                    path, mtime, size              (a cache)

A run is one row, stored in the order of its series (a cell on one machine, by time): so the figures
of one series lie side by side on the disk, however many others there are. Of the attempts at one
launch of a sweep one row counts, and of two copies of a run one: a unique index holds that.

It is known by its mark: what is a link, or a database of somebody else, is left as it is, and the
index is kept in memory.

Processes may refresh one index at the same time: each writes whole batches in a transaction, and
what two of them find is one row, since a row belongs to its path.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from harness.errors import ResultError, UsageError
from harness.host import lock
from harness.records.cell import CELL_VERSION, Cell
from harness.records.index import sql as index_sql
from harness.records.index.figures import FIGURES_VERSION, NAMES, IndexedFigures, read_figures
from harness.records.store import RESULT_NAME, scan, to_recover

FILE_NAME = ".index.sqlite"
_LAYOUT = 2  # raise it with every change of the tables or of what a column means
_BATCH = 2000
_BUSY_S = 300.0  # another process may be rebuilding a large folder
_MARK = 0x48575249  # the application id of the file: HWRI
# what a new database would not mend: the disk, its permissions, other processes
_ELSEWHERE = ("BUSY", "LOCKED", "FULL", "READONLY", "IOERR", "CANTOPEN", "NOMEM", "PERM", "AUTH")
_SUFFIXES = ("", "-wal", "-shm", "-journal")
_T = TypeVar("_T")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a refresh did. Paths are relative to the results folder."""

    indexed: int  # runs that are new or have changed
    removed: int
    unchanged: int
    skipped: tuple[tuple[str, str], ...] = ()  # (path, reason): no result that can be read
    uncounted: tuple[tuple[str, str], ...] = ()  # (path, reason): copies and further attempts
    notes: tuple[str, ...] = ()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a series. A run that has no such figure, a failed one say, has no ``value``."""

    id: str
    started_at: str  # ISO 8601
    commit: str | None
    branch: str | None
    value: float | None  # in the metric's unit
    status: str
    sweep: str | None
    night: str | None = None
    launch: str | None = None
    model_sha: str | None = None


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One cell on one machine: a series. ``model``: `harness.records.cell.model_path`."""

    cell: Cell
    model: str
    fingerprint: str
    runs: int
    first_at: str
    last_at: str


class IndexedRun(msgspec.Struct, frozen=True, kw_only=True):
    """``path`` is the run folder, relative to the results folder."""

    id: str
    path: str
    status: str
    started_at: str
    cell: Cell
    fingerprint: str
    commit: str | None
    branch: str | None
    model_sha: str | None
    tags: dict[str, str]
    values: dict[str, float]


class _File(NamedTuple):
    path: str
    changed_ns: int
    size_bytes: int


class Index:
    """A context manager. Call `refresh` first: a query answers from what was last seen."""

    def __init__(self, results: Path | str) -> None:
        self.results = Path(results)
        self.notes: list[str] = []
        self._path = self.results / FILE_NAME
        self._open: sqlite3.Connection | None = None

    def __enter__(self) -> Index:
        self._open = self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def refresh(self) -> Report:
        """Bring the index up to date with the files. Raises `ResultError`."""
        return self._guarded(partial(self._refresh, afresh=False), reads=False)

    def rebuild(self) -> Report:
        """Forget everything and read all files again. Raises `ResultError`.

        Others go on reading what was there until this is done.
        """
        return self._guarded(partial(self._refresh, afresh=True), reads=False)

    def series(
        self,
        cell: str,
        fingerprint: str,
        metric: str,
        branch: str | None = None,
        limit: int | None = None,
    ) -> list[Point]:
        """The figures of one cell (its key, or its name) on one machine, oldest first.

        With ``limit`` only the newest. Raises `UsageError` for an unknown metric, `ResultError`
        where the name stands for several cells.
        """
        if metric not in NAMES:
            raise UsageError(f"unknown metric {metric!r}", f"one of {', '.join(NAMES)}")
        return self._guarded(lambda: self._series(cell, fingerprint, metric, branch, limit))

    def cells(self) -> list[CellSummary]:
        """Every series, by the name of its cell."""
        return self._guarded(
            lambda: [
                CellSummary(
                    cell=Cell(row["name"], row["cell"]),
                    model=row["model"],
                    fingerprint=row["fingerprint"],
                    runs=row["runs"],
                    first_at=row["first_at"],
                    last_at=row["last_at"],
                )
                for row in self._db.execute(index_sql.CELLS)
            ]
        )

    def runs(
        self,
        *,
        id: str | None = None,
        cell: str | None = None,
        fingerprint: str | None = None,
        sweep: str | None = None,
        branch: str | None = None,
        commit: str | None = None,
        tag: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[IndexedRun]:
        """The runs that count and fit every condition, newest first."""
        equal = {
            "r.id": id,
            "s.cell": cell,
            "s.fingerprint": fingerprint,
            "r.sweep": sweep,
            "r.branch": branch,
            "r.commit_id": commit,
        }
        query, values = index_sql.runs(equal, tag, limit)
        return self._guarded(lambda: [_run(row) for row in self._db.execute(query, values)])

    def commits(self) -> list[str]:
        """The commits that were measured, newest run first."""
        return self._guarded(lambda: [row[0] for row in self._db.execute(index_sql.COMMITS)])

    def branches(self) -> list[str]:
        """The branches that were measured, that of the newest run first."""
        return self._guarded(lambda: [row[0] for row in self._db.execute(index_sql.BRANCHES)])

    # --- the database ---

    @property
    def _db(self) -> sqlite3.Connection:
        if self._open is None:
            raise ValueError("use it as a context manager: with Index(results) as index")
        return self._open

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

    def _guarded(self, work: Callable[[], _T], reads: bool = True) -> _T:
        """Do ``work``, in a new database where this one turns out to be damaged: filled before, if
        the work ``reads`` it."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _mapped(error, self.results) from error
        except (msgspec.MsgspecError, UnicodeError):
            pass  # a line that we did not write so
        self.__exit__()
        with lock.held(self.results):
            self._start_over()
        self._open = self._connect()
        try:
            if reads:
                self._refresh(afresh=False)
            return work()
        except (sqlite3.DatabaseError, msgspec.MsgspecError, UnicodeError) as error:
            raise _mapped(error, self.results) from error

    # --- refreshing ---

    def _refresh(self, afresh: bool) -> Report:
        with index_sql.transaction(self._db) if afresh else contextlib.nullcontext():
            if afresh:
                index_sql.clear(self._db)
            known = {row[0]: (row[1], row[2]) for row in self._db.execute(index_sql.KNOWN)}
            skipped: list[tuple[str, str]] = []
            indexed = unchanged = 0
            batch: list[_File] = []
            for file in self._files(skipped):
                if known.pop(file.path, None) == file[1:]:
                    unchanged += 1
                    continue
                batch.append(file)
                if len(batch) == _BATCH:
                    indexed += self._add(batch, skipped, afresh)
                    batch.clear()
            indexed += self._add(batch, skipped, afresh)
            removed = self._remove(known)
            if afresh:
                index_sql.complete(self._db)
        return Report(
            indexed=indexed,
            removed=removed,
            unchanged=unchanged,
            skipped=tuple(sorted(skipped)),
            uncounted=tuple(_uncounted(row) for row in self._db.execute(index_sql.UNCOUNTED)),
            notes=tuple(self.notes),
        )

    def _files(self, skipped: list[tuple[str, str]]) -> Iterator[_File]:
        """Every result file; what cannot be one goes to ``skipped``."""
        root = f"{self.results}/"
        for found in scan(self.results):
            path = found.folder.removeprefix(root)
            if found.problem:
                skipped.append((_shown(path), f"cannot be read: {found.problem}"))
            elif found.size_bytes >= 0 and not path.isascii() and _shown(path) != path:
                skipped.append((_shown(path), "its name is no UTF-8"))
            elif found.size_bytes >= 0:
                yield _File(path, found.changed_ns, found.size_bytes)
            elif remedy := to_recover(found.folder):
                skipped.append((_shown(path), f"the run was killed; {remedy}"))

    def _add(self, files: Sequence[_File], skipped: list[tuple[str, str]], afresh: bool) -> int:
        """Read and store ``files``; how many could be."""
        rows: list[tuple[_File, IndexedFigures]] = []
        gone: list[str] = []
        for file in files:
            path = f"{self.results}/{file.path}/{RESULT_NAME}"
            try:
                rows.append((file, read_figures(path)))
            except ResultError as error:
                skipped.append((file.path, str(error).removeprefix(f"{path!r} ")))
                gone.append(file.path)
        if afresh:
            index_sql.fill(self._db, rows)
            return len(rows)
        with index_sql.transaction(self._db):
            index_sql.delete(self._db, gone)
            index_sql.insert(self._db, rows)
        return len(rows)

    def _remove(self, paths: Iterable[str]) -> int:
        gone = [path for path in paths if not (self.results / path / RESULT_NAME).exists()]
        if gone:
            with (
                contextlib.nullcontext()
                if self._db.in_transaction
                else index_sql.transaction(self._db)
            ):
                index_sql.delete(self._db, gone)
        return len(gone)

    def _series(
        self, cell: str, fingerprint: str, metric: str, branch: str | None, limit: int | None
    ) -> list[Point]:
        found = self._db.execute(index_sql.FIND_SERIES, (cell, cell, fingerprint)).fetchall()
        if len(found) > 1:
            keys = ", ".join(row["cell"] for row in found)
            raise ResultError(f"{len(found)} cells are called {cell!r}", f"give a key: {keys}")
        if not found:
            return []
        query, values = index_sql.series(found[0]["series"], metric, branch, limit)
        points = [Point(**dict(row)) for row in self._db.execute(query, values)]
        return points[::-1]


_VERSION = zlib.crc32(repr((_LAYOUT, CELL_VERSION, FIGURES_VERSION, NAMES)).encode()) & 0x7FFFFFFF


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


def _shown(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()


def _uncounted(row: sqlite3.Row) -> tuple[str, str]:
    same = row["id"] == row["other_id"]
    return row["path"], f"{'the same run as' if same else 'another attempt at'} {row['other_path']}"


def _run(row: sqlite3.Row) -> IndexedRun:
    return IndexedRun(
        id=row["id"],
        path=row["path"],
        status=row["status"],
        started_at=row["started_at"],
        cell=Cell(row["name"], row["cell"]),
        fingerprint=row["fingerprint"],
        commit=row["commit_id"],
        branch=row["branch"],
        model_sha=row["model_sha"],
        tags=msgspec.json.decode(row["tags"]),
        values={name: row[name] for name in NAMES if row[name] is not None},
    )
