"""``harness import``: results of the compression engine, into TensorBoard."""

from __future__ import annotations

from shlex import quote

import click

from harness.cli.output import json_option, print_json, results_folder


@click.command("import")
@click.argument("path", metavar="FILE")
@results_folder("Where the runs go.", "--logdir", name="logdir")
@json_option
def command(path: str, logdir: str, as_json: bool) -> int:
    """Bring FILE, written by the compression engine, into TensorBoard: one run per model.

    FILE is JSON, {model: {fp32: {accuracy, latency_mean_ms, ...}, int8: {...}, model_info}}. Its
    energy_consumption_mw is a power; joules per inference are derived from it and the latency.
    """
    from harness.tensorboard.importer import log_benchmark_results

    board = log_benchmark_results(path, logdir)
    if as_json:
        print_json(board)
    else:
        from harness.views.compression import render_board
        from harness.views.terminal import print_out
        from harness.views.text import count

        print_out(render_board(board))
        models = len({entry.model for entry in board.entries})
        click.echo(
            f"\n{count(models, 'model')} in {logdir!r}: harness board --results {quote(logdir)}"
        )
    return 0
