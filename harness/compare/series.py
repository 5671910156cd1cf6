"""Series of the index: what `harness.compare.history` says of each, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from harness.compare.culprit import Suspects, differences, known
from harness.compare.history import MIN_NIGHTS_OF_HISTORY, History, history
from harness.compare.nights import Night, nights
from harness.errors import HarnessError, NothingComparable
from harness.maybe import Unavailable
from harness.records import acknowledged
from harness.records.acknowledged import Acknowledged
from harness.records.cell import Cell, cell_of, fits, long_form, shared_names, told_name
from harness.records.index.answers import CellSummary
from harness.records.index.database import Index
from harness.records.metric import METRICS, Metric, Quantity
from harness.records.refs import resolve
from harness.records.result import Result


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One cell on one machine, in one metric.

    ``cell`` has the model's folder where another model of the same file name was measured, too.
    ``model_changes``: indices of the nights whose model had another content than the night before.
    """

    cell: str
    key: str
    fingerprint: str
    metric: Quantity
    nights: tuple[Night, ...]
    history: History
    model_changes: tuple[int, ...] = ()


def find(
    results: Path,
    cell: str,
    metric: Metric,
    *,
    branch: str | None = None,
    machine: str | None = None,
    last: int = 365,
    problems: list[str] | None = None,
) -> list[Series]:
    """Every series whose cell is ``cell``, its key or a glob, on machines that begin ``machine``.

    ``problems`` is told which runs are in none: those that were killed, or cannot be read.
    Raises `NothingComparable` where none has a night with this metric.
    """
    with Index(results) as index:
        skipped = index.refresh().skipped
        if problems is not None:
            problems += [f"{path}: {why}" for path, why in skipped]
        known = index.cells()
        fitting = [one for one in known if _fits(one, cell, machine)]
        accepted = acknowledged.read(results)
        found = [
            _series(index, one, _told_apart(one, known), metric, branch, last, accepted)
            for one in fitting
        ]
    series = [one for one in found if one is not None]
    if not series:
        if fitting and branch is not None:
            why = f"no run of {cell!r} is of branch {branch!r} and has a {metric.name}"
            raise NothingComparable(why, "name another --branch")
        raise NothingComparable(*_nothing(results, cell, metric, known, fitting))
    return series


class NightSpreads:
    """`harness.compare.verdicts.NightSd` of a results folder, read as it is asked for.

    Whoever compares two nights allows for what that folder's history says of the cell. None where
    it does not tell, or cannot be indexed; then the verdict says so.
    """

    def __init__(self, results: Path | str) -> None:
        self._results = Path(results)
        self._known: dict[tuple[str, str, str], float | None] = {}
        self._fresh = self._broken = False

    def get(self, key: tuple[str, str, str], /) -> float | None:
        """``key``: cell key, machine fingerprint, metric."""
        if key not in self._known:
            self._known[key] = self._read(*key)
        return self._known[key]

    def _read(self, cell: str, fingerprint: str, metric: str) -> float | None:
        if self._broken:
            return None
        try:
            found = night_spreads(
                self._results, [(cell, fingerprint)], [metric], refresh=not self._fresh
            )
        except HarnessError:
            self._broken = True
            return None
        self._fresh = True
        return found.get((cell, fingerprint, metric))


def night_spreads(
    results: Path,
    cells: Iterable[tuple[str, str]],
    metrics: Sequence[str],
    *,
    refresh: bool = True,
) -> dict[tuple[str, str, str], float]:
    """How far nights lie apart, sd of logs: (cell key, fingerprint, metric) -> spread.

    Only of series with enough nights to tell. ``cells``: (key, fingerprint).
    """
    found = {}
    with Index(results) as index:
        if refresh:
            index.refresh()
        for key, fingerprint in set(cells):
            for name in metrics:
                values = [n.value for n in nights(index.series(key, fingerprint, name))]
                if len(values) < MIN_NIGHTS_OF_HISTORY:
                    continue
                kind = METRICS[name]
                spread = history(values, kind.better, kind.minimum_effect).night_sd
                if not isinstance(spread, Unavailable):
                    found[key, fingerprint, name] = spread
    return found


def accepted_nights(
    measured: Sequence[Night],
    cell: Cell,
    fingerprint: str,
    metric: Metric,
    known: Iterable[Acknowledged],
) -> list[int]:
    """Indices of the nights on which an acknowledged change of this series began.

    Where folders did not count yet, a model file's cell had another key, and the same name.
    """
    at = {
        one.started_at
        for one in known
        if (one.key == cell.key or fits(one.cell, cell.name))
        and (one.fingerprint, one.metric) == (fingerprint, metric.name)
    }
    return [index for index, night in enumerate(measured) if night.started_at in at]


