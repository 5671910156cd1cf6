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
    whatever else names runs. What a format cannot hold is left out, and listed on stderr.

    For pytest-benchmark, a folder (or a name that ends in /) is its storage: the file gets the next
    number there, and a bare --benchmark-compare finds it. In compression-engine files,
    energy_consumption_mw is an average power in milliwatts; joules per inference stand beside it.
    """
    from harness.records.store import write_atomically

    write = exporter(name)
    chosen = sorted(select(runs, results).runs, key=lambda one: (one[0].started_at, one[0].id))
    made = write([result for result, _ in chosen], [path for _, path in chosen])
    if output == "-":
        click.echo(made.data, nl=False)
    elif name == "pytest-benchmark" and (output.endswith("/") or Path(output).is_dir()):
        from harness.sinks.pytest_storage import store

        click.echo(store(Path(output), chosen[-1][0].id, made.data))
    else:
        write_atomically(Path(output), made.data)
    for note in made.notes:
        click.echo(f"harness: {' '.join(note.split())}", err=True)
    return 0
