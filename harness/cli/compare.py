"""``harness compare``: two runs, or two sets of runs, cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.output import json_option, print_json, results_option

if TYPE_CHECKING:
    from harness.analysis.sets import Sets
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
        click.echo(f"harness: {problem}", err=True)
    alone = len(first.results) == len(second.results) == 1
    if alone and across is None and not other_hardware:
        return _pair(first, second, as_json)
    return _sets(first, second, across, other_hardware, results, as_json)


def _pair(first: Selection, second: Selection, as_json: bool) -> int:
    from harness.analysis.pair import pair

    (a,), (b,) = first.results, second.results
    found = pair(a, b)
    if as_json:
        print_json(found)
    else:
        from harness.sinks.comparison import render_pair
        from harness.sinks.terminal import print_out

        print_out(render_pair(found, a, b))
    return 0


def _sets(
    first: Selection,
    second: Selection,
    across: str | None,
    other_hardware: bool,
    results: str,
    as_json: bool,
) -> int:
    from harness.analysis.across import parse_across
    from harness.analysis.metrics import COMPARED
    from harness.analysis.sets import compare_sets
    from harness.analysis.verdicts import Settings
    from harness.cli.night_spread import night_spread
    from harness.sinks.rows import plain

    sds = {} if across else night_spread(first.results, second.results, COMPARED, results)
    found = compare_sets(
        first.results,
        second.results,
        Settings(night_sd=sds),
        across=parse_across(across) if across else None,
        other_hardware=other_hardware,
        names=(plain(first.name), plain(second.name)),
        problems=tuple(map(plain, dict.fromkeys((*first.problems, *second.problems)))),
    )
    if as_json:
        print_json(found)
    else:
        from harness.sinks.comparison import render_sets
        from harness.sinks.terminal import print_out

        print_out(render_sets(found))
    return _code(found)


def _code(found: Sets) -> int:
    """4 where there is not one ratio; the reasons are part of what was printed."""
    if any(cell.rows for cell in found.cells):
        return 0
    why = next((cell.reason for cell in found.cells if cell.reason), "no cell has any figure")
    alone = all(cell.a is None or cell.b is None for cell in found.cells)
    hint = "; cells that differ in one field compare with --across FIELD" if alone else ""
    click.echo(f"harness: nothing could be compared: {why}{hint}", err=True)
    return 4
