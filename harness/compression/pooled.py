"""Results as entries: the launches of one cell pooled, and every pair judged, as comparisons do it.

    results ── compare.sides ──> a side per cell, machine and content ──> one Entry each
    entries ── with_ratios ──> each with its reference ──> compare.matched ──> Entry.judged

What stands on the board is what `harness compare SET --across precision` says of the same runs; and
where a duel let two of them take turns, what the duel says of their latency.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.analysis.latency import interval_methods, launch_estimate
from harness.compare.comparison import CellComparison, compare_matches
from harness.compare.duel import between, with_paired
from harness.compare.match import matched
from harness.compare.paired import DESIGN, Paired
from harness.compare.sides import Side, doubts, measured, sides_of
from harness.compare.verdicts import MetricVerdict, Settings
from harness.compression.apart import told_apart
from harness.compression.curves import with_curves
from harness.compression.entries import COLUMNS, entry_of
from harness.compression.model import Entry, Figure, Histogram, Judgement, PooledRun
from harness.compression.ratios import aurora, with_ratios
from harness.compression.settings import ALIKE, told
from harness.maybe import Maybe, Unavailable, explain
from harness.records.cell import content_of
from harness.records.metric import FIGURES, METRICS, Metric
from harness.records.result import Result
from harness.spec import RunSpec, arguments, unparse
from harness.stats.two_samples import MIN_LAUNCHES

LAUNCHES = "separate launches"
UNFINISHED = ("running", "failed", "interrupted")


class Pooled(NamedTuple):
    """``cells``, ``sides`` and ``paired`` go by the run of an entry."""

    entries: tuple[Entry, ...]
    cells: dict[str, CellComparison]
    sides: dict[str, Side]
    paired: dict[str, Paired]
    problems: tuple[str, ...]


def pooled(
    results: Sequence[Result],
    logged: Sequence[Entry] = (),
    *,
    latencies: Mapping[str, Histogram] | None = None,
    folders: Mapping[str, Path] | None = None,
    settings: Settings | None = None,
) -> Pooled:
    """Entries of ``results``, and those ``logged`` without any, with ratios, scores and judgements.

    ``latencies``: the distribution of each run, by its id. ``folders``: where each run lies, for
    the records of duels around them. Entries come by model and precision, FP32 first.
    """
    parts = parts_of(results)
    problems: list[str] = []
    made = [
        with_curves(entry_of_side(side, latencies or {}), side, folders or {}, problems)
        for side in parts
    ]
    sides = {entry.run: side for entry, side in zip(made, parts, strict=True)}
    entries = _compared(told(told_apart([*made, *logged])))
    pairs = {
        entry.run: (sides[entry.reference_run], sides[entry.run])
        for entry in entries
        if entry.run in sides and entry.reference_run in sides
    }
    cells, duels = _judged(pairs, folders or {}, settings or Settings(), problems)
    return Pooled(
        entries=tuple(_with_judgements(e, cells, duels, sides.get(e.run)) for e in entries),
        cells=cells,
        sides=sides,
        paired=duels,
        problems=tuple(problems),
    )


def _compared(entries: Sequence[Entry]) -> list[Entry]:
    """With ratios. The last of several references counts, so what is unfinished comes first."""
    order = sorted(range(len(entries)), key=lambda at: entries[at].status not in UNFINISHED)
    found = with_ratios([entries[at] for at in order])
    back = [entry for _, entry in sorted(zip(order, found, strict=True), key=lambda one: one[0])]
    return sorted(back, key=lambda e: (e.model, e.precision.lower() != "fp32", e.precision))


def parts_of(results: Sequence[Result]) -> list[Side]:
    """The sides of ``results``, each content of a model's file on its own.

    Failed runs join the first: they may have ended before any content was known.
    """
    found: list[Side] = []
    for side in sides_of(results):
        contents: dict[str | None, list[Result]] = {}
        for run in side.finished:
            contents.setdefault(content_of(run), []).append(run)
        parts = [Side(tuple(runs)) for runs in contents.values()] or [Side()]
        found += [Side(parts[0].finished, side.failed), *parts[1:]]
    return found


# -- one side -------------------------------------------------------------------------------------


def entry_of_side(side: Side, latencies: Mapping[str, Histogram]) -> Entry:
    """One entry. With several runs its figures are the medians of their launches."""
    runs = side.finished
    newest = (runs or side.failed)[-1]
    entry = entry_of(newest, pooled_histogram([latencies[r.id] for r in runs if r.id in latencies]))
    listed = sorted((*runs, *side.failed), key=lambda run: (run.started_at, run.id))
    entry = msgspec.structs.replace(
        entry, runs=tuple(map(_run, listed)), launches=sum(_launches(run) for run in runs)
    )
    return entry if len(runs) < 2 else _of_several(entry, side)


def figure_of(side: Side, name: str) -> Maybe[Figure]:
    """The metric called ``name`` in its own unit, with its interval where it has one."""
    runs = side.finished or side.failed[-1:]
    found = measured(runs, name)
    if isinstance(found.value, Unavailable):
        return found.value
    if len(runs) == 1:
        bounds = found.interval
        return Figure(found.value, *(() if isinstance(bounds, Unavailable) else bounds))
    known = () if isinstance(found.figures, Unavailable) else found.figures
    return Figure(found.value, *_bounds(found.value, known))


def _of_several(entry: Entry, side: Side) -> Entry:
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    for column, metric in COLUMNS.items():
        if metric.rule == "shown":  # of the newest run, which is not judged by it
            continue
        figure = figure_of(side, metric.name)
        if isinstance(figure, Unavailable):
            missing[column] = explain(figure)
        else:
            figures[column] = _in_column(figure, metric)
    last = {c: f for c, f in entry.figures.items() if c in COLUMNS and COLUMNS[c].rule == "shown"}
    known_missing = {c: why for c, why in (entry.missing | missing).items() if c not in figures}
    degraded = any(run.status == "degraded" for run in side.finished)
    return msgspec.structs.replace(
        entry,
        status="degraded" if degraded else "complete",
        figures=last | figures,
        missing=known_missing,
        info=_info_of_several(entry, side),
    )


def _in_column(figure: Figure, metric: Metric) -> Figure:
    unit = metric.column_divisor
    low, high = (None if bound is None else bound / unit for bound in (figure.low, figure.high))
    return Figure(figure.value / unit, low, high)


def _bounds(value: float, launches: Sequence[float]) -> tuple[float | None, float | None]:
    """Of five launches and more, by the spread between them; no interval of fewer."""
    if len(launches) < MIN_LAUNCHES:
        return None, None
    _, (low, high) = launch_estimate(launches)
    return min(low, value), max(high, value)


def _info_of_several(entry: Entry, side: Side) -> dict[str, str]:
    info = {**entry.info, "runs": str(len(side.finished)), "launches": str(entry.launches)}
    told_doubts = [doubts(side), info.get("warnings", "")]
    if warnings := "; ".join(filter(None, told_doubts)):
        info["warnings"] = warnings
    enough = entry.launches >= MIN_LAUNCHES
    method = interval_methods(entry.launches)["median"]
    info["intervals"] = method if enough else (
        f"none: {entry.launches} launches are pooled, and an interval between launches takes"
        f" {MIN_LAUNCHES}"
    )  # fmt: skip
    return info


def _run(result: Result) -> PooledRun:
    entry = entry_of(result)
    return PooledRun(
        run=result.id,
        status=result.status,
        started_at=result.started_at,
        launches=_launches(result),
        figures={name: figure.value for name, figure in entry.figures.items()},
        error=result.error.message if result.error else "",
    )


def _launches(result: Result) -> int:
    return 0 if isinstance(result.timing, Unavailable) else len(result.timing.launches)


def pooled_histogram(found: Sequence[Histogram]) -> Histogram | None:
    """All of ``found`` in one: a bin that another one's edge cuts is shared out by width."""
    if len(found) < 2:
        return found[0] if found else None
    edges = sorted({edge for one in found for edge in one.edges_ms})
    counts = [0.0] * (len(edges) - 1)
    for one in found:
        at = 0
        for low, high, count in zip(one.edges_ms, one.edges_ms[1:], one.counts, strict=False):
            while edges[at] < low:
                at += 1
            place, width = at, high - low
            while place < len(counts) and edges[place] < high:
                share = (edges[place + 1] - edges[place]) / width if width else 1.0
                counts[place] += count * share
                place += 1
    return Histogram(tuple(edges), tuple(counts))


