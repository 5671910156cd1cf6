"""From what a node sent back to the row of its task."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError
from harness.fleet.ledger import Outcome, Row, now_text
from harness.fleet.node import Finished
from harness.fleet.plan import Task
from harness.records.cell import cell_of
from harness.records.result import Result
from harness.records.store import RESULT_NAME, read_result
from harness.sweep.folder import DONE


def conclude(task: Task, staged: Path | None, said: Finished, node: str, attempt: int) -> Row:
    """A result where there is one that is what was asked for; else a failure, with its cause."""
    result, problem = _read(staged)
    if result is not None and cell_of(result).key != task.key:
        problem = f"{node} measured the cell {cell_of(result).name}, which nobody asked it for"
    good = said.code == 0 and result is not None and result.status in DONE and not problem
    outcome: Outcome = "result" if good else "failed"
    return Row(
        task=task.id,
        cell=task.cell,
        machine_class=task.machine_class,
        outcome=outcome,
        cause="" if good else said.cause or problem or "it left no finished result",
        status=result.status if result else "",
        run=result.id if result else "",
        node=node,
        attempt=attempt,
        seconds=round(said.seconds, 3),
        ended_at=now_text(),
    )


def _read(staged: Path | None) -> tuple[Result | None, str]:
    found = sorted(staged.glob(f"*/{RESULT_NAME}")) if staged else []
    if not found:
        return None, ""
    try:
        return read_result(found[0]), ""
    except HarnessError as error:
        return None, str(error)
