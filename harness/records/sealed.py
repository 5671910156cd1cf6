"""Which files a run wrote, by their SHA-256, and whether they are still those.

A result is sealed when the run is over: ``sha256`` names each file that lies beside it. Whoever
publishes the figures publishes the result, and a reader can tell its samples from others.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec

from harness.errors import ResultError
from harness.maybe import Maybe, Unavailable
from harness.records.result import Result
from harness.records.store import series_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = Literal["same", "changed", "missing", "not kept", "not recorded"]
_PIECE = 1 << 20
MOST_BYTES = 1 << 31  # of readings: weeks of every sensor at 20 Hz


class FileCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the run folder. ``recorded`` is empty in results of before they were sealed.

    A file is *missing* where others lie there that the run wrote with it. It was *not kept* where
    the result lies alone, as in a baseline, or was never sealed: then nothing tells of a theft.
    """

    file: str
    state: State
    recorded: str = ""
    found: str = ""


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """File name -> SHA-256, of those ``names`` that are files of ``folder``."""
    found = {name: _digest(folder, name) for name in names}
    return {name: digest for name, digest in found.items() if digest}


def check_files(result: Result, folder: Path) -> list[FileCheck]:
    """Each file that ``result`` names, held against what lies in ``folder``."""
    digest_by_name = {name: _digest(folder, name) for name in {**result.artifacts, **result.sha256}}
    alone = not any(digest_by_name.values())
    return [
        _check(name, result.sha256.get(name, ""), digest, alone)
        for name, digest in digest_by_name.items()
    ]


def read_series(folder: Path, launch: int) -> Maybe[dict[str, tuple[Any, Any]]]:
    """Channel -> (times in ns, values) of one launch, or why they cannot be read."""
    import numpy as np

    name = series_name(launch)
    try:
        with _opened(folder, name) as file, np.load(file, allow_pickle=False) as packed:
            if sum(one.file_size for one in packed.zip.infolist()) > MOST_BYTES:
                return Unavailable(f"{name} unpacks to more than {MOST_BYTES:_d} bytes")
            return dict(_channels({key: packed[key] for key in packed.files}))
    except FileNotFoundError:
        return Unavailable(f"there is no {name}")
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a damaged file
        return Unavailable(f"{name} is damaged, or no file of readings: {error}")


def _channels(arrays: dict[str, NDArray[Any]]) -> Iterable[tuple[str, tuple[Any, Any]]]:
    for key, values in arrays.items():
        kind, _, rest = key.partition(".")
        profiler, _, channel = rest.partition(".")
        times = arrays.get(f"times_ns.{profiler}")
        if kind == "values" and times is not None:
            if times.shape != values.shape or times.ndim != 1:
                raise ValueError(f"{channel} has {values.shape} readings at {times.shape} times")
            yield channel, (times.astype("int64"), values.astype("float64"))


def _check(name: str, recorded: str, found: str, alone: bool) -> FileCheck:
    state: State = "same" if recorded == found else "changed"
    if not found:
        state = "not kept" if alone or not recorded else "missing"
    elif not recorded:
        state = "not recorded"
    return FileCheck(file=name, state=state, recorded=recorded, found=found)


def _digest(folder: Path, name: str) -> str:
    """Empty where there is no such file in the folder itself."""
    digest = hashlib.sha256()
    try:
        with _opened(folder, name) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def _opened(folder: Path, name: str) -> BinaryIO:
    """A file of ``folder`` itself: a result from elsewhere may name anything.

    Raises `FileNotFoundError` for whatever is none, and `ResultError` where it cannot be read.
    """
    if name != Path(name).name or "\0" in name:
        raise FileNotFoundError(name)
    path = folder / name
    try:
        # neither a link nor a pipe, which would be waited for
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():
            raise FileNotFoundError(name) from error
        raise ResultError(
            f"{str(path)!r} cannot be read: {error.strerror}", "look at its permissions"
        ) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(name)
    return file
