"""Baselines: runs that were promoted under a name, to judge later ones by.

    results/baselines/release.json       who, when, why, the figures, and what it replaced
    results/baselines/release/RUN/...    copies of the result files: it outlives the runs

The record is small and meant to be read, and to be committed where the gate runs in CI. It is
written last and whole: a promotion that is cut short leaves the old baseline. What is committed may
come from anybody: nothing is written or removed through a link, nor removed but copies that a
promotion made. What may be promoted is for `harness.compare.promote` to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from harness.errors import ResultError
from harness.host import lock
from harness.host.files import refuse_links, write_atomically
from harness.maybe import Unavailable
from harness.records.acknowledged import who
from harness.records.cell import Cell, cell_of
from harness.records.figures import figures, single
from harness.records.metric import METRICS
from harness.records.result import Result
from harness.records.store import BASELINES_NAME, RESULT_NAME, read_bytes, read_result

SCHEMA = "harness.baseline/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_RESERVED = ("latest",)
_MAX_BYTES = 1 << 26  # it has the medians of all that it replaced


class BaselineRun(msgspec.Struct, frozen=True, kw_only=True):
    """``folder`` holds the copy of its result, beside the record."""

    id: str
    folder: str
    cell: Cell
    fingerprint: str
    started_at: str
    status: str
    commit: str | None
    branch: str | None


class BaselineCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell on one machine: metric name -> its figure in each launch, in the metric's unit."""

    cell: Cell
    fingerprint: str
    launches: dict[str, tuple[float, ...]]


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline as it was: ``medians`` by cell name, machine and metric."""

    promoted_at: str
    by: str
    reason: str
    source: str
    runs: tuple[str, ...]
    medians: dict[str, dict[str, float]]


class _Version(msgspec.Struct, frozen=True):
    """Of a record of any version, which may share no other field with ours."""

    schema: str = SCHEMA


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """``history`` has the baselines that were replaced, the last one first."""

    schema: str = SCHEMA
    name: str
    promoted_at: str  # ISO 8601, UTC
    by: str
    reason: str
    source: str  # what was promoted, as it was named
    acknowledged: str | None = None  # why it was promoted all the same
    regressions: tuple[str, ...] = ()  # what was acknowledged
    runs: tuple[BaselineRun, ...]
    cells: tuple[BaselineCell, ...]
    history: tuple[Replaced, ...] = ()


class Replacement(NamedTuple):
    """The place of one baseline, while nobody else may write it; ``old`` is what stands there."""

    home: Path
    name: str
    old: Baseline | None

    def write(
        self,
        candidate: Sequence[Result],
        files: Sequence[tuple[str, bytes]],
        *,
        source: str,
        by: str = "",
        reason: str = "",
        acknowledged: str | None = None,
        regressions: tuple[str, ...] = (),
    ) -> Baseline:
        """Put ``candidate``, with its `copies`, in the place of what is there. ``by``: else the
        user. Raises `ResultError` where it cannot be written."""
        baseline = Baseline(
            name=self.name,
            promoted_at=datetime.now(UTC).isoformat(timespec="seconds"),
            by=by or who(),
            reason=reason,
            source=source,
            acknowledged=acknowledged,
            regressions=regressions,
            runs=tuple(_run(result) for result in candidate),
            cells=_cells(candidate),
            history=(_replaced(self.old), *self.old.history) if self.old else (),
        )
        _write(self.home, baseline, files)
        return baseline


@contextlib.contextmanager
def replacing(name: str, results: Path | str = "results") -> Iterator[Replacement]:
    """The place of the baseline ``name``, for one writer at a time. Raises `ResultError`."""
    home = Path(results) / BASELINES_NAME
    refuse_links(home, home / name, _record(home, name))
    with _locked(home):
        old = read(name, results) if _record(home, name).exists() else None
        yield Replacement(home, name, old)


def copies(chosen: Sequence[tuple[Result, Path]]) -> list[tuple[str, bytes]]:
    """Folder name and content of each result file. Raises `ResultError`."""
    return [(_folder_name(result), read_bytes(path)) for result, path in chosen]


def names(results: Path | str = "results") -> list[str]:
    """The baselines of the folder ``results``."""
    found = (Path(results) / BASELINES_NAME).glob("*.json")
    return sorted(path.stem for path in found if _NAME.fullmatch(path.stem))


def path_of(name: str, results: Path | str = "results") -> Path | None:
    """The record of the baseline ``name``; None where there is none."""
    path = _record(Path(results) / BASELINES_NAME, name)
    return path if _NAME.fullmatch(name) and path.is_file() else None


def read(name: str, results: Path | str = "results") -> Baseline:
    """The record of the baseline ``name``. Raises `ResultError`."""
    path = _record(Path(results) / BASELINES_NAME, checked_name(name))
    if not path.exists():
        known = ", ".join(names(results)) or "none"
        raise ResultError(f"no baseline {name!r} in {str(results)!r}", f"there are: {known}")
    restore = "restore the file, or delete it and promote anew"
    try:
        data = read_bytes(path, _MAX_BYTES)
        schema = msgspec.json.decode(data, type=_Version).schema
        if schema != SCHEMA:
            raise ResultError(f"{str(path)!r} has schema {schema!r:.60}, not {SCHEMA}", restore)
        found = msgspec.json.decode(data, type=Baseline)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ResultError(f"{str(path)!r} is no baseline: {error}", restore) from error
    if any(not _TAME.fullmatch(run.folder) for run in found.runs):
        raise ResultError(f"{str(path)!r} names a folder outside of its own", restore)
    return found


def result_paths(name: str, results: Path | str = "results") -> list[Path]:
    """The result files of the baseline ``name``. Raises `ResultError`."""
    home = Path(results) / BASELINES_NAME / name
    return [home / run.folder / RESULT_NAME for run in read(name, results).runs]


def checked_name(name: str) -> str:
    """``name``, if it can be one. Raises `ResultError`."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ResultError(
            f"a baseline cannot be called {name!r}",
            "give up to 64 letters, digits, dots, dashes and underscores, and not latest",
        )
    return name


