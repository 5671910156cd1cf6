"""A duel as a comparison like any other: every metric of its runs, and first the paired ratio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.compare.comparison import CellComparison, Comparison, compare_runs
from harness.compare.paired import ALPHA, DESIGN, Paired, PairedVerdict
from harness.compare.verdicts import MetricVerdict
from harness.errors import ResultError
from harness.maybe import Unavailable, decode
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
