"""Sets of results, taken apart into cells on machines, and put side by side.

    results of A ──> group: (cell, machine) -> finished and failed runs ─┐
                                                                         ├── match ──> Match, ...
    results of B ──> group ──────────────────────────────────────────────┘

A sweep leaves one result per launch and ``harness run --launches K`` one of K launches: both pool,
since the launch is what is repeated. A cell that only one side has is a match too, one that says
what keeps it from being compared: no such cell there, other hardware, another boundary or dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from harness.maybe import Unavailable
from harness.records.cell import cell_of, key_by_stem, model_path, shared_names, told_name
from harness.records.result import Result
from harness.spec import DEFINING

FINISHED = ("complete", "degraded")
NIGHT_S = 6 * 3600.0  # sides that lie farther apart than this were measured in different nights
Apart = Literal["", "other hardware", "another benchmark", "missing", "failed", "the same runs"]


class Side(msgspec.Struct, frozen=True):
    """The runs of one cell on one machine. ``failed`` were interrupted or have an error."""

    finished: tuple[Result, ...] = ()
    failed: tuple[Result, ...] = ()

    @property
    def first(self) -> Result:
        """The run that speaks for the side's conditions: of one cell they are all alike."""
        return (self.finished or self.failed)[0]


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """One cell on one machine, of both sides. ``apart`` and ``reason``: why it is not compared."""

    cell: str
    key: str
    fingerprint: str
    a: Side | None
    b: Side | None
    reference: str = ""  # the cell of ``a``, where it is another one
    apart: Apart = ""
    reason: str = ""


Group = dict[tuple[str, str], Side]  # (cell key, machine fingerprint)


def group(results: Iterable[Result]) -> Group:
    """Runs by cell and machine, oldest first.

    A run that died before its machine was known in full joins the others of its cell.
    """
    found: dict[tuple[str, str], list[Result]] = {}
    for result in sorted(results, key=lambda one: (one.started_at, one.id)):
        key = (cell_of(result).key, result.machine.fingerprint)
        found.setdefault(key, []).append(result)
    sides = {key: _side(runs) for key, runs in found.items()}
    for key in [key for key, side in sides.items() if not side.finished]:
        alike = [other for other in sides if other[0] == key[0] and sides[other].finished]
        if len(alike) == 1:
            host, lost = sides[alike[0]], sides.pop(key)
            sides[alike[0]] = Side(host.finished, host.failed + lost.failed)
    return sides


def match(a: Group, b: Group) -> list[Match]:
    """Every cell of either side once: those that compare, then those that do not and why.

    A model file of another folder is the same cell where neither side has a second one of its name:
    another checkout's, say.
    """
    both = [_joined(key, a[key], b[key]) for key in a if key in b]
    left = {key: side for key, side in a.items() if key not in b}
    right = {key: side for key, side in b.items() if key not in a}
    theirs = _by_stem(b)
    for stem, keys in _by_stem(a).items():
        others = theirs.get(stem, [])
        if len(keys) == 1 == len(others) and keys[0] in left and others[0] in right:
            both.append(_joined(others[0], left.pop(keys[0]), right.pop(others[0])))
    return told_apart(both + _unmatched(left, right))


def _by_stem(sides: Group) -> dict[tuple[str, str], list[tuple[str, str]]]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key, side in sides.items():
        found.setdefault((key_by_stem(side.first.spec), key[1]), []).append(key)
    return found


def told_apart(matches: Sequence[Match]) -> list[Match]:
    """Under their long names where models of different folders have one file name."""
    sides = [(_model(one.a), _model(one.b)) for one in matches]
    shared = shared_names(path for pair in sides for path in pair if path)
    return [
        msgspec.structs.replace(
            one,
            cell=told_name(one.cell, b or a, shared),
            reference=one.reference and told_name(one.reference, a, shared),
        )
        for one, (a, b) in zip(matches, sides, strict=True)
    ]


def _model(side: Side | None) -> str:
    return model_path(side.first.spec.model) if side else ""


def same_night(a: Side, b: Side) -> bool:
    """Measured in one sweep, or with at most six hours between the two."""
    sweeps = [{run.tags.get("sweep") for run in side.finished} for side in (a, b)]
    if (sweeps[0] & sweeps[1]) - {None}:
        return True
    (start_a, end_a), (start_b, end_b) = _span(a), _span(b)
    return max(start_a, start_b) - min(end_a, end_b) <= NIGHT_S


def doubts(side: Side) -> str:
    """``2 of 5 runs degraded (cpu steal)``; empty where every run is complete."""
    degraded = [run for run in side.finished if run.status == "degraded"]
    if not degraded:
        return ""
    checks = [check.name for run in degraded for check in run.validity if check.verdict == "warn"]
    causes = ", ".join(dict.fromkeys(checks)) or "no check says why"
    many = len(side.finished) > 1
    return f"{f'{len(degraded)} of {len(side.finished)} runs ' if many else ''}degraded ({causes})"


def hardware_name(run: Result) -> str:
    """What a person calls the machine: its accelerator if one was used, else its processor."""
    factors = run.machine.factors
    gpu = next((v for k, v in factors.items() if k.startswith("gpu") and "name" in k), "")
    return gpu if gpu and run.spec.device != "cpu" else factors.get("cpu", "unknown hardware")


