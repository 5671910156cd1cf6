"""``harness compare``: two runs on one machine."""

from __future__ import annotations

import click

from harness.cli.output import json_option, print_json, results_option
from harness.records.store import read_result


@click.command("compare")
@click.argument("a")
@click.argument("b")
@results_option
@json_option
def command(a: str, b: str, results: str, as_json: bool) -> int:
    """Compare run B with the reference run A: is B better or worse, and is that certain?

    A and B are run folders, result files, run ids or their beginnings, or `latest`. Launches are
    compared, not iterations: give `harness run` --launches 5 or more. Exit code 4: the runs were
    made on different hardware or under different conditions, so nothing can be compared.
    """
    from harness.analysis.pair import pair

    first, second = read_result(a, results), read_result(b, results)
    found = pair(first, second)
    if as_json:
        print_json(found)
    else:
        from harness.sinks.comparison import render_pair
        from harness.sinks.terminal import print_out

        print_out(render_pair(found, first, second))
    return 0
