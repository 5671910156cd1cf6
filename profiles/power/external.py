"""A meter of the user's own, by the file it writes: ``--power-source external:FILE.csv``.

The file is CSV with a header. Columns, of which the first and one more must be there:

    time_s     when the reading was taken: seconds since 1970, or ISO 8601 with an offset or Z
    power_w    mean power since the row before, in watts
    energy_j   energy since any fixed moment, in joules

It may still be written while it is read; a last line without its end is left until it is whole.
Rows are handed out one a `read`, each with its own time, so a logger that writes in bursts loses
nothing. One that logs more often than the sampler reads has as many rows joined as it takes: their
powers are averaged over time, which is exact, and the last one's energy and time stand for all.
"""

from __future__ import annotations

import csv
import math
import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from harness.errors import UsageError
from harness.maybe import Unavailable, coded
from harness.protocols import Available, Channel, ProfilerContext

NAME = "wall"
PREFIX = "external:"
TIME_COLUMNS = ("time_s", "time", "timestamp")
FUTURE_S = 1.0  # a reading further ahead of this machine's clock than this is none
STEP_S = 0.1  # the wall clock may be slewed, but a jump makes its times useless
_MAX_PERIOD_ROWS = 100
_MAX_LINE_BYTES = 1 << 20
FAST_READ_S = 0.05  # how often a fast meter is read by default
HEADROOM = 1.2  # rows are joined a little beyond what keeps up, so that a backlog shrinks


class Row(msgspec.Struct, frozen=True):
    """One reading; ``time_s`` is seconds since 1970."""

    time_s: float
    power_w: float | None
    energy_j: float | None


def parse_time_s(text: str) -> float:
    """Seconds since 1970. Raises `ValueError` for anything else, local times included."""
    try:
        seconds = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} has no UTC offset") from None
        return moment.timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is no time")
    return seconds


def cells_of(line: str) -> list[str]:
    """Raises `ValueError` for what is no line of a CSV."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error as error:  # a carriage return within it, a cell of 131,073 characters
        raise ValueError(str(error)) from error


class Table:
    """The rows of a growing CSV, parsed as they come. Malformed ones are counted, not guessed."""

    def __init__(self, header: Sequence[str]) -> None:
        """Raises `ValueError` for a header without a time or without a quantity."""
        names = [name.strip().lower() for name in header]
        self.columns = {
            name: names.index(name) for name in ("power_w", "energy_j") if name in names
        }
        times = [name for name in TIME_COLUMNS if name in names]
        if not times or not self.columns:
            wanted = "a column time_s and a column power_w or energy_j"
            raise ValueError(f"its header is {','.join(header)!r} and lacks {wanted}")
        self._time = names.index(times[0])
        self._width = len(names)
        self._newest_s = -math.inf
        self.malformed = 0
        self.problem = ""

    def parse(self, line: str, now_s: float) -> Row | None:
        """The row that ``line`` holds, None where it holds none."""
        try:
            cells = cells_of(line)
            if not cells:
                return None
            row = self._row(cells)
            if row.time_s > now_s + FUTURE_S:
                raise ValueError(f"time {row.time_s:.3f} lies in the future")
            if row.time_s <= self._newest_s:
                raise ValueError(f"time {row.time_s:.3f} does not follow {self._newest_s:.3f}")
        except ValueError as error:
            self.malformed += 1
            self.problem = str(error)
            return None
        self._newest_s = row.time_s
        return row

    def _row(self, cells: Sequence[str]) -> Row:
        if len(cells) != self._width:
            raise ValueError(f"{len(cells)} cells instead of {self._width}")
        values = {name: float(cells[index]) for name, index in self.columns.items()}
        for name, value in values.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}")
        time_s = parse_time_s(cells[self._time])
        return Row(time_s, values.get("power_w"), values.get("energy_j"))


class WallClock:
    """Wall time to this process's monotonic clock, from readings of both taken together."""

    def __init__(self) -> None:
        self._wall_s: list[float] = []
        self._mono_s: list[float] = []

    def pair(self, wall_s: float, mono_s: float) -> float:
        """Note that both clocks showed this at once; the jump of the wall clock since, in seconds.

        One pair a second is kept: slewing is slow.
        """
        if not self._wall_s:
            jump_s = 0.0
        else:
            jump_s = (wall_s - mono_s) - (self._wall_s[-1] - self._mono_s[-1])
            if mono_s - self._mono_s[-1] < 1.0:
                return jump_s
        self._wall_s.append(wall_s)
        self._mono_s.append(mono_s)
        return jump_s

    def monotonic_s(self, wall_s: float) -> float:
        """When ``wall_s`` was, on the monotonic clock, by the offset of the nearest pair."""
        after = bisect_left(self._wall_s, wall_s)
        near = [index for index in (after - 1, after) if 0 <= index < len(self._wall_s)]
        best = min(near, key=lambda index: abs(self._wall_s[index] - wall_s))
        return wall_s - self._wall_s[best] + self._mono_s[best]


