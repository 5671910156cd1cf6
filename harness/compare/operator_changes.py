"""Which operators take longer in one table than in another, from two profiled runs of one model.

Rows are matched by name; those that one side alone has (a fusion that another version does not
make) are summed by type. What a table cannot tell apart, the profiler's own cost, is in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.records.operators import Operator, Operators

_SHARE = 0.05  # of the whole change: less than that is not what is looked for
_MOST = 8


class OperatorChange(msgspec.Struct, frozen=True, kw_only=True):
    """``name`` is empty where rows of one type were summed. Times are of one inference."""

    type: str
    name: str
    before_ms: float
    after_ms: float
    proven: bool  # the 95 % intervals of both sides lie apart; of a sum nobody knows

    @property
    def difference_ms(self) -> float:
        return self.after_ms - self.before_ms


def operator_changes(
    before: Maybe[Operators], after: Maybe[Operators]
) -> Maybe[tuple[OperatorChange, ...]]:
    """Those that changed the way the whole did, the largest first; absent with a side's reason."""
    if isinstance(before, Unavailable):
        return before
    if isinstance(after, Unavailable):
        return after
    named = _named(before.rows), _named(after.rows)
    common = [name for name in named[0] if name in named[1]]
    found = [_of_rows(named[0][name], named[1][name]) for name in common]
    found += _by_type(*([row for row in table.rows if row.name not in common]
                        for table in (before, after)))  # fmt: skip
    whole = sum(one.difference_ms for one in found)
    mattering = [one for one in found if whole and one.difference_ms / whole > _SHARE]
    mattering.sort(key=lambda one: -abs(one.difference_ms))
    return tuple(mattering[:_MOST])


def _named(rows: Sequence[Operator]) -> dict[str, Operator]:
    """Rows whose name is theirs alone."""
    names = [row.name for row in rows]
    return {row.name: row for row in rows if names.count(row.name) == 1}


def _of_rows(before: Operator, after: Operator) -> OperatorChange:
    one, other = before.ci95_ms, after.ci95_ms
    proven = False
    if not isinstance(one, Unavailable) and not isinstance(other, Unavailable):
        proven = one[1] < other[0] or other[1] < one[0]
    return OperatorChange(
        type=after.type, name=after.name, before_ms=before.ms, after_ms=after.ms, proven=proven
    )


def _by_type(before: Sequence[Operator], after: Sequence[Operator]) -> list[OperatorChange]:
    sums = [
        {kind: sum(row.ms for row in rows if row.type == kind) for kind in {r.type for r in rows}}
        for rows in (before, after)
    ]
    return [
        OperatorChange(
            type=kind, name="", before_ms=sums[0].get(kind, 0.0), after_ms=sums[1].get(kind, 0.0),
            proven=False,
        )
        for kind in sorted({*sums[0], *sums[1]})
    ]  # fmt: skip
