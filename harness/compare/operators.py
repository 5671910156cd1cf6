"""Which operators changed between two profiled sides, and which cannot be held against each other.

    A   Conv         {conv1, relu1}        ─┐ they do the work of the same nodes of the model,
    B   QLinearConv  {conv1, relu1, q, dq} ─┘ whatever each runtime made of them: one row
    A   Softmax      (of no known node)    ─┐ one of its type on either side: one row
    B   Softmax      (of no known node)    ─┘
    B   ReorderOutput                         of A nothing is like it: listed, and not judged

A row adds up what its operators took in each launch. Rows are judged like metrics, by Welch's test
over launches, and each p value is adjusted for the number of rows of the whole comparison
(Benjamini and Hochberg). Passes of one process are no spread: they are blind to what differs
between processes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from harness.compare.match import Match
from harness.compare.sides import Side
from harness.compare.yardsticks import doubt, speed_shift
from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable, explain
from harness.records.operators import NOT_PROFILED, Operator, Operators
from harness.stats.two_samples import Adjusted, Estimate, Outcome, Question, adjust, estimate, judge

MINIMUM_EFFECT = 0.05
_RESOLVED = 10.0  # times the profiler's resolution; below, a time is mostly rounding
_NOT_TESTED = Unavailable("not tested")
_SHORT = "too short for the profiler's clock"


class OperatorChange(msgspec.Struct, frozen=True, kw_only=True):
    """What does the same work on both sides. ``a`` and ``b``: the operators, by type and precision;
    milliseconds are means over the launches, ``ratio`` and ``interval`` are B over A."""

    name: str
    nodes: tuple[str, ...]  # of the model, that both sides name; empty: matched by type
    a: tuple[str, ...]
    b: tuple[str, ...]
    a_ms: float
    b_ms: float
    verdict: Outcome
    reason: str
    ratio: Maybe[float] = _NOT_TESTED
    interval: Maybe[tuple[float, float]] = _NOT_TESTED  # 95 %
    p_adjusted: Maybe[float] = _NOT_TESTED
    launches: tuple[int, int] = (0, 0)


class Unmatched(msgspec.Struct, frozen=True, kw_only=True):
    """Operators of one type that have no counterpart: ``ms`` is what they took together."""

    side: str  # A | B
    type: str
    precision: str
    count: int
    ms: float


class OperatorChanges(msgspec.Struct, frozen=True, kw_only=True):
    """``rows``: those that changed first, by how much time; ``comparisons``: how many p values were
    adjusted for each other. ``total_ms`` and ``remainder_ms``: A's and B's, under the profiler."""

    rows: tuple[OperatorChange, ...]
    unmatched: tuple[Unmatched, ...]
    total_ms: tuple[float, float]
    remainder_ms: Maybe[tuple[float, float]]
    alpha: float
    comparisons: int
    minimum_effect: float = MINIMUM_EFFECT
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[OperatorChange, ...]:
        return tuple(row for row in self.rows if row.verdict in ("regressed", "improved"))


def compare_operators(matches: Sequence[Match], alpha: float) -> list[Maybe[OperatorChanges]]:
    """Of each of ``matches``, judged as one family; why not, where a side has no operators."""
    found = [_drafts(one) for one in matches]
    tested = [
        one.estimate.p_values
        for drafted in found
        if not isinstance(drafted, Unavailable)
        for one in drafted.rows
        if one.estimate is not None and one.estimate.p_values is not None
    ]
    adjusted = iter(adjust(tested, alpha))
    return [
        one if isinstance(one, Unavailable) else _judged(one, adjusted, alpha, len(tested))
        for one in found
    ]


class _Table(NamedTuple):
    """The operators of a side, with what each took in every launch of all its runs."""

    first: Operators
    rows: tuple[Operator, ...]
    ms: dict[tuple[str, str], tuple[float, ...]]
    launches: int
    others: int  # runs that have other operators


class _Draft(NamedTuple):
    row: OperatorChange
    estimate: Estimate | None


class _Drafts(NamedTuple):
    a: _Table
    b: _Table
    rows: list[_Draft]
    unmatched: list[Unmatched]
    speed_shift: float


class _Group(NamedTuple):
    a: list[Operator]
    b: list[Operator]


def _drafts(found: Match) -> Maybe[_Drafts]:
    if found.apart or found.a is None or found.b is None:
        return Unavailable("the sides do not compare")
    tables = [_table(side) for side in (found.a, found.b)]
    for name, one in zip("AB", tables, strict=True):
        if isinstance(one, Unavailable):
            alike = all(isinstance(table, Unavailable) for table in tables)
            told = explain(one) if alike else f"{name} has none: {explain(one)}"
            return NOT_PROFILED if one == NOT_PROFILED and alike else Unavailable(told)
    a, b = tables
    assert isinstance(a, _Table) and isinstance(b, _Table)
    groups, alone = _groups(a.rows, b.rows)
    return _Drafts(
        a, b, [_draft(one, a, b) for one in groups],
        [*_listed("A", alone.a), *_listed("B", alone.b)], speed_shift(found.a, found.b),
    )  # fmt: skip


def _table(side: Side) -> Maybe[_Table]:
    """Of all runs of ``side`` that have the operators of the first that was profiled."""
    profiled = [run.operators for run in side.finished]
    known = [one for one in profiled if not isinstance(one, Unavailable) and one.rows]
    if not known:
        return next((one for one in profiled if isinstance(one, Unavailable)), NOT_PROFILED)
    first = known[0]
    keys = [(row.name, row.type) for row in first.rows]
    alike = [one for one in known if [(row.name, row.type) for row in one.rows] == keys]
    ms = {
        key: tuple(value for one in alike for value in one.rows[index].launches_ms)
        for index, key in enumerate(keys)
    }
    launches = sum(one.launches for one in alike)
    return _Table(first, first.rows, ms, launches, len(known) - len(alike))


# -- which belong together ------------------------------------------------------------------------


def _groups(a: Sequence[Operator], b: Sequence[Operator]) -> tuple[list[_Group], _Group]:
    """Operators that do the work of the same nodes; then of the rest those of one type; and what is
    left of either side."""
    nodes = [{id(row): _nodes(row) for row in side} for side in (a, b)]
    claims = [Counter(node for found in side.values() for node in found) for side in nodes]
    common = {node for node in claims[0] if node in claims[1]}
    # a quantizer that several operators read belongs to each of them and tells none apart
    telling = {node for node in common if claims[0][node] == claims[1][node] == 1}
    left = _Group(list(a), list(b))
    groups = []
    for linking in (telling, common):
        found, left = _linked(left, nodes[0] | nodes[1], linking)
        groups += found
    for kind in dict.fromkeys(row.type for row in left.a):
        same = _Group(*([row for row in side if row.type == kind] for side in left))
        if same.b:
            groups.append(same)
            left = _Group(*([row for row in side if row.type != kind] for side in left))
    return groups, left


def _nodes(row: Operator) -> frozenset[str]:
    """The nodes of the model that ``row`` does the work of. An operator that is a node of the model
    itself goes by its own name, unless that is only its type."""
    if isinstance(row.fused, Unavailable):
        return frozenset()
    if row.fused:
        return frozenset(row.fused)
    return frozenset() if row.name.startswith(row.type) else frozenset((row.name,))


def _linked(
    rows: _Group, nodes: dict[int, frozenset[str]], linking: Iterable[str]
) -> tuple[list[_Group], _Group]:
    """The groups that nodes of ``linking`` join, each with rows of both sides; and the others."""
    wanted = frozenset(linking)
    lead: dict[object, object] = {}

    def root(one: object) -> object:
        while (above := lead.setdefault(one, one)) != one:
            one = above
        return one

    for row in (*rows.a, *rows.b):
        for node in nodes[id(row)] & wanted:
            lead[root(node)] = root(id(row))
    found: dict[object, _Group] = {}
    for side, members in enumerate(rows):
        for row in members:
            found.setdefault(root(id(row)), _Group([], []))[side].append(row)
    whole = [one for one in found.values() if one.a and one.b]
    rest = [one for one in found.values() if not (one.a and one.b)]
    return whole, _Group([r for one in rest for r in one.a], [r for one in rest for r in one.b])


def _listed(side: str, rows: Sequence[Operator]) -> Iterator[Unmatched]:
    for kind, precision in dict.fromkeys((row.type, row.precision) for row in rows):
        same = [row for row in rows if (row.type, row.precision) == (kind, precision)]
        yield Unmatched(
            side=side, type=kind, precision=precision, count=len(same),
            ms=sum(row.ms for row in same),
        )  # fmt: skip


# -- how they changed -----------------------------------------------------------------------------


def _draft(group: _Group, a: _Table, b: _Table) -> _Draft:
    common = frozenset.union(*map(_nodes, group.a)) & frozenset.union(*map(_nodes, group.b))
    times = [_summed(rows, table) for rows, table in zip(group, (a, b), strict=True)]
    row = OperatorChange(
        name=_name(group, common),
        nodes=tuple(sorted(common)),
        a=_kinds(group.a),
        b=_kinds(group.b),
        a_ms=_mean_ms(times[0], group.a),
        b_ms=_mean_ms(times[1], group.b),
        verdict="inconclusive",
        reason="",
        launches=(len(times[0]), len(times[1])),
    )
    if why := _obstacle(group, times, a, b):
        return _Draft(msgspec.structs.replace(row, reason=why), None)
    try:
        question = Question(a=times[0], b=times[1], minimum_effect=MINIMUM_EFFECT)
        return _Draft(row, estimate(question))
    except NothingComparable as error:
        return _Draft(msgspec.structs.replace(row, reason=f"{error}"), None)


def _name(group: _Group, common: frozenset[str]) -> str:
    """The first operator's of A, which is a node's of the model where it can be."""
    first, more = group.a[0], len(group.a) - 1
    if not common:
        kinds = f"{first.type}, {len(group.a)} and {len(group.b)} of them"
        return first.name if len(group.a) == len(group.b) == 1 else kinds
    fused = () if isinstance(first.fused, Unavailable) else first.fused
    named = (node for node in (first.name, *fused) if node in common)
    name = next(named, first.name)
    return f"{name} and {more} more" if more else name


def _kinds(rows: Sequence[Operator]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{row.type} {row.precision}" for row in rows))


def _summed(rows: Sequence[Operator], table: _Table) -> tuple[float, ...]:
    """Per launch, over all of ``rows``; empty where one of them did not run in every launch."""
    columns = [table.ms[row.name, row.type] for row in rows]
    if any(len(one) != table.launches for one in columns):
        return ()
    return tuple(map(sum, zip(*columns, strict=True)))


def _mean_ms(times: Sequence[float], rows: Sequence[Operator]) -> float:
    return sum(times) / len(times) if times else sum(row.ms for row in rows)


def _obstacle(group: _Group, times: Sequence[tuple[float, ...]], a: _Table, b: _Table) -> str:
    if not all(times):
        return "it did not run in every launch"
    for rows, table in zip(group, (a, b), strict=True):
        least = _RESOLVED * table.first.resolution_ms * len(rows)
        if sum(row.ms for row in rows) <= least:
            return _SHORT
    return ""


def _judged(
    found: _Drafts, adjusted: Iterator[Adjusted], alpha: float, family: int
) -> OperatorChanges:
    rows = []
    for row, known in found.rows:
        if known is not None:
            level = next(adjusted) if known.p_values is not None else None
            row = _verdict(row, known, level, alpha, found.speed_shift)
        rows.append(row)
    order = {"regressed": 0, "improved": 0, "inconclusive": 1, "unchanged": 2}
    rows.sort(key=lambda one: (order[one.verdict], -abs(one.b_ms - one.a_ms)))
    sides = (found.a.first, found.b.first)
    rests = [one.remainder for one in sides]
    return OperatorChanges(
        rows=tuple(rows),
        unmatched=tuple(found.unmatched),
        total_ms=(sides[0].profiled_ms, sides[1].profiled_ms),
        remainder_ms=next(
            (one for one in rests if isinstance(one, Unavailable)),
            (_rest_ms(sides[0]), _rest_ms(sides[1])),
        ),
        alpha=alpha,
        comparisons=family,
        notes=tuple(_notes(found)),
    )


def _rest_ms(found: Operators) -> float:
    return 0.0 if isinstance(found.remainder, Unavailable) else found.remainder.ms


def _verdict(
    row: OperatorChange, known: Estimate, adjusted: Adjusted | None, alpha: float, shift: float
) -> OperatorChange:
    judged = judge(known, adjusted, alpha)
    effect = max(abs(math.log(judged.ratio)), math.log1p(MINIMUM_EFFECT))
    sure = judged.verdict != "inconclusive"
    why = doubt("latency_", shift, effect) if sure else ""
    return msgspec.structs.replace(
        row,
        verdict="inconclusive" if why else judged.verdict,
        reason=why or judged.reason,
        ratio=judged.ratio,
        interval=judged.interval,
        p_adjusted=judged.p_adjusted,
    )


def _notes(found: _Drafts) -> Iterator[str]:
    by_type = sum(not one.row.nodes for one in found.rows)
    if by_type:
        yield f"of {by_type} rows no node of the model is known: they are matched by type"
    profilers = {found.a.first.profiler, found.b.first.profiler}
    if len(profilers) > 1:
        yield f"different profilers tell the times: {' / '.join(sorted(profilers))}"
    for name, table in (("A", found.a), ("B", found.b)):
        if table.others:
            yield f"{name}: {table.others} runs with other operators are left out"