# -- pairs ----------------------------------------------------------------------------------------


def _judged(
    pairs: Mapping[str, tuple[Side, Side]],
    folders: Mapping[str, Path],
    settings: Settings,
    problems: list[str],
) -> tuple[dict[str, CellComparison], dict[str, Paired]]:
    found = compare_matches([matched(*pair) for pair in pairs.values()], settings)
    cells = dict(zip(pairs, found.cells, strict=True))
    duels: dict[str, Paired] = {}
    for run, (a, b) in pairs.items():
        held = between(a.finished, b.finished, folders, problems)
        if held is not None:
            duels[run] = held[0]
            cells[run] = with_paired(cells[run], held[1])
    return cells, duels


def _with_judgements(
    entry: Entry,
    cells: Mapping[str, CellComparison],
    duels: Mapping[str, Paired],
    side: Side | None,
) -> Entry:
    cell = cells.get(entry.run)
    if cell is None or side is None:
        return entry
    judged = dict(entry.judged)
    if cell.apart:
        judged = {name: Judgement("not comparable", cell.reason) for name in judged}
    for row in cell.rows:
        if row.verdict is not None:
            judged[FIGURES[row.metric].column or row.metric] = judgement(row, entry.run in duels)
    latency = judged.get("latency_ms")
    still_open = latency is not None and latency.verdict == "inconclusive"
    advice = _advice(side.first.spec, entry) if still_open and entry.run not in duels else ""
    entry = msgspec.structs.replace(entry, judged=judged, advice=advice)
    return _in_turns(entry, latency) if latency and entry.run in duels else entry


