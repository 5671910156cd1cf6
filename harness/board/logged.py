"""What event files in a folder say of models, where no result says it: imports, and other writers.

For commands that take runs and need no TensorBoard. Event files are untrusted: a record that is cut
short ends its file, and what cannot be decoded is named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.board.gather import Run, board
from harness.board.source import wanted_of
from harness.compare.duel import COMPARISON_NAME
from harness.compression.model import Board
from harness.errors import DataError
from harness.records.capacity import CAPACITY_NAME
from harness.records.store import RESULT_NAME, to_recover
from harness.tensorboard.read import MARK, values

_OURS = {RESULT_NAME, CAPACITY_NAME, COMPARISON_NAME}


class Logged(NamedTuple):
    """``unused``: folders of events that the board has no use for, and why."""

    board: Board
    unused: tuple[str, ...] = ()


def logged_in(root: Path) -> Logged:
    """The entries of all event files below ``root`` that have no result beside them."""
    runs: dict[str, Run] = {}
    unused: list[str] = []
    for folder, files in _event_folders(root):
        name = folder.relative_to(root).as_posix()
        try:
            found = _read(files)
        except DataError as error:
            unused.append(f"{str(folder)!r}: {error}")
            continue
        tags = wanted_of(name, [*found.scalars, *found.texts, *found.histograms])
        if tags:
            runs[name] = found
        else:
            unused.append(f"{str(folder)!r} holds events, but no figures of a model at a precision")
    made = board(runs, time.time())  # against the stamps in the files, which are wall time
    return Logged(made, tuple(unused))


def _event_folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Without those of runs of ours, done or not, whose results speak for them, and of what is
    around several runs: a duel's ratios, a capacity's curve."""
    for place, folders, names in os.walk(root):
        folders.sort()
        files = [Path(place, name) for name in sorted(names) if MARK in name]
        if files and not _OURS & {*names} and not to_recover(place):
            yield Path(place), [file for file in files if file.is_file()]


def _read(files: list[Path]) -> Run:
    """The newest value of each tag. Raises `DataError`."""
    run = Run()
    for event, value in values(files):
        run.seen_s = max(run.seen_s, event.wall_time)
        _add(run, value)
    return run


def _add(run: Run, value: Any) -> None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        run.scalars[value.tag] = value.simple_value
    elif kind == "histo":
        run.histograms[value.tag] = _rows(value.histo)
    elif kind == "tensor" and value.tensor.string_val:
        run.texts[value.tag] = value.tensor.string_val[0].decode("utf-8", "replace")
    elif kind == "tensor" and value.tensor.float_val:
        run.scalars[value.tag] = value.tensor.float_val[0]


def _rows(histogram: Any) -> list[list[float]]:
    """As TensorBoard gives them: left edge, right edge, count."""
    limits = list(histogram.bucket_limit)
    lefts = [histogram.min, *limits[:-1]]
    filled = [i for i, count in enumerate(histogram.bucket) if count > 0]
    rows = [[a, b, n] for a, b, n in zip(lefts, limits, histogram.bucket, strict=False)]
    for at in filled[:1]:
        rows[at][0] = histogram.min
    for at in filled[-1:]:
        rows[at][1] = histogram.max
    return rows