def _record(home: Path, name: str) -> Path:
    return home / f"{name}.json"


def _write(home: Path, baseline: Baseline, files: Sequence[tuple[str, bytes]]) -> None:
    """The copies, then the record that names them, then away with those it no longer names."""
    folder = home / baseline.name
    try:
        for name, data in files:
            copy = folder / name / RESULT_NAME
            refuse_links(folder, copy.parent, copy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, data)
        record = msgspec.json.format(msgspec.json.encode(baseline), indent=2)
        write_atomically(_record(home, baseline.name), record + b"\n")
        for path in folder.iterdir():
            if path.name not in {name for name, _ in files} and _is_copy(path):
                (path / RESULT_NAME).unlink()
                path.rmdir()
    except OSError as error:
        raise ResultError(
            f"{str(folder)!r} cannot be written: {error.strerror}", "free some space"
        ) from error


def _is_copy(folder: Path) -> bool:
    """A promotion made it: it holds a result, by whose id it is called, and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if [path.name for path in folder.iterdir()] != [RESULT_NAME]:
        return False
    path = folder / RESULT_NAME
    try:
        return not path.is_symlink() and _folder_name(read_result(path)) == folder.name
    except ResultError:
        return False


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One promotion at a time. Raises `ResultError` where nothing can be written."""
    with contextlib.ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.held(home))
        except OSError as error:
            raise ResultError(
                f"{str(home)!r} cannot be written: {error.strerror}", "name another --results"
            ) from error
        yield


def _folder_name(result: Result) -> str:
    """Its id, unless that is no name for a folder: a result from elsewhere may hold anything."""
    if _TAME.fullmatch(result.id):
        return result.id
    return "id-" + hashlib.sha256(result.id.encode()).hexdigest()[:16]


def _run(result: Result) -> BaselineRun:
    return BaselineRun(
        id=result.id,
        folder=_folder_name(result),
        cell=cell_of(result),
        fingerprint=result.machine.fingerprint,
        started_at=result.started_at,
        status=result.status,
        commit=result.software.commit,
        branch=result.software.branch,
    )


def _cells(results: Sequence[Result]) -> tuple[BaselineCell, ...]:
    groups: dict[tuple[Cell, str], list[Result]] = {}
    for result in results:
        groups.setdefault((cell_of(result), result.machine.fingerprint), []).append(result)
    return tuple(
        BaselineCell(cell=cell, fingerprint=fingerprint, launches=_figures(runs))
        for (cell, fingerprint), runs in sorted(groups.items(), key=lambda item: item[0])
    )


def _figures(results: Sequence[Result]) -> dict[str, tuple[float, ...]]:
    """By launch, or by run what a run has once."""
    found: dict[str, tuple[float, ...]] = {}
    for name in METRICS:
        values = figures(results, name)
        if isinstance(values, Unavailable):
            once = [single(result, name) for result in results]
            values = tuple(value for value in once if not isinstance(value, Unavailable))
        if values:
            found[name] = values
    return found


def _replaced(old: Baseline) -> Replaced:
    return Replaced(
        promoted_at=old.promoted_at,
        by=old.by,
        reason=old.reason,
        source=old.source,
        runs=tuple(run.id for run in old.runs),
        medians={
            f"{one.cell.name} on {one.fingerprint}": {
                name: median(values) for name, values in one.launches.items()
            }
            for one in old.cells
        },
    )
