"""Run what is left of a sweep, one launch at a time, each in a ``harness run`` of its own.

    round 1   a b c d        launches of a cell are spread over the night, and every other round
    round 2   d c b a        goes backwards, so that a slow drift of the machine falls on all cells
    round 3   a b c d        alike

A cell that fails is recorded, left out of later rounds, and the sweep goes on. A launch that
outlasts the plan's limit is interrupted, so that its run can still leave a marked result, and then
killed with all that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from harness import spec as specs
from harness.errors import one_line
from harness.host.files import opened_to_append
from harness.host.lifetime import PARENT_VARIABLE
from harness.maybe import Unavailable, convert
from harness.records.cell import Cell
from harness.records.lookup import lookup
from harness.records.result import Result
from harness.sweep.folder import DONE, LOGS, Attempt, SweepFolder
from harness.sweep.plan import Plan, SweepCell

# -P: a file in the user's folder must not shadow a module, nor a folder be taken for Harness
HARNESS = (sys.executable, "-P", "-m", "harness")
_LONGEST_REASON = 1000  # characters; the run's own result has it whole
_GRACE_S = 15.0  # for a run that was interrupted to write its result


class Step(msgspec.Struct, frozen=True):
    """What is told before (``attempt`` None) and after each launch."""

    number: int  # from 1
    total: int
    cell: Cell
    launch: int  # from 1
    launches: int
    remaining_s: float | None
    attempt: Attempt | None = None
    median_ms: float | None = None


def remaining(plan: Plan, done: set[tuple[str, int]]) -> list[tuple[SweepCell, int]]:
    """(cell, launch) still to be run, in the order in which they run. Launches count from 1."""
    left = []
    for launch in range(1, plan.launches + 1):
        cells = plan.cells if launch % 2 else plan.cells[::-1]
        left += [(one, launch) for one in cells if (one.cell.key, launch) not in done]
    return left


def run(
    plan: Plan,
    folder: SweepFolder,
    descriptors: Sequence[int],
    tell: Callable[[Step], None],
    glimpsed: Callable[[Step, bytes], None] | None = None,
) -> Iterator[Attempt]:
    """Run and record all that is left. ``descriptors``: of the locks, for the runs to inherit.

    ``glimpsed`` is told, in a thread of its own, what goes on inside each launch: a line of
    `harness.views.pipe`.

    Raises `ResultError` where the folder cannot be written.
    """
    steps = remaining(plan, folder.done())
    failed: set[str] = set()
    seconds: dict[str, float] = {}
    for index, (one, launch) in enumerate(steps):
        if one.cell.key in failed:
            continue
        later = [other.cell.key for other, _ in steps[index:] if other.cell.key not in failed]
        step = Step(
            index + 1, len(steps), one.cell, launch, plan.launches, _estimate(later, seconds)
        )
        tell(step)
        listen = None if glimpsed is None else partial(glimpsed, step)
        attempt, median_ms = _launch(one, launch, plan.time_limit_s, folder, descriptors, listen)
        folder.record(attempt)
        seconds[one.cell.key] = attempt.seconds
        if attempt.status not in DONE:
            failed.add(one.cell.key)
        tell(msgspec.structs.replace(step, attempt=attempt, median_ms=median_ms))
        yield attempt


def _estimate(keys: Sequence[str], seconds: dict[str, float]) -> float | None:
    """Seconds left: each cell as long as its last launch, new ones as the mean of the others."""
    if not seconds:
        return None
    mean = sum(seconds.values()) / len(seconds)
    return sum(seconds.get(key, mean) for key in keys)


def _launch(
    one: SweepCell,
    launch: int,
    limit_s: float,
    folder: SweepFolder,
    descriptors: Sequence[int],
    listen: Callable[[bytes], None] | None,
) -> tuple[Attempt, float | None]:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    began = time.monotonic()
    log = folder.path / LOGS / f"{one.cell.key}-{launch}.log"
    tags = [f"sweep={folder.manifest.id}", f"night={folder.manifest.label}", f"launch={launch}"]
    fields = {**one.fields, "tags": [*one.fields.get("tags", ()), *tags]}
    command = [*HARNESS, "run", "--json", "--launches=1", f"--results={folder.path}"]
    command += specs.arguments(fields)
    try:
        with _heard(listen) as (options, ends):
            code, out = process([*command, *options], log, limit_s, [*descriptors, *ends])
    except KeyboardInterrupt:
        seconds = round(time.monotonic() - began, 3)
        folder.record(
            Attempt(cell=one.cell.name, launch=launch, status="interrupted",
                    started_at=started_at, seconds=seconds, reason="the sweep was interrupted")
        )  # fmt: skip
        raise
    result = result_in(out)
    attempt = Attempt(
        cell=one.cell.name,
        launch=launch,
        status=_status(code, result),
        started_at=started_at,
        seconds=round(time.monotonic() - began, 3),
        run=result.id if result else "",
        reason="" if code == 0 else reason(code, log, limit_s),
    )
    median_ms = lookup(result, "timing.latency_ms.median") if result else None
    return attempt, None if isinstance(median_ms, Unavailable) else median_ms


@contextlib.contextmanager
def _heard(
    listen: Callable[[bytes], None] | None,
) -> Iterator[tuple[list[str], list[int]]]:
    """(options, descriptors) for a run whose progress is heard line by line, if anyone listens."""
    if listen is None:
        yield [], []
        return
    reader, writer = os.pipe()
    thread = threading.Thread(target=_read_lines, args=(reader, listen), daemon=True)
    thread.start()
    try:
        yield [f"--progress-fd={writer}"], [writer]
    finally:
        os.close(writer)
        thread.join()  # the run is gone, and with it the pipe's last other end


def _read_lines(reader: int, listen: Callable[[bytes], None]) -> None:
    with open(reader, "rb") as lines:
        for line in lines:
            listen(line)


def process(
    command: Sequence[str],
    log: Path,
    limit_s: float,
    descriptors: Sequence[int] = (),
    code: Path | None = None,
) -> tuple[int | None, bytes]:
    """Exit code and stdout of one run; None for a run that had to be stopped for its time.
    ``code``: a checkout to run in, whose modules come first.

    Whoever ends us ends the run, too, and is told by `KeyboardInterrupt`. Where we are killed, a
    run of ours is stopped by the kernel, and leaves a result marked as interrupted.
    """
    with opened_to_append(log) as stderr, _ended_like_ctrl_c():
        child = subprocess.Popen(
            command,
            cwd=code,
            env=_environment(code),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C comes to the sweep, which passes it on
        )
        try:
            out, _ = child.communicate(timeout=limit_s)
            return child.returncode, out
        except subprocess.TimeoutExpired:
            return None, _stop(child)
        except BaseException:
            _stop(child)
            raise


def _environment(code: Path | None) -> dict[str, str]:
    own = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    if code is not None:
        path = os.environ.get("PYTHONPATH")
        own["PYTHONPATH"] = os.pathsep.join(filter(None, (str(code), path)))
    return own


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """For ``kill`` and a terminal that is closed; what is ignored (``nohup``) stays so."""
    here = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers if here else ():
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers if here else ():
            signal.signal(number, signal.SIG_DFL)


def _stop(child: subprocess.Popen[bytes]) -> bytes:
    """Interrupt a run, wait for the result that it then writes, and kill what is left."""
    child.send_signal(signal.SIGINT)
    try:
        return child.communicate(timeout=_GRACE_S)[0]
    except subprocess.TimeoutExpired:
        return b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def result_in(out: bytes) -> Result | None:
    """What ``--json`` printed; None where the run ended before it had a result."""
    try:
        found: Any = msgspec.json.decode(out)
        return convert(found, Result)
    except msgspec.MsgspecError:
        return None


def _status(code: int | None, result: Result | None) -> str:
    if code is None:
        return "timeout"
    if result is not None:
        return result.status
    return "refused" if code in (2, 3) else "crashed"


def reason(code: int | None, log: Path, limit_s: float) -> str:
    """Why a run failed: the last that it said on stderr."""
    if code is None:
        return f"longer than time_limit_s = {limit_s:g}"
    lines = log.read_text(errors="replace").splitlines()
    told = [line.removeprefix("harness: ") for line in lines if line.startswith("harness: ")]
    return one_line((told or lines or [f"exit code {code}"])[-1], _LONGEST_REASON)
