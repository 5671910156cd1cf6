"""``harness export``: results in the format of another tool."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import results_option
from harness.cli.selected import select
from harness.sinks.exports import FORMATS, exporter


@click.command("export")
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--format", "name", required=True, metavar="FORMAT", help=f"One of {', '.join(FORMATS)}."
)
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="Where it goes; - is the terminal."
)
@results_option
def command(runs: tuple[str, ...], name: str, output: str, results: str) -> int:
    """Write RUNS in the format of another tool.

    RUNS are run folders, result files, run ids or their beginnings, `latest`, folders of runs and
    whatever else names runs. In compression-engine files, energy_consumption_mw is an average power
    in milliwatts; joules per inference stand beside it.
    """
    from harness.records.store import write_atomically

    write = exporter(name)
    data = write([result for result, _ in select(runs, results).runs])
    if output == "-":
        click.echo(data, nl=False)
    else:
        write_atomically(Path(output), data)
    return 0
