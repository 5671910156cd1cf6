"""What a report of runs tells, before it is HTML or Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.compare.comparison import compare_runs
from harness.compare.undecided import Undecided, undecided
from harness.compare.verdicts import MetricVerdict, NightSd, Settings
from harness.compression.from_results import board_from
from harness.compression.model import Board, Entry
from harness.maybe import Unavailable
from harness.records.result import Check, Machine, Result
from harness.stats.two_samples import MIN_LAUNCHES

# the quantities whose difference is judged, of those that `harness compare` judges
JUDGED = ("latency_median", "throughput", "energy_per_inference", "memory_peak", "top1")


class Judged(NamedTuple):
    """One entry held against its reference; ``refusal`` is why the two do not compare."""

    entry: Entry
    reference: Entry
    rows: tuple[MetricVerdict, ...]
    refusal: str = ""


class Report(NamedTuple):
    """``results`` and ``board.entries`` are in the same order: oldest first."""

    title: str
    made_at: str
    results: tuple[Result, ...]
    board: Board
    judged: tuple[Judged, ...]
    problems: tuple[str, ...]

    @property
    def undecided(self) -> Undecided:
        """How many of the figures that were held against another could not be judged."""
        return undecided(row for one in self.judged for row in one.rows)


def gather(
    runs: Sequence[tuple[Result, Path]],
    title: str = "",
    problems: Sequence[str] = (),
    night_sd: NightSd | None = None,
) -> Report:
    """Everything that a report shows. ``runs``: results and their files.

    ``night_sd``: how far nights lie apart, for runs that were measured in different ones.
    """
    ordered = sorted(runs, key=lambda run: run[0].started_at)
    results = tuple(result for result, _ in ordered)
    board = board_from(results, [path.parent for _, path in ordered])
    models = sorted({entry.model for entry in board.entries})
    more = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return Report(
        title=title or f"What {', '.join(models[:3])}{more} cost on this hardware",
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        results=results,
        board=board,
        judged=tuple(_judged(board, results, night_sd)),
        problems=(*problems, *board.notes),
    )


def _judged(board: Board, results: Sequence[Result], night_sd: NightSd | None) -> list[Judged]:
    settings = Settings(night_sd={} if night_sd is None else night_sd)
    by_id = {
        entry.run: (entry, result) for entry, result in zip(board.entries, results, strict=True)
    }
    found = []
    for entry, result in by_id.values():
        if entry.reference_run is None:
            continue
        reference, before = by_id[entry.reference_run]
        (cell,) = compare_runs(before, result, settings).cells
        rows = tuple(row for row in cell.rows if row.metric in JUDGED)
        found.append(Judged(entry, reference, rows, "" if rows else cell.reason))
    return found


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
    for entry, result in zip(report.board.entries, report.results, strict=True):
        timing = result.timing
        if entry.random_weights:
            general[f"{entry.model} has random weights"] = "it can have no accuracy"
        if not isinstance(timing, Unavailable) and len(timing.launches) < MIN_LAUNCHES:
            general["Runs with fewer than five launches"] = (
                "their intervals are blind to what differs between processes; --launches 5"
            )
        reasons = [check.reason for check in doubts(result) if check.verdict != "unknown"]
        if result.error is not None:
            reasons.insert(0, result.error.message)
        if reasons:
            name = f"{entry.model}, {entry.precision}, {result.spec.backend}: {result.status}"
            of_runs[f"{name} ({result.id})"] = "; ".join(reasons)
    if len(machines(report.results)) > 1:
        general["Several machines"] = "runs of different machines are not compared"
    return [*general.items(), *(("Note", note) for note in report.problems), *of_runs.items()]
