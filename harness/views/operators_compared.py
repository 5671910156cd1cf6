"""Which operators changed between two runs: a line each, and what could not be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from harness.compare.comparison import CellComparison
from harness.compare.operators import OperatorChange, OperatorChanges
from harness.maybe import Unavailable, present
from harness.records.operators import NOT_PROFILED
from harness.views.aligned import Aligned
from harness.views.terminal import style_of
from harness.views.text import count, number, plain, quantity, why

HEADER = ("A", "B", "ratio", "95 % interval", "verdict", "operator")
_MOST, _UNDECIDED = 20, 5
_RIGHT = frozenset({0, 1, 2})
_VERDICTS = ("regressed", "improved", "inconclusive", "unchanged")


def render_changes(report: CellComparison) -> Iterator[RenderableType]:
    """Nothing where neither side was profiled."""
    found = report.operators
    if isinstance(found, Unavailable):
        if found != NOT_PROFILED and not report.apart:
            yield Text(f"operators: {plain(why(found))}", style="dim")
        return
    yield Text("")
    yield from changes_table(found)


def changes_table(found: OperatorChanges) -> Iterator[RenderableType]:
    """Those that changed, and what could not be told."""
    yield Text(headline(found), style="bold")
    rows = shown(found)
    if rows:
        cells = [[Text(name, style="bold") for name in HEADER]]
        for row in rows:
            *texts, verdict, name = change_texts(row)
            cells.append([*map(Text, texts), Text(verdict, style=style_of(verdict)), Text(name)])
        yield Aligned(cells, _RIGHT)
    for text in remarks(found):
        yield Text(text, style="dim")


def headline(found: OperatorChanges) -> str:
    """``Operators: 2 of 21 changed (2 improved, 19 unchanged)``."""
    counted: Counter[str] = Counter(row.verdict for row in found.rows)
    listed = ", ".join(f"{counted[name]} {name}" for name in _VERDICTS if counted[name])
    a, b = (quantity(ms, "ms") for ms in found.total_ms)
    return (
        f"Operators: {len(found.changed)} of {len(found.rows)} changed"
        f" ({listed or 'none compare'}); under the profiler {a} and {b}"
    )


def shown(found: OperatorChanges) -> Sequence[OperatorChange]:
    """Those that changed; where none is certain, the largest differences."""
    return found.changed[:_MOST] or [
        row for row in found.rows[:_UNDECIDED] if row.verdict == "inconclusive"
    ]


def change_texts(row: OperatorChange) -> tuple[str, ...]:
    ratio, interval = present(row.ratio), present(row.interval)
    kinds = sorted({*row.a, *row.b}) if set(row.a) == set(row.b) else []
    became = ", ".join(kinds) or f"{' + '.join(row.a)} -> {' + '.join(row.b)}"
    return (
        quantity(row.a_ms, "ms"),
        quantity(row.b_ms, "ms"),
        "" if ratio is None else number(ratio, 3),
        "" if interval is None else f"{number(interval[0], 3)} to {number(interval[1], 3)}",
        row.verdict,
        f"{plain(row.name)}: {plain(became)}",
    )


def remarks(found: OperatorChanges) -> Iterator[str]:
    """How it was judged, why rows are undecided, and what has no counterpart."""
    more = len(found.changed) - _MOST
    if more > 0:
        yield f"{more} more changed; --json has them"
    if found.comparisons:
        yield (
            f"Welch's test over launches, p adjusted for {count(found.comparisons, 'operator')},"
            f" below {found.alpha:g}, and by more than {found.minimum_effect:.0%}"
        )
    undecided = Counter(_kind(row.reason) for row in found.rows if row.verdict == "inconclusive")
    for reason, times in undecided.most_common():
        yield f"{count(times, 'operator')} inconclusive: {plain(reason)}"
    for one in found.unmatched:
        other = "B" if one.side == "A" else "A"
        yield (
            f"{one.side} alone: {plain(one.type)} {plain(one.precision)}, {one.count} of them,"
            f" {quantity(one.ms, 'ms')}; nothing of {other} does the work of the same nodes"
        )
    yield from (f"note: {plain(note)}" for note in found.notes)


def _kind(reason: str) -> str:
    """Reasons with figures of their own are told as one."""
    if reason.startswith("the interval"):
        return "launches lie too far apart to tell; more launches, or a quieter machine"
    return reason
