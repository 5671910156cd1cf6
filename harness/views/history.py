"""A history for the terminal: a sparkline, the levels, and what they mean.

Odd nights are cut to where the analysis cuts them, or they would flatten the line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.compare.history import Change, Tonight
from harness.compare.series import Series
from harness.maybe import Unavailable
from harness.stats.changepoints import clipped
from harness.views.terminal import style_of
from harness.views.text import plain, quantity

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 50
_CONTENTS = 3  # changes of the model's content that are told
_LEAST_PERCENT = 1e-6  # less is how numbers are stored


def render_history(series: Series) -> RenderableType:
    """One series whole."""
    head = Text(f"{plain(series.cell)}  {series.metric.name}", style="bold")
    first, last = series.nights[0], series.nights[-1]
    where = (
        f"machine {series.fingerprint}, {_count(series)}, {_day(first.started_at)} to "
        f"{_day(last.started_at)}"
    )
    values = [night.value for night in series.nights]
    low, high = (_quantity(series, value) for value in (min(values), max(values)))
    with np.errstate(over="ignore"):
        shown = np.nan_to_num(np.exp(clipped(values)))[-_WIDTH:].tolist()
    lines = [
        head,
        Text(where, style="dim"),
        Text(""),
        Text(f"{sparkline(shown)}  {low} to {high}"),
        Text(""),
        _levels(series),
        Text(""),
    ]
    return Group(*lines, *(Text(text) for text in _said(series)))


def render_histories(series: Sequence[Series]) -> RenderableType:
    """Many series, a line each."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("Cell", overflow="fold")  # alone gives way where the terminal is narrow
    for name in ("machine", "nights", "now", "", "since"):
        table.add_column(
            name, no_wrap=True, justify="right" if name in ("nights", "now") else "left"
        )
    for one in series:
        word, since = _verdict(one)
        table.add_row(
            Text(plain(one.cell)),
            one.fingerprint[:8],
            str(len(one.nights)),
            Text(_quantity(one, one.history.level)),
            Text(word, style=style_of(word.partition(" ")[0])),
            Text(since),
        )
    return Group(Text(f"{series[0].metric.name}\n", style="dim"), table)


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, from the least to the greatest."""
    low, high = min(values), max(values)
    if high == low:
        return _BARS[len(_BARS) // 2] * len(values)
    steps = len(_BARS) - 1
    return "".join(_BARS[round(steps * ((value - low) / (high - low)))] for value in values)


def _levels(series: Series) -> RenderableType:
    """A line for each level, the change that began it included."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in ("level", "nights", "from", "commit", "change", ""):
        table.add_column(name, no_wrap=True, justify="right" if name == "nights" else "left")
    changes = series.history.changes
    starts = [0, *(change.index for change in changes)]
    ends = [*starts[1:], len(series.nights)]
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        change = changes[place - 1] if place else None
        night = series.nights[start]
        value = change.after if change else _first_level(series)
        table.add_row(
            Text(_quantity(series, value)),
            str(end - start),
            _day(night.started_at),
            plain((night.commit or "")[:10]),
            _percent(math.log(change.ratio)) if change else "",
            Text(change.verdict, style=style_of(change.verdict)) if change else "",
        )
    return table


def _first_level(series: Series) -> float:
    changes = series.history.changes
    return changes[0].before if changes else series.history.level


def _said(series: Series) -> list[str]:
    """What follows from it, in sentences."""
    told = series.history
    texts = _of_the_model(series)
    if told.incident:
        texts.append(f"regressed: {incident(series, told.incident)}")
    if told.drift:
        change = _percent(math.log1p(told.drift.change))
        texts.append(f"drift: {change} over {told.drift.nights} nights, {told.drift.verdict}")
    tonight = told.tonight
    if not isinstance(tonight, Unavailable) and tonight.verdict != "fine" and not told.incident:
        texts.append(_newest(tonight))
    if not texts or all(text.startswith("model") for text in texts):
        texts.append("no regression and no drift at the end of this series")
    if isinstance(told.night_sd, Unavailable):
        texts.append(f"spread of nights unknown: {told.night_sd.reason}")
    else:
        percent = 100 * told.night_sd
        spread = f"{percent:.2g}" if percent >= _LEAST_PERCENT else "0"
        texts.append(f"nights of one level differ by {spread} % (sd)")
    return texts


def _of_the_model(series: Series) -> list[str]:
    """When what is behind the model's name became another content, newest last."""
    changes = series.model_changes
    texts = []
    for index in changes[-_CONTENTS:]:
        night = series.nights[index]
        earlier = [one.model_sha256 for one in series.nights[:index] if one.model_sha256]
        texts.append(
            f"model: new content {(night.model_sha256 or '')[:8]} since {plain(night.name)} "
            f"({_day(night.started_at)}), {earlier[-1][:8]} before"
        )
    if more := len(changes) - len(texts):
        texts.insert(0, f"model: {more} earlier change{'s' if more > 1 else ''} of content")
    return texts


def _newest(tonight: Tonight) -> str:
    """The newest night against those before it."""
    change, limit = _percent(math.log(tonight.ratio)), f"{100 * tonight.limit:.2g} %"
    text = f"{tonight.verdict}: tonight {change} against the last good nights, beyond {limit}"
    if tonight.verdict == "suspicious":
        return f"{text}; a second such night, or harness check --confirm, will tell"
    if tonight.verdict == "regressed":
        return f"{text}, for {tonight.nights} nights; unconfirmed"
    return text


def incident(series: Series, change: Change) -> str:
    """When it began, from what to what."""
    bad, good = series.nights[change.index], series.nights[change.last_good]
    return (
        f"{_percent(math.log(change.ratio))} since {plain(bad.name)} ({_day(bad.started_at)}); "
        f"last good {plain(good.name)}"
    )


def _verdict(series: Series) -> tuple[str, str]:
    told = series.history
    if told.incident:
        change = _percent(math.log(told.incident.ratio))
        return f"regressed {change}", _day(series.nights[told.incident.index].started_at)
    if told.drift:
        return f"drift {_percent(math.log1p(told.drift.change))}", f"{told.drift.nights} nights"
    return "", ""


def _count(series: Series) -> str:
    return f"{len(series.nights)} night{'s' if len(series.nights) != 1 else ''}"


def _quantity(series: Series, value: float) -> str:
    unit = series.metric.unit.replace("1/s", "/s")
    return quantity(value, unit) if unit else f"{value:.2%}"


def _percent(log_ratio: float) -> str:
    return f"{100 * math.expm1(log_ratio):+.1f} %"


def _day(stamp: str) -> str:
    return stamp[:10]
