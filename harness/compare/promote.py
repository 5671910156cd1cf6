"""Promote runs to a baseline, unless they are worse than the one that they would replace.

A baseline is not promoted to make a gate green: while its candidate is worse than what it would
replace, the promotion is refused, until somebody acknowledges that with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from harness.compare.gate.judge import regressions
from harness.compare.series import NightSpreads
from harness.errors import NothingComparable, Regressed, ResultError
from harness.maybe import Unavailable
from harness.records import baselines
from harness.records.baselines import Baseline
from harness.records.refs import Selection
from harness.records.result import Result
from harness.records.store import read_result

Gate = Callable[[Sequence[Result], Sequence[Result]], list[str]]
_FAILED = ("failed", "interrupted")


def promote(
    selection: Selection,
    name: str,
    results: Path | str = "results",
    *,
    reason: str = "",
    by: str = "",
    acknowledge: str = "",
    gate: Gate | None = None,
) -> Baseline:
    """Make the finished runs of ``selection`` the baseline ``name`` of the folder ``results``.

    ``gate(baseline, candidate)`` says what has become worse; without one the gate's default policy
    does, with the spread of nights that ``results`` knows. Raises `Regressed` where it finds
    something and ``acknowledge`` gives no reason, and `ResultError` where there is nothing to
    promote or it cannot be written.
    """
    baselines.checked_name(name)
    chosen = _finished(selection)
    files = baselines.copies(chosen)
    candidate = [result for result, _ in chosen]
    ask = gate or partial(regressions, night_sd=NightSpreads(results))
    with baselines.replacing(name, results) as place:
        worse = _worse(name, results, candidate, ask) if place.old else []
        if worse and not acknowledge.strip():
            raise Regressed(
                f"baseline {name!r} is not replaced: {'; '.join(worse)}",
                "fix that, or promote with --acknowledge REASON",
            )
        return place.write(
            candidate,
            files,
            source=selection.name,
            by=by,
            reason=reason,
            acknowledged=acknowledge.strip() or None if worse else None,
            regressions=tuple(worse),
        )


def _finished(selection: Selection) -> list[tuple[Result, Path]]:
    chosen = [
        (result, path)
        for result, path in zip(selection.results, selection.paths, strict=True)
        if result.status not in _FAILED and not isinstance(result.timing, Unavailable)
    ]
    if not chosen:
        raise ResultError(f"{selection.name!r} has no run that finished", "promote another one")
    return chosen


def _worse(name: str, results: Path | str, candidate: Sequence[Result], gate: Gate) -> list[str]:
    """What has become worse; also that nothing could be compared, which is no success."""
    try:
        return gate(
            [read_result(path) for path in baselines.result_paths(name, results)], candidate
        )
    except NothingComparable as error:
        return [error.message]
