"""The night while it goes: one table at the foot of a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.live import Live

from harness.fleet.progress import Snapshot
from harness.views.terminal import LiveLine, render_table
from harness.views.text import duration

_EVERY_S = 0.5


class LiveTable:
    """``say`` prints a line; while the table stands, lines go above it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        line = LiveLine()
        self._say = say
        self._live = (
            Live(console=line.console, auto_refresh=False, transient=True) if line.redraws else None
        )
        self._shown_s = 0.0

    def say(self, text: str) -> None:
        """One line, above the table."""
        if self._live is not None and self._live.is_started:
            self._live.stop()
        self._say(text)

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the table, twice a second at most."""
        if self._live is None or time.monotonic() - self._shown_s < _EVERY_S:
            return
        self._shown_s = time.monotonic()
        ended = snapshot.total - snapshot.pending
        counted = ", ".join(f"{n} {name}" for name, n in sorted(snapshot.outcomes.items()))
        header = ("node", "class", f"{ended} of {snapshot.total}", counted)
        body = [
            (one.node, one.machine_class, one.cell or "idle",
             f"{one.text}, {duration(one.seconds)}" if one.cell else "")
            for one in snapshot.nodes
        ]  # fmt: skip
        if not self._live.is_started:
            self._live.start()
        self._live.update(render_table(header, body))
        self._live.refresh()

    def stop(self) -> None:
        """Take the table away. Idempotent."""
        if self._live is not None:
            self._live.stop()
