"""The cells of a sweep that take turns: one ``harness duel`` of them all, in its own process.

    results/nightly-2026-11-21/
        <duel>/comparison.json, <run>/...        each run tagged with the sweep, as any other
        attempts.jsonl                           a line for each of its cells, with the duel's name

Where one variant fails, the others take turns again without it, as long as there are two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from harness.compare.comparison import Comparison
from harness.errors import ResultError
from harness.maybe import convert
from harness.records.store import read_result
from harness.sweep.folder import DONE, LOGS, Attempt, SweepFolder
from harness.sweep.process import HARNESS, heard, process, reason
from harness.views.duel import sentence

if TYPE_CHECKING:
    from harness.sweep.plan import Plan, SweepCell


class Duelled(NamedTuple):
    """What became of each cell, and of all in words."""

    attempts: tuple[Attempt, ...]
    told: str


def run(
    cells: Sequence[SweepCell],
    plan: Plan,
    folder: SweepFolder,
    descriptors: Sequence[int],
    listen: Callable[[bytes], None] | None,
) -> Duelled:
    """Measure and record ``cells``, the reference first. Raises `ResultError`."""
    left, lost = list(cells), []
    while True:
        found, told = _attempt(left, plan, folder, descriptors, listen)
        guilty = _guilty(left, found)
        if guilty is None or len(left) <= 2:
            break
        lost.append(found[guilty])
        folder.record(found[guilty])
        left.pop(guilty)
    for one in found:
        folder.record(one)
    return Duelled((*found, *lost), told)


def _guilty(cells: Sequence[SweepCell], found: Sequence[Attempt]) -> int | None:
    """Which variant a duel failed by: the reason begins with its name."""
    if all(one.status in DONE for one in found):
        return None
    for index, (one, attempt) in enumerate(zip(cells, found, strict=True)):
        if attempt.reason.startswith(f"{one.variant}: "):
            return index
    return None


def _attempt(
    cells: Sequence[SweepCell],
    plan: Plan,
    folder: SweepFolder,
    descriptors: Sequence[int],
    listen: Callable[[bytes], None] | None,
) -> tuple[list[Attempt], str]:
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")

    def attempt(one: SweepCell, status: str, why: str, run: str = "", duel: str = "") -> Attempt:
        return Attempt(
            cell=one.cell.name, launch=1, status=status, started_at=started_at, run=run, duel=duel,
            seconds=round(time.monotonic() - began, 3), reason=why,
        )  # fmt: skip

    log = folder.path / LOGS / f"{cells[0].cell.key}-duel.log"
    limit_s = plan.time_limit_s * plan.launches * len(cells)
    try:
        with heard(listen) as (options, ends):
            command = [*_command(cells, plan, folder), *options]
            code, out = process(command, log, limit_s, [*descriptors, *ends])
    except KeyboardInterrupt:
        for one in cells:
            folder.record(attempt(one, "interrupted", "the sweep was interrupted"))
        raise
    why = "" if code == 0 else reason(code, log, limit_s)
    record = _record(out)
    if record is None or record.paired is None:
        status = "timeout" if code is None else "refused" if code in (2, 3) else "crashed"
        return [attempt(one, status, why) for one in cells], ""
    found = []
    for one, variant in zip(cells, record.paired.variants, strict=True):
        place = next(iter(folder.path.glob(f"*/{variant.run}")), Path(variant.run))
        found.append(attempt(one, _status(place), why, variant.run, place.parent.name))
    return found, "; ".join(sentence(verdict) for verdict in record.paired.verdicts)


def _command(cells: Sequence[SweepCell], plan: Plan, folder: SweepFolder) -> list[str]:
    own = folder.manifest
    tags = [f"sweep={own.id}", f"night={own.label}", "launch=1"]
    named = [
        (one.variant, {**one.fields, "tags": [*one.fields.get("tags", ()), *tags]}) for one in cells
    ]
    variants = msgspec.json.encode(named).decode()
    return [*HARNESS, "duel", "--json", f"--launches={plan.launches}", f"--results={folder.path}",
            f"--variants={variants}"]  # fmt: skip


def _record(out: bytes) -> Comparison | None:
    try:
        return convert(msgspec.json.decode(out), Comparison)
    except msgspec.MsgspecError:
        return None


def _status(run: Path) -> str:
    try:
        return read_result(run).status
    except ResultError:
        return "crashed"
