"""Two runs side by side, for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis.pair import Pair, PairRow
from harness.maybe import Maybe, Unavailable
from harness.records.result import Result
from harness.sinks.rows import number, plain, quantity, subtitle, title, why
from harness.sinks.terminal import style_of

_NAMES = {"top1": "accuracy top-1", "f1": "accuracy macro F1"}


def render_pair(pair: Pair, a: Result, b: Result) -> RenderableType:
    """Both runs, one row per quantity, and below it what the verdicts rest on."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in ("", "A", "B", "B / A", "95 % interval", "verdict"):
        table.add_column(
            name, no_wrap=True, justify="right" if name in ("A", "B", "B / A") else "left"
        )
    for row in pair.rows:
        verdict = _verdict(row)
        cells = [Text(cell) for cell in (_name(row), *_values(row), *_ratio(row))]
        table.add_row(*cells, Text(verdict, style=style_of(verdict)))
    heading = [Text(f"{side}  {plain(run.id)}\n   {title(run)}\n   {subtitle(run)}", style="bold")
               for side, run in (("A", a), ("B", b))]  # fmt: skip
    notes = _notes(pair)
    return Group(*heading, Text(""), table, *([Text(""), *notes] if notes else []))


def _name(row: PairRow) -> str:
    return _NAMES.get(row.metric, row.metric.replace("_", " "))


def _values(row: PairRow) -> tuple[str, str]:
    return _value(row.a, row.unit), _value(row.b, row.unit)


def _value(value: Maybe[float], unit: str) -> str:
    if isinstance(value, Unavailable):
        return "n/a"
    return quantity(value, unit.replace("1/s", "/s")) if unit else f"{value:.2%}"


def _ratio(row: PairRow) -> tuple[str, str]:
    found = row.comparison
    if isinstance(found, Unavailable):
        return "", ""
    interval = found.interval
    if isinstance(interval, Unavailable):
        return number(found.ratio), ""
    return number(found.ratio), f"{number(interval[0])} to {number(interval[1])}"


def _verdict(row: PairRow) -> str:
    return "" if isinstance(row.comparison, Unavailable) else row.comparison.verdict


def _notes(pair: Pair) -> list[Text]:
    """Why each verdict, why a value is absent, and what else differs."""
    texts = [f"{_name(row)}: {note}" for row in pair.rows if (note := _note(row))]
    if pair.differences:
        listed = [f"{k} {plain(v[0])} / {plain(v[1])}" for k, v in pair.differences.items()]
        texts.append(f"differs: {', '.join(listed)}")
    return [Text(text, style="dim") for text in texts]


def _note(row: PairRow) -> str:
    if isinstance(row.a, Unavailable) and row.a == row.b:
        return why(row.a)
    sides = (("A", row.a), ("B", row.b))
    absent = [f"{side}: {why(value)}" for side, value in sides if isinstance(value, Unavailable)]
    if absent:
        return "; ".join(absent)
    found = row.comparison
    if isinstance(found, Unavailable):
        return why(found) if row.unit else ""  # accuracies are shown, and no more is claimed
    return plain(found.reason)
