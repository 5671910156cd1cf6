"""``harness report``: runs as one file to hand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import results_option, say_written
from harness.cli.selected import select_all

if TYPE_CHECKING:
    from harness.report.gather import Report

FORMATS = ("html", "markdown")


@click.command("report")
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="Where it goes; - is the terminal."
)
@click.option(
    "--format", "form", metavar="FORMAT", help="html or markdown. Default: by FILE's ending."
)
@click.option("--title", default="", metavar="TEXT", help="The heading.")
@results_option
def command(runs: tuple[str, ...], output: str, form: str | None, title: str, results: str) -> int:
    """Write RUNS as one HTML file that needs nothing else, or as Markdown for a pull request.

    With charts, figures and intervals, what differs for certain, AURORA scores, machine, method,
    validity checks and caveats. RUNS are run folders, result files, run ids or their beginnings,
    `latest`, folders of runs and whatever else names runs; also folders of imports and of
    CompressionWriter's logs, and files of the compression engine.
    """
    from harness.compare.series import NightSpreads
    from harness.host.files import write_atomically
    from harness.report import gather as report

    render = _renderer(form or ("markdown" if output.endswith((".md", "-")) else "html"))
    selected, logged = select_all(runs, results)
    spreads = NightSpreads(results)
    problems = selected.problems
    data = render(report.gather(selected.runs, title, problems, spreads, logged.entries))
    if output == "-":
        click.echo(data, nl=False)
    else:
        write_atomically(Path(output), data)
        say_written(output, data)
    return 0


def _renderer(form: str) -> Callable[[Report], bytes]:
    from harness.spec import parse_choice

    name = parse_choice("--format", form, FORMATS)
    if name == "html":
        from harness.report.html import render
    else:
        from harness.report.markdown import render
    return render