def acknowledge(results: Path, series: Series, reason: str) -> Acknowledged:
    """Accept the incident of ``series``. Raises `NothingComparable` where it has none."""
    change = series.history.incident
    if change is None:
        raise NothingComparable(
            f"{series.cell} has no regression to acknowledge in {series.metric.name}",
            "see harness history",
        )
    night = series.nights[change.index]
    accepted = Acknowledged(
        cell=series.cell,
        key=series.key,
        fingerprint=series.fingerprint,
        metric=series.metric.name,
        night=night.name,
        started_at=night.started_at,
        ratio=change.ratio,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        by=acknowledged.who(),
        reason=reason,
    )
    acknowledged.add(results, accepted)
    return accepted


def from_history(
    results: Path,
    cell: str,
    metric: Metric,
    machine: str | None = None,
    problems: list[str] | None = None,
) -> Suspects:
    """The runs on both sides of the last regression of ``cell``. ``problems`` as of `find`.

    Raises `NothingComparable` where there is none, or several series.
    """
    found = find(results, cell, metric, machine=machine, problems=problems)
    regressed = [one for one in found if one.history.incident]
    if len(regressed) != 1:
        names = ", ".join(f"{one.cell} on {one.fingerprint}" for one in regressed[:3])
        raise NothingComparable(
            f"{len(regressed)} of {len(found)} series of {cell!r} have regressed"
            + (f": {names}" if names else ""),
            "name one with its --machine" if regressed else "name the runs with --good and --bad",
        )
    return _of_series(results, regressed[0])


def _of_series(results: Path, series: Series) -> Suspects:
    change = series.history.incident
    assert change is not None
    nights = [series.nights[index] for index in (change.last_good, change.index)]
    runs = [_run_of(results, night, series.key) for night in nights]
    good, bad = (
        known(night.name, run, level)
        for night, run, level in zip(nights, runs, (change.before, change.after), strict=True)
    )
    return Suspects(
        cell=series.cell,
        metric=series.metric,
        good=good,
        bad=bad,
        ratio=change.ratio,
        differences=differences(*runs),
    )


def _run_of(results: Path, night: Night, key: str) -> Result:
    return next(run for run in resolve(night.run, results).results if cell_of(run).key == key)


def _fits(one: CellSummary, cell: str, machine: str | None) -> bool:
    named = cell == one.cell.key or fits(long_form(one.cell.name, one.model), cell)
    return named and one.fingerprint.startswith(machine or "")


def _series(
    index: Index,
    one: CellSummary,
    name: str,
    metric: Metric,
    branch: str | None,
    last: int,
    accepted: Sequence[Acknowledged],
) -> Series | None:
    points = index.series(one.cell.key, one.fingerprint, metric.name, branch)
    measured = nights(points)[-last:]
    if not measured:
        return None
    return Series(
        cell=name,
        key=one.cell.key,
        fingerprint=one.fingerprint,
        metric=metric.quantity,
        nights=tuple(measured),
        history=history(
            [night.value for night in measured],
            metric.better,
            metric.minimum_effect,
            accepted_nights(measured, one.cell, one.fingerprint, metric, accepted),
        ),
        model_changes=tuple(_model_changes(measured)),
    )


def _told_apart(one: CellSummary, known: Iterable[CellSummary]) -> str:
    """The cell's name, the long one where a model of another folder has the same file name."""
    return told_name(one.cell.name, one.model, shared_names(other.model for other in known))


def _model_changes(measured: Sequence[Night]) -> Iterator[int]:
    """A night that does not say changes nothing."""
    before = None
    for index, night in enumerate(measured):
        if night.model_sha256 is None:
            continue
        if before not in (None, night.model_sha256):
            yield index
        before = night.model_sha256


def _nothing(
    results: Path,
    cell: str,
    metric: Metric,
    known: list[CellSummary],
    fitting: list[CellSummary],
) -> tuple[str, str]:
    """What is missing, and what would fit."""
    if not known:
        return f"{str(results)!r} holds no results", "measure some, or name a folder with --results"
    if elsewhere := [one.fingerprint for one in known if not fitting and _fits(one, cell, None)]:
        return f"{cell!r} was not measured on that machine", f"there are {', '.join(elsewhere[:5])}"
    if not fitting:
        names = ", ".join(dict.fromkeys(_told_apart(one, known) for one in known[:5]))
        return f"no cell {cell!r} in {str(results)!r}", f"there are {names}"
    return f"no run of {cell!r} has a {metric.name}", "see harness show for the reason"
