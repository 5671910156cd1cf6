"""``harness show``: one result again."""

from __future__ import annotations

import click

from harness.cli.output import json_option, print_json, results_option
from harness.records.store import read_result, result_path


@click.command("show")
@click.argument("run")
@results_option
@json_option
def command(run: str, results: str, as_json: bool) -> int:
    """Show RUN: a run folder, a result file, a run id or its beginning, or `latest`."""
    result = read_result(run, results)
    if as_json:
        print_json(result)
    else:
        from harness.sinks.terminal import print_out, render_result

        print_out(render_result(result, result_path(run, results).parent))
    return 0
