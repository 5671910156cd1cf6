"""``harness sweep``: a matrix of cells, measured launch by launch, continued where it stopped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from harness.cli.output import json_option, print_json, results_folder
from harness.cli.tell import tell
from harness.text import visible

if TYPE_CHECKING:
    from harness.sweep.folder import Attempt
    from harness.sweep.plan import Plan
    from harness.sweep.runner import Step


@click.command("sweep")
@click.argument("file", type=click.Path(path_type=Path))
@results_folder("Where the sweep's folder goes.", "--out", name="out")
@click.option("--label", metavar="TEXT", help="Name of this night. Default: the date and commit.")
@click.option("--new", is_flag=True, help="Begin another sweep, even where one can be continued.")
@click.option("--only", metavar="GLOB", multiple=True, help="Only cells of such names.")
@click.option("--shard", metavar="I/N", help="Every N-th cell from the I-th on.")
@click.option("--wait", default="6h", show_default=True, help="For other sweeps: 30s, 5m or 6h.")
@click.option("--dry-run", is_flag=True, help="List the cells and run nothing.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@json_option
def command(
    file: Path,
    out: str,
    label: str | None,
    new: bool,
    only: tuple[str, ...],
    shard: str | None,
    wait: str,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Measure every cell that FILE.toml asks for, each in several launches, interleaved.

    Results go to a folder of the sweep's own, results/NAME-LABEL. Run the same command again to
    continue: finished launches stay, failed ones are tried again. Sweeps that need the same GPU or
    processors wait for each other. Exit code 3: a cell failed; the others were measured.

    With paired = "precision" in FILE.toml (or another field of its matrix) cells that differ in
    that alone take turns, as in harness duel.

    \b
      harness sweep nightly.toml
      harness sweep nightly.toml --shard 1/4 --label 2026-11-21
      harness compare nightly-2026-11-20 nightly-2026-11-21
    """
    from harness.sweep.plan import parse_shard, read_plan, refuse_needs

    whole = read_plan(file)
    refuse_needs(whole)
    plan = whole.only(only)
    if shard is not None:
        plan = plan.shard(*parse_shard(shard))
    wait_s = parse_seconds("--wait", wait)
    label = parse_label(label)
    if dry_run:
        return _list(plan, as_json)
    return _run(whole, plan, Path(out), label, new, wait_s, quiet=quiet, as_json=as_json)


def _run(
    whole: Plan,
    plan: Plan,
    out: Path,
    label: str | None,
    new: bool,
    wait_s: float,
    *,
    quiet: bool,
    as_json: bool,
) -> int:
    from harness.sweep import locks, runner
    from harness.sweep.folder import DONE, open_sweep, summary
    from harness.views.text import count

    folder = open_sweep(whole, out, label, new)
    say = _nothing if quiet or as_json else _say
    left = len(runner.remaining(plan, folder.done()))
    total = len(runner.remaining(plan, set()))
    cells = count(len(plan.cells), "cell")
    what = "launches and duels" if plan.paired else "launches"
    say(f"sweep {folder.manifest.id}: {left} of {total} {what} of {cells} to run")
    attempts: list[Attempt] = []
    needed = locks.needs([one.spec for one in plan.cells]) if left else {}
    told = _Told(say, live=say is _say)
    with locks.held(needed, wait_s, lambda name: say(f"waiting for {name}")) as descriptors, told:
        attempts += runner.run(plan, folder, descriptors, told.step, told.glimpsed)
    if as_json:
        print_json(summary(attempts, folder))
    failed = [attempt for attempt in attempts if attempt.status not in DONE]
    for attempt in failed:
        tell(f"{attempt.cell}: {attempt.status}: {attempt.reason}")
    if not quiet and not as_json:
        click.echo(visible(folder.path))
    return 3 if failed else 0


def _say(text: str, indent: str = "") -> None:
    tell(text, prefix=indent)


def _nothing(text: str, indent: str = "") -> None:
    pass


class _Told:
    """One line before a launch and one after it; on a terminal, what goes on in between."""

    def __init__(self, say: Callable[..., None], *, live: bool) -> None:
        from harness.views.terminal import LiveLine

        self._say = say
        self._line = LiveLine()
        self._began_s = 0.0
        self.glimpsed = self._glimpsed if live and self._line.redraws else None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self._line.stop()

    def step(self, step: Step) -> None:
        from harness.views.terminal import left_text

        attempt = step.attempt
        if attempt is None:
            self._began_s = time.monotonic()
            left = "" if step.remaining_s is None else f"  {left_text(step.remaining_s)}"
            place = f"[{step.number}/{step.total}]"
            self._say(f"{place} {step.cell.name}  {_what(step)}{left}")
            return
        self._line.stop()
        median = "" if step.median_ms is None else f"  median {step.median_ms:.4g} ms"
        reason = f": {attempt.reason}" if attempt.reason else ""
        told = f"  {step.told}" if step.told else ""
        self._say(f"{attempt.status}{median}{told}  {attempt.seconds:.1f} s{reason}", "    ")

    def _glimpsed(self, step: Step, line: bytes) -> None:
        """Shown with the time left of the whole sweep, or of this launch while that is unknown."""
        from harness.views.pipe import Glimpse
        from harness.views.terminal import left_text

        seen = msgspec.json.decode(line, type=Glimpse)
        left, of_what = seen.remaining_s, " of this launch"
        if step.remaining_s is not None:
            left = max(step.remaining_s - (time.monotonic() - self._began_s), 0.0)
            of_what = ""
        left_s = "" if left is None else f", {left_text(left)}{of_what}"
        self._line.show(f"[{step.number}/{step.total}]{left_s}: {seen.text}")


def _what(step: Step) -> str:
    """``launch 1 of 5``, ``against int8, in turns, 5 launches``."""
    if not step.variants:
        return f"launch {step.launch} of {step.launches}"
    from harness.views.text import count

    launches = count(step.launches, "launch", "launches")
    return f"against {', '.join(step.variants[1:])}, in turns, {launches}"


def parse_seconds(flag: str, text: str) -> float:
    """``30s``, ``5m``, ``6h`` or plain seconds. Raises `UsageError`."""
    from harness.errors import UsageError

    found = re.fullmatch(r"(\d{1,7})([smh]?)", text)
    if not found:
        raise UsageError(f"{flag} is {text!r}", "give a time such as 30s, 5m or 6h")
    return int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def parse_label(text: str | None) -> str | None:
    """A label that a folder can bear; None for none. Raises `UsageError`."""
    from harness.errors import UsageError
    from harness.spec import parse_text

    if text is None:
        return None
    parse_text("--label", text)
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,60}", text) or text.startswith("."):
        raise UsageError(f"--label is {text!r}", "give up to 60 letters, digits, or _ . + -")
    return text


def _list(plan: Plan, as_json: bool) -> int:
    """The cells in the order of the first round."""
    if as_json:
        print_json({"name": plan.name, "launches": plan.launches, "cells": plan.cells})
        return 0
    from harness.views.text import count

    for unit in plan.units:
        for one in unit:
            turns = f"  in turns with {unit[0].variant}" if one is not unit[0] else ""
            click.echo(visible(f"{one.cell.key}  {one.cell.name}{turns}"))
    launches = count(plan.launches, "launch", "launches")
    click.echo(f"{count(len(plan.cells), 'cell')}, {launches} of each")
    return 0
