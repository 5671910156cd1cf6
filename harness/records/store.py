"""The results folder: one folder per run, written atomically, read with suspicion.

    results/20261121T050301Z-digits-onnxruntime-int8-1a2b3c/
        result.json             the Result
        samples.npz             start and end of every timed iteration (`harness.records.samples`)
        events.out.tfevents...  what TensorBoard shows

Run folders lie at any depth: a sweep has a folder of its own, and its runs inside. Folders called
``baselines`` hold copies of runs that are kept apart, and hidden ones are not looked into.

A file appears whole or not at all: it is written beside its place under a temporary name, synced
and renamed. So a full disk or a kill leaves what was there before. A reader meets files that other
programs, versions and accidents have touched: whatever a file holds, `read_result` returns a Result
or raises `ResultError` that names the file and what is wrong with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from harness import maybe
from harness.errors import ResultError
from harness.host import lock
from harness.host.files import cause, write_atomically
from harness.host.names import tame
from harness.records.result import SCHEMA, Result
from harness.spec import MODEL_SUFFIXES, RunSpec

if TYPE_CHECKING:
    from harness.records.samples import SamplesJournal

RESULT_NAME = "result.json"
RUN_JOURNAL_NAME = "run.journal"
JOURNAL_SUFFIX = ".journal"
BASELINES_NAME = "baselines"
SWEEP_NAME = "sweep.json"
MAX_BYTES = 1 << 23  # a result is some 20 kB; nothing that is so much larger is one
MAX_LAUNCHES = 1_000  # as many as a run may have
MAX_ID = 255  # characters, of the name of a folder
_FAMILY, _, _VERSION = SCHEMA.rpartition("/")
_ID = re.compile(r"\d{8}T\d{6}Z-.+")
_RESTORE = "restore the file, or measure again"
_NAME_ONE = "give a run folder, a result file, a run id or its beginning, latest or latest~N"
_LATEST = re.compile(r"latest(~(?P<back>\d{1,6}))?")


class RunFolder:
    """One run's folder. ``id`` is its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, out: Path | str, name_parts: Sequence[str]) -> RunFolder:
        """A new folder in ``out``, itself made if its parent exists. Safe under concurrency.

        Raises `ResultError` where ``out`` cannot hold one, so call it before measuring.
        """
        out = Path(out)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = "-".join([stamp, *filter(None, map(_sanitise, name_parts))])
        try:
            out.mkdir(exist_ok=True)
            return cls(_new_folder(out, name))
        except OSError as error:
            raise ResultError(
                f"results folder {str(out)!r} cannot be written: {cause(error)}",
                "name a writable folder with --results",
            ) from error

    def write_result(self, result: Result) -> Path:
        """Write ``result.json``, replacing one that is there. Raises `ResultError`."""
        data = msgspec.json.format(msgspec.json.encode(result), indent=2)
        path = self.path / RESULT_NAME
        decode_result(data, path)  # NaN has no JSON: refuse it here, not at the reader's
        write_atomically(path, data + b"\n")
        return path

    def discard(self) -> None:
        """Remove the folder, if it is empty."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def journal(self) -> SamplesJournal:
        """The journal of this run's samples. Raises `ResultError`."""
        from harness.records.samples import SamplesJournal

        return SamplesJournal(self.path)


def why_not(error: Exception, folder: Path) -> str:
    """Why ``folder`` took no file."""
    if isinstance(error, MemoryError):
        return f"{str(folder)!r}: not enough memory to write"
    if isinstance(error, OSError):
        return f"{str(folder)!r} cannot be written: {cause(error)}"
    return str(error)


def series_name(launch: int, suffix: str = ".npz") -> str:
    """The file of the sensors of one launch, from 0."""
    return f"series{f'-{launch}' if launch else ''}{suffix}"


def _new_folder(out: Path, name: str) -> Path:
    while True:
        path = out / f"{name}-{secrets.token_hex(3)}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path.absolute()


def _sanitise(part: str) -> str:
    """A file, factory or device name as part of a folder name: at most 40 tame characters."""
    stem = re.split(r"[/\\]", part)[-1]
    for suffix in MODEL_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return tame(stem, 40)


def read_result(run: Path | str, results: Path | str = "results") -> Result:
    """The result of ``run``: a run folder, a result file, an id or its prefix, ``latest~N``.

    Ids are looked up in the folder ``results``. Raises `ResultError`.
    """
    path = result_path(run, results)
    return decode_result(read_bytes(path), path)


