"""``harness compare``: two runs, or two sets of runs, cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell

if TYPE_CHECKING:
    from harness.compare.comparison import Comparison
    from harness.records.refs import Selection


@click.command("compare")
@click.argument("a")
@click.argument("b", required=False)
@click.option("--across", metavar="FIELD", help="Match cells that differ in this field alone.")
@click.option(
    "--allow-different-hardware",
    "other_hardware",
    is_flag=True,
    help="Show ratios between machines, without verdicts.",
)
@results_option
@json_option
def command(
    a: str, b: str | None, across: str | None, other_hardware: bool, results: str, as_json: bool
) -> int:
    """Compare B with the reference A: is B better or worse, and is that certain?

    A and B are runs (folders, files, ids or their beginnings, latest~N), or sets of runs: folders,
    sweeps, latest@BRANCH, tag:KEY=VALUE, baselines. Two runs may be of different models, backends
    or precisions; sets are matched cell by cell. Launches are compared, not iterations: measure
    five or more of each. The exit code is 0 whatever the verdict, and 4 where nothing compares.

    \b
      harness compare latest~1 latest
      harness compare nightly-2026-11-20 nightly-2026-11-21
      harness compare nightly-2026-11-21 --across precision=fp32,int8
    """
    from harness.errors import UsageError
    from harness.records.refs import resolve

    if b is None and across is None:
        raise UsageError("what shall A be compared with?", "name B, or give --across FIELD")
    first = resolve(a, results)
    second = first if b is None else resolve(b, results)
    for problem in dict.fromkeys((*first.problems, *second.problems)):
        tell(problem)
    found = _judged(first, second, across, other_hardware, results)
    if as_json:
        print_json(found)
    elif any(cell.rows for cell in found.cells) or not _alone(first, second, across):
        _show(found, first, second, across)
    return _code(found)


def _alone(first: Selection, second: Selection, across: str | None) -> bool:
    """Whether two runs are to be put side by side, whatever they measured."""
    return across is None and len(first.results) == len(second.results) == 1


def _judged(
    first: Selection, second: Selection, across: str | None, other_hardware: bool, results: str
) -> Comparison:
    import msgspec

    from harness.compare.across import parse_across
    from harness.compare.comparison import compare_runs, compare_sets
    from harness.compare.duel import of_runs
    from harness.compare.series import NightSpreads
    from harness.compare.verdicts import Settings
    from harness.errors import ResultError
    from harness.views.text import plain

    settings = Settings(night_sd=NightSpreads(results))
    problems = tuple(map(plain, dict.fromkeys((*first.problems, *second.problems))))
    if _alone(first, second, across):
        (a,), (b,) = first.results, second.results
        found = compare_runs(a, b, settings, other_hardware=other_hardware)
        try:
            found = of_runs(found, a, b, first.paths[0].parent.parent)
        except ResultError as error:
            tell(error)
        return msgspec.structs.replace(found, problems=problems)
    return compare_sets(
        first.results,
        second.results,
        settings,
        across=parse_across(across) if across else None,
        other_hardware=other_hardware,
        names=(plain(first.name), plain(second.name)),
        problems=problems,
    )


def _show(found: Comparison, first: Selection, second: Selection, across: str | None) -> None:
    from harness.views.comparison import render_pair, render_sets
    from harness.views.terminal import print_out

    if _alone(first, second, across):
        print_out(render_pair(found.cells[0], first.results[0], second.results[0]))
    else:
        print_out(render_sets(found))


def _code(found: Comparison) -> int:
    """4 where there is not one ratio; the reasons are part of what was printed."""
    if any(cell.rows for cell in found.cells):
        return 0
    why = next((cell.reason for cell in found.cells if cell.reason), "no cell has any figure")
    alone = all(cell.a is None or cell.b is None for cell in found.cells)
    hint = "; cells that differ in one field compare with --across FIELD" if alone else ""
    tell(f"nothing could be compared: {why}{hint}")
    return 4
