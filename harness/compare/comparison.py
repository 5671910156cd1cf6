"""Two runs, or two sets of results: every cell and metric of them, judged together.

    two runs, of whatever ──> compare_runs: one match ─┐
    two sets              ──> compare_sets: by cell  ──┼── Match, ... ──> verdicts ──> Comparison
    one field differs     ──> compare_sets(across=..) ─┘

Nothing is left out in silence: a cell that only one side has, one whose runs failed, and one that
was measured on other hardware are listed with the reason, as *not comparable*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import msgspec

from harness.compare.match import Across, Apart, Match, match, match_across, matched_runs
from harness.compare.operators import OperatorChanges, compare_operators
from harness.compare.paired import Paired
from harness.compare.second_opinion import with_second_opinion
from harness.compare.sides import Side, doubts, group, hardware_name, same_night
from harness.compare.verdicts import MetricVerdict, Settings, drafts, judge_all
from harness.maybe import Maybe, Unavailable
from harness.records import notebook
from harness.records.figures import single
from harness.records.metric import FIGURES, METRICS
from harness.records.operators import NOT_PROFILED
from harness.records.result import Result

_TOGETHER = 0.5  # share of a machine's cells that move alike before the machine is suspected
_ENOUGH_CELLS = 4
_SPEEDS = ("latency_median", "throughput")
# of two runs these have a row even where both lack them: the reason is worth reading
_ALWAYS = tuple(name for name, one in METRICS.items() if one.expected)
# Schema history: harness.comparison/1, the first that pairs and sets share
SCHEMA = "harness.comparison/1"


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a cell. ``failed``: run id -> what went wrong, listed and not counted."""

    ids: tuple[str, ...]
    launches: int
    failed: dict[str, str]
    doubts: str


