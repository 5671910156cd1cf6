"""A night's report: computed from its plan, never from what happens to lie in its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from harness.errors import ResultError
from harness.fleet.ledger import LIVE, Ended, Ledger, Outcome, Row
from harness.fleet.plan import FleetPlan, Task, read_fleet_plan
from harness.records.store import scan
from harness.views.terminal import render_table
from harness.views.text import count, plain

SCHEMA = "harness.fleet-report/1"
OUTCOMES: tuple[Outcome, ...] = ("result", "failed", "no-runner", "lost", "cancelled", "open")
_MOST_SHOWN = 40


class NightReport(msgspec.Struct, frozen=True, kw_only=True):
    """``rows``: one for each planned task, in the plan's order; ``open`` has not ended yet.

    ``set_aside``: copies that came second. ``retried``: attempts that were lost. ``unplanned``:
    folders of results that no task accounts for; they count for nothing.
    """

    schema: str = SCHEMA
    id: str
    folder: str
    planned: int
    outcomes: dict[str, int]
    rows: tuple[Row, ...]
    set_aside: tuple[Row, ...]
    retried: tuple[Ended, ...]
    unplanned: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every planned task has its result."""
        return self.outcomes.get("result", 0) == self.planned


def report_of(plan: FleetPlan, ledger: Ledger) -> NightReport:
    """Raises `ResultError` for a row that cannot be read."""
    rows = tuple(ledger.row(task.id) or _open(task) for task in plan.tasks)
    counted = Counter(row.outcome for row in rows)
    ids = {task.id for task in plan.tasks}
    return NightReport(
        id=plan.id,
        folder=str(ledger.folder),
        planned=len(rows),
        outcomes={name: counted[name] for name in OUTCOMES if counted[name]},
        rows=rows,
        set_aside=tuple(ledger.aside()),
        retried=tuple(one for one in ledger.ended() if one.how == "lost"),
        unplanned=tuple(sorted(_strangers(ledger.folder, ids))),
    )


def _open(task: Task) -> Row:
    return Row(task=task.id, cell=task.cell, machine_class=task.machine_class, outcome="open")


def _strangers(folder: Path, tasks: set[str]) -> set[str]:
    found = set()
    for run in scan(folder):
        first = Path(run.folder).relative_to(folder).parts[0]
        if first not in tasks and first != LIVE and run.size_bytes >= 0:
            found.add(first)
    return found


def absent_cells(folder: Path) -> dict[str, str]:
    """What the night in ``folder`` planned and has no result of, each with how it ended.

    Empty for a folder that is no night. Raises `ResultError` for one that cannot be read.
    """
    plan = read_fleet_plan(folder)
    if plan is None:
        return {}
    rows = report_of(plan, Ledger(folder, plan.rules.lease_s)).rows
    return {
        f"{row.cell} on {row.machine_class}": f": {_how(row)}"
        for row in rows
        if row.outcome != "result"
    }


def night_in(results: Path, name: str | None) -> tuple[FleetPlan, Ledger]:
    """The night called ``name``, a folder or the name of one in ``results``; else the newest.

    Raises `ResultError` where there is none.
    """
    if name is None:
        nights = sorted(results.glob("*/fleet.json"), key=lambda path: path.stat().st_mtime)
        folders = [path.parent for path in nights[-1:]]
    else:
        folders = [Path(name), results / name]
    for folder in folders:
        if plan := read_fleet_plan(folder):
            return plan, Ledger(folder, plan.rules.lease_s)
    where = f"{str(results)!r} holds no night" if name is None else f"{name!r} is no night"
    raise ResultError(f"{where} of a fleet", "harness fleet run FILE measures one")


def _how(row: Row) -> str:
    return f"{row.outcome}: {row.cause}" if row.cause else row.outcome


def render_report(report: NightReport) -> RenderableType:
    """What came of each class of machines, each task without a result, and the sum."""
    parts: list[RenderableType] = [_by_class(report), Text("")]
    missing = [row for row in report.rows if row.outcome != "result"]
    if missing:
        body = [(_place(row), _how(row)) for row in missing[:_MOST_SHOWN]]
        parts += [render_table(("no result", "why"), body), Text("")]
        if len(missing) > _MOST_SHOWN:
            parts += [Text(f"and {len(missing) - _MOST_SHOWN} more: --json"), Text("")]
    for text in (*_notes(report), f"Files: {plain(report.folder)}", headline(report)):
        parts.append(Text(text, no_wrap=True, overflow="ignore"))
    return Group(*parts)


def headline(report: NightReport) -> str:
    """``night nightly-2026-11-27: 12 planned, 8 results, 4 no-runner``."""
    parts = [f"{n} {name}" + ("s" if name == "result" and n != 1 else "")
             for name, n in report.outcomes.items()]  # fmt: skip
    return plain(f"night {report.id}: {', '.join([f'{report.planned} planned', *parts])}")


def _place(row: Row) -> str:
    return f"{row.cell} on {row.machine_class}"


def _notes(report: NightReport) -> Sequence[str]:
    notes = []
    if report.retried:
        notes.append(f"{count(len(report.retried), 'attempt')} lost, and tried again")
    if report.set_aside:
        copies = count(len(report.set_aside), "copy", "copies")
        notes.append(f"{copies} set aside: another had come first (.fleet/aside)")
    if report.unplanned:
        notes.append(f"not planned, and not counted: {plain(', '.join(report.unplanned[:5]))}")
    return notes


def _by_class(report: NightReport) -> RenderableType:
    classes = sorted({row.machine_class for row in report.rows})
    counted = Counter((row.machine_class, row.outcome) for row in report.rows)
    used = [name for name in OUTCOMES if report.outcomes.get(name)]
    body = [(*(str(counted[one, name] or "") for name in used), one) for one in classes]
    return render_table((*used, "machines"), body)
