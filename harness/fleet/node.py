"""What runs on a node, in a worker of Ray's: one task, measured by ``harness run``.

    Begun ── Beat, Beat, ... ── Part, Part, ... ── Finished        what the driver gets, in order

A `Beat` comes once a second: the sign of life that the lease lives by, what goes on, and what the
run has added to its events. Ray is not imported here, and none of it is inside the measured
process: that is a child, whose environment is that of whoever joined.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import spec as specs
from harness.errors import HarnessError, MeasurementFailed, one_line
from harness.fleet import facts as node_facts
from harness.fleet.facts import NodeFacts
from harness.fleet.freight import Parcel, Piece, Products, install, pieces, unpack
from harness.host import scratch
from harness.host.child import ending
from harness.host.files import cause
from harness.host.lifetime import PARENT_VARIABLE
from harness.sweep import locks
from harness.sweep.needs import Needs, lacking
from harness.sweep.process import HARNESS, reason

BEAT_S = 1.0
WAIT_S = 6 * 3600.0  # for another measurement on this machine
_GRACE_S = 15.0
_MOST_EVENTS_BYTES = 1 << 20  # of one beat
_OUTPUT = "run.log"


class Order(NamedTuple):
    """What to measure. ``fields`` have places for the files in ``parcels``."""

    task: str
    needs: Needs
    fields: dict[str, Any]
    parcels: tuple[Parcel, ...]
    products: tuple[Parcel, ...]  # that other machines of this kind have built
    launches: int
    time_limit_s: float  # of one launch
    tags: tuple[str, ...]


class Begun(NamedTuple):
    node: str


class Beat(NamedTuple):
    """``events``: what the run's TensorBoard files have grown by."""

    text: str
    events: tuple[Piece, ...] = ()


class Part(NamedTuple):
    """Of the run's folder, or of an artifact in the cache, whose name is ``product``."""

    piece: Piece
    product: str = ""


class Finished(NamedTuple):
    """``cause``: why there is no result, or only one that is marked; empty where all went well."""

    code: int | None
    cause: str
    seconds: float


Message = Begun | Beat | Part | Finished


def measure(order: Order, get: Callable[[Any], bytes]) -> Iterator[Message]:
    """Measure ``order`` on this node. ``get``: what Ray keeps, by its reference.

    Whatever goes wrong on purpose ends with `Finished`, which says so.
    """
    began = time.monotonic()
    me = node_facts.read()
    yield Begun(me.name)
    try:
        _refuse_lies(me, order.needs)
        scratch.sweep()
        with scratch.Scratch() as folder:
            code, why = yield from _measured(order, get, me, Path(folder.path))
        yield Finished(code, why, time.monotonic() - began)
    except HarnessError as error:
        yield Finished(error.exit_code, str(error), time.monotonic() - began)
    except OSError as error:
        why = f"{error.filename or 'a file'} on {me.name}: {cause(error)}"
        yield Finished(2, why, time.monotonic() - began)


def _refuse_lies(me: NodeFacts, needs: Needs) -> None:
    """Raises `MeasurementFailed` where the machine lacks what it had when it joined."""
    if lacks := lacking(needs, node_facts.offers_now(me.offers)):
        raise MeasurementFailed(
            f"{me.name} claimed {', '.join(lacks)} when it joined, and lacks it now",
            "look at that machine: harness doctor; then have it join again",
        )


def _measured(
    order: Order, get: Callable[[Any], bytes], me: NodeFacts, folder: Path
) -> Generator[Message, None, tuple[int | None, str]]:
    """Returns (exit code, why there is no good result)."""
    fields = unpack(order.fields, order.parcels, get)
    install(order.products, get)
    before = Products.now()
    fields["tags"] = [*fields.get("tags", ()), *order.tags, f"node={me.name}"]
    command = [*HARNESS, "run", "--json", f"--launches={order.launches}"]
    command += [f"--results={folder / 'runs'}", *specs.arguments(fields)]
    wanted = locks.needs([specs.parse(fields)])
    with contextlib.ExitStack() as stack:
        descriptors = yield from _locked(wanted, stack)
        limit_s = order.time_limit_s * order.launches
        code = yield from _run(command, folder, limit_s, descriptors, me)
    why = "" if code == 0 else _why(code, folder / _OUTPUT, limit_s)
    runs = sorted(path for path in (folder / "runs").rglob("*") if path.is_file())
    for piece in pieces(folder / "runs", runs):
        yield Part(piece)
    if code == 0:
        for product in before.new():
            for piece in product.pieces:
                yield Part(piece, product.digest)
    return code, why


def _locked(
    wanted: dict[str, bool], stack: contextlib.ExitStack
) -> Generator[Message, None, list[int]]:
    """The machine's locks (its processors or its GPU), which other nodes on it take, too, and
    sweeps. Returns their descriptors."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return stack.enter_context(locks.held(wanted, 0.0))
        except MeasurementFailed as error:
            if time.monotonic() > deadline or "holds" not in error.message:
                raise
            yield Beat(f"waiting: {error.message}")
        time.sleep(BEAT_S / 2)


def _run(
    command: Sequence[str], folder: Path, limit_s: float, descriptors: Sequence[int], me: NodeFacts
) -> Generator[Message, None, int | None]:
    """Returns the exit code; None for a run that had to be stopped for its time."""
    follow = _Events(folder / "runs")
    deadline = time.monotonic() + limit_s
    with (folder / _OUTPUT).open("wb") as log, (folder / "stdout").open("wb") as out:
        child = subprocess.Popen(
            command,
            cwd=me.folder or None,
            env={**me.environment, PARENT_VARIABLE: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            pass_fds=tuple(descriptors),
            start_new_session=True,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(BEAT_S)
                if time.monotonic() > deadline:
                    return None
                yield Beat("measuring", follow.grown())
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a run that still goes, after it has written its result; and all that it started."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _why(code: int | None, log: Path, limit_s: float) -> str:
    if code is not None and code < 0:
        return f"harness run {ending(code)}"
    return one_line(reason(code, log, limit_s))


class _Events:
    """The TensorBoard files of the run below ``root``, as they grow."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sent: dict[Path, int] = {}

    def grown(self) -> tuple[Piece, ...]:
        found = []
        for path in self._root.glob("*/events.out.*"):
            offset = self._sent.get(path, 0)
            with path.open("rb") as file:
                file.seek(offset)
                if data := file.read(_MOST_EVENTS_BYTES):
                    found.append(Piece(str(path.relative_to(self._root)), offset, data))
                    self._sent[path] = offset + len(data)
        return tuple(found)
