"""``harness history``: a cell night by night, and since when it is what it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell

if TYPE_CHECKING:
    from harness.compare.series import Series

_NIGHTS = 365


@click.command("history")
@click.argument("cell", default="*")
@click.option("--metric", default="latency_median", show_default=True, help="See docs/history.md.")
@click.option("--branch", metavar="NAME", help="Only runs of this branch.")
@click.option("--machine", metavar="FINGERPRINT", help="Only this machine (or its beginning).")
@click.option("--last", default=str(_NIGHTS), show_default=True, metavar="N", help="Nights.")
@click.option("--plot", metavar="FILE", help="Draw one series as .png or .svg.")
@click.option("--acknowledge", metavar="REASON", help="Accept the regression that it shows.")
@results_option
@json_option
def command(
    cell: str,
    metric: str,
    branch: str | None,
    machine: str | None,
    last: str,
    plot: str | None,
    acknowledge: str | None,
    results: str,
    as_json: bool,
) -> int:
    """What CELL was night by night: its levels, when they changed, and whether it drifts.

    CELL is the name of a cell, its key, or a glob such as 'digits/*'. Each machine is a series of
    its own. The launches of a sweep are one night. Exit code 4: there is no such series.

    \b
      harness history 'digits/*'
      harness history digits/onnxruntime/cpu/int8/b1/latency --plot int8.png
    """
    from harness.compare.series import find
    from harness.records.metric import metric as metric_named
    from harness.spec import parse_int

    kind = metric_named(metric)
    count = parse_int("--last", last, 1, 100_000)
    problems: list[str] = []
    try:
        series = find(
            Path(results), cell, kind, branch=branch, machine=machine, last=count, problems=problems
        )
    finally:
        for problem in problems:
            tell(problem)
    if acknowledge is not None:
        _acknowledge(series, acknowledge, results)
        series = find(Path(results), cell, kind, branch=branch, machine=machine, last=count)
    if plot is not None:
        _plot(series, Path(plot))
    if as_json:
        print_json(series)
    else:
        _print(series)
    return 0


def _print(series: Sequence[Series]) -> None:
    from harness.views.history import render_histories, render_history
    from harness.views.terminal import print_out

    if len(series) == 1:
        print_out(render_history(series[0]))
    else:
        print_out(render_histories(series), width=200)  # a name that is cut off is of no use


def _plot(series: Sequence[Series], path: Path) -> None:
    from harness.host.files import write_atomically
    from harness.views.plot import draw

    write_atomically(path, draw(_only("--plot", series), path.suffix))


def _acknowledge(series: Sequence[Series], reason: str, results: str) -> None:
    from harness.compare.series import acknowledge
    from harness.spec import parse_text

    acknowledge(Path(results), _only("--acknowledge", series), parse_text("--acknowledge", reason))


def _only(flag: str, series: Sequence[Series]) -> Series:
    from harness.errors import UsageError

    if len(series) != 1:
        named = ", ".join(f"{one.cell} on {one.fingerprint[:8]}" for one in series[:3])
        raise UsageError(f"{flag} takes one series, and {len(series)} fit: {named}", "name one")
    return series[0]
