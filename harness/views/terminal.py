"""What a person at a terminal sees: a live line while a run goes, then tables.

Live output goes to stderr: one line redrawn in place on a terminal, one plain line per change of
phase anywhere else (no escape codes, no carriage returns). Tables are renderables for stdout.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from harness.records.result import Result
from harness.views.aligned import Aligned
from harness.views.headline import brief_rows, headline
from harness.views.text import Line, count, duration, number, plain, rows, scale_ms, subtitle, title

if TYPE_CHECKING:
    from harness.protocols import Progress

_STYLES = {
    "complete": "green",
    "pass": "green",
    "degraded": "yellow",
    "warn": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "fail": "red",
    "improved": "green",
    "regressed": "red",
    "inconclusive": "yellow",
    "unknown": "cyan",
    "n/a": "cyan",
}
_PHASES = {
    "build": "preparing the model",
    "load": "loading the model",
    "warm-up": "warming up",
    "window": "measuring",
    "idle": "measuring idle power",
    "profile": "profiling operators",
    "verify": "checking outputs",
}


class LiveLine:
    """One line at the foot of a terminal, redrawn in place and taken away at the end.

    ``redraws`` is False where that cannot be done: a pipe, a file, a dumb terminal.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self.redraws = self.console.is_terminal and not self.console.is_dumb_terminal
        # no refresh thread: callers come often enough, and threads disturb a measurement
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def show(self, text: str) -> None:
        if not self._live.is_started:
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        self._live.refresh()

    def stop(self) -> None:
        """Take it away, and give the cursor back. Idempotent."""
        self._live.stop()


class TerminalSink:
    """A `engine.driver.sinks.Sink` for stderr. Leave it out for ``--quiet`` and ``--json``."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._line = LiveLine(stream)
        self._shown: tuple[str, int] | None = None

    def update(self, progress: Progress) -> None:
        """Redraw the line, or print one where the phase has changed."""
        if self._line.redraws:
            self._line.show(live_line(progress))
        elif (progress.phase, progress.launch) != self._shown and progress.phase != "build":
            # not of preparing: a model that cannot be used is one line, which says why
            self._line.console.print(Text(phase_line(progress)), soft_wrap=True)
        self._shown = (progress.phase, progress.launch)

    def close(self, result: Result | None) -> None:
        """Take the live line away. The table is the command's business."""
        self._line.stop()


def phase_line(progress: Progress) -> str:
    """``measuring (launch 2 of 5)``."""
    text = phase_name(progress)
    if progress.launches > 1 and progress.phase != "build":
        text += f" (launch {progress.launch + 1} of {progress.launches})"
    return text


def phase_name(progress: Progress) -> str:
    return _PHASES.get(progress.phase, progress.phase)


def live_line(progress: Progress) -> str:
    """The launch, time left of the whole command, the phase, iterations, the median.

    In this order, since a narrow terminal shows the beginning.
    """
    place = f"launch {progress.launch + 1}/{progress.launches}" if progress.launches > 1 else ""
    if progress.remaining_s is None:
        left = f"{progress.elapsed_s:.0f} s" if progress.phase != "build" else ""
    else:
        left = left_text(progress.remaining_s, at_most=progress.at_most)
    start = ", ".join(filter(None, (place, left)))
    return f"{start}: {glimpse(progress)}" if start else glimpse(progress)


def left_text(seconds: float, *, at_most: bool = False) -> str:
    """``about 34 s left``."""
    return f"{'at most' if at_most else 'about'} {duration(seconds)} left"


def glimpse(progress: Progress) -> str:
    """``measuring, 1200 iterations, 1.235 ms [1.200, 1.300]``: what goes on inside a launch."""
    parts = [phase_name(progress)]
    if progress.iterations:
        parts.append(count(progress.iterations, "iteration"))
    if progress.median_ms is not None:
        factor, unit = scale_ms(progress.median_ms)
        median = f"{number(progress.median_ms / factor)} {unit}"
        if progress.ci95_ms is not None:
            low, high = progress.ci95_ms
            median += f" [{number(low / factor)}, {number(high / factor)}]"
        parts.append(median)
    return ", ".join(parts)


def render_result(
    result: Result, folder: Path | None = None, *, whole: bool = True
) -> RenderableType:
    """The table of one run (``whole``, or what most readers look for), and its headline below.

    ``folder`` adds where its files lie.
    """
    parts: list[RenderableType] = []
    if whole:
        parts += [_heading(title(result), result), Text(subtitle(result), style="dim"), Text("")]
    if found := rows(result) if whole else brief_rows(result):
        parts += [_table(found), Text("")]
    if folder is not None:
        parts.append(_whole(f"Files: {plain(folder)}"))
        parts += [] if whole else [_whole(f"All of it: harness show {_quoted(folder)}")]
        parts.append(Text(""))
    first, *figures, status = headline(result)
    word, colon, why = status.partition(":")
    last = Text.assemble((word, style_of(word.partition(" ")[0])), colon, why)
    return Group(*parts, _whole(first, "bold"), *map(_whole, figures), _whole(last))


def _whole(text: str | Text, style: str = "") -> Text:
    """One line, however narrow the terminal: what is copied, or found by `tail -3`."""
    line = Text(text, style=style) if isinstance(text, str) else text
    line.no_wrap, line.overflow = True, "ignore"
    return line


def _heading(text: str, result: Result) -> Text:
    return Text.assemble((f"{text}  ", "bold"), (result.status, style_of(result.status)))


def _quoted(folder: Path) -> str:
    return shlex.quote(plain(folder))


def _table(found: Sequence[Line]) -> RenderableType:
    cells = [
        (
            Text(row.section, style="bold"),
            Text(row.name),
            Text(row.value, style=style_of(row.value)),
            Text(row.note, style="dim"),
        )
        for row in found
    ]
    return Aligned(cells, right=frozenset({2}))


def style_of(text: str) -> str:
    """The colour of a verdict or a status; none for other texts."""
    return _STYLES.get(text, "")


def render_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> RenderableType:
    """An aligned table of texts; the last column wraps, a cell that is a verdict is coloured."""
    cells = [[Text(plain(cell), style=style_of(cell)) for cell in row] for row in body]
    return Aligned([[Text(name, style="bold") for name in header], *cells])


def print_out(renderable: RenderableType, width: int = 80) -> None:
    """Print to stdout: in colour and as wide as the terminal, or plain and ``width`` columns."""
    if sys.stdout is None:  # closed by the shell
        return
    if sys.stdout.isatty():
        Console(highlight=False).print(renderable, crop=False)
    else:
        sys.stdout.write(to_text(renderable, width) + "\n")


def to_text(renderable: RenderableType, width: int = 80) -> str:
    """The lines without colour, stripped at the right."""
    console = Console(width=width, highlight=False, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable, crop=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
