"""The raw samples of a run: start and end of every iteration, by launch and stream.

While a run goes they are appended to ``samples.journal`` about once a second, so that a kill at any
moment costs the last second at most. When the result is written they are packed from memory into
``samples.npz``, in pieces, and the journal goes.

The journal is a sequence of blocks of little-endian int64: launch, stream, flags, count, then
``count`` rows (start_ns, end_ns, and what else the flags say: 1 is timed, 2 that due_ns follows).
Of a block cut short by a kill, its whole rows are read.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from harness.errors import ResultError
from harness.host.files import atomically

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Int64s = NDArray[np.int64]

JOURNAL_NAME = "samples.journal"
SAMPLES_NAME = "samples.npz"
_WORD = np.dtype("<i8")
_HEAD_WORDS = 4
OTHERS = ("due",)  # columns that some loads have; in the order of their flags in the journal
PIECE = 1 << 16  # iterations that are packed at once
MAX_ITERATIONS = 1 << 25  # 32 million, 1.3 GB in memory: what reports and exports can take in
MAX_RATIO = 100  # of unpacked to packed; clock readings shrink to a third or so


class Samples(NamedTuple):
    """One entry per iteration, in the order recorded. Clock: `time.perf_counter_ns`.

    ``timed`` is 1 in the window and 0 in warm-up and guard band, and in a duel for the first
    iterations of a turn. The file of a run that took turns also has ``round``, see `read_rounds`.
    ``due_ns``: when each request was due, of a load that has a schedule; outside it, the start.
    """

    launch: Int64s
    stream: Int64s
    timed: Int64s
    start_ns: Int64s
    end_ns: Int64s
    due_ns: Int64s | None = None

    def columns(self) -> dict[str, Int64s]:
        """Those that there are."""
        return {name: one for name, one in self._asdict().items() if one is not None}

    @property
    def latency_ns(self) -> Int64s:
        """From the moment that it counts from: due, where there is one, else the start."""
        return self.end_ns - (self.start_ns if self.due_ns is None else self.due_ns)

    @property
    def fit_together(self) -> bool:
        """Whether the columns have one length."""
        return len({len(column) for column in self.columns().values()}) == 1


class SamplesJournal:
    """Samples on their way to the disk. One writer."""

    def __init__(self, folder: Path) -> None:
        """Start an empty journal in ``folder``. Raises `ResultError`."""
        self.folder = folder
        self._path = folder / JOURNAL_NAME
        self._good_bytes = 0
        try:
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def append(
        self,
        launch: int,
        starts_ns: ArrayLike,
        ends_ns: ArrayLike,
        *,
        stream: int = 0,
        timed: bool = True,
        others: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Add iterations of ``launch`` and ``stream`` (from 0). On return the kernel has them.

        Raises `ResultError`: earlier blocks stay whole, and appending may be tried again.
        """
        more = {name: column for name, column in (others or {}).items() if name in OTHERS}
        columns = [starts_ns, ends_ns, *(more[name] for name in OTHERS if name in more)]
        rows = np.stack([np.asarray(column, dtype=_WORD) for column in columns], axis=1)
        if not len(rows):
            return
        flags = timed + sum(2 << bit for bit, name in enumerate(OTHERS) if name in more)
        head = np.array([launch, stream, flags, len(rows)], dtype=_WORD)
        block = head.tobytes() + rows.tobytes()
        try:
            view = memoryview(block)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._good_bytes)
                self._file.seek(self._good_bytes)
            raise _unwritable(self._path, error) from error
        self._good_bytes += len(block)

    def close(self) -> None:
        """Stop writing and leave the journal as it is. Idempotent."""
        self._file.close()

    def remove(self) -> None:
        """Close it and take it off the disk: what it held is elsewhere, or given up."""
        self.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


class Stretch(NamedTuple):
    """Iterations of one stream that follow each other, all of them timed or none.

    ``round``: from 0 in each launch, of a run that took turns with others; -1 outside them.
    """

    launch: int
    stream: int
    timed: bool
    start_ns: Int64s
    end_ns: Int64s
    round: int = -1
    others: Mapping[str, Int64s] = {}  # further columns, of those in `OTHERS`


