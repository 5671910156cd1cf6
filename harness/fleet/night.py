"""The folder of a night: planned if it is new, continued if it is the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from harness.errors import ResultError, UsageError
from harness.fleet.ledger import Ledger, Row, create, now_text, writing
from harness.fleet.plan import FleetPlan, plan_night, read_fleet_plan
from harness.host import lock
from harness.host.files import refuse_links, write_atomically
from harness.machine import commit
from harness.records.cell import Cell
from harness.sweep.folder import MANIFEST, Manifest, default_label, next_free
from harness.sweep.needs import Offers
from harness.sweep.plan import Plan

_SOURCE = "source of Harness"


def folder_of(plan: Plan, out: Path, label: str | None, new: bool) -> tuple[Path, str]:
    """Where the night lies, and its label: the date and the commit unless it is given."""
    label = label or default_label(commit(Path.cwd()) or "")
    path = out / f"{plan.name}-{label}"
    return (next_free(path) if new else path), label


def open_night(
    plan: Plan, path: Path, label: str, classes: Mapping[str, Offers], code: str
) -> tuple[FleetPlan, Ledger]:
    """The plan and ledger in ``path``, planned now if there are none.

    ``code``: of the Harness that measures. Raises `UsageError` where it was planned from another
    sweep file or by another Harness, and `ResultError` where it cannot be written.
    """
    refuse_links(path)
    found = read_fleet_plan(path)
    if found is None:
        if (path / MANIFEST).exists():
            raise UsageError(
                f"{str(path)!r} is a sweep of one machine", "give another --label, or --new"
            )
        create(path, plan_night(plan, label, path.name, classes))
        found = read_fleet_plan(path)
        if found is None:
            raise ResultError(f"{str(path)!r} holds no plan", "run the same command again")
    if found.sha256 != plan.sha256:
        raise UsageError(
            f"night {found.id} was planned from another sweep file "
            f"({found.sha256[:12]} then, {plan.sha256[:12]} now)",
            "give --new to plan another, or --label NAME",
        )
    _describe(path, found, code)
    return found, Ledger(path, found.rules.lease_s)


def _describe(path: Path, plan: FleetPlan, code: str) -> None:
    """``sweep.json``, by which other commands know a night. Raises `UsageError`."""
    if (path / MANIFEST).exists():
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            told = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
            then = told.state.get(_SOURCE)
            if then != code:
                raise UsageError(
                    f"night {plan.id} was begun by another Harness ({then} then, {code} now)",
                    "give --new to plan another, or --label NAME",
                )
        return
    cells = {task.key: Cell(task.cell, task.key) for task in plan.tasks}
    manifest = Manifest(
        id=plan.id,
        name=plan.name,
        label=plan.label,
        plan_sha256=plan.sha256,
        launches=plan.launches,
        created_at=plan.created_at,
        cells=tuple(cells.values()),
        state={_SOURCE: code},
    )
    data = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    write_atomically(path / MANIFEST, data)


@contextlib.contextmanager
def driving(ledger: Ledger) -> Iterator[bool]:
    """While a driver is at work. Whether it was alone at first: then what killed drivers left is
    removed, and their leases are nobody's."""
    with writing(ledger.folder):
        descriptor = os.open(
            ledger.folder / ".fleet" / "drivers.lock", os.O_CREAT | os.O_RDWR, 0o666
        )
    try:
        with writing(ledger.folder):
            if alone := lock.take(descriptor):
                ledger.sweep_up()
            lock.share(descriptor)
        yield alone
    finally:
        os.close(descriptor)


def reopen(plan: FleetPlan, ledger: Ledger) -> int:
    """Take back every row that is no result, to measure those tasks again; how many there were."""
    rows = [row for task in plan.tasks if (row := ledger.row(task.id)) and row.outcome != "result"]
    for row in rows:
        ledger.reopen(row.task)
    return len(rows)


def cancel(plan: FleetPlan, ledger: Ledger, cause: str) -> int:
    """End what has not ended as ``cancelled``; how many tasks that were."""
    count = 0
    for task in plan.tasks:
        if not ledger.has_row(task.id):
            row = Row(task=task.id, cell=task.cell, machine_class=task.machine_class,
                      outcome="cancelled", cause=cause, ended_at=now_text())  # fmt: skip
            count += ledger.publish(row)
    return count
