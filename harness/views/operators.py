"""The table of operators: where the time goes, what does not add up, and how far the roof is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.maybe import Maybe, Unavailable, present
from harness.records.operators import AtRoof, Operations, Operator, Operators, Roof
from harness.records.result import Result
from harness.views.aligned import Aligned
from harness.views.text import count, number, plain, quantity, scale_ms, title, why

SHOWN = 20
HEADER = ("share", "time", "± 95 %", "precision", "operations", "of roof", "type", "name")
_RIGHT = frozenset({0, 1, 2, 4, 5})
_RATES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_NAMED = 3  # of the nodes fused into an operator
_TRACELESS = "-"


def render_operators(result: Result, most: int | None = SHOWN) -> RenderableType:
    """The slowest ``most`` operators of a result that has them, the remainder, and the sums."""
    found = result.operators
    if isinstance(found, Unavailable):
        return Text(f"{title(result)}: no operators: {why(found)}")
    factor, unit = scale_ms(max((row.ms for row in found.rows), default=found.profiled_ms))
    cells = [[Text(name, style="bold") for name in HEADER]]
    cells += [[Text(text) for text in row] for row in table(found, most, factor, unit)]
    lines = [Text(text, no_wrap=True, overflow="ignore") for text in summary(found)]
    return Group(Text(title(result), style="bold"), Text(""), Aligned(cells, _RIGHT), Text(""),
                 *lines)  # fmt: skip


def table(
    found: Operators, most: int | None, factor: float, unit: str
) -> Iterator[tuple[str, ...]]:
    """Rows as texts: the slowest operators, those left out together, the remainder."""
    ordered = sorted(found.rows, key=lambda row: -row.ms)
    for row in ordered[:most]:
        yield (
            f"{row.share:.1%}",
            f"{number(row.ms / factor)} {unit}",
            half_width(row.ms, row.ci95_ms),
            row.precision,
            operations_text(row.operations),
            roof_text(row.roof),
            plain(row.type),
            named(row),
        )
    if rest := ordered[most:] if most is not None else []:
        yield (
            f"{sum(row.share for row in rest):.1%}",
            f"{number(sum(row.ms for row in rest) / factor)} {unit}",
            "", "", "", "", "", f"{count(len(rest), 'operator')} more",
        )  # fmt: skip
    left = found.remainder
    if isinstance(left, Unavailable):
        yield ("", "", "", "", "", "", "", f"no remainder: {why(left)}")
    else:
        yield (
            f"{left.share:.1%}", f"{number(left.ms / factor)} {unit}",
            half_width(left.ms, left.ci95_ms), "", "", "", "",
            "remainder: the runtime, the profiler, the caller",
        )  # fmt: skip


def half_width(ms: float, interval: Maybe[tuple[float, float]]) -> str:
    if isinstance(interval, Unavailable) or not ms:
        return ""
    return f"{(interval[1] - interval[0]) / 2 / abs(ms):.0%}"


def operations_text(found: Maybe[Operations]) -> str:
    if isinstance(found, Unavailable):
        return "not counted"
    return f"{_scaled(found.total)}OP" if found.total else "none"


def _scaled(value: float) -> str:
    factor, prefix = next((one for one in _RATES if value >= one[0]), _RATES[-1])
    return f"{number(value / factor, 3)} {prefix}"


def roof_text(found: Maybe[AtRoof]) -> str:
    if isinstance(found, Unavailable):
        return _TRACELESS
    return f"{found.share:.0%} {found.bound}"


def named(row: Operator) -> str:
    fused = () if isinstance(row.fused, Unavailable) else row.fused
    others = [plain(name) for name in fused if name != row.name]
    if not others:
        return plain(row.name)
    more = f", {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"{plain(row.name)} (of {', '.join(others[:_NAMED])}{more})"


def summary(found: Operators) -> Iterator[str]:
    """The sums below the table."""
    total = sum(row.ms for row in found.rows)
    left = present(found.remainder)
    rest = f" + remainder {quantity(left.ms, 'ms')}" if left is not None else ""
    yield (
        f"{count(len(found.rows), 'operator')} {quantity(total, 'ms')}{rest} of an inference of"
        f" {quantity(found.profiled_ms, 'ms')} under the profiler"
    )
    window = present(found.window_ms)
    timed = f"; {quantity(window, 'ms')} in the timed window" if window is not None else ""
    yield (
        f"the profiler slows it to {number(found.slowdown, 3)} of"
        f" {quantity(found.plain_ms, 'ms')} without{timed}"
    )
    if (cost := present(found.profiler_ms)) is not None:
        all_of_it = cost * sum(row.calls for row in found.rows)
        added = found.profiled_ms - found.plain_ms
        of = f" of the {quantity(added, 'ms')} more" if added > 0 else ""
        yield (
            f"of operators that compute nothing it adds {quantity(cost, 'ms')} to each: of these"
            f" {quantity(all_of_it, 'ms')}{of}"
        )
    yield f"by {found.profiler}; {count(found.inferences, 'inference')}; {found.method}"
    model = found.model
    if isinstance(model, Unavailable):
        yield f"operations: {why(model)}"
    else:
        done = model.operations
        pairs = (("integer", done.integer), ("floating point", done.floating))
        kinds = [f"{_scaled(value)}OP {name}" for name, value in pairs if value]
        yield (
            f"counted: {' and '.join(kinds) or 'no operation'}, {quantity(model.bytes, 'bytes')};"
            f" {model.covered:.1%} of the operators' time"
        )
        yield _model_roof(model.roof)
    if not isinstance(found.roofs, Unavailable):
        yield f"roofs: {', '.join(map(_roof, _highest(found.roofs)))}"
    for note in found.notes:
        yield f"note: {plain(note)}"


def _model_roof(roof: Maybe[AtRoof]) -> str:
    if isinstance(roof, Unavailable):
        return f"no roof: {why(roof)}"
    return (
        f"at the roof these would take {quantity(roof.ms, 'ms')}: they reach {roof.share:.0%} of"
        f" it, {_scaled(roof.per_s)}OP/s at {number(roof.intensity, 3)} operations a byte; mostly"
        f" bound by {roof.bound}"
    )


def _highest(roofs: Sequence[Roof]) -> list[Roof]:
    """The highest of each precision, and of the copies the fastest and the largest."""
    best: dict[str, Roof] = {}
    for roof in roofs:
        key = roof.precision if roof.bound == "compute" else "memory"
        if key not in best or roof.per_s > best[key].per_s:
            best[key] = roof
    copies = [roof for roof in roofs if roof.bound == "memory"]
    largest = max(copies, key=lambda roof: roof.bytes, default=None)
    return [*best.values(), *([largest] if largest and largest not in best.values() else [])]


def _roof(roof: Roof) -> str:
    kind = "OP/s" if roof.bound == "compute" else "B/s"
    return f"{_scaled(roof.per_s)}{kind} ({roof.name})"
