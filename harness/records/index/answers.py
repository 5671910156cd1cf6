"""What the index answers: records of runs, series and cells, and of a refresh."""

from __future__ import annotations

import msgspec

from harness.records.cell import Cell


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
