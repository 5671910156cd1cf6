"""What a night asks of a fleet, written before anything is measured: ``fleet.json``.

A task is one cell on one class of machines in one night; its id follows from these three, so that
whoever plans the same night again, after a crash or beside another, plans the same tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from harness import maybe
from harness.errors import ResultError
from harness.records.store import read_bytes
from harness.sweep.needs import EVERY, FleetRules, Needs, Offers, lacking
from harness.sweep.plan import Plan, SweepCell

SCHEMA = "harness.fleet/1"
PLAN_NAME = "fleet.json"
MAX_BYTES = 1 << 28  # of a plan: 100,000 tasks take some 50 MB
_EARLIER = 50  # nights whose plans are asked which classes of machines there are


class Task(msgspec.Struct, frozen=True):
    """``fields``: as `harness.spec.parse` takes them, with this machine's paths."""

    id: str
    cell: str
    key: str
    machine_class: str
    needs: Needs
    fields: dict[str, Any]


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """``classes``: those known when it was written, by name, with what their machines have."""

    schema: str = SCHEMA
    id: str  # of the night: the name of its folder
    name: str
    label: str
    sha256: str  # of the sweep file
    launches: int
    time_limit_s: float
    rules: FleetRules
    created_at: str
    classes: dict[str, Offers]
    tasks: tuple[Task, ...]


def plan_night(plan: Plan, label: str, night: str, classes: Mapping[str, Offers]) -> FleetPlan:
    """The tasks of ``plan`` in the night called ``night``, over the ``classes`` there are."""
    return FleetPlan(
        id=night,
        name=plan.name,
        label=label,
        sha256=plan.sha256,
        launches=plan.launches,
        time_limit_s=plan.time_limit_s,
        rules=plan.fleet,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=dict(classes),
        tasks=tuple(
            _task(one, needs, night) for one in plan.cells for needs in _spread(one, classes)
        ),
    )


def task_id(key: str, machine_class: str, night: str) -> str:
    """16 hex digits, the same wherever and whenever it is computed."""
    return hashlib.sha256("\0".join((key, machine_class, night)).encode()).hexdigest()[:16]


def needs_of(one: SweepCell) -> Needs:
    """A cell on a GPU needs one, said or not: a missing accelerator is no reason for a CPU run."""
    on_gpu = one.spec.device != "cpu" and not one.needs.gpu
    return msgspec.structs.replace(one.needs, gpu="*") if on_gpu else one.needs


def _spread(one: SweepCell, classes: Mapping[str, Offers]) -> list[Needs]:
    """The cell's needs; of a cell for every class those of each that has what else it needs."""
    needs = needs_of(one)
    if needs.machine != EVERY:
        return [needs]
    rest = msgspec.structs.replace(needs, machine="")
    able = [name for name, offers in sorted(classes.items()) if not lacking(rest, offers)]
    return [msgspec.structs.replace(needs, machine=name) for name in able] or [rest]


def _task(one: SweepCell, needs: Needs, night: str) -> Task:
    return Task(
        id=task_id(one.cell.key, str(needs), night),
        cell=one.cell.name,
        key=one.cell.key,
        machine_class=str(needs),
        needs=needs,
        fields=one.fields,
    )


def read_fleet_plan(folder: Path) -> FleetPlan | None:
    """The plan of the night in ``folder``; None where there is none. Raises `ResultError`."""
    path = folder / PLAN_NAME
    if not path.exists():
        return None
    data = read_bytes(path, MAX_BYTES)
    try:
        found = maybe.decode(data, FleetPlan)
    except msgspec.MsgspecError as error:
        raise ResultError(
            f"{str(path)!r} cannot be read: {error}", "restore it, or give --new"
        ) from error
    if found.schema != SCHEMA:
        raise ResultError(
            f"{str(path)!r} has schema {found.schema!r:.60}, not {SCHEMA}", "give --new"
        )
    return found


def classes_before(results: Path, name: str) -> dict[str, Offers]:
    """The classes of machines that earlier nights of the sweep called ``name`` knew.

    So a machine that was there last night and is not tonight is missed, and not forgotten.
    """
    known: dict[str, Offers] = {}
    nights = sorted(results.glob(f"{name}-*/{PLAN_NAME}"), key=lambda path: path.stat().st_mtime)
    for path in nights[-_EARLIER:]:
        with contextlib.suppress(ResultError, OSError):
            plan = read_fleet_plan(path.parent)
            known |= plan.classes if plan and plan.name == name else {}
    return known
