"""``--baseline history``: the last good nights of every cell that a candidate measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from harness.compare.history import MIN_NIGHTS_OF_HISTORY, history
from harness.compare.nights import Night, nights
from harness.compare.series import accepted_nights
from harness.compare.sides import Side, group
from harness.errors import ResultError
from harness.maybe import Unavailable
from harness.records import acknowledged
from harness.records.cell import cell_of
from harness.records.figures import figures
from harness.records.index.answers import Point
from harness.records.index.database import Index
from harness.records.metric import METRICS
from harness.records.refs import Selection, resolve
from harness.records.result import Result

NAME = "history"
_METRIC = METRICS["latency_median"]  # which nights were good is told by what every run has


def good_nights(ref: str, candidate: Sequence[Result], results: Path) -> Selection:
    """The runs of up to 20 last good nights of each cell of ``candidate``, as a baseline.

    ``ref`` is ``history``, or ``history@BRANCH`` for the nights of one branch alone. A cell with
    fewer than six good nights before the candidate's has none. Raises `ResultError` where no cell
    has any.
    """
    branch = ref.partition("@")[2] or None
    own = {run.tags.get("sweep") or run.id for run in candidate}
    known = acknowledged.read(results)
    found: list[Result] = []
    problems: list[str] = []
    with Index(results) as index:
        index.refresh()
        for (key, fingerprint), side in group(candidate).items():
            points = index.series(key, fingerprint, _METRIC.name, branch)
            before = nights(_earlier(points, side, own))
            cell = cell_of(side.first)
            good = _good(before, side, accepted_nights(before, cell, fingerprint, _METRIC, known))
            if good:
                found += [run for night in good for run in _runs(night, key, results)]
            else:
                many = "1 night" if len(before) == 1 else f"{len(before)} nights"
                is_none = "is" if len(before) == 1 else "are"
                problems.append(f"{cell.name}: {many} before this one {is_none} no baseline")
    if not found:
        raise ResultError(
            f"{ref!r} is no baseline yet: {'; '.join(problems)}",
            f"measure at least {MIN_NIGHTS_OF_HISTORY} nights, or name a baseline",
        )
    return Selection(name=ref, results=tuple(found), problems=tuple(problems))


def _earlier(points: Sequence[Point], side: Side, own: Collection[str]) -> list[Point]:
    began = min(run.started_at for run in (*side.finished, *side.failed))
    return [p for p in points if (p.sweep or p.id) not in own and p.started_at < began]


def _good(before: list[Night], side: Side, accepted: Collection[int]) -> list[Night]:
    """Those that nothing is held against, the candidate's night being the newest."""
    tonight = figures(side.finished, _METRIC.name)
    if isinstance(tonight, Unavailable) or not before:
        return []
    values = [night.value for night in before] + [sorted(tonight)[len(tonight) // 2]]
    told = history(values, _METRIC.better, _METRIC.minimum_effect, accepted)
    if isinstance(told.baseline, Unavailable):
        return []
    return before[told.good[0] : min(told.good[1], len(before))]


def _runs(night: Night, key: str, results: Path) -> list[Result]:
    return [run for run in resolve(night.name, results).results if cell_of(run).key == key]
