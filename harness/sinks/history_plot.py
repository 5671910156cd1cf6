"""A history as a picture: nights as dots, levels as lines, changes marked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple

from harness.errors import BackendUnavailable, UsageError
from harness.records.series import Series

_DOTS = "#1565c0"
_COLOURS = {"regressed": "#c62828", "improved": "#2e7d32", "unchanged": "#757575"}


def draw(series: Series, suffix: str) -> bytes:
    """The file's bytes. ``suffix`` is ``.png`` or ``.svg``.

    Raises `UsageError` for another one, `BackendUnavailable` without matplotlib.
    """
    if suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--plot cannot draw {suffix!r}", "name a file that ends in .png or .svg")
    try:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
        from matplotlib.figure import Figure  # no pyplot: it would look for a display
    except ImportError as error:
        raise BackendUnavailable(
            "--plot needs matplotlib", "pip install 'hw-harness[plot]'"
        ) from error
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    days = [float(date2num(datetime.fromisoformat(night.started_at))) for night in series.nights]
    axes.plot(days, [night.value for night in series.nights], "o", ms=4, color=_DOTS, alpha=0.6)
    for level in _levels(series):
        colour = _COLOURS[level.verdict]
        axes.hlines(level.value, days[level.first], days[level.last], color=colour, linewidth=2)
        if level.text:
            axes.axvline(days[level.first], color=colour, linestyle=":", linewidth=1)
            at = (days[level.first], level.value)
            axes.annotate(level.text, at, (4, 8), textcoords="offset points", color=colour)
    axes.set_title(_literal(series.cell), fontsize=11)
    unit = f" ({series.metric.unit})" if series.metric.unit else ""
    axes.set_ylabel(f"{series.metric.name.replace('_', ' ')}{unit}")
    axes.grid(alpha=0.25)
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    drawn = io.BytesIO()
    figure.savefig(drawn, format=suffix.lower()[1:], dpi=120)
    return drawn.getvalue()


class _Level(NamedTuple):
    value: float
    first: int
    last: int
    verdict: str = "unchanged"
    text: str = ""


def _levels(series: Series) -> Iterator[_Level]:
    changes, end = series.history.changes, len(series.nights) - 1
    before = changes[0].before if changes else series.history.level
    yield _Level(before, 0, changes[0].last_good if changes else end)
    for change, later in zip_longest(changes, changes[1:]):
        last = later.last_good if later else end
        text = f"{100 * (change.ratio - 1):+.1f} %"
        yield _Level(change.after, change.index, last, change.verdict, text)


def _literal(text: str) -> str:
    """A name is no formula: matplotlib reads what stands between dollar signs."""
    return text.replace("$", r"\$")