def _in_turns(entry: Entry, latency: Judgement) -> Entry:
    """With the speedup of the rounds in which both had a turn, and the score that it makes."""
    if latency.ratio is None or "speedup" not in entry.ratios:
        return entry
    ratios = {**entry.ratios, "speedup": 1 / latency.ratio}
    score = None if entry.aurora is None else aurora(ratios)
    return msgspec.structs.replace(entry, ratios=ratios, aurora=score)


def judgement(row: MetricVerdict, in_duel: bool = False) -> Judgement:
    """A row of a comparison, as the board keeps it."""
    ratio = None if isinstance(row.ratio, Unavailable) else row.ratio
    low, high = (None, None) if isinstance(row.interval, Unavailable) else row.interval
    rule = METRICS[row.metric].rule if row.metric in METRICS else ""
    designs = {"exact": "exact", "paired": "the same samples"}
    paired = in_duel and row.reason.startswith(DESIGN)
    return Judgement(
        verdict=row.verdict or "",
        reason=row.reason,
        ratio=ratio,
        low=low,
        high=high,
        doubt=row.doubt,
        design=DESIGN if paired else designs.get(rule, LAUNCHES),
    )


def _advice(spec: RunSpec, entry: Entry) -> str:
    """How a duel would settle what separate launches left open."""
    why = "measured side by side, smaller differences can be told"
    if spec.reference is not None or entry.reference is None:
        return f"{why}: harness duel"
    kept = RunSpec(**{name: getattr(spec, name) for name in ("model", *ALIKE)})
    asked = shlex.join(arguments(unparse(kept)))
    across = f"--across precision={entry.reference},{entry.precision}"
    return " ".join(f"{why}: harness duel {asked} {across}".split())
