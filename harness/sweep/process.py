"""One run of a sweep as a process: started, heard, ended in time, and what it left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import one_line
from harness.host.files import opened_to_append
from harness.host.lifetime import PARENT_VARIABLE
from harness.maybe import convert
from harness.records.result import Result

# -P: a file in the user's folder must not shadow a module, nor a folder be taken for Harness
HARNESS = (sys.executable, "-P", "-m", "harness")
_LONGEST_REASON = 1000  # characters; the run's own result has it whole
_GRACE_S = 15.0  # for a run that was interrupted to write its result


@contextlib.contextmanager
def heard(
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


def reason(code: int | None, log: Path, limit_s: float) -> str:
    """Why a run failed: the last that it said on stderr."""
    if code is None:
        return f"longer than time_limit_s = {limit_s:g}"
    lines = log.read_text(errors="replace").splitlines()
    told = [line.removeprefix("harness: ") for line in lines if line.startswith("harness: ")]
    return one_line((told or lines or [f"exit code {code}"])[-1], _LONGEST_REASON)
