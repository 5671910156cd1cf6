"""Two names, or what they stand for, as one `Comparison`: the same question, the same answer.

Two runs are put side by side, whatever they measured, and sets cell by cell. Either way the spread
between nights comes from the history, and a duel's own ratio goes before that of its launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from harness.compare.comparison import Comparison, compare_runs, compare_sets
from harness.compare.duel import of_runs, of_sets
from harness.compare.match import parse_across
from harness.compare.series import NightSpreads
from harness.compare.verdicts import Settings
from harness.errors import ResultError
from harness.records.refs import Selection, resolve
from harness.records.result import Result
from harness.records.store import RESULT_NAME
from harness.text import plain

Asked: TypeAlias = str | Path | Result | Sequence[Result]


def compare(
    a: Asked, b: Asked, *, results: str | Path = "results", other_hardware: bool = False
) -> Comparison:
    """Is ``b`` better or worse than the reference ``a``, and is that certain?

    Each is a run or several: a `Result`, a sequence of them, or a name as ``harness compare`` takes
    it, looked up in the folder ``results``, whose history says how far nights lie apart. The
    verdicts are ``rows`` of each of ``cells``. Raises a `HarnessError`.
    """
    first, second = _selection(a, results), _selection(b, results)
    return judged(first, second, results, other_hardware=other_hardware)


def judged(
    first: Selection,
    second: Selection,
    results: str | Path,
    *,
    across: str | None = None,
    other_hardware: bool = False,
) -> Comparison:
    """What ``harness compare`` prints. ``problems`` has those of both selections."""
    settings = Settings(night_sd=NightSpreads(results))
    problems = list(dict.fromkeys((*first.problems, *second.problems)))
    if not alone(first, second, across):
        found = compare_sets(
            first.results,
            second.results,
            settings,
            across=parse_across(across) if across else None,
            other_hardware=other_hardware,
            names=(plain(first.name), plain(second.name)),
        )
        found = of_sets(found, {**_by_id(first), **_by_id(second)}, problems)
        return msgspec.structs.replace(found, problems=tuple(map(plain, problems)))
    (a,), (b,) = first.results, second.results
    found = compare_runs(a, b, settings, other_hardware=other_hardware)
    try:
        found = of_runs(found, a, b, first.paths[0].parent.parent)
    except ResultError as error:
        problems.append(str(error))
    return msgspec.structs.replace(found, problems=tuple(map(plain, problems)))


def _by_id(selection: Selection) -> dict[str, tuple[Result, Path]]:
    """Each run with its folder."""
    return {
        run.id: (run, path.parent)
        for run, path in zip(selection.results, selection.paths, strict=True)
    }


def alone(first: Selection, second: Selection, across: str | None) -> bool:
    """Whether two runs are to be put side by side, whatever they measured."""
    return across is None and len(first.results) == len(second.results) == 1


def _selection(asked: Asked, results: str | Path) -> Selection:
    if isinstance(asked, str | Path):
        return resolve(str(asked), results)
    runs = (asked,) if isinstance(asked, Result) else tuple(asked)
    if not runs:
        raise ResultError("nothing is to be compared: one side has no results")
    return Selection(
        name=", ".join(run.id for run in runs),
        results=runs,
        paths=tuple(Path(results, run.tags.get("duel", ""), run.id, RESULT_NAME) for run in runs),
    )
