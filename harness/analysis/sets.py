"""Two sets of results: every cell and metric of them, judged together.

Nothing is left out in silence: a cell that only one side has, one whose runs failed, and one that
was measured on other hardware are listed with the reason, as *not comparable*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from harness.analysis.across import Across, match_across
from harness.analysis.cells import (
    Apart,
    Match,
    Side,
    doubts,
    group,
    hardware_name,
    match,
    same_night,
)
from harness.analysis.pair import differences
from harness.analysis.verdicts import Pairing, Row, Settings, drafts, judge_all
from harness.maybe import Unavailable
from harness.records.result import Result

_TOGETHER = 0.5  # share of a machine's cells that move alike before the machine is suspected
_ENOUGH_CELLS = 4
_SPEEDS = ("latency_median", "throughput")


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a cell. ``failed``: run id -> what went wrong, listed and not counted."""

    ids: tuple[str, ...]
    launches: int
    failed: dict[str, str]
    doubts: str


class CellReport(msgspec.Struct, frozen=True, kw_only=True):
    """One cell on one machine. ``apart`` and ``reason``: why it has no verdicts."""

    cell: str
    key: str
    reference: str  # the cell that A measured, where it is another one
    fingerprint: str
    hardware: str
    a: Runs | None
    b: Runs | None
    apart: Apart
    reason: str
    rows: tuple[Row, ...]
    one_night: bool | None  # None: a side is missing
    differences: dict[str, tuple[str, str]]


class Sets(msgspec.Struct, frozen=True, kw_only=True):
    """``comparisons``: how many p values were adjusted for each other."""

    a: str
    b: str
    alpha: float
    comparisons: int
    cells: tuple[CellReport, ...]
    environment: tuple[str, ...]
    problems: tuple[str, ...] = ()


def compare_sets(
    a: Iterable[Result],
    b: Iterable[Result],
    settings: Settings | None = None,
    *,
    across: Across | None = None,
    other_hardware: bool = False,
    names: tuple[str, str] = ("A", "B"),
    problems: Sequence[str] = (),
) -> Sets:
    """Compare every cell of ``b`` with that of the reference ``a``.

    With ``other_hardware`` cells from different machines show their ratios, and have no verdicts.
    """
    settings = settings or Settings()
    matches = match_across(a, b, across) if across else match(group(a), group(b))
    rows, comparisons = _verdicts(matches, settings, other_hardware)
    reports = tuple(_report(m, judged) for m, judged in zip(matches, rows, strict=True))
    return Sets(
        a=names[0],
        b=names[1],
        alpha=settings.alpha,
        comparisons=comparisons,
        cells=reports,
        environment=tuple(_environment(reports)),
        problems=tuple(problems),
    )


def _verdicts(
    matches: Sequence[Match], settings: Settings, other_hardware: bool
) -> tuple[list[list[Row]], int]:
    """The rows of each match, and how many p values they share. Other hardware is no company."""
    found = [drafts(_pairing(m), settings) if not m.apart else [] for m in matches]
    family = judge_all([one for drafted in found for one in drafted], settings.alpha)
    rest = iter(family)
    rows = [[next(rest) for _ in drafted] for drafted in found]
    for index, m in enumerate(matches):
        if other_hardware and m.apart == "other hardware":
            alone = judge_all(drafts(_pairing(m), settings), settings.alpha)
            rows[index] = [_without_verdict(row, m.reason) for row in alone]
    return rows, sum(not isinstance(row.p, Unavailable) for row in family)


def counts(found: Sets) -> dict[str, int]:
    """How many cells have what as their worst verdict; cells without any are not comparable."""
    return dict(Counter(worst(report) for report in found.cells))


def worst(report: CellReport) -> str:
    """The verdict of a cell as a whole: the one that needs most attention."""
    verdicts = {row.verdict for row in report.rows}
    order = ("regressed", "inconclusive", "improved", "unchanged")
    return next((verdict for verdict in order if verdict in verdicts), "not comparable")


def _pairing(m: Match) -> Pairing:
    assert m.a is not None and m.b is not None
    return Pairing(cell=m.cell, key=m.key, fingerprint=m.fingerprint, a=m.a, b=m.b)


def _report(m: Match, rows: Sequence[Row]) -> CellReport:
    either = m.b or m.a
    assert either is not None
    both = m.a is not None and m.b is not None
    finished = both and bool(m.a and m.a.finished and m.b and m.b.finished)
    return CellReport(
        cell=m.cell,
        key=m.key,
        reference=m.reference,
        fingerprint=m.fingerprint,
        hardware=hardware_name(either.first),
        a=_runs(m.a),
        b=_runs(m.b),
        apart=m.apart,
        reason=m.reason,
        rows=tuple(rows),
        one_night=same_night(m.a, m.b) if finished and m.a and m.b else None,
        differences=differences(m.a.first, m.b.first) if m.a and m.b else {},
    )


def _runs(side: Side | None) -> Runs | None:
    if side is None:
        return None
    timings = [run.timing for run in side.finished]
    return Runs(
        ids=tuple(run.id for run in side.finished),
        launches=sum(len(one.launches) for one in timings if not isinstance(one, Unavailable)),
        failed={run.id: run.error.message if run.error else run.status for run in side.failed},
        doubts=doubts(side) if side.finished else "",
    )


def _without_verdict(row: Row, reason: str) -> Row:
    return msgspec.structs.replace(row, verdict="not comparable", reason=reason)


def _environment(reports: Iterable[CellReport]) -> list[str]:
    """Machines on which at least half of the cells moved the same way: more than code does."""
    by_machine: dict[str, list[CellReport]] = {}
    for report in reports:
        if report.rows and not report.apart:
            by_machine.setdefault(report.fingerprint, []).append(report)
    told: list[str] = []
    for cells in by_machine.values():
        moved = Counter(_speed(report) for report in cells)
        for way, word in (("regressed", "slower"), ("improved", "faster")):
            if len(cells) >= _ENOUGH_CELLS and moved[way] >= _TOGETHER * len(cells):
                told.append(
                    f"environment suspected: {moved[way]} of {len(cells)} cells on "
                    f"{cells[0].hardware} ({cells[0].fingerprint}) are {word} together"
                )
    return told


def _speed(report: CellReport) -> str | None:
    verdicts = {row.metric: row.verdict for row in report.rows}
    return next((verdicts[name] for name in _SPEEDS if name in verdicts), None)
