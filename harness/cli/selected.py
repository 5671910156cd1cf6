"""The runs that a command was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from harness.records.refs import resolve
from harness.records.result import Result


def select(refs: Sequence[str], results: str) -> list[tuple[Result, Path]]:
    """Every run that ``refs`` stand for, once, each with its file; problems go to stderr.

    Raises `ResultError`.
    """
    found: dict[str, tuple[Result, Path]] = {}
    for ref in refs:
        selection = resolve(ref, results)
        for problem in selection.problems:
            click.echo(f"harness: {' '.join(problem.split())}", err=True)
        for result, path in zip(selection.results, selection.paths, strict=True):
            found.setdefault(str(path.absolute()), (result, path))
    return list(found.values())