def read_bytes(path: Path | str, limit_bytes: int = MAX_BYTES) -> bytes:
    """What the file ``path`` holds, a result say. Raises `ResultError`, also for pipes, devices and
    what is longer than ``limit_bytes``."""
    try:
        # a pipe would be waited for
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ResultError(f"{str(path)!r} is no file", _NAME_ONE)
            if found.st_size > limit_bytes:
                raise ResultError(f"{str(path)!r} is none of Harness: {found.st_size:_d} bytes")
            return file.read()
    except FileNotFoundError as error:
        folder = Path(path).parent
        if remedy := to_recover(folder):
            raise ResultError(f"the run in {str(folder)!r} was killed", remedy) from error
        raise ResultError(
            f"{str(folder)!r} holds no {RESULT_NAME}",
            "the run is still going"
            + ("" if is_going(folder) else ", or was killed before its end"),
        ) from error
    except OSError as error:
        raise ResultError(
            f"{str(path)!r} cannot be read: {cause(error)}", "look at its permissions"
        ) from error


def is_going(folder: Path | str) -> bool:
    """Whether the driver of the run in ``folder`` lives: it holds a lock on the run's journal."""
    try:
        fd = os.open(f"{folder}/{RUN_JOURNAL_NAME}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not lock.take(fd, alone=False)
    except OSError:  # no locks on this file system: nobody knows
        return False
    finally:
        os.close(fd)


def to_recover(folder: Path | str) -> str:
    """The command that makes a result of what ``folder`` holds; empty where none is owed."""
    held = set(os.listdir(folder)) if os.path.isdir(folder) else set()  # noqa: PTH112, PTH208
    if RUN_JOURNAL_NAME not in held or RESULT_NAME in held or is_going(folder):
        return ""
    return f"harness recover {shlex.quote(str(folder))}"


def killed_runs(results: Path | str) -> Iterator[Path]:
    """The folders in ``results`` whose runs were killed before they had written a result."""
    for found in scan(results):
        if found.size_bytes < 0 and not found.problem and to_recover(found.folder):
            yield Path(found.folder)


def owed(results: Path | str) -> str:
    """The command that makes results of the killed runs in ``results``, and how many there are."""
    count = sum(1 for _ in killed_runs(results))
    return f"{count} killed: harness recover --results {shlex.quote(str(results))}" if count else ""


def iter_results(results: Path | str) -> Iterator[Result | ResultError]:
    """Every result in the folder ``results``, oldest first; the error in place of a broken one."""
    for folder in run_folders(Path(results)):
        try:
            yield read_result(folder)
        except ResultError as error:
            yield error


def run_folders(results: Path) -> list[Path]:
    """The run folders in ``results``, oldest first; none where there is no such folder.

    A run that has left no result yet has one too, known by its name.
    """
    ages = {
        Path(found.folder): (found.changed_ns, Path(found.folder).name)
        for found in scan(results)
        if not found.problem and (found.size_bytes >= 0 or _ID.fullmatch(Path(found.folder).name))
    }
    return sorted(ages, key=lambda path: (_began(path.name), *ages[path]))


def _began(name: str) -> str:
    """The time in the name of a run folder; those of other names come first."""
    return name.partition("-")[0] if _ID.fullmatch(name) else ""


def is_folder(results: Path | str) -> Path:
    """``results``, a folder. Raises `ResultError` where it is none."""
    if not Path(results).absolute().is_dir():  # absolute: a deleted current folder is told as that
        raise ResultError(f"there is no results folder {str(results)!r}", "name one with --results")
    return Path(results)


class Found(NamedTuple):
    """A run folder as `scan` meets it. Without a result its size is -1."""

    folder: str
    changed_ns: int = 0  # of the result file
    size_bytes: int = -1
    problem: str = ""  # why it could not be looked into


def scan(root: Path | str) -> Iterator[Found]:
    """Every folder below ``root`` that has a result or the name of a run, in no order.

    Costs one system call for a run, so that 100,000 of them take about a second.
    """
    folders, followed = [str(root)], {os.path.realpath(root)}
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                inside = [entry for entry in entries if _is_open(entry, followed)]
        except OSError as error:
            if folder != str(root) or not isinstance(error, FileNotFoundError):
                yield Found(folder, problem=cause(error))
            continue
        for entry in inside:
            found = _look(entry.path)
            if found.size_bytes >= 0 or found.problem or _ID.fullmatch(entry.name):
                yield found
            if found.size_bytes < 0 and not found.problem:
                folders.append(entry.path)


def _is_open(entry: os.DirEntry[str], followed: set[str]) -> bool:
    """Whether to look into ``entry``. A link is followed once, and only to what lies outside of
    the folders that are looked into anyway: so links in a circle end."""
    if entry.name.startswith(".") or entry.name == BASELINES_NAME or not entry.is_dir():
        return False
    if not entry.is_symlink():
        return True
    target = os.path.realpath(entry.path)
    for path in followed:
        if f"{target}/".startswith(f"{path}/") or f"{path}/".startswith(f"{target}/"):
            return False
    followed.add(target)
    return True


def _look(folder: str) -> Found:
    try:
        status = os.stat(f"{folder}/{RESULT_NAME}")  # noqa: PTH116  (a Path costs as much again)
    except (FileNotFoundError, NotADirectoryError):
        return Found(folder)
    except OSError as error:
        return Found(folder, problem=cause(error))
    return Found(folder, status.st_mtime_ns, status.st_size)


def result_path(run: Path | str, results: Path | str = "results") -> Path:
    """Where the result of ``run`` lies, or should lie. Raises `ResultError` where nothing fits."""
    path, name = Path(run), str(run)
    try:
        if name and path.is_dir():  # the empty path is the current folder
            return path / RESULT_NAME
        if name and path.exists():
            return path
    except (OSError, ValueError) as error:  # too long, or holds a null character
        raise ResultError(f"{name!r} names no run: {error}") from error
    return _by_id(name, Path(results)) / RESULT_NAME


def _by_id(name: str, results: Path) -> Path:
    folders = run_folders(results)
    if latest := _LATEST.fullmatch(name):
        back = int(latest["back"] or 0) + 1
        finished = [folder for folder in folders if (folder / RESULT_NAME).exists()]
        folders = finished[-back : len(finished) - back + 1]
    else:
        folders = [folder for folder in folders if name and folder.name.startswith(name)]
    if not folders:
        raise ResultError(f"no run {name!r} in {str(results)!r}", owed(results) or _NAME_ONE)
    if len(folders) > 1:
        raise ResultError(
            f"{name!r} begins the ids of {len(folders)} runs: {folders[0].name}, {folders[1].name}"
            + (", ..." if len(folders) > 2 else ""),
            "give more of the id",
        )
    return folders[0]


def decode_result(data: bytes, path: Path) -> Result:
    """The result in ``data``, read from ``path``. Raises `ResultError`."""
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{str(path)!r} is no JSON, or cut short: {error}", _RESTORE) from error
    _check_schema(raw, path)
    spec = raw.get("spec")
    if isinstance(spec, dict):  # a spec refuses unknown fields from a user; a reader lets them pass
        raw["spec"] = {key: spec[key] for key in spec if key in RunSpec.__struct_fields__}
    try:
        found = maybe.convert(raw, Result)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ResultError(f"{str(path)!r} is no valid {SCHEMA}: {error}", _RESTORE) from error
    _check_sizes(found, path)
    return found


def _check_sizes(result: Result, path: Path) -> None:
    """No run leaves more: what works through all pairs of launches would take for ever."""
    launches = 0 if isinstance(result.timing, maybe.Unavailable) else len(result.timing.launches)
    if launches > MAX_LAUNCHES or len(result.id) > MAX_ID:
        what = f"{launches:_d} launches, and an id of {len(result.id):_d} characters"
        raise ResultError(f"{str(path)!r} is no run's result: it has {what}", _RESTORE)


def _check_schema(raw: Any, path: Path) -> None:
    schema = raw.get("schema") if isinstance(raw, dict) else None
    family, _, version = str(schema).rpartition("/")
    if family != _FAMILY or not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise ResultError(
            f"{str(path)!r} is no Harness result: its schema is {schema!r:.60}", _NAME_ONE
        )
    if int(version) > int(_VERSION):
        raise ResultError(
            f"{str(path)!r} has schema {schema}, and this Harness reads up to {SCHEMA}",
            "upgrade with pip install -U hw-harness",
        )
