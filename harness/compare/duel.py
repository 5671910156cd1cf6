"""A duel as a comparison like any other: every metric of its runs, and first the paired ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from harness.compare.comparison import CellComparison, Comparison, compare_runs
from harness.compare.paired import ALPHA, DESIGN, Paired, PairedVerdict, Rules, rejudged
from harness.compare.verdicts import MetricVerdict, Settings
from harness.errors import ResultError
from harness.maybe import Unavailable, decode
from harness.records.metric import METRICS
from harness.records.result import Result
from harness.records.store import read_bytes

COMPARISON_NAME = "comparison.json"
LATENCY = "latency_median"


def of_duel(found: Paired, results: Sequence[Result]) -> Comparison:
    """The first run against each of the others. Without ``results``: the paired ratios alone."""
    pairs = zip(results[1:], found.verdicts, strict=False)
    cells = tuple(_cell(results[0], other, verdict) for other, verdict in pairs)
    return Comparison(
        a=found.variants[0].run,
        b=", ".join(one.run for one in found.variants[1:]),
        alpha=ALPHA,
        comparisons=sum(not isinstance(one.p_adjusted, Unavailable) for one in found.verdicts),
        cells=cells,
        environment=(),
        design=DESIGN,
        paired=found,
    )


def of_runs(found: Comparison, a: Result, b: Result, folder: Path) -> Comparison:
    """``found`` of two runs with their paired ratio, where the duel in ``folder`` measured both.

    Raises `ResultError` where its record is damaged.
    """
    duel = a.tags.get("duel")
    if not duel or duel != b.tags.get("duel"):
        return found
    record = read_record(folder / COMPARISON_NAME)
    verdict = only(record.paired, a.id, b.id) if record and record.paired else None
    if record is None or verdict is None:
        return found
    cells = tuple(with_paired(cell, verdict) for cell in found.cells)
    return msgspec.structs.replace(found, cells=cells, design=DESIGN, paired=record.paired)


def read_record(path: Path) -> Comparison | None:
    """The record of a duel; None where there is none, as beside a run that was copied out of it.

    Raises `ResultError` where it is damaged.
    """
    if not path.exists():
        return None
    try:
        return decode(read_bytes(path), Comparison)
    except msgspec.MsgspecError as error:
        raise ResultError(f"{str(path)!r} is no comparison, or damaged: {error}") from error


def only(found: Paired, a: str, b: str) -> PairedVerdict | None:
    """The verdict on run ``b`` against ``a``, if the duel has one that way round."""
    names = {one.run: one.name for one in found.variants}
    if a not in names or b not in names or found.variants[0].run != a:
        return None
    return next((one for one in found.verdicts if one.b == names[b]), None)


def between(
    a: Sequence[Result], b: Sequence[Result], folders: Mapping[str, Path], problems: list[str]
) -> tuple[Paired, PairedVerdict] | None:
    """The newest duel that held a run of ``a`` as the reference against one of ``b``, oldest first.

    ``folders``: where each run lies, by its id. ``problems`` is told which record is damaged.
    """
    theirs: dict[str, list[Result]] = {}
    for run in a:
        theirs.setdefault(run.tags.get("duel", ""), []).append(run)
    for run in reversed(b):
        duel, folder = run.tags.get("duel"), folders.get(run.id)
        if not duel or duel not in theirs or folder is None:
            continue
        try:
            record = read_record(folder.parent / COMPARISON_NAME)
        except ResultError as error:
            problems.append(f"{error}")
            continue
        paired = record.paired if record else None
        for other in theirs[duel] if paired else ():
            if paired and (verdict := only(paired, other.id, run.id)):
                return paired, verdict
    return None


def of_sets(
    found: Comparison, runs: Mapping[str, tuple[Result, Path]], problems: list[str]
) -> Comparison:
    """``found`` with the paired ratio of each cell whose sides took turns with each other.

    ``runs``: every run and its folder, by its id.
    """
    folders = {name: folder for name, (_, folder) in runs.items()}
    cells: list[CellComparison] = []
    for cell in found.cells:
        a, b = (
            [runs[i][0] for i in side.ids if i in runs] if side else [] for side in (cell.a, cell.b)
        )
        held = between(a, b, folders, problems) if cell.rows else None
        cells.append(with_paired(cell, held[1]) if held else cell)
    if cells == list(found.cells):
        return found
    whole = all(
        any(row.reason.startswith(DESIGN) for row in cell.rows) for cell in cells if cell.rows
    )
    return msgspec.structs.replace(
        found, cells=tuple(cells), design=DESIGN if whole else found.design
    )


def by_policy(found: Mapping[str, tuple[Paired, Result, Result]], settings: Settings) -> Comparison:
    """Duels of the two builds of some cells, judged as ``settings`` ask, as one comparison.

    ``found``: name of a cell -> a duel of two, and its runs, the reference first. The latency's
    row is the paired one; the others are of launches that went on side by side.
    """
    rules = [
        Rules(
            _minimum_effect(name, settings), settings.alpha, settings.minimum_launches,
            looked=one.design.goal is not None,
        )
        for name, (one, _, _) in found.items()
    ]  # fmt: skip
    verdicts = rejudged([one.verdicts[0] for one, _, _ in found.values()], rules)
    cells: list[CellComparison] = []
    for (name, (_, a, b)), verdict in zip(found.items(), verdicts, strict=True):
        (cell,) = compare_runs(a, b, settings).cells
        cells.append(msgspec.structs.replace(with_paired(cell, verdict), cell=name))
    return Comparison(
        a="baseline",
        b="candidate",
        alpha=settings.alpha,
        comparisons=len(cells),
        cells=tuple(cells),
        environment=(),
        design=DESIGN,
        paired=next(iter(found.values()))[0] if len(found) == 1 else None,
    )


def _minimum_effect(cell: str, settings: Settings) -> float:
    asked = settings.minimum_effects(cell, LATENCY)
    return METRICS[LATENCY].minimum_effect if asked is None else asked


def with_paired(cell: CellComparison, verdict: PairedVerdict) -> CellComparison:
    """``cell`` with the paired ratio in the place of the one of launches."""
    rows = [_row(row, verdict) if row.metric == LATENCY else row for row in cell.rows]
    return msgspec.structs.replace(cell, rows=tuple(rows))


def _cell(a: Result, b: Result, verdict: PairedVerdict) -> CellComparison:
    (cell,) = compare_runs(a, b).cells
    return with_paired(cell, verdict)


def _row(row: MetricVerdict, verdict: PairedVerdict) -> MetricVerdict:
    count = len(verdict.launches)
    return msgspec.structs.replace(
        row,
        verdict=verdict.verdict,
        reason=f"{DESIGN}: {verdict.reason}",
        ratio=verdict.ratio,
        interval=verdict.interval,
        p=Unavailable("the adjusted one is in p_adjusted"),
        p_adjusted=verdict.p_adjusted,
        detectable=verdict.detectable,
        launches=(count, count),
        minimum_effect=verdict.minimum_effect,
        doubt="; ".join(filter(None, (verdict.doubt, row.doubt))),
    )
