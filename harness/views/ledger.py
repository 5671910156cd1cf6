"""A ledger for a person: layers by what they cost, the sides of the final duel, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from harness.maybe import Maybe, Unavailable, explain
from harness.records.ledger import Answers, Layer, Ledger, Side, Wish
from harness.views.duel import half_width, ratio_text
from harness.views.terminal import render_table
from harness.views.text import count, plain, quantity

_SHOWN, _OVERFLOWS = 20, 3
_HEADER = ("SQNR", "fp32", "int8", "answers", "time if left in fp32", "verdict", "layer")
_SIDES = ("side", "top-1", "answers", "time")


def render_ledger(found: Ledger) -> RenderableType:
    """Measured layers first, by what they lose; then the others by their error."""
    ordered = sorted(found.layers, key=_rank)
    rows = [_row(layer) for layer in ordered[:_SHOWN]]
    if len(ordered) > _SHOWN:
        rows.append(("", "", "", "", "", "", f"{len(ordered) - _SHOWN} more, in ledger.json"))
    parts: list[RenderableType] = [
        Text(f"{plain(found.model)}: {count(len(found.layers), 'int8 layer')},"
             f" {found.measured} measured; answers: {found.answers_of}", style="bold"),
        Text(""), render_table(_HEADER, rows), Text(""),
        render_table(_SIDES, [_side(side) for side in found.sides]), Text(""),
    ]  # fmt: skip
    parts += [Text(line, no_wrap=True, overflow="ignore") for line in _lines(found)]
    return Group(*parts)


def _rank(layer: Layer) -> tuple[bool, float, float]:
    lost = layer.answers.drop if isinstance(layer.answers, Answers) else 0.0
    error = layer.sqnr_db if layer.sqnr_db is not None else float("inf")
    return not isinstance(layer.answers, Answers), -lost, error


def _row(layer: Layer) -> tuple[str, ...]:
    verdict = ", ".join(
        word for word, true in (("fragile", layer.fragile), ("slow", layer.slow)) if true
    )
    return (
        "exact" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB",
        _ms(layer.fp32_ms),
        _ms(layer.int8_ms),
        _answers(layer.answers),
        _ratio(layer.ratio, layer.interval),
        verdict or ("" if isinstance(layer.answers, Unavailable) else "innocent"),
        plain(layer.name),
    )


def _ms(value: Maybe[float]) -> str:
    return "-" if isinstance(value, Unavailable) else quantity(value, "ms")


def _answers(found: Maybe[Answers]) -> str:
    if isinstance(found, Unavailable):
        return "-"
    return f"{found.lost} lost, {found.gained} gained (p {found.p:.2g})"


def _ratio(ratio: Maybe[float], interval: Maybe[tuple[float, float]]) -> str:
    if isinstance(ratio, Unavailable) or isinstance(interval, Unavailable):
        return "-"
    return f"{ratio_text(ratio, interval)} ± {half_width(ratio, interval)}"


def _side(side: Side) -> tuple[str, ...]:
    top1 = "n/a" if isinstance(side.top1, Unavailable) else f"{side.top1:.2%}"
    answers = side.answers
    lost = "n/a" if isinstance(answers, Unavailable) else f"{answers.lost} lost, {answers.gained}"
    lost = lost if isinstance(answers, Unavailable) else f"{lost} gained of {answers.samples}"
    ratio = "1" if side.name == "int8" else _ratio(side.ratio, side.interval)
    return side.name.upper() if side.name != "mixed" else "mixed", top1, lost, ratio


def _lines(found: Ledger) -> Iterator[str]:
    yield (
        f"answers against fp32; chosen on {found.choosing} samples (alpha {found.alpha:g}, Holm),"
        f" these on {found.verifying} others; time over int8's"
    )
    wide = [layer for layer in found.layers if layer.overflow]
    for layer in wide[:_OVERFLOWS]:
        yield f"overflow: {plain(layer.name)}: {plain(layer.overflow)}"
    if len(wide) > _OVERFLOWS:
        yield f"overflow: {len(wide) - _OVERFLOWS} layers more, in ledger.json"
    for note in found.notes:
        yield f"note: {plain(note)}"
    for wish in found.wishes:
        yield _wish(wish)
    yield plain(found.recommendation)


def _wish(wish: Wish) -> str:
    if isinstance(wish.found, Unavailable) or isinstance(wish.interval, Unavailable):
        return f"--{wish.name.replace(' ', '-')} {wish.wanted:.2%}: {plain(explain_of(wish.found))}"
    low, high = wish.interval
    note = f"; {wish.note}" if wish.note else ""
    return (
        f"--{wish.name.replace(' ', '-')} {wish.wanted:.2%}: {wish.outcome},"
        f" {wish.found:.2%} [{low:.2%}, {high:.2%}]{note}"
    )


def explain_of(absent: Maybe[float]) -> str:
    return explain(absent) if isinstance(absent, Unavailable) else ""
