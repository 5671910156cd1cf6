"""``harness index``: the database that answers for a large results folder."""

from __future__ import annotations

import time

import click

from harness.cli.output import json_option, print_json, results_option


@click.group("index")
def command() -> None:
    """The index of a results folder: a cache, made from the files and deletable any time.

    Every command of it takes --json.
    """


@command.command("rebuild")
@results_option
@json_option
def rebuild(results: str, as_json: bool) -> int:
    """Read every result again. What cannot be read, or must not count twice, is listed."""
    from harness.records.index.database import Index
    from harness.records.store import is_folder

    is_folder(results)
    began = time.perf_counter()
    with Index(results) as index:
        report = index.rebuild()
    elapsed_s = time.perf_counter() - began
    if as_json:
        print_json(report)
        return 0
    from harness.views.text import count, plain

    rate = f"{report.indexed / elapsed_s:.0f} files a second"
    click.echo(f"{count(report.indexed, 'run')} indexed in {elapsed_s:.1f} s, {rate}")
    for title, found in (("skipped", report.skipped), ("not counted", report.uncounted)):
        for path, reason in found:
            click.echo(plain(f"{title}: {path}: {reason}"))
    for note in report.notes:
        click.echo(plain(note))
    return 0