def hardware_differences(a: Result, b: Result) -> str:
    """``cpu (X and Y), isa (absent and avx2)``: the factors that the machines differ in."""
    ours, theirs = a.machine.factors, b.machine.factors
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    told = [f"{n} ({ours.get(n, 'absent')} and {theirs.get(n, 'absent')})" for n in names]
    return ", ".join(told) or "their fingerprints"


def spec_differences(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """What the two runs were asked that defines a benchmark, where it differs."""
    names = [field.name for field in DEFINING]
    values = {name: (str(getattr(a.spec, name)), str(getattr(b.spec, name))) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def _side(runs: Sequence[Result]) -> Side:
    finished: dict[object, Result] = {}
    for run in runs:
        if run.status in FINISHED and not isinstance(run.timing, Unavailable):
            finished.setdefault(_attempt(run), run)  # the first that finished counts
    failed = tuple(run for run in runs if run.status not in FINISHED)
    return Side(tuple(finished.values()), failed)


def _attempt(run: Result) -> object:
    """The same for two runs that must not both count: one file twice, or one launch of a sweep.

    Every cell of a sweep has a launch 1, so the cell is a part of it.
    """
    sweep, launch = run.tags.get("sweep"), run.tags.get("launch")
    if sweep and launch:
        return sweep, launch, cell_of(run).key
    medians = () if isinstance(run.timing, Unavailable) else run.timing.launches
    return run.id, tuple(launch.median_ms for launch in medians)


def _joined(key: tuple[str, str], a: Side, b: Side) -> Match:
    apart, reason = obstacle(a, b)
    return Match(
        cell=cell_of(b.first).name,
        key=key[0],
        fingerprint=key[1],
        a=a,
        b=b,
        apart=apart,
        reason=reason,
    )


def matched(a: Side, b: Side) -> Match:
    """Two sides of one machine, whatever cells they are of."""
    cells = cell_of(a.first), cell_of(b.first)
    kind, reason = obstacle(a, b)
    return Match(
        cell=cells[1].name,
        key=cells[1].key,
        fingerprint=b.first.machine.fingerprint,
        a=a,
        b=b,
        reference="" if cells[0] == cells[1] else cells[0].name,
        apart=kind,
        reason=reason,
    )


def obstacle(a: Side, b: Side) -> tuple[Apart, str]:
    """What keeps two sides of one cell from being compared; twice nothing if all is well."""
    for name, side in (("A", a), ("B", b)):
        if not side.finished:
            return "failed", f"{name} {_failure(side.failed)}"
    ours = {_attempt(run) for run in a.finished}
    if shared := [run.id for run in b.finished if _attempt(run) in ours]:
        return "the same runs", f"{shared[0]} is on both sides"
    return "", ""


def _failure(failed: Sequence[Result]) -> str:
    if not failed:
        return "holds no figures"
    run = failed[-1]
    why = f": {run.error.message}" if run.error else ""
    return f"{run.status}{why} ({run.id})"


def _unmatched(left: Group, right: Group) -> list[Match]:
    found: list[Match] = []
    for key, side in left.items():
        other = _counterpart(key, side, right)
        found.append(apart(key, side, None if other is None else right.pop(other)))
    return found + [apart(key, None, side) for key, side in right.items()]


def _counterpart(key: tuple[str, str], side: Side, right: Group) -> tuple[str, str] | None:
    """What the other side has in the cell's place: it on other hardware, or one of its name."""
    if elsewhere := [other for other in right if other[0] == key[0]]:
        return min(elsewhere, key=lambda other: _distance(side.first, right[other].first))
    name = cell_of(side.first).name
    alike = [o for o in right if o[1] == key[1] and cell_of(right[o].first).name == name]
    return alike[0] if alike else None


def _distance(a: Result, b: Result) -> int:
    return len(set(a.machine.factors.items()) ^ set(b.machine.factors.items()))


def apart(key: tuple[str, str], a: Side | None, b: Side | None, alone: str = "") -> Match:
    """A match that cannot be compared; ``alone``: why a side has no counterpart."""
    kind, reason = _why_apart(a, b, alone)
    either = b or a
    assert either is not None
    return Match(
        cell=cell_of(either.first).name,
        key=key[0],
        fingerprint=key[1],
        a=a,
        b=b,
        apart=kind,
        reason=reason,
    )


def _why_apart(a: Side | None, b: Side | None, alone: str) -> tuple[Apart, str]:
    for name, side in (("A", a), ("B", b)):
        if side is not None and not side.finished:
            return "failed", f"{name} {_failure(side.failed)}"
    if a is None or b is None:
        return "missing", alone or f"only {'B' if a is None else 'A'} has this cell"
    if cell_of(a.first).key == cell_of(b.first).key:
        return "other hardware", f"the machines differ: {hardware_differences(a.first, b.first)}"
    told = [f"{n} ({x} and {y})" for n, (x, y) in spec_differences(a.first, b.first).items()]
    return "another benchmark", f"the benchmarks differ: {', '.join(told)}"


def _span(side: Side) -> tuple[float, float]:
    """From the first start to the last end, in seconds of wall time."""
    starts = [_seconds(run.started_at) for run in side.finished]
    ends = [start + run.duration_s for start, run in zip(starts, side.finished, strict=True)]
    return min(starts), max(ends)


def _seconds(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:  # a file from elsewhere
        return 0.0