class CellComparison(msgspec.Struct, frozen=True, kw_only=True):
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
    rows: tuple[MetricVerdict, ...]
    one_night: bool | None  # None: a side is missing
    differences: dict[str, tuple[str, str]]
    operators: Maybe[OperatorChanges] = NOT_PROFILED


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``comparisons``: how many p values were adjusted for each other."""

    schema: str = SCHEMA
    a: str
    b: str
    alpha: float
    comparisons: int
    cells: tuple[CellComparison, ...]
    environment: tuple[str, ...]
    problems: tuple[str, ...] = ()
    design: str = "separate launches"
    paired: Paired | None = None  # of a duel

    def _repr_html_(self) -> str | None:
        """For a notebook."""
        return notebook.html(self)


def compare_runs(
    a: Result, b: Result, settings: Settings | None = None, *, other_hardware: bool = False
) -> Comparison:
    """Compare ``b`` with the reference ``a``: one cell, be the two of one model and precision or
    not; that is what they are put side by side for, and ``differences`` names it."""
    pair = matched_runs(a, b)
    found = _compared([pair], settings or Settings(), other_hardware, (a.id, b.id), always=_ALWAYS)
    (report,) = found.cells
    if report.apart and not report.rows:
        return found
    if all(_incomplete(row) for row in report.rows):
        broken = next((run for run in (a, b) if isinstance(run.timing, Unavailable)), a)
        why = broken.error.message if broken.error else broken.status
        told = f"the two runs share no figure: {broken.id} is {why}"
        report = msgspec.structs.replace(report, apart="failed", reason=told, rows=())
    else:
        report = msgspec.structs.replace(report, rows=(*report.rows, *_shown(a, b)))
    return msgspec.structs.replace(found, cells=(report,))


def compare_sets(
    a: Iterable[Result],
    b: Iterable[Result],
    settings: Settings | None = None,
    *,
    across: Across | None = None,
    other_hardware: bool = False,
    names: tuple[str, str] = ("A", "B"),
    problems: Sequence[str] = (),
) -> Comparison:
    """Compare every cell of ``b`` with that of the reference ``a``.

    With ``other_hardware`` cells from different machines show their ratios, and have no verdicts.
    """
    matches = match_across(a, b, across) if across else match(group(a), group(b))
    found = _compared(matches, settings or Settings(), other_hardware, names)
    return msgspec.structs.replace(found, problems=tuple(problems))


def compare_matches(matches: Sequence[Match], settings: Settings) -> Comparison:
    """Pairs that somebody else has put together, judged as one family; cells in their order."""
    return _compared(matches, settings, False, ("A", "B"))


def _compared(
    matches: Sequence[Match],
    settings: Settings,
    other_hardware: bool,
    names: tuple[str, str],
    always: Collection[str] = (),
) -> Comparison:
    rows, comparisons = _verdicts(matches, settings, other_hardware, always)
    operators = compare_operators(matches, settings.alpha)
    reports = tuple(map(_report, matches, rows, operators))
    return Comparison(
        a=names[0],
        b=names[1],
        alpha=settings.alpha,
        comparisons=comparisons,
        cells=reports,
        environment=tuple(_environment(reports)),
    )


def _incomplete(row: MetricVerdict) -> bool:
    return isinstance(row.a, Unavailable) or isinstance(row.b, Unavailable)


def _shown(a: Result, b: Result) -> list[MetricVerdict]:
    """Macro F1: both values, without a verdict."""
    values = single(a, "f1"), single(b, "f1")
    if all(isinstance(value, Unavailable) for value in values):
        return []
    why = "shown, not tested"
    f1 = FIGURES["f1"]
    return [
        MetricVerdict(
            metric=f1.name,
            unit=f1.unit,
            better=f1.better,
            verdict=None,
            reason=why,
            a=values[0],
            b=values[1],
        )
    ]


def _verdicts(
    matches: Sequence[Match], settings: Settings, other_hardware: bool, always: Collection[str]
) -> tuple[list[list[MetricVerdict]], int]:
    """The rows of each match, and how many p values they share. Other hardware is no company."""
    found = [drafts(m, settings, always) if not m.apart else [] for m in matches]
    family = judge_all([one for drafted in found for one in drafted], settings.alpha)
    rest = iter(family)
    rows = [with_second_opinion([next(rest) for _ in drafted]) for drafted in found]
    for index, m in enumerate(matches):
        if other_hardware and m.apart == "other hardware":
            alone = judge_all(drafts(m, settings, always), settings.alpha)
            rows[index] = [_without_verdict(row, m.reason) for row in alone]
    return rows, sum(not isinstance(row.p, Unavailable) for row in family)


def counts(found: Comparison) -> dict[str, int]:
    """How many cells have what as their worst verdict; cells without any are not comparable."""
    return dict(Counter(worst(report) for report in found.cells))


def worst(report: CellComparison) -> str:
    """The verdict of a cell as a whole: the one that needs most attention."""
    verdicts = {row.verdict for row in report.rows}
    order = ("regressed", "inconclusive", "improved", "unchanged")
    return next((verdict for verdict in order if verdict in verdicts), "not comparable")


def _report(
    m: Match, rows: Sequence[MetricVerdict], operators: Maybe[OperatorChanges]
) -> CellComparison:
    either = m.b or m.a
    assert either is not None
    both = m.a is not None and m.b is not None
    finished = both and bool(m.a and m.a.finished and m.b and m.b.finished)
    return CellComparison(
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
        operators=operators,
    )


def differences(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """Spec, model, versions, commit and settings that differ, by name."""
    sides = [_conditions(run) for run in (a, b)]
    names = {**sides[0], **sides[1]}
    found = {name: (sides[0].get(name, "absent"), sides[1].get(name, "absent")) for name in names}
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _conditions(run: Result) -> dict[str, str]:
    spec = {
        name: str(value)
        for name, value in msgspec.structs.asdict(run.spec).items()
        if name not in ("out", "tags", "timeout_s")
    }
    settings = {name: run.machine.context.get(name, "absent") for name in ("kernel", "governor")}
    model = {}
    if not isinstance(run.model, Unavailable):
        model = {"model file": (run.model.file_sha256 or run.model.sha256)[:12]}
    commit = {"commit": run.software.commit[:12]} if run.software.commit else {}
    return {**spec, **model, **settings, **commit, **run.software.versions}


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


def _without_verdict(row: MetricVerdict, reason: str) -> MetricVerdict:
    return msgspec.structs.replace(row, verdict="not comparable", reason=reason)


def _environment(reports: Iterable[CellComparison]) -> list[str]:
    """Machines on which at least half of the cells moved the same way: more than code does."""
    by_machine: dict[str, list[CellComparison]] = {}
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


def _speed(report: CellComparison) -> str | None:
    verdicts = {row.metric: row.verdict for row in report.rows}
    return next((verdicts[name] for name in _SPEEDS if name in verdicts), None)
