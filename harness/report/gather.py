"""What a report of runs tells, before it is HTML or Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.compare.operators import OperatorChanges
from harness.compare.paired import Paired
from harness.compare.sides import Side
from harness.compare.undecided import Undecided, undecided
from harness.compare.verdicts import MetricVerdict, NightSd, Settings
from harness.compression.entries import model_of
from harness.compression.from_results import boarded
from harness.compression.model import Board, Entry
from harness.compression.pooled import Pooled
from harness.maybe import Maybe
from harness.records.operators import NOT_PROFILED
from harness.records.result import Check, Machine, Result
from harness.stats.two_samples import MIN_LAUNCHES

# the quantities whose difference is judged, of those that `harness compare` judges
JUDGED = ("latency_median", "throughput", "energy_per_inference", "memory_peak", "top1")


class Judged(NamedTuple):
    """One entry held against its reference; ``refusal`` is why the two do not compare.

    ``rows`` are empty where either has no launches: `Entry.judged` says what is known all the same.
    """

    entry: Entry
    reference: Entry
    rows: tuple[MetricVerdict, ...]
    refusal: str = ""
    paired: Paired | None = None  # of the duel that measured both
    operators: Maybe[OperatorChanges] = NOT_PROFILED


class Report(NamedTuple):
    """``results``: every run, oldest first. An entry of the board pools those of one cell:
    ``sides``, by the run of the entry. Entries that were logged have none."""

    title: str
    made_at: str
    results: tuple[Result, ...]
    board: Board
    judged: tuple[Judged, ...]
    problems: tuple[str, ...]
    sides: dict[str, Side]

    @property
    def undecided(self) -> Undecided:
        """How many of the figures that were held against another could not be judged."""
        return undecided(row for one in self.judged for row in one.rows)


def gather(
    runs: Sequence[tuple[Result, Path]],
    title: str = "",
    problems: Sequence[str] = (),
    night_sd: NightSd | None = None,
    logged: Sequence[Entry] = (),
) -> Report:
    """Everything that a report shows. ``runs``: results and their files.

    ``night_sd``: how far nights lie apart, for runs that were measured in different ones.
    ``logged``: entries that came in without results, by an import or a script of somebody's.
    """
    ordered = sorted(runs, key=lambda run: run[0].started_at)
    results = tuple(result for result, _ in ordered)
    settings = Settings(night_sd={} if night_sd is None else night_sd)
    board, pool = boarded(results, [path.parent for _, path in ordered], logged, settings)
    models = sorted({entry.model for entry in board.entries})
    more = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return Report(
        title=title or f"What {', '.join(models[:3])}{more} cost on this hardware",
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        results=results,
        board=board,
        judged=tuple(_judged(pool)),
        problems=(*problems, *board.notes),
        sides=pool.sides,
    )


def _judged(pool: Pooled) -> Iterator[Judged]:
    by_run = {(e.run, e.model, e.precision): e for e in pool.entries}
    for entry in pool.entries:
        if entry.reference_run is None or entry.reference is None:
            continue
        reference = by_run[entry.reference_run, entry.model, entry.reference]
        cell = pool.cells.get(entry.run)
        if cell is None:
            yield Judged(entry, reference, ())
            continue
        rows = tuple(row for row in cell.rows if row.metric in JUDGED)
        yield Judged(entry, reference, rows, "" if rows else cell.reason,
                     pool.paired.get(entry.run), cell.operators)  # fmt: skip


def machines(results: Sequence[Result]) -> list[tuple[Machine, list[Result]]]:
    """Each machine with its runs."""
    found: defaultdict[str, list[Result]] = defaultdict(list)
    for result in results:
        found[result.machine.fingerprint].append(result)
    return [(runs[0].machine, runs) for runs in found.values()]


def doubts(result: Result) -> list[Check]:
    """The checks of a run that did not pass, the worst first."""
    order = ("fail", "warn", "unknown")
    return sorted(
        (check for check in result.validity if check.verdict in order),
        key=lambda check: order.index(check.verdict),
    )


def caveats(report: Report) -> list[tuple[str, str]]:
    """(what, why) a reader must know before believing a figure; what concerns all comes first."""
    general: dict[str, str] = {}
    of_runs: dict[str, str] = {}
    for entry in report.board.entries:
        if entry.random_weights:
            general[f"{entry.model} has random weights"] = "it can have no accuracy"
        if 0 < entry.launches < MIN_LAUNCHES:
            general["Runs with fewer than five launches"] = (
                "their intervals are blind to what differs between processes; --launches 5"
            )
        if entry.run not in report.sides:
            general["Figures without runs of ours"] = (
                "imported or logged: one figure each, so no difference of theirs can be judged"
            )
    for result in report.results:
        reasons = [check.reason for check in doubts(result) if check.verdict != "unknown"]
        if result.error is not None:
            reasons.insert(0, result.error.message)
        if reasons:
            spec = result.spec
            name = f"{model_of(spec)}, {spec.precision}, {spec.backend}: {result.status}"
            of_runs[f"{name} ({result.id})"] = "; ".join(reasons)
    if len(machines(report.results)) > 1:
        general["Several machines"] = "runs of different machines are not compared"
    return [*general.items(), *(("Note", note) for note in report.problems), *of_runs.items()]
