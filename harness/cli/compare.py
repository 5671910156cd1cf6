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
    from harness.compare.asked import judged
    from harness.errors import UsageError
    from harness.records.refs import resolve

    if b is None and across is None:
        raise UsageError("what shall A be compared with?", "name B, or give --across FIELD")
    first = resolve(a, results)
    second = first if b is None else resolve(b, results)
    found = judged(first, second, results, across=across, other_hardware=other_hardware)
    for problem in found.problems:
        tell(problem)
    if as_json:
        print_json(found)
    else:
        _show(found, first, second, across)
    return _code(found)


def _show(found: Comparison, first: Selection, second: Selection, across: str | None) -> None:
    from harness.compare.asked import alone
    from harness.views.comparison import render_pair, render_sets
    from harness.views.terminal import print_out

    if not alone(first, second, across):
        print_out(render_sets(found))
    elif any(cell.rows for cell in found.cells):
        print_out(render_pair(found.cells[0], first.results[0], second.results[0]))


def _code(found: Comparison) -> int:
    """4 where there is not one ratio; the reasons are part of what was printed."""
    if any(cell.rows for cell in found.cells):
        return 0
    why = next((cell.reason for cell in found.cells if cell.reason), "no cell has any figure")
    alone = all(cell.a is None or cell.b is None for cell in found.cells)
    hint = "; cells that differ in one field compare with --across FIELD" if alone else ""
    tell(f"nothing could be compared: {why}{hint}")
    return 4
