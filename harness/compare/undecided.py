"""How much of a comparison stayed open: a pass of which nothing was decided is none without a word.

A figure is undecided where its verdict is *inconclusive*, or *not comparable* though a side has it.
What neither side has was not measured, and is no open question.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from harness.compare.verdicts import MetricVerdict
from harness.maybe import Unavailable

_OPEN = ("inconclusive", "not comparable")
_SPEEDS = ("ms", "s", "1/s")  # units


class Undecided(msgspec.Struct, frozen=True, kw_only=True):
    """``speeds`` of ``of_speeds`` times and rates, and ``others`` of ``of_others`` figures."""

    speeds: int = 0
    of_speeds: int = 0
    others: int = 0
    of_others: int = 0

    def __str__(self) -> str:
        """``6 of 6 speeds undecided, 1 of 3 other figures undecided``; empty where none is."""
        told = (
            (self.speeds, self.of_speeds, "speeds"),
            (self.others, self.of_others, "other figures"),
        )
        return ", ".join(f"{n} of {of} {what} undecided" for n, of, what in told if n)


def undecided(rows: Iterable[MetricVerdict]) -> Undecided:
    """Of the rows that ask for a verdict."""
    asked = [row for row in rows if row.verdict is not None and _measured(row)]
    speeds = [row.verdict in _OPEN for row in asked if row.unit in _SPEEDS]
    others = [row.verdict in _OPEN for row in asked if row.unit not in _SPEEDS]
    return Undecided(
        speeds=sum(speeds), of_speeds=len(speeds), others=sum(others), of_others=len(others)
    )


def _measured(row: MetricVerdict) -> bool:
    return not (isinstance(row.a, Unavailable) and isinstance(row.b, Unavailable))
