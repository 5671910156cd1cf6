"""The index of a results folder: every run's figures in a database that can be deleted any time.

    results/.../result.json ─scan─> new or changed? ─read_figures─> .index.sqlite ──> series, runs
       (the truth)                    path, mtime, size              (a cache)

A run is one row, stored in the order of its series (a cell on one machine, by time): so the figures
of one series lie side by side on the disk, however many others there are. Of the attempts at one
launch of a sweep one row counts, and of two copies of a run one: a unique index holds that.

Processes may refresh one index at the same time: each writes whole batches in a transaction, and
what two of them find is one row, since a row belongs to its path.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from harness.errors import ResultError, UsageError
from harness.records.cell import Cell
from harness.records.index import sql as index_sql
from harness.records.index.answers import CellSummary, IndexedRun, Point, Report
from harness.records.index.figures import NAMES, IndexedFigures, read_figures
from harness.records.index.file import Database
from harness.records.store import RESULT_NAME, scan, to_recover

_BATCH = 2000
_T = TypeVar("_T")


class _File(NamedTuple):
    path: str
    changed_ns: int
    size_bytes: int


class Index:
    """A context manager. Call `refresh` first: a query answers from what was last seen."""

    def __init__(self, results: Path | str) -> None:
        self.results = Path(results)
        self._database = Database(self.results)

    def __enter__(self) -> Index:
        self._database.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @property
    def notes(self) -> list[str]:
        """What was odd about the database."""
        return self._database.notes

    @property
    def _db(self) -> sqlite3.Connection:
        return self._database.connection

    def _guarded(self, work: Callable[[], _T], reads: bool = True) -> _T:
        refill = partial(self._refresh, afresh=False) if reads else None
        return self._database.guarded(work, refill)

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