class ExternalSource:
    """The readings of a wall meter, with a further channel that says when each was taken.

    That channel (``time/wall_s``, seconds on the monotonic clock) belongs to the values read with
    it; `attribute` puts the values at these times. A read without a new row gives None.
    """

    name = "external"

    def __init__(self, context: ProfilerContext) -> None:
        self._path = Path(context.power_source.removeprefix(PREFIX))
        self._fd = -1
        self._offset = 0
        self._partial = b""
        self._table: Table | None = None
        self._rows: deque[Row] = deque()
        self._times_s: deque[float] = deque(maxlen=_MAX_PERIOD_ROWS)
        self._handed_s: float | None = None  # the time of the last row handed out
        self._reads_s: deque[float] = deque(maxlen=11)
        self._clock = WallClock()
        self._fault: Unavailable | None = None
        self._first_j: float | None = None

    def open(self) -> Available | Unavailable:
        """Reads what is there. Older rows only tell how often the meter logs."""
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._poll()
        except FileNotFoundError:
            start = "start the meter's logger before the run"
            return coded("not_present", f"{self._path} does not exist", start)
        except PermissionError:
            return coded("permission_denied", f"{self._path} is forbidden", "widen its mode")
        except (OSError, ValueError) as error:
            return coded("error", f"{self._path}: {error}", "give a CSV file as documented")
        if self._table is None:
            return coded("error", f"{self._path} has no header yet", "start the meter's logger")
        if self._table.malformed and not self._rows:
            detail = f"{self._path} has no valid row: {self._table.problem}"
            return coded("error", detail, "give a CSV file as documented")
        self._rows.clear()
        self._handed_s = self._times_s[-1] if self._times_s else None
        return Available({"file": str(self._path), "columns": ", ".join(self._table.columns)})

    @property
    def channels(self) -> Sequence[Channel]:
        """With the count of malformed rows so far among the facts."""
        if self._table is None:
            return []
        facts = {"malformed_rows": float(self._table.malformed)}
        channels = []
        if "energy_j" in self._table.columns:
            channels.append(self._channel(f"energy/{NAME}_j", "J", "counter", facts))
        if "power_w" in self._table.columns:
            channels.append(self._channel(f"power/{NAME}_w", "W", "gauge", facts))
        return [*channels, self._channel(f"time/{NAME}_s", "s", "gauge", facts)]

    def _channel(
        self, name: str, unit: str, kind: Literal["gauge", "counter"], facts: dict[str, float]
    ) -> Channel:
        period_s = _period_s(self._times_s)
        return Channel(
            name=name,
            unit=unit,
            kind=kind,
            tag=name,
            scope="wall",
            source="external",
            period_s=period_s and period_s * self._joined(),
            unavailable=self._fault,
            facts=facts,
            meter=NAME,
        )

    def read(self) -> Sequence[float | None]:
        """The oldest row not yet handed out, with its time; None everywhere without one."""
        count = len(self.channels)
        if self._fault is None:
            try:
                self._poll()
            except (OSError, ValueError) as error:
                self._fault = coded("error", f"{self._path}: {error}", "keep the log in one piece")
        self._reads_s.append(time.perf_counter())
        joined = self._joined()
        if self._fault is not None or len(self._rows) < joined:
            return [None] * count
        row = self._join([self._rows.popleft() for _ in range(joined)])
        values = []
        if row.energy_j is not None:
            self._first_j = row.energy_j if self._first_j is None else self._first_j
            values.append(row.energy_j - self._first_j)
        if row.power_w is not None:
            values.append(row.power_w)
        return [*values, self._clock.monotonic_s(row.time_s)]

    def _joined(self) -> int:
        """How many rows make one reading."""
        period_s = _period_s(self._times_s)
        if period_s is None:
            return 1
        every_s = max(FAST_READ_S, _period_s(self._reads_s) or 0.0)
        if every_s <= 1.05 * period_s:
            return 1  # reading keeps up
        return math.ceil(HEADROOM * every_s / period_s - 0.01)

    def _join(self, rows: Sequence[Row]) -> Row:
        """One row for several: each power is the mean since the row before."""
        before_s, self._handed_s = self._handed_s, rows[-1].time_s
        edges_s = [before_s, *(row.time_s for row in rows)]
        pairs = [
            (row.power_w, end_s - start_s)
            for row, (start_s, end_s) in zip(rows, pairwise(edges_s), strict=True)
            if row.power_w is not None and start_s is not None and end_s is not None
        ]
        if not pairs:  # the very first row has no known length
            return rows[-1]
        joules = sum(power_w * seconds for power_w, seconds in pairs)
        power_w = joules / sum(seconds for _, seconds in pairs)
        return Row(rows[-1].time_s, power_w, rows[-1].energy_j)

    def _poll(self) -> None:
        """Take in whatever was appended. Raises `OSError`, or `ValueError` for a spoiled file."""
        now_s = time.time()
        if abs(self._clock.pair(now_s, time.perf_counter())) > STEP_S:
            raise ValueError("the system's clock was set during the run")
        if os.fstat(self._fd).st_size < self._offset:
            raise ValueError("the file became shorter")
        while chunk := os.pread(self._fd, 1 << 16, self._offset):
            self._offset += len(chunk)
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace").strip().removeprefix("\ufeff"), now_s)
            if len(self._partial) > _MAX_LINE_BYTES:
                raise ValueError(f"a line is longer than {_MAX_LINE_BYTES:,} bytes")

    def _take(self, line: str, now_s: float) -> None:
        if self._table is None:
            if line:
                self._table = Table(cells_of(line))
            return
        row = self._table.parse(line, now_s)
        if row is not None:
            self._rows.append(row)
            self._times_s.append(row.time_s)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _period_s(times_s: Iterable[float]) -> float | None:
    gaps = [after - before for before, after in pairwise(times_s)]
    return median(gaps) if len(gaps) >= 5 else None


def parse_path(text: str) -> str:
    """The file of ``external:FILE``. Raises `UsageError` where it names none."""
    path = text.removeprefix(PREFIX)
    if not path.strip():
        raise UsageError(f"--power-source is {text!r}", "give external:FILE.csv")
    return path


def require_file(text: str) -> None:
    """Raises `UsageError` where the file of ``external:FILE`` is not there yet."""
    path = parse_path(text)
    if not os.path.isfile(path):  # noqa: PTH113 (never raises)
        raise UsageError(
            f"--power-source names {path!r}, which is no file", "start the meter first"
        )
