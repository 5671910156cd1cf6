"""The results that lie beside the events of runs: what the board's figures and verdicts are of.

TensorBoard names a run by its folder, relative to the log folder. A result is read once and again
when its file has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from harness.errors import ResultError
from harness.records.capacity import CAPACITY_NAME
from harness.records.result import Result
from harness.records.store import RESULT_NAME, decode_result, read_bytes

_Stamp = tuple[int, int]  # nanoseconds since 1970, bytes
_MOST_PROBLEMS = 5


class Beside:
    """``results`` by TensorBoard's run, ``folders`` by the result's id, after `look`."""

    def __init__(self, logdir: Path) -> None:
        self.results: dict[str, Result] = {}
        self.problems: list[str] = []
        self._logdir = logdir
        self._stamps: dict[str, _Stamp] = {}
        self._broken: dict[str, str] = {}

    @property
    def folders(self) -> dict[str, Path]:
        return {result.id: self._logdir / run for run, result in self.results.items()}

    def look(self, runs: Iterable[str]) -> list[tuple[str, _Stamp]]:
        """Read what is new or has changed; returns what tells whether anything has."""
        stamps = {run: stamp for run in sorted(runs) if (stamp := self._stamp(run)) is not None}
        for run in self._stamps.keys() - stamps.keys():
            self.results.pop(run, None)
            self._broken.pop(run, None)
        for run, stamp in stamps.items():
            if self._stamps.get(run) != stamp:
                self._read(run)
        self._stamps = stamps
        shown = [*self._broken.values()][:_MOST_PROBLEMS]
        more = len(self._broken) - len(shown)
        self.problems = [*shown, *([f"and {more} more such results"] if more else [])]
        around = sorted({os.path.dirname(run) for run in stamps})  # noqa: PTH120  of thousands
        records = [(run, s) for run in around if (s := self._stamp(run, CAPACITY_NAME)) is not None]
        return [*stamps.items(), *records]

    def _stamp(self, run: str, name: str = RESULT_NAME) -> _Stamp | None:
        try:
            found = os.stat(self._logdir / run / name)  # noqa: PTH116  of thousands
        except (OSError, ValueError):
            return None
        return found.st_mtime_ns, found.st_size

    def _read(self, run: str) -> None:
        path = self._logdir / run / RESULT_NAME
        self.results.pop(run, None)
        self._broken.pop(run, None)
        try:
            self.results[run] = decode_result(read_bytes(path), path)
        except ResultError as error:
            self._broken[run] = f"{error}: its events are shown, and not judged"
