"""``harness verify``: is what a result says what its data say?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from harness.cli.output import json_option, print_json, results_option

if TYPE_CHECKING:
    from harness.analysis.held import Figure
    from harness.records.result import Result
    from harness.records.sealed import FileCheck

SCHEMA = "harness.verification/1"
_BAD = ("changed", "missing")


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``verdict`` is *agrees* also where some figures could not be recomputed: how many
    is a figure of its own. *Nothing recomputed* is no agreement: no data lay beside the result."""

    id: str
    folder: str
    verdict: Literal["agrees", "differs", "nothing recomputed"]
    agree: int
    differ: int
    not_recomputed: int
    files: tuple[FileCheck, ...]
    figures: tuple[Figure, ...]


@click.command("verify")
@click.argument("runs", nargs=-1, required=True)
@results_option
@json_option
def command(runs: tuple[str, ...], results: str, as_json: bool) -> int:
    """Recompute every figure of RUNS from their samples and series.

    Says of each whether it agrees with what the result states, or why it cannot be recomputed, and
    whether the files are those that the run wrote. RUNS are named as for `harness show`, or sets.
    Exit codes: 0 they agree, 1 something differs or a file is not the run's, 2 bad input.
    """
    from harness.cli.selected import select

    found = [_verified(result, path.parent) for result, path in select(runs, results).runs]
    if as_json:
        print_json({"schema": SCHEMA, "runs": found})
    else:
        for one in found:
            _show(one)
    return int(any(one.verdict == "differs" for one in found))


def _verified(result: Result, folder: Path) -> Verification:
    from harness.analysis.recompute import recompute
    from harness.maybe import Unavailable
    from harness.records.sealed import check_files, read_series

    launches = 0 if isinstance(result.timing, Unavailable) else len(result.timing.launches)
    launches = max(launches, result.spec.launches if launches else 0)
    readings = [read_series(folder, index) for index in range(min(launches, 1000))]
    files, figures = check_files(result, folder), recompute(result, _samples(folder), readings)
    states = [one.state for one in figures]
    wrong = "differs" in states or any(file.state in _BAD for file in files)
    held = "agrees" in states and any(file.state != "not kept" for file in files)
    return Verification(
        id=result.id,
        folder=str(folder),
        verdict="differs" if wrong else "agrees" if held else "nothing recomputed",
        agree=states.count("agrees"),
        differ=states.count("differs"),
        not_recomputed=states.count("not recomputed"),
        files=tuple(files),
        figures=tuple(figures),
    )


def _samples(folder: Path) -> Any:
    from harness.errors import ResultError
    from harness.maybe import Unavailable
    from harness.records.samples import read_samples

    try:
        found = read_samples(folder)
    except ResultError as error:
        return Unavailable(error.message)
    if not found.fit_together:
        return Unavailable("the samples do not fit together: their columns differ in length")
    return found


def _show(one: Verification) -> None:
    from harness.views.terminal import print_out, render_table
    from harness.views.text import plain

    counts = f"{one.agree} agree, {one.differ} differ, {one.not_recomputed} not recomputed"
    click.echo(f"{plain(one.id)}: {one.verdict}; figures: {counts}")
    body: list[tuple[str, str]] = [
        (f.state, f"{f.file}: {_hashes(f)}") for f in one.files if f.state != "not kept"
    ]
    if gone := [file.file for file in one.files if file.state == "not kept"]:
        body.append(("not kept", f"{', '.join(gone)}: nobody kept them with the result"))
    for figure in one.figures:
        if figure.state == "differs":
            told = f"recorded {figure.recorded}, recomputed {figure.recomputed}"
            body.append((figure.state, f"{figure.figure}: {told}"))
    reasons: dict[str, list[str]] = {}
    for figure in one.figures:
        if figure.state == "not recomputed":
            reasons.setdefault(figure.why, []).append(figure.figure)
    for why, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        body.append(("not recomputed", f"{names[0]}{more}: {why}"))
    if body:
        print_out(render_table(("", ""), body))


def _hashes(file: FileCheck) -> str:
    if file.state == "changed":
        return f"SHA-256 {file.found[:12]}, and the run wrote {file.recorded[:12]}"
    return {
        "same": f"as the run wrote it, SHA-256 {file.found[:12]}",
        "missing": "the result names it, and it is not there",
        "not recorded": f"the result has no hash of it; SHA-256 {file.found[:12]}",
    }[file.state]
