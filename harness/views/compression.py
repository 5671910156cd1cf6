"""A board as rows of text, shared by the terminal, Markdown and the report. Nothing is computed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.compression.model import METRICS, Board, Entry, Figure
from harness.views.markdown import escape, table_line
from harness.views.terminal import style_of
from harness.views.text import count, number, plain, quantity

# metric -> the head of its column
COLUMNS = {
    "accuracy": "accuracy",
    "latency_ms": "latency",
    "model_size_mb": "size",
    "memory_mb": "memory",
    "energy_j": "energy",
}
RATIO_COLUMNS = {"speedup": "speedup", "size_ratio": "smaller"}
HEADER = ("model", "precision", *COLUMNS.values(), *RATIO_COLUMNS.values(), "AURORA")
_MOST_LINES = 60
_NOT_ON_A_TERMINAL = ("memory", "smaller")  # 80 columns hold no more
_SCALED = {"MB": ("bytes", 1e6), "mW": ("mW", 1.0)}


def setting_of(entry: Entry) -> str:
    """``onnxruntime, batch 8``: the backend, and what else tells it from others of its model."""
    backend, parts = entry.info.get("backend", ""), entry.setting.split(", ")
    return plain(", ".join(filter(None, (backend, *(p for p in parts if p != backend)))))


# figures that vary between launches: without an interval nobody knows how far
_NEED_INTERVALS = ("latency_ms", "throughput_per_s", "energy_j", "power_mw")
NO_INTERVAL = "no interval"


class Cell(NamedTuple):
    """``note`` is the interval, how the figure was derived, or why there is none."""

    text: str
    note: str = ""


def cells(entry: Entry) -> list[Cell]:
    """One row, as in `HEADER`."""
    ratios = [Cell(_times(entry.ratios.get(name))) for name in RATIO_COLUMNS]
    name = f"{entry.model} (random weights)" if entry.random_weights else entry.model
    return [
        Cell(plain(name), plain(entry.setting)),
        Cell(plain(entry.precision)),
        *(cell(entry, metric) for metric in COLUMNS),
        *ratios,
        _aurora(entry),
    ]


def cell(entry: Entry, metric: str) -> Cell:
    """One figure of ``entry``, or n/a and why."""
    figure = entry.figures.get(metric)
    if figure is None:
        return Cell("n/a", plain(entry.missing.get(metric, "not measured")))
    derived = entry.derived.get(metric)
    note = f"derived: {plain(derived)}" if derived else interval(figure, metric)
    if not note and metric in _NEED_INTERVALS:
        note = NO_INTERVAL
    return Cell(value_text(figure.value, metric), note)


def value_text(value: float, metric: str) -> str:
    """In the unit that reads best. An accuracy is a share of 1, or already a percentage."""
    found = METRICS[metric]
    if metric == "loss" or found.unit == "1/s":
        return f"{number(value)}{' /s' if found.unit else ''}"
    if not found.unit:
        return f"{value:.2%}" if value <= 1 else f"{value:.2f}%"
    unit, factor = _SCALED.get(found.unit, (found.unit, 1.0))
    return quantity(value * factor, unit)


def interval(figure: Figure, metric: str) -> str:
    """``95 % interval 2.1 to 2.3 ms``; empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    low, high = value_text(figure.low, metric), value_text(figure.high, metric)
    number, _, unit = low.partition(" ")
    return f"95 % interval {number if high.endswith(f' {unit}') else low} to {high}"


def entry_table(entries: Sequence[Entry]) -> str:
    """Entries as a Markdown table, for the TEXT tab: a row a precision, and what is missing."""
    shown = [at for at, name in enumerate(HEADER) if name not in ("model",)]
    lines = [table_line([HEADER[at] for at in shown]), table_line([":--"] * len(shown))]
    for entry in entries:
        row = cells(entry)
        lines.append(table_line([escape(row[at].text) for at in shown]))
    lacking = [f"- {escape(line)}" for line in missing_lines(entries)]
    return "\n".join([*lines, "", *lacking])


def missing_lines(entries: Sequence[Entry]) -> list[str]:
    """``recall, loss (2 of 4): not given``: each reason once, with what it took away."""
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        for metric, why in entry.missing.items():
            reasons[plain(why)][_title(metric)] += 1
    return [
        f"{', '.join(_share(title, n, len(entries)) for title, n in titles.items())}: {why}"
        for why, titles in reasons.items()
    ]


def _title(metric: str) -> str:
    known = METRICS.get(metric)
    return known.title if known else "AURORA" if metric == "aurora" else plain(metric)


def _share(title: str, times: int, total: int) -> str:
    return title if times == total else f"{title} ({times} of {total})"


def render_board(board: Board) -> RenderableType:
    """For a terminal: a table, the notes, and what is missing."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    shown = [index for index, name in enumerate(HEADER) if name not in _NOT_ON_A_TERMINAL]
    for index in shown:
        table.add_column(HEADER[index], no_wrap=index > 0, justify="left" if index < 2 else "right")
    for entry in board.entries[:_MOST_LINES]:
        row = cells(entry)
        row[1] = Cell(", ".join(filter(None, (row[1].text, row[0].note))))
        table.add_row(*(Text(row[i].text, style=style_of(row[i].text)) for i in shown))
    more = len(board.entries) - _MOST_LINES
    notes = [f"and {count(more, 'row')} more; TensorBoard shows them all"] if more > 0 else []
    notes += [plain(note) for note in board.notes] + missing_lines(board.entries)[:_MOST_LINES]
    lines = [Text(note, style="dim") for note in notes]
    return Group(table, Text(""), *lines) if lines else table


def _aurora(entry: Entry) -> Cell:
    if entry.aurora is None:
        return Cell("", plain(entry.missing.get("aurora", "")))
    return Cell(f"{entry.aurora.score:.1f}", aurora_note(entry))


def aurora_note(entry: Entry) -> str:
    """The components of the score, what it lacks, and what took off from it."""
    score = entry.aurora
    if score is None:
        return ""
    listed = [f"{name.replace('_', ' ')} {number(v, 3)}" for name, v in score.components.items()]
    if score.missing:
        listed.append(f"without {', '.join(score.missing).replace('_', ' ')}")
    if score.penalty < 1:
        listed.append(f"times {number(score.penalty, 2)} for lost accuracy")
    return ", ".join(listed)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{number(ratio, 3)}x"
