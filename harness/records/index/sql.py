"""The tables of the index, and every statement that it runs on them.

    files (file, path, ...)          one for each result file
    series (series, cell, ...)       a cell on one machine
    runs (series, started_at, file)  clustered: a series lies in one piece, in the order of time

``counted`` is 1 for the run that counts of its slot (`harness.records.index.figures.slot_of`) and 0
for further attempts and copies.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from harness.records.index.figures import FINISHED, NAMES, IndexedFigures

_METRICS = ", ".join(f"{name} REAL" for name in NAMES)
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
SCHEMA = (
    """CREATE TABLE files (
        file INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, changed_ns INTEGER, size_bytes INTEGER,
        model_sha TEXT, tags TEXT)""",
    """CREATE TABLE series (
        series INTEGER PRIMARY KEY, cell TEXT, name TEXT, model TEXT, fingerprint TEXT,
        UNIQUE (cell, fingerprint))""",
    f"""CREATE TABLE runs (
        series INTEGER, started_at TEXT, file INTEGER, id TEXT, status TEXT, finished INTEGER,
        commit_id TEXT, branch TEXT, sweep TEXT, night TEXT, launch TEXT, slot BLOB,
        counted INTEGER, {_METRICS}, PRIMARY KEY (series, started_at, file)) WITHOUT ROWID""",
    "CREATE INDEX series_by_name ON series (name)",
)
INDEXES = (
    "CREATE UNIQUE INDEX runs_by_file ON runs (file)",
    "CREATE INDEX runs_by_time ON runs (started_at)",
    "CREATE INDEX runs_by_id ON runs (id)",
    # what shares an id or a slot is settled after that
    """INSERT INTO temp.touched SELECT id, slot FROM runs
        WHERE id IN (SELECT id FROM runs GROUP BY id HAVING count(*) > 1)""",
    """INSERT INTO temp.touched SELECT id, slot FROM runs
        WHERE slot IN (SELECT slot FROM runs GROUP BY slot HAVING count(*) > 1)""",
    "UPDATE runs SET counted = 0 WHERE id IN (SELECT id FROM temp.touched)",
    "CREATE UNIQUE INDEX one_of_a_slot_counts ON runs (slot) WHERE counted",
    "CREATE INDEX others_of_a_slot ON runs (slot) WHERE NOT counted",
)
OURS = frozenset({"files", "series", "runs"})
_WHOLE = {text for text in (*SCHEMA, *INDEXES) if text.startswith("CREATE")}
KNOWN = "SELECT path, changed_ns, size_bytes FROM files"
CELLS = """
    SELECT s.name, s.cell, s.model, s.fingerprint, count(*) AS runs,
        min(r.started_at) AS first_at, max(r.started_at) AS last_at
    FROM series s JOIN runs r USING (series) WHERE r.counted
    GROUP BY s.series ORDER BY s.name, s.cell, s.fingerprint"""
COMMITS = """
    SELECT commit_id FROM runs WHERE commit_id IS NOT NULL AND counted GROUP BY commit_id
    ORDER BY max(started_at) DESC"""
BRANCHES = """
    SELECT branch FROM runs WHERE branch IS NOT NULL AND counted GROUP BY branch
    ORDER BY max(started_at) DESC"""
FIND_SERIES = "SELECT series, cell FROM series WHERE (cell = ? OR name = ?) AND fingerprint = ?"
UNCOUNTED = """
    SELECT f.path, r.id, o.id AS other_id, p.path AS other_path
    FROM runs r CROSS JOIN files f ON f.file = r.file
    JOIN runs o ON o.file = coalesce(
        (SELECT c.file FROM runs c JOIN files d ON d.file = c.file
            WHERE c.id = r.id AND d.path < f.path ORDER BY d.path LIMIT 1),
        (SELECT file FROM runs WHERE slot = r.slot AND counted))
    JOIN files p ON p.file = o.file
    WHERE NOT r.counted ORDER BY f.path"""

# Who counts is settled anew for all that share a slot with a run that came, changed or went. Of
# copies of one run, the one whose path comes first is the run.
_SETTLE = (
    "DELETE FROM temp.slots",
    """INSERT OR IGNORE INTO temp.slots
        SELECT slot FROM runs WHERE id IN (SELECT id FROM temp.touched)""",
    """INSERT OR IGNORE INTO temp.slots SELECT slot FROM temp.touched""",
    """UPDATE runs SET counted = 0 WHERE file IN (
        SELECT file FROM temp.slots CROSS JOIN runs USING (slot) WHERE counted)""",
    """UPDATE runs SET counted = 1 WHERE file IN (
        SELECT file FROM (
            SELECT r.file, row_number() OVER (
                PARTITION BY r.slot ORDER BY r.finished DESC, r.started_at, r.id) AS place
            FROM temp.slots CROSS JOIN runs r USING (slot) JOIN files f ON f.file = r.file
            WHERE NOT r.counted AND NOT EXISTS (
                SELECT 1 FROM runs o JOIN files p ON p.file = o.file
                WHERE o.id = r.id AND p.path < f.path))
        WHERE place = 1)""",
    "DELETE FROM temp.touched",
)


class File(Protocol):
    """A result file as the scan met it."""

    @property
    def path(self) -> str: ...
    @property
    def changed_ns(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


_COLUMNS = (
    "series", "started_at", "file", "id", "status", "finished", "commit_id", "branch", "sweep",
    "night", "launch", "slot", "counted", *NAMES,
)  # fmt: skip
_INSERT = f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_TEMPORARY = (
    "PRAGMA temp_store = MEMORY",
    "CREATE TEMP TABLE IF NOT EXISTS touched (id TEXT, slot BLOB)",
    "CREATE TEMP TABLE IF NOT EXISTS slots (slot BLOB PRIMARY KEY)",
)


def prepare(db: sqlite3.Connection) -> None:
    """The tables of a connection's own."""
    for statement in _TEMPORARY:
        db.execute(statement)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Alone among writers; all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def tables(db: sqlite3.Connection) -> set[str]:
    """The names of all tables that are there."""
    return {row[0] for row in db.execute(TABLES)}


