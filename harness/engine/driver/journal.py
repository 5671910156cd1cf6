"""``run.journal``: what a driver knows, on disk while it goes, so that its death costs no figure.

    begun     who and what: the spec, the clock, where everybody runs
    ready     what was prepared, and on which machine
    installed the software that measures
    launch    one launch so far; written again at each change of its phase, the last line counts

One JSON object a line, appended and never synced: the kernel has it when the driver dies. Beside it
lie ``samples.journal`` (`harness.records.samples`) and, of each launch, ``series.journal``: the
sampler's frames as they came. `harness.engine.driver.recover` makes a result of them; a run that
ends by itself removes them. The driver holds a lock on the file for as long as it lives.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from harness.engine.outcome.evidence import (
    Block,
    Installed,
    LaunchRecord,
    Metered,
    Placement,
    TurnsTaken,
)
from harness.engine.wire.messages import Spent, Verified
from harness.errors import ResultError
from harness.host import lock
from harness.maybe import Maybe, Unavailable, decode
from harness.models import Prepared
from harness.records.operators import LaunchOperators
from harness.records.result import ErrorInfo, Machine
from harness.records.store import RUN_JOURNAL_NAME
from harness.spec import RunSpec

SCHEMA = "harness.journal/1"


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    schema: str = SCHEMA
    id: str
    started_at: str
    began_ns: int
    spec: RunSpec
    placement: Placement


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    prepared: Prepared
    machine: Machine


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag="launch"):
    """The plain fields of a `LaunchRecord`, and what its worker was doing at ``at_ns``."""

    launch: int
    doing: str
    at_ns: int
    sampler_lost: Unavailable | None
    load_s: float
    first_inference_ms: float
    warmup_end: str
    stop_reason: str
    facts: dict[str, str]
    idle: dict[str, tuple[int, int]]
    window_ns: tuple[int, int] | None
    pause_s: float
    memory: dict[str, dict[str, Maybe[float]]]
    device_memory: dict[str, dict[str, Maybe[int]]]
    device_ms: tuple[tuple[float, ...], ...]
    device_untimed: Unavailable | None
    spent: Spent | None = None
    load_facts: dict[str, int] = {}
    turns: TurnsTaken | None = None
    metered: tuple[Metered, ...] = ()
    unmetered: Unavailable | None = None
    compile_s: float | None = None
    yardstick_ns: tuple[int, int] = (0, 0)
    pipelined: bool
    verified: Verified | None
    unverified: str
    operators: Maybe[LaunchOperators] | None = None
    error: ErrorInfo | None
    overhead: tuple[Block, ...]

    @classmethod
    def of(
        cls, record: LaunchRecord, *, launch: int, doing: str, at_ns: int, lost: Unavailable | None
    ) -> Seen:
        """``lost``: why the sampler ended before it was told to."""
        return cls(
            launch=launch,
            doing=doing,
            at_ns=at_ns,
            sampler_lost=lost,
            device_ms=tuple(tuple(times.tolist()) for times in record.device_ms),
            overhead=tuple(record.overhead),
            **{name: getattr(record, name) for name in _SAME},
        )

    def record(self) -> LaunchRecord:
        """As it was, but for its recorders."""
        import numpy as np

        return LaunchRecord(
            device_ms=[np.array(times, np.float64) for times in self.device_ms],
            overhead=list(self.overhead),
            **{name: getattr(self, name) for name in _SAME},
        )


_SAME = tuple(
    name
    for name in Seen.__struct_fields__
    if name not in ("launch", "doing", "at_ns", "sampler_lost", "device_ms", "overhead")
)
Line = Begun | Ready | Installed | Seen


class RunJournal:
    """One writer. Where the disk refuses, `problem` says why, and the next line tries again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RUN_JOURNAL_NAME
        self.problem: str | None = None
        self._waiting = b""
        self._good_bytes = 0
        self._fd = -1

    def open(self) -> None:
        """Raises `ResultError`."""
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            lock.wait(self._fd)
        except OSError as error:
            raise ResultError(
                f"{str(self.path)!r} cannot be written: {error.strerror}",
                "name a writable folder with --out",
            ) from error

    @classmethod
    def of_the_dead(cls, folder: Path) -> RunJournal:
        """The journal of a driver that is gone, held so that nobody else takes it.

        Raises `ResultError` where there is none, or where the driver lives.
        """
        journal = cls(folder)
        try:
            journal._fd = os.open(journal.path, os.O_RDWR | os.O_NOFOLLOW)
            ours = lock.take(journal._fd)
        except FileNotFoundError as error:
            raise ResultError(
                f"{str(folder)!r} holds no {RUN_JOURNAL_NAME}: there is nothing to recover"
            ) from error
        except OSError as error:
            raise ResultError(f"{str(journal.path)!r} cannot be read: {error.strerror}") from error
        if not ours:
            os.close(journal._fd)
            raise ResultError(f"the run in {str(folder)!r} is still going", "wait for it")
        return journal

    def append(self, line: Line) -> None:
        self._waiting += msgspec.json.encode(line) + b"\n"
        view = memoryview(self._waiting)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.problem = f"{str(self.path)!r} cannot be written: {error.strerror}"
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._good_bytes)
                os.lseek(self._fd, self._good_bytes, os.SEEK_SET)
            return
        self._good_bytes += len(self._waiting)
        self._waiting = b""

    def remove(self) -> None:
        """The result says it all now. Idempotent."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let go of it where it lies. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_lines(path: Path) -> list[Line]:
    """What a journal holds; a line cut short by a kill is left out. Raises `ResultError`."""
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        lines: list[Line] = [decode(line, Line) for line in whole.splitlines()]  # type: ignore[arg-type]
    except OSError as error:
        raise ResultError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{str(path)!r} is no run journal, or damaged: {error}") from error
    if not lines or not isinstance(lines[0], Begun) or lines[0].schema != SCHEMA:
        raise ResultError(f"{str(path)!r} is no run journal of this version of Harness")
    return lines
