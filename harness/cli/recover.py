"""``harness recover``: the results that killed runs owed."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.output import json_option, print_json, results_option
from harness.cli.tell import tell


@click.command("recover")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
@results_option
@json_option
def command(folders: tuple[str, ...], results: str, as_json: bool) -> int:
    """Write the results of runs that were killed, from the journals in their folders.

    FOLDER is a run's, or one of runs; without it, the results folder. A recovered result is marked
    `interrupted`; what had been measured stands, and the rest is absent.
    """
    from harness.errors import HarnessError
    from harness.records.store import is_folder, killed_runs

    named = [run for folder in folders for run in _named(folder, Path(results))]
    found = named or list(killed_runs(is_folder(results)))
    recovered, code = [], 0
    for folder in found:
        try:
            recovered.append(_recover(folder, told=not as_json))
        except HarnessError as error:
            tell(error)
            code = max(code, error.exit_code)
    if as_json:
        print_json(recovered)
    elif not found:
        click.echo(f"no run in {results!r} was killed")
    return code


def _named(folder: str, results: Path) -> list[Path]:
    """A run's folder, by its id as well; of a folder of runs, those that were killed."""
    from harness.records.store import RUN_JOURNAL_NAME, killed_runs

    path = Path(folder)
    if not path.exists() and (results / folder).exists():
        path = results / folder
    if (path / RUN_JOURNAL_NAME).exists() or not path.is_dir():
        return [path]
    return list(killed_runs(path)) or [path]


def _recover(folder: Path, told: bool) -> dict[str, object]:
    from harness.engine.driver.recover import recover
    from harness.maybe import Unavailable
    from harness.views.text import count, plain

    result, problems = recover(folder.absolute())
    for problem in problems:
        tell(problem)
    timed = 0 if isinstance(result.timing, Unavailable) else result.timing.iterations
    if told:
        iterations = count(timed, "timed iteration")
        click.echo(f"{plain(str(folder))}: {result.status}, {iterations}")
    return {"id": result.id, "status": result.status, "iterations": timed, "problems": problems}
