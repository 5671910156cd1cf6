"""``harness baseline``: runs promoted under a name, to judge later ones by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell

if TYPE_CHECKING:
    from harness.records.baselines import Baseline


@click.group("baseline")
def command() -> None:
    """Promote runs to a baseline, and look at those there are; --json on all of it."""


@command.command("promote")
@click.argument("ref")
@click.option("--name", required=True, help="What to call it.")
@click.option("--reason", default="", help="Kept with it: why this is the new standard.")
@click.option("--by", default="", help="Kept with it: who decides.  [default: you]")
@click.option(
    "--acknowledge",
    default="",
    metavar="REASON",
    help="Promote though it is worse than the baseline it replaces.",
)
@results_option
@json_option
def promote(
    ref: str, name: str, reason: str, by: str, acknowledge: str, results: str, as_json: bool
) -> int:
    """Make REF the baseline NAME: a run, a folder of runs, a sweep, latest@BRANCH, @COMMIT, ...

    Its results are copied, so it outlives them. Exit code 1: REF is worse than the baseline of that
    name, and nobody acknowledged it.
    """
    from harness.compare import promote
    from harness.records import baselines, refs

    baselines.checked_name(name)
    selection = refs.resolve(ref, results)
    found = promote.promote(selection, name, results, reason=reason, by=by, acknowledge=acknowledge)
    for problem in (*selection.problems, *_weaker(found)):
        tell(problem)
    if as_json:
        print_json(found)
    else:
        _print_one(found)
    return 0


def _weaker(found: Baseline) -> Iterator[str]:
    """What a gate can no longer judge by this baseline, and could by the one before."""
    now = {f"{one.cell.name} on {one.fingerprint}" for one in found.cells}
    before = found.history[0].medians if found.history else {}
    for cell in sorted(set(before) - now):
        yield f"baseline {found.name!r} no longer holds {cell}, which the one before did"


@command.command("list")
@results_option
@json_option
def list_(results: str, as_json: bool) -> int:
    """List the baselines of the results folder."""
    from harness.errors import ResultError
    from harness.records import baselines

    found: list[Baseline] = []
    for name in baselines.names(results):
        try:
            found.append(baselines.read(name, results))
        except ResultError as error:
            tell(error)
    if as_json:
        print_json(found)
        return 0
    from harness.views.terminal import print_out, render_table

    header = ("Baseline", "promoted", "runs", "cells", "by", "reason")
    body = [
        (b.name, b.promoted_at, str(len(b.runs)), str(len(b.cells)), b.by, b.reason) for b in found
    ]
    print_out(render_table(header, body))
    return 0


@command.command("show")
@click.argument("name")
@results_option
@json_option
def show(name: str, results: str, as_json: bool) -> int:
    """Show the baseline NAME: who, when, why, its figures, and what it replaced."""
    from harness.records import baselines

    found = baselines.read(name, results)
    if as_json:
        print_json(found)
    else:
        _print_one(found)
    return 0


def _print_one(found: Baseline) -> None:
    from harness.views.terminal import print_out, render_table
    from harness.views.text import count, plain

    cells = count(len(found.cells), "cell")
    lines = [f"{found.name}  {count(len(found.runs), 'run')}, {cells}, from {found.source}"]
    lines.append(f"promoted {found.promoted_at} by {found.by}")
    lines += [found.reason] if found.reason else []
    if found.acknowledged:
        lines.append(f"acknowledged: {found.acknowledged} ({'; '.join(found.regressions)})")
    lines += [
        f"replaced: {count(len(old.runs), 'run')} promoted {old.promoted_at} by {old.by}"
        for old in found.history
    ]
    for line in lines:
        click.echo(plain(line))
    click.echo()
    print_out(render_table(("Cell", "metric", "launches", "median"), _figures(found)))


def _figures(found: Baseline) -> list[tuple[str, str, str, str]]:
    from statistics import median

    from harness.records.metric import METRICS
    from harness.views.comparison import metric_value
    from harness.views.text import number

    def shown(name: str, value: float) -> str:
        return metric_value(value, METRICS[name].unit) if name in METRICS else number(value)

    return [
        ("" if index else one.cell.name, name, str(len(values)), shown(name, median(values)))
        for one in found.cells
        for index, (name, values) in enumerate(one.launches.items())
        if values
    ]
