"""The runs that a command was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.cli.tell import tell
from harness.records.refs import resolve
from harness.records.result import Result


class Selected(NamedTuple):
    """Results with their files; ``problems`` says what could not be read, or must not count."""

    runs: list[tuple[Result, Path]]
    problems: list[str]


def select(refs: Sequence[str], results: str) -> Selected:
    """Every run that ``refs`` stand for, once; problems go to stderr as well.

    Raises `ResultError`.
    """
    found: dict[str, tuple[Result, Path]] = {}
    problems: list[str] = []
    for ref in refs:
        selection = resolve(ref, results)
        problems += [" ".join(problem.split()) for problem in selection.problems]
        for result, path in zip(selection.results, selection.paths, strict=True):
            found.setdefault(str(path.absolute()), (result, path))
    for problem in dict.fromkeys(problems):
        tell(problem)
    return Selected(list(found.values()), list(dict.fromkeys(problems)))
