"""One night on disk: who measures what just now, and how each task ended. No locks, no deletions.

    results/NIGHT/
        fleet.json, sweep.json          the plan, written first
        <task>/row.json, <run>/...      how the task ended, and its run: put there by one rename
        live/<task>.<n>/                events of runs that are going on, for TensorBoard
        .fleet/leases/<task>.<n>        the n-th attempt; its time of change is its last heartbeat
        .fleet/incoming/                what is on its way
        .fleet/aside/<task>.<k>         copies that came second
        .fleet/reopened/<task>.<k>      rows that were taken back to try again
        .fleet/attempts.jsonl           every attempt that ended without a row

Two rules make each task end in exactly one row, however many drivers there are, and whenever one
of them is stopped or killed:

- An attempt is a file that is created if absent. The n-th may be begun only when the one before
  has had no heartbeat for ``lease_s``; of several that would begin it one succeeds.
- A row is a folder that is renamed into place, whole, if nothing is there: the file system lets
  one rename succeed. A second writer, say a node that was given up and comes back late, finds its
  place taken, and its copy goes aside and is counted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from harness.errors import ResultError
from harness.fleet.plan import PLAN_NAME, FleetPlan
from harness.host.files import cause, opened_to_append, write_atomically

# ``open``: in reports alone, of a task that has not ended
Outcome = Literal["result", "failed", "no-runner", "lost", "cancelled", "open"]
ROW_NAME = "row.json"
LIVE = "live"
_OURS = ".fleet"
_SPACE = "free some space, and run the same command again"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended. ``status``: of its result, where it has one."""

    task: str
    cell: str
    machine_class: str
    outcome: Outcome
    cause: str = ""
    status: str = ""
    run: str = ""
    node: str = ""
    attempt: int = 0
    seconds: float = 0.0
    ended_at: str = ""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that ended without a row: its node was lost, or it was called off."""

    task: str
    attempt: int
    how: str  # lost | released | reopened: what was lost before counts no more
    node: str = ""
    cause: str = ""
    at: str = ""


class Lease(NamedTuple):
    """The right to measure a task, for as long as its heartbeat goes on."""

    task: str
    attempt: int  # from 1
    path: Path


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """The night in ``folder``. ``clock``: seconds since the epoch."""

    def __init__(self, folder: Path, lease_s: float, clock: Callable[[], float] = time.time):
        self.folder = folder
        self.lease_s = lease_s
        self._clock = clock
        self._ours = folder / _OURS
        with writing(folder):
            for name in ("leases", "incoming", "aside", "reopened"):
                (self._ours / name).mkdir(parents=True, exist_ok=True)

    # --- leases ---

    def acquire(self, task: str) -> Lease | None:
        """The next attempt at ``task``; None while another goes on, or when it has ended."""
        if self.has_row(task):
            return None
        number = 1
        while self._lease(task, number).exists():
            number += 1
        if number > 1 and not self._expired(self._lease(task, number - 1)):
            return None
        path = self._lease(task, number)
        with writing(self.folder):
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:  # another driver was first
                return None
            self._beat(path)
        return Lease(task, number, path)

    def renew(self, lease: Lease) -> bool:
        """A sign of life; False where the task is another's by now."""
        with contextlib.suppress(OSError):
            self._beat(lease.path)
        return not self._lease(lease.task, lease.attempt + 1).exists()

    def release(self, lease: Lease, how: str, node: str = "", cause: str = "") -> None:
        """Give it back before its time, for another to take. Raises `ResultError`."""
        with contextlib.suppress(OSError):
            os.utime(lease.path, (0, 0))
        self._note(Ended(task=lease.task, attempt=lease.attempt, how=how, node=node, cause=cause,
                         at=now_text()))  # fmt: skip

    def _note(self, ended: Ended) -> None:
        with writing(self.folder), opened_to_append(self._ours / "attempts.jsonl") as file:
            # the line break comes first: what a full disk cut short spoils no other line
            file.write(b"\n" + msgspec.json.encode(ended) + b"\n")

    def held(self, task: str) -> bool:
        """Whether somebody measures it just now, as far as heartbeats tell."""
        number = 1
        while self._lease(task, number).exists():
            number += 1
        return number > 1 and not self._expired(self._lease(task, number - 1))

    def ended(self) -> list[Ended]:
        """Every attempt that ended without a row. What cannot be read is no attempt."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in (self._ours / "attempts.jsonl").read_bytes().splitlines():
                with contextlib.suppress(msgspec.MsgspecError):
                    found.append(msgspec.json.decode(line, type=Ended))
        return found

    def _lease(self, task: str, number: int) -> Path:
        return self._ours / "leases" / f"{task}.{number}"

    def _beat(self, path: Path) -> None:
        os.utime(path, (self._clock(), self._clock()))

    def _expired(self, path: Path) -> bool:
        return path.stat().st_mtime + self.lease_s <= self._clock()

    # --- rows ---

    def stage(self, task: str) -> Path:
        """An empty folder to put a run into, before it is published. Raises `ResultError`."""
        path = self._ours / "incoming" / f"{task}.{os.getpid()}.{secrets.token_hex(4)}"
        with writing(self.folder):
            path.mkdir()
        return path

    def publish(self, row: Row, staged: Path | None = None) -> bool:
        """End ``row.task`` so, with what lies in ``staged``; False where it has ended already.

        Then the copy is set aside. Raises `ResultError` where the disk refuses; nothing is
        published then.
        """
        staged = staged or self.stage(row.task)
        write_atomically(staged / ROW_NAME, msgspec.json.encode(row) + b"\n")
        with writing(self.folder):
            if _renamed(staged, self.folder / row.task):
                _synced(self.folder)
                return True
            _numbered(staged, self._ours / "aside" / row.task)
        return False

    def has_row(self, task: str) -> bool:
        return (self.folder / task / ROW_NAME).exists()

    def row(self, task: str) -> Row | None:
        """How ``task`` ended; None while it has not. Raises `ResultError`."""
        path = self.folder / task / ROW_NAME
        try:
            return msgspec.json.decode(path.read_bytes(), type=Row)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ResultError(f"{str(path)!r} cannot be read: {error}", "restore it") from error

    def reopen(self, task: str) -> None:
        """Take a row back, to measure the task again; it is kept. Raises `ResultError`."""
        with writing(self.folder), contextlib.suppress(FileNotFoundError):
            _numbered(self.folder / task, self._ours / "reopened" / task)
            self._note(Ended(task=task, attempt=0, how="reopened", at=now_text()))

    def aside(self) -> list[Row]:
        """The copies that came second."""
        found = []
        for path in sorted((self._ours / "aside").glob(f"*/{ROW_NAME}")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found.append(msgspec.json.decode(path.read_bytes(), type=Row))
        return found

    def live(self, lease: Lease) -> Path:
        """Where events of an attempt lie while it goes on."""
        return self.folder / LIVE / f"{lease.task}.{lease.attempt}"

    def forget_live(self, lease: Lease) -> None:
        shutil.rmtree(self.live(lease), ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.folder / LIVE).rmdir()

    def sweep_up(self) -> None:
        """Remove what killed drivers left on its way, and end their leases.

        Only while no other driver is at work.
        """
        for lease in (self._ours / "leases").iterdir():
            os.utime(lease, (0, 0))
        for path in (self._ours / "incoming").iterdir():
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.folder / LIVE).glob("*"):
            shutil.rmtree(path, ignore_errors=True)


def create(folder: Path, plan: FleetPlan) -> bool:
    """Write the plan if there is none; False where another was first. Raises `ResultError`."""
    data = msgspec.json.format(msgspec.json.encode(plan)) + b"\n"
    with writing(folder):
        (folder / _OURS).mkdir(parents=True, exist_ok=True)
        new = folder / _OURS / f"plan.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            write_atomically(new, data)
            os.link(new, folder / PLAN_NAME)
            _synced(folder)
        except FileExistsError:
            return False
        finally:
            new.unlink(missing_ok=True)
    return True


def _renamed(source: Path, target: Path) -> bool:
    """Whether ``source`` is at ``target`` now, where nothing was."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def _numbered(source: Path, target: Path) -> None:
    number = 1
    while not _renamed(source, target.with_name(f"{target.name}.{number}")):
        number += 1


def _synced(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Maps the disk's refusals to `ResultError`."""
    try:
        yield
    except OSError as error:
        raise ResultError(f"{str(folder)!r} cannot be written: {cause(error)}", _SPACE) from error