def is_whole(db: sqlite3.Connection) -> bool:
    """Every table and index is there, as it was made."""
    return {row[0] for row in db.execute("SELECT sql FROM sqlite_master")} >= _WHOLE


def clear(db: sqlite3.Connection) -> None:
    """Drop whatever is there, and make empty tables without `INDEXES`. Within a transaction."""
    for name in tables(db):
        db.execute('DROP TABLE "{}"'.format(name.replace('"', '""')))
    for statement in SCHEMA:
        db.execute(statement)


def complete(db: sqlite3.Connection) -> None:
    """Give filled tables their indexes: faster than to keep them up to date row by row."""
    for statement in INDEXES:
        db.execute(statement)
    _settle(db)


def fill(db: sqlite3.Connection, rows: Iterable[tuple[File, IndexedFigures]]) -> None:
    """Store ``rows`` in tables without indexes, between `clear` and `complete`."""
    series: dict[tuple[str, str], int] = {}
    db.executemany(_INSERT, (_stored(db, file, row, series, True) for file, row in rows))


def insert(db: sqlite3.Connection, rows: Sequence[tuple[File, IndexedFigures]]) -> None:
    """Store ``rows``, each in place of what its path held before. Within a transaction."""
    _forget(db, [file.path for file, _ in rows])
    series: dict[tuple[str, str], int] = {}
    for file, row in rows:
        if not (alone := _is_alone(db, row)):
            db.execute("INSERT INTO temp.touched VALUES (?, ?)", (row.id, row.slot))
        db.execute(_INSERT, _stored(db, file, row, series, alone))
    _settle(db)


def _stored(
    db: sqlite3.Connection,
    file: File,
    row: IndexedFigures,
    series: dict[tuple[str, str], int],
    counted: bool,
) -> tuple[Any, ...]:
    """The line of ``runs`` for ``row``, whose file and series are stored already."""
    key = row.cell.key, row.fingerprint
    if key not in series:
        series[key] = _series_of(db, row)
    tags = msgspec.json.encode(row.tags).decode()
    values = (file.path, file.changed_ns, file.size_bytes, row.model_sha, tags)
    number = db.execute("INSERT INTO files VALUES (NULL, ?, ?, ?, ?, ?)", values).lastrowid
    return _line(series[key], number, row, counted)


