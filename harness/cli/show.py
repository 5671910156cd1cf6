"""``harness show``: one result again."""

from __future__ import annotations

import click

from harness.cli.output import json_option, print_json, results_option


@click.command("show")
@click.argument("run")
@results_option
@json_option
def command(run: str, results: str, as_json: bool) -> int:
    """Show RUN: a run folder, a result file, a run id or its beginning, or `latest`.

    Also whatever else stands for one run: latest~N, latest@BRANCH, @COMMIT, tag:KEY=VALUE, ...
    """
    from harness.records.refs import resolve_one

    result, path = resolve_one(run, results)
    if as_json:
        print_json(result)
    else:
        from harness.views.terminal import print_out, render_result

        print_out(render_result(result, path.parent))
        if result.spec.operators:
            from harness.views.operators import render_operators

            click.echo()
            print_out(render_operators(result), 120)
    return 0
