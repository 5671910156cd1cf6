"""How the tasks of a night stand: which have a row, which wait, where attempts were lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from harness.fleet.ledger import Lease, Ledger, Outcome, Row, now_text
from harness.fleet.plan import FleetPlan, Task
from harness.sweep.needs import Needs


class Kind(NamedTuple):
    """What decides which nodes may measure a task."""

    needs: Needs
    device: str


def kind_of(task: Task) -> Kind:
    return Kind(task.needs, str(task.fields.get("device") or ""))


class Attempt:
    """A task that Ray has been given. ``lease``: from when a node has begun it."""

    def __init__(self, task: Task, stream: Any) -> None:
        self.task, self.stream = task, stream
        self.node = ""
        self.lease: Lease | None = None
        self.staged: Path | None = None
        self.text = ""
        self.began_s = self.heard_s = self.renewed_s = time.monotonic()
        self.given_up = False  # its lease has run out; a late result still comes


class Tasks:
    """Those of ``plan``, as ``ledger`` has them. ``tell`` gets a line for each that ends."""

    def __init__(self, plan: FleetPlan, ledger: Ledger, tell: Callable[[str], None]) -> None:
        self._plan, self._ledger, self._tell = plan, ledger, tell
        self.pending: dict[str, Task] = {}
        self.kinds: dict[Kind, dict[str, Task]] = {}  # the same, by who may measure them
        self._counts: Counter[str] = Counter()
        self._rows: dict[str, Row] = {}
        self._lost: dict[str, list[str]] = {}  # task -> the nodes that it was lost on

    def resume(self) -> None:
        """From what is on disk. Raises `ResultError`."""
        for task in self._plan.tasks:
            if row := self._ledger.row(task.id):
                self._keep(row)
            else:
                self.pending[task.id] = task
                self.kinds.setdefault(kind_of(task), {})[task.id] = task
        for ended in self._ledger.ended():
            if ended.how == "lost":
                self._lost.setdefault(ended.task, []).append(ended.node)
            elif ended.how == "reopened":
                self._lost.pop(ended.task, None)

    def lost_on(self, task: Task) -> list[str]:
        """The nodes, one for each time."""
        return self._lost.get(task.id, [])

    def seen_to(self, task: Task) -> bool:
        """Whether another driver has ended it, or measures it just now."""
        if row := self._ledger.row(task.id):
            self._has_ended(row)
            return True
        return self._ledger.held(task.id)

    def lose(self, attempt: Attempt, cause: str) -> None:
        """Count a begun attempt as lost; one too many ends its task. Raises `ResultError`."""
        if attempt.lease is None:  # nobody had begun it
            return
        task = attempt.task
        self._ledger.release(attempt.lease, "lost", attempt.node, cause)
        self._ledger.forget_live(attempt.lease)
        lost = self._lost.setdefault(task.id, [])
        lost.append(attempt.node)
        self._tell(f"{task.cell} ({task.machine_class}): {cause}")
        if len(lost) > self._plan.rules.retries:
            self.end(task, "lost", f"{cause}; tried {len(lost)} times, on {', '.join(lost)}")

    def end(self, task: Task, outcome: Outcome, cause: str, attempt: Attempt | None = None) -> None:
        """Give it a row without a result. Raises `ResultError`."""
        row = Row(
            task=task.id, cell=task.cell, machine_class=task.machine_class, outcome=outcome,
            cause=cause, node=attempt.node if attempt else "", ended_at=now_text(),
        )  # fmt: skip
        self.publish(row, attempt)

    def publish(self, row: Row, attempt: Attempt | None) -> None:
        """With what the attempt brought back, unless it has a row already. Raises `ResultError`."""
        if self._ledger.publish(row, attempt.staged if attempt else None):
            self._has_ended(row)
        else:
            self._tell(f"{row.cell} ({row.machine_class}) had ended before: this copy is set aside")
            if first := self._ledger.row(row.task):
                self._has_ended(first)
        if attempt and attempt.lease:
            self._ledger.forget_live(attempt.lease)

    def _has_ended(self, row: Row) -> None:
        task = self.pending.pop(row.task, None)
        if task is None:
            return
        alike = self.kinds[kind_of(task)]
        del alike[task.id]
        if not alike:
            del self.kinds[kind_of(task)]
        self._keep(row)
        why = f": {row.cause}" if row.cause else ""
        where = f" on {row.node}" if row.node else ""
        done = f"[{len(self._rows)}/{len(self._plan.tasks)}]"
        self._tell(
            f"{done} {row.cell} ({row.machine_class}) {row.status or row.outcome}{where}{why}"
        )

    def _keep(self, row: Row) -> None:
        self._rows[row.task] = row
        self._counts[row.outcome] += 1

    def outcomes(self) -> dict[str, int]:
        """How many have ended how."""
        return dict(self._counts)
