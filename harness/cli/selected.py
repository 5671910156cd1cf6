"""The runs that a command was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.cli.tell import tell
from harness.errors import DataError, ResultError
from harness.records.refs import resolve
from harness.records.result import Result

if TYPE_CHECKING:
    from harness.compression.model import Board


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
        problems += _add(ref, results, found)
    return Selected(list(found.values()), _tell(problems))


def select_all(refs: Sequence[str], results: str) -> tuple[Selected, Board]:
    """As `select`, and what was imported or logged without a run: in folders, and in files of the
    compression engine. Raises `ResultError` where a name stands for neither.
    """
    from harness.compression.model import Board

    found: dict[str, tuple[Result, Path]] = {}
    problems: list[str] = []
    boards: list[Board] = []
    for ref in refs:
        others, told = _logged(ref, results)
        if others is not None:
            boards.append(others)
        problems += told
        try:
            problems += _add(ref, results, found)
        except ResultError as error:
            if others is None and told:
                raise ResultError(f"{ref!r} holds nothing to show: {told[0]}") from error
            if others is None:
                raise
    entries = tuple({(e.run, e.model, e.precision): e for b in boards for e in b.entries}.values())
    whole = Board(
        entries=entries,
        extra={name: about for board in boards for name, about in board.extra.items()},
        file_extra={name: value for board in boards for name, value in board.file_extra.items()},
    )
    return Selected(list(found.values()), _tell(problems)), whole


def _add(ref: str, results: str, found: dict[str, tuple[Result, Path]]) -> list[str]:
    selection = resolve(ref, results)
    for result, path in zip(selection.results, selection.paths, strict=True):
        found.setdefault(str(path.absolute()), (result, path))
    return [" ".join(problem.split()) for problem in selection.problems]


def _tell(problems: Sequence[str]) -> list[str]:
    once = list(dict.fromkeys(problems))
    for problem in once:
        tell(problem)
    return once


def _logged(ref: str, results: str) -> tuple[Board | None, list[str]]:
    """What ``ref`` stands for beside runs, None for nothing; and what of it is of no use."""
    path = next((p for p in (Path(ref), Path(results, ref)) if _is_there(p)), None)
    if path is None:
        return None, []
    if path.is_file():
        return _from_file(path)
    from harness.board.logged import logged_in

    logged = logged_in(path)
    return logged.board if logged.board.entries else None, [*logged.unused, *logged.board.notes]


def _from_file(path: Path) -> tuple[Board | None, list[str]]:
    """The compression engine's own file, unless it is a result of ours."""
    from harness.compression.engine_file import load

    if path.suffix != ".json":
        return None, []
    try:
        found = load(path)
    except DataError:
        return None, []
    return found, list(found.notes)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or holds a null character
        return False