def delete(db: sqlite3.Connection, paths: Iterable[str]) -> None:
    """Drop the runs at ``paths``. Within a transaction."""
    _forget(db, paths)
    _settle(db)


def _forget(db: sqlite3.Connection, paths: Iterable[str]) -> None:
    for path in paths:
        found = db.execute("SELECT file FROM files WHERE path = ?", (path,)).fetchone()
        if found is None:
            continue
        db.execute("INSERT INTO temp.touched SELECT id, slot FROM runs WHERE file = ?", (found[0],))
        db.execute("DELETE FROM runs WHERE file = ?", (found[0],))
        db.execute("DELETE FROM files WHERE file = ?", (found[0],))


def _is_alone(db: sqlite3.Connection, row: IndexedFigures) -> bool:
    """Nothing stored is a copy of ``row`` or an attempt at the same: it counts."""
    found = db.execute(
        """SELECT EXISTS (SELECT 1 FROM runs WHERE slot = ? AND counted)
            OR EXISTS (SELECT 1 FROM runs WHERE slot = ? AND NOT counted)
            OR EXISTS (SELECT 1 FROM runs WHERE id = ?)""",
        (row.slot, row.slot, row.id),
    )
    return not found.fetchone()[0]


def _settle(db: sqlite3.Connection) -> None:
    if not db.execute("SELECT EXISTS (SELECT 1 FROM temp.touched)").fetchone()[0]:
        return
    for statement in _SETTLE:
        db.execute(statement)


def _series_of(db: sqlite3.Connection, row: IndexedFigures) -> int:
    key = row.cell.key, row.fingerprint
    db.execute(
        "INSERT OR IGNORE INTO series (cell, fingerprint, name, model) VALUES (?, ?, ?, ?)",
        (*key, row.cell.name, row.model),
    )
    found = db.execute("SELECT series FROM series WHERE cell = ? AND fingerprint = ?", key)
    return int(found.fetchone()[0])


def _line(series: int, file: int | None, row: IndexedFigures, counted: bool) -> tuple[Any, ...]:
    tags = row.tags
    return (
        series, row.started_at, file, row.id, row.status, row.status in FINISHED, row.commit,
        row.branch, tags.get("sweep"), tags.get("night"), tags.get("launch"), row.slot, counted,
        *row.values,
    )  # fmt: skip


class Query(NamedTuple):
    text: str
    values: tuple[Any, ...]


def series(number: int, metric: str, branch: str | None, limit: int | None) -> Query:
    """The newest points of one series, newest first. ``metric`` is one of `NAMES`."""
    if metric not in NAMES:
        raise ValueError(metric)
    return Query(
        f"""SELECT id, started_at, commit_id AS "commit", branch, {metric} AS value, status,
            sweep, night, launch, model_sha
        FROM runs JOIN files USING (file)
        WHERE series = ? AND counted {"" if branch is None else "AND branch = ?"}
        ORDER BY started_at DESC, file DESC LIMIT ?""",
        (number, *([] if branch is None else [branch]), -1 if limit is None else limit),
    )


def runs(equal: Mapping[str, str | None], tag: tuple[str, str] | None, limit: int | None) -> Query:
    """Runs that count, newest first; ``equal`` maps columns to what they must hold, if anything."""
    asked = {column: value for column, value in equal.items() if value is not None}
    conditions = ["r.counted", *(f"{column} = ?" for column in asked)]
    values: list[Any] = list(asked.values())
    if tag is not None:
        conditions.append("EXISTS (SELECT 1 FROM json_each(f.tags) WHERE key = ? AND value = ?)")
        values += tag
    return Query(
        f"""SELECT r.*, s.name, s.cell, s.fingerprint, f.path, f.model_sha, f.tags
        FROM runs r JOIN series s ON s.series = r.series JOIN files f ON f.file = r.file
        WHERE {" AND ".join(conditions)}
        ORDER BY r.started_at DESC, r.id DESC LIMIT ?""",
        (*values, -1 if limit is None else limit),
    )
