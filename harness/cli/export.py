"""``harness export``: results in the format of another tool."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import results_option, say_written
from harness.cli.selected import select_all
from harness.cli.tell import tell
from harness.errors import UsageError
from harness.exports.formats import FORMATS, exporter


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
    whatever else names runs; also folders of imports and of CompressionWriter's logs. What a format
    cannot hold is left out, and listed on stderr.

    For pytest-benchmark, a folder (or a name that ends in /) is its storage: the file gets the next
    number there, and a bare --benchmark-compare finds it. In compression-engine files,
    energy_consumption_mw is an average power in milliwatts; joules per inference stand beside it.
    """
    write = exporter(name)
    storage = name == "pytest-benchmark" and (output.endswith("/") or Path(output).is_dir())
    if not output or (Path(output).is_dir() and not storage):
        raise UsageError(f"-o is {output!r}", "give a file, or - for the terminal")
    selected, logged = select_all(runs, results)
    chosen = sorted(selected.runs, key=lambda one: (one[0].started_at, one[0].id))
    made = write([result for result, _ in chosen], [path for _, path in chosen], logged)
    if output == "-":
        click.echo(made.data, nl=False)
    else:
        _save(made.data, Path(output), chosen[-1][0].id if storage else "")
    for note in made.notes:
        tell(note)
    return 0


def _save(data: bytes, path: Path, name: str) -> None:
    """Into the file ``path``; with a ``name`` into the storage there, whose file is told."""
    if name:
        from harness.exports.pytest_benchmark.storage import store

        click.echo(store(path, name, data))
    else:
        from harness.host.files import write_atomically

        write_atomically(path, data)
        say_written(path, data)
