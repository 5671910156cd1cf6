"""Run what is left of a sweep, one launch at a time, each in a ``harness run`` of its own.

    round 1   a b c d        launches of a cell are spread over the night, and every other round
    round 2   d c b a        goes backwards, so that a slow drift of the machine falls on all cells
    round 3   a b c d        alike

Cells that take turns (``paired`` in the file) are one duel, in their place of the first round, with
all their launches. One that fails there is recorded, and the others take turns without it.

A cell that fails is recorded, left out of later rounds, and the sweep goes on. A launch that
outlasts the plan's limit is interrupted, so that its run can still leave a marked result, and then
killed with all that it started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import msgspec

from harness import spec as specs
from harness.maybe import Unavailable
from harness.records.cell import Cell
from harness.records.lookup import lookup
from harness.records.result import Result
from harness.sweep import duels
from harness.sweep.folder import DONE, LOGS, Attempt, SweepFolder
from harness.sweep.plan import Plan, SweepCell
from harness.sweep.process import HARNESS, heard, process, reason, result_in


class Step(msgspec.Struct, frozen=True):
    """What is told before (``attempt`` None) and after each launch."""

    number: int  # from 1
    total: int
    cell: Cell  # of a duel the reference
    launch: int  # from 1; of a duel 1
    launches: int
    remaining_s: float | None
    attempt: Attempt | None = None
    median_ms: float | None = None
    variants: tuple[str, ...] = ()  # of a duel
    told: str = ""  # what became of it, in words


class Left(NamedTuple):
    """What is still to be run: a launch of one cell, or a duel of several with all its launches."""

    cells: tuple[SweepCell, ...]
    launch: int  # from 1


def remaining(plan: Plan, done: set[tuple[str, int]]) -> list[Left]:
    """All that is still to be run, in the order in which it runs."""
    left = []
    for launch in range(1, plan.launches + 1):
        units = plan.units if launch % 2 else plan.units[::-1]
        left += [
            Left(unit, launch)
            for unit in units
            if (launch == 1 or len(unit) == 1)
            and any((one.cell.key, launch) not in done for one in unit)
        ]
    return left


def run(
    plan: Plan,
    folder: SweepFolder,
    descriptors: Sequence[int],
    tell: Callable[[Step], None],
    glimpsed: Callable[[Step, bytes], None] | None = None,
) -> Iterator[Attempt]:
    """Run and record all that is left. ``descriptors``: of the locks, for the runs to inherit.

    ``glimpsed`` is told, in a thread of its own, what goes on inside each launch: a line of
    `harness.views.pipe`.

    Raises `ResultError` where the folder cannot be written.
    """
    steps = remaining(plan, folder.done())
    failed: set[str] = set()
    seconds: dict[str, float] = {}
    for index, (cells, launch) in enumerate(steps):
        one = cells[0]
        if one.cell.key in failed:
            continue
        later = [left.cells[0].cell.key for left in steps[index:]]
        left_s = _estimate([key for key in later if key not in failed], seconds)
        step = Step(index + 1, len(steps), one.cell, launch, plan.launches, left_s)
        if len(cells) > 1:
            step = msgspec.structs.replace(step, variants=tuple(each.variant for each in cells))
        tell(step)
        listen = None if glimpsed is None else partial(glimpsed, step)
        if len(cells) > 1:
            duelled = duels.run(cells, plan, folder, descriptors, listen)
            seconds[one.cell.key] = max(each.seconds for each in duelled.attempts)
            told = msgspec.structs.replace(step, attempt=duelled.attempts[0], told=duelled.told)
            tell(told)
            yield from duelled.attempts
            continue
        attempt, median_ms = _launch(one, launch, plan.time_limit_s, folder, descriptors, listen)
        folder.record(attempt)
        seconds[one.cell.key] = attempt.seconds
        if attempt.status not in DONE:
            failed.add(one.cell.key)
        tell(msgspec.structs.replace(step, attempt=attempt, median_ms=median_ms))
        yield attempt


def _estimate(keys: Sequence[str], seconds: dict[str, float]) -> float | None:
    """Seconds left: each cell as long as its last launch, new ones as the mean of the others."""
    if not seconds:
        return None
    mean = sum(seconds.values()) / len(seconds)
    return sum(seconds.get(key, mean) for key in keys)


def _launch(
    one: SweepCell,
    launch: int,
    limit_s: float,
    folder: SweepFolder,
    descriptors: Sequence[int],
    listen: Callable[[bytes], None] | None,
) -> tuple[Attempt, float | None]:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    began = time.monotonic()
    log = folder.path / LOGS / f"{one.cell.key}-{launch}.log"
    tags = [f"sweep={folder.manifest.id}", f"night={folder.manifest.label}", f"launch={launch}"]
    fields = {**one.fields, "tags": [*one.fields.get("tags", ()), *tags]}
    command = [*HARNESS, "run", "--json", "--launches=1", f"--results={folder.path}"]
    command += specs.arguments(fields)
    try:
        with heard(listen) as (options, ends):
            code, out = process([*command, *options], log, limit_s, [*descriptors, *ends])
    except KeyboardInterrupt:
        seconds = round(time.monotonic() - began, 3)
        folder.record(
            Attempt(cell=one.cell.name, launch=launch, status="interrupted",
                    started_at=started_at, seconds=seconds, reason="the sweep was interrupted")
        )  # fmt: skip
        raise
    result = result_in(out)
    attempt = Attempt(
        cell=one.cell.name,
        launch=launch,
        status=_status(code, result),
        started_at=started_at,
        seconds=round(time.monotonic() - began, 3),
        run=result.id if result else "",
        reason="" if code == 0 else reason(code, log, limit_s),
    )
    median_ms = lookup(result, "timing.latency_ms.median") if result else None
    return attempt, None if isinstance(median_ms, Unavailable) else median_ms


def _status(code: int | None, result: Result | None) -> str:
    if code is None:
        return "timeout"
    if result is not None:
        return result.status
    return "refused" if code in (2, 3) else "crashed"
