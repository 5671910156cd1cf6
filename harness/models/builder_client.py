"""Heavy work in a process of its own, so that the driver imports no framework and outlives a crash.

    driver ── job as JSON ──> stdin   ┐
           <─ answer as JSON ─ fd 1   ├ python -P -m harness.models.builder
           <─ tail, if it died ─ fd 2 ┘

Whatever a library or a user's code raises comes back as one line that says what to do; only a
process that a signal or an exit ended is said to have died, with the likely cause.

What a framework or a user's factory prints on standard output goes to standard error: the answer
has its pipe to itself.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import msgspec

import harness.errors
from harness.errors import ModelError
from harness.host.child import signal_name
from harness.host.scratch import Scratch
from harness.models.cache import Cache
from harness.protocols import Node, Wanted
from harness.spec import RunSpec

TAIL_BYTES = 4_000
ENDED = "the model's own code, or a library's, called exit; take that out"
_NATIVE = "a library crashed in its own code; try another --backend, or --precision fp32"
_CAUSES: dict[int, str] = {
    signal.SIGKILL: "memory may have run out; use a smaller batch or model",
    signal.SIGSEGV: _NATIVE,
    signal.SIGBUS: _NATIVE,
    signal.SIGABRT: _NATIVE,
    signal.SIGFPE: _NATIVE,
    signal.SIGILL: "a library has instructions that this CPU lacks; install one built for it",
    signal.SIGXCPU: "its limit of CPU time was reached; raise it (ulimit -t)",
    signal.SIGXFSZ: "its limit of file size was reached; raise it (ulimit -f)",
}
_FRAME = re.compile(r'File "([^"]+)", line (\d+) in (.+)')


class Job(msgspec.Struct, frozen=True, kw_only=True):
    spec: RunSpec
    wanted: Wanted
    root: str
    examine: bool = False  # ask the backend what it takes of the artifact's basis


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A `HarnessError` on its way across; ``kind`` is the name of its class.

    ``trace`` is where it comes from, for an exception that nobody expected.
    """

    kind: str
    message: str
    remedy: str
    trace: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    prepared: Any = None  # a `Prepared`, in builtins
    nodes: list[Node] | None = None  # where the job asked for them
    failure: Failure | None = None


def examine(spec: RunSpec, wanted: Wanted, root: Path) -> list[Node]:
    """What ``spec.backend`` takes of what ``wanted`` is made of, asked in a fresh process.

    Raises what the builder raised, or `ModelError` if it died.
    """
    return _run(Job(spec=spec, wanted=wanted, root=str(root), examine=True)).nodes or []


def run_builder(job: Job) -> Any:
    """What a fresh process made of ``job``: a `harness.models.prepare.Prepared`, in builtins.

    Raises what the builder raised, or `ModelError` if it died.
    """
    return _run(job).prepared


def _run(job: Job) -> Answer:
    with tempfile.TemporaryFile() as errors, Scratch() as scratch:
        process = subprocess.Popen(
            # -P: a file in the user's folder must not shadow a module
            [sys.executable, "-P", "-m", "harness.models.builder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "TMPDIR": scratch.path},  # compilers leave folders there
        )
        try:
            output, _ = process.communicate(msgspec.json.encode(job))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            Cache(Path(job.root), building=False).sweep(process.pid)
        reply = _decode(output, process.returncode, job.spec.model, errors)
    if reply.failure is not None:
        kind = getattr(harness.errors, reply.failure.kind)
        failure = kind(reply.failure.message, reply.failure.remedy)
        if reply.failure.trace:
            failure.add_note(reply.failure.trace)
        raise failure
    return reply


def _decode(output: bytes, code: int, model: str, errors: IO[bytes]) -> Answer:
    try:
        return msgspec.json.decode(output, type=Answer)
    except msgspec.DecodeError as error:
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - TAIL_BYTES))
        lines = errors.read().decode(errors="replace").strip().splitlines()
        how, remedy = _death(code, lines)
        failure = ModelError(f"the process that prepared {model!r} died: {how}", remedy)
        failure.add_note("\n".join(lines))
        raise failure from error


def _death(code: int, lines: list[str]) -> tuple[str, str]:
    """How the builder ended, and what to do about it."""
    if code >= 0:
        return f"exit code {code}{', ' * bool(lines)}{''.join(lines[-1:])}", ENDED
    how = f"killed by {signal_name(-code)}"
    if place := _place(lines):
        how += f" in {place}"
    return how, _CAUSES.get(-code, "it was ended from outside; run it again")


def _place(lines: list[str]) -> str:
    """The library or file whose code a fatal signal met, by the trace that Python leaves."""
    frames = [found for line in lines if (found := _FRAME.search(line)) is not None]
    if not frames:
        return ""
    path, number, function = frames[0].groups()  # the innermost comes first
    package = re.search(r"(?:site|dist)-packages/([^/]+)", path)
    return package[1] if package else f"{Path(path).name}, line {number} ({function})"
