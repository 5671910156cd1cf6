"""A history as a picture: nights as dots, levels as lines, changes marked."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.compare.series import Series
from harness.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOTS = "#1565c0"
_COLOURS = {"regressed": "#c62828", "improved": "#2e7d32", "unchanged": "#757575"}


def draw(series: Series, suffix: str) -> bytes:
    """The file's bytes. ``suffix`` is ``.png`` or ``.svg``.

    Raises `UsageError` for another one and for values that no axis holds, `BackendUnavailable`
    without matplotlib.
    """
    if suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--plot cannot draw {suffix!r}", "name a file that ends in .png or .svg")
    try:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
        from matplotlib.figure import Figure  # no pyplot: it would look for a display
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise BackendUnavailable(
            "--plot needs matplotlib", "pip install 'hw-harness[plot]'"
        ) from error
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    dates = _dates(series)
    days = [float(date2num(date)) for date in dates] or list(map(float, range(len(series.nights))))
    _nights(axes, series, days)
    if dates:
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("night (without readable dates)")
    drawn = io.BytesIO()
    try:
        with np.errstate(all="ignore"):
            figure.savefig(drawn, format=suffix.lower()[1:], dpi=120)
    except (ValueError, OverflowError) as error:  # beyond what axes can be divided into
        raise UsageError(
            f"--plot cannot draw {series.cell!r}: {error}", "see its values with --json"
        ) from error
    return drawn.getvalue()


def _nights(axes: Axes, series: Series, days: Sequence[float]) -> None:
    """Dots, levels and changes, by where each night lies on the x axis."""
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


def _dates(series: Series) -> list[datetime]:
    """When the nights began; none where a file from elsewhere says something else."""
    try:
        return [datetime.fromisoformat(night.started_at) for night in series.nights]
    except ValueError:
        return []


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