def pack(folder: Path, stretches: Sequence[Stretch]) -> Path:
    """Write ``samples.npz``, whole or not at all; a launch's stretches follow each other in time.

    Takes a few MB, however many iterations there are. Raises `ResultError`.
    """
    pieces = sorted(
        (piece for one in stretches for piece in _cut(one)),
        key=lambda piece: (piece.launch, int(piece.start_ns[0])),
    )
    columns: dict[str, Callable[[Stretch], Int64s]] = {
        "launch": lambda one: np.full(len(one.start_ns), one.launch, _WORD),
        "stream": lambda one: np.full(len(one.start_ns), one.stream, _WORD),
        "timed": lambda one: np.full(len(one.start_ns), one.timed, _WORD),
        "start_ns": lambda one: one.start_ns,
        "end_ns": lambda one: one.end_ns,
    }
    for other in OTHERS:
        if any(other in one.others for one in stretches):
            columns[f"{other}_ns"] = partial(_other, other)
    if any(one.round >= 0 for one in stretches):
        columns["round"] = lambda one: np.full(len(one.start_ns), one.round, _WORD)
    header = {"descr": "<i8", "fortran_order": False, "shape": (sum(len(p[3]) for p in pieces),)}
    path = folder / SAMPLES_NAME
    with atomically(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, column in columns.items():
            with packed.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for piece in pieces:
                    member.write(np.asarray(column(piece), _WORD).tobytes())
    return path


def _other(name: str, one: Stretch) -> Int64s:
    return one.others.get(name, one.start_ns)


def _cut(one: Stretch) -> Iterator[Stretch]:
    """In pieces of at most `PIECE` iterations."""
    for low in range(0, len(one.start_ns), PIECE):
        inside = slice(low, low + PIECE)
        others = {name: column[inside] for name, column in one.others.items()}
        yield one._replace(start_ns=one.start_ns[inside], end_ns=one.end_ns[inside], others=others)


def read_samples(folder: Path) -> Samples:
    """The samples in a run folder: the packed file, or the journal that a killed run left.

    Raises `ResultError`.
    """
    path = folder / SAMPLES_NAME
    try:
        with path.open("rb") as file:
            bounded(file, MAX_ITERATIONS * (len(Samples._fields) + 1) * _WORD.itemsize)
            with np.load(file, allow_pickle=False) as packed:
                names = [
                    name for name in Samples._fields if name in packed.files or name != "due_ns"
                ]
                found = Samples(**{name: _checked(packed[name]) for name in names})
        if not found.fit_together:
            raise ValueError("its columns differ in length")
        return found
    except FileNotFoundError:
        return _read_journal(folder / JOURNAL_NAME)
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a damaged file
        raise ResultError(f"{str(path)!r} is no samples file, or damaged: {error}") from error


def read_rounds(folder: Path) -> Int64s | None:
    """The round of each of `read_samples`' iterations, -1 outside them; None: it took no turns.

    Raises `ResultError`.
    """
    path = folder / SAMPLES_NAME
    try:
        with path.open("rb") as file:
            bounded(file, MAX_ITERATIONS * (len(Samples._fields) + 1) * _WORD.itemsize)
            with np.load(file, allow_pickle=False) as packed:
                return _checked(packed["round"]) if "round" in packed.files else None
    except FileNotFoundError:
        return None
    except Exception as error:
        raise ResultError(f"{str(path)!r} is no samples file, or damaged: {error}") from error


def bounded(file: IO[bytes], limit_bytes: int) -> None:
    """Raises `ValueError` where a zip file says that it unpacks to more than that, or to so many
    times its size that it was made to. Leaves ``file`` at its beginning."""
    with zipfile.ZipFile(file) as packed:
        unpacked = sum(member.file_size for member in packed.infolist())
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if unpacked > min(limit_bytes, (1 << 20) + MAX_RATIO * size):
        raise ValueError(f"{size:,} bytes unpack to {unpacked:,}")


def _checked(array: NDArray[np.int64]) -> Int64s:
    if array.dtype != np.int64 or array.ndim != 1:
        raise ValueError(f"an array of {array.dtype}, {array.ndim} dimensions")
    return array


def journal_stretches(path: Path) -> list[Stretch]:
    """What a journal holds, block by block, as views of the file. Raises `ResultError`."""
    try:
        count = path.stat().st_size // _WORD.itemsize
        words = np.memmap(path, _WORD, "r", shape=(count,)) if count else np.empty(0, _WORD)
    except OSError as error:
        raise ResultError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    found, at = [], 0
    while at + _HEAD_WORDS <= len(words):
        launch, stream, flags, length = words[at : at + _HEAD_WORDS].tolist()
        if min(launch, stream, flags, length) < 0 or length == 0 or flags >= 2 << len(OTHERS):
            raise ResultError(f"{str(path)!r} is damaged at byte {at * 8}")
        more = [name for bit, name in enumerate(OTHERS) if flags & 2 << bit]
        wide = 2 + len(more)
        block = words[at + _HEAD_WORDS : at + _HEAD_WORDS + wide * length]
        rows = block[: len(block) // wide * wide].reshape(-1, wide)
        if len(rows):
            others = {name: rows[:, 2 + index] for index, name in enumerate(more)}
            found.append(
                Stretch(launch, stream, bool(flags & 1), rows[:, 0], rows[:, 1], others=others)
            )
        at += _HEAD_WORDS + wide * length
    return found


def _read_journal(path: Path) -> Samples:
    blocks = journal_stretches(path)
    lengths = [len(block.start_ns) for block in blocks]
    columns = zip(*((b.launch, b.stream, b.timed) for b in blocks), strict=True)
    labels = [np.repeat(np.array(column, np.int64), lengths) for column in columns]
    launch, stream, timed = labels or [np.empty(0, np.int64)] * 3
    none = np.empty(0, np.int64)
    starts = np.concatenate([none, *(block.start_ns for block in blocks)])
    ends = np.concatenate([none, *(block.end_ns for block in blocks)])
    due = [_other("due", block) for block in blocks]
    scheduled = any("due" in block.others for block in blocks)
    return Samples(launch, stream, timed, starts, ends, np.concatenate(due) if scheduled else None)


def _unwritable(path: Path, error: OSError) -> ResultError:
    return ResultError(f"{str(path)!r} cannot be written: {error.strerror or error}")
