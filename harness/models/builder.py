"""Heavy work in a process of its own, so that the driver imports no framework and outlives a crash.

    driver ── job as JSON ──> stdin   ┐
           <─ answer as JSON ─ fd 1   ├ python -P -m harness.models.builder
           <─ tail, if it died ─ fd 2 ┘

What a framework or a user's factory prints on standard output goes to standard error: the answer
has its pipe to itself.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

import harness.errors
from harness import maybe
from harness.errors import HarnessError, ModelError
from harness.models.cache import Cache
from harness.scratch import Scratch
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.models.prepare import Prepared

TAIL_BYTES = 4_000
EXTRAS = {"torch": "torch", "torchao": "torch", "onnxscript": "torch", "onnx": "onnxruntime"}
EXTRAS["onnxruntime"] = "onnxruntime"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    spec: RunSpec
    format: str
    root: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A `HarnessError` on its way across; ``kind`` is the name of its class."""

    kind: str
    message: str
    remedy: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    prepared: Any = None  # a `Prepared`, in builtins
    failure: Failure | None = None


def run_builder(job: Job) -> Prepared:
    """Build in a fresh process. Raises what the builder raised, or `ModelError` if it died."""
    from harness.models.prepare import Prepared

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
        raise kind(reply.failure.message, reply.failure.remedy)
    return maybe.convert(reply.prepared, Prepared)


def _decode(output: bytes, code: int, model: str, errors: IO[bytes]) -> Answer:
    try:
        return msgspec.json.decode(output, type=Answer)
    except msgspec.DecodeError as error:
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - TAIL_BYTES))
        lines = errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        else:
            how = f"exit code {code}{', ' * bool(lines)}{''.join(lines[-1:])}"
        memory = "memory may have run out" if code == -signal.SIGKILL else ""
        failure = ModelError(f"the process that prepared {model!r} died: {how}", memory)
        failure.add_note("\n".join(lines))
        raise failure from error


def main() -> int:
    """The builder's side. Reads a `Job`, writes an `Answer`."""
    _die_with_parent()
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    with answers:
        answers.write(msgspec.json.encode(answer(job)))
    return 0


def answer(job: Job) -> Answer:
    """What the builder replies: the model prepared, or the expected failure."""
    from harness.models.prepare import assemble

    try:
        prepared = assemble(job.spec, job.format, Cache(Path(job.root), building=True))
        return Answer(prepared=msgspec.to_builtins(prepared))
    except HarnessError as error:
        return Answer(failure=Failure(
            kind=type(error).__name__, message=error.message, remedy=error.remedy
        ))  # fmt: skip
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return Answer(failure=Failure(
            kind="ModelError",
            message=f"preparing {job.spec.model!r} needs {error.name}, which is not installed",
            remedy=f"pip install 'hw-harness[{extra}]'",
        ))  # fmt: skip
    except MemoryError:
        return Answer(failure=Failure(
            kind="ModelError",
            message=f"there is not enough memory to prepare {job.spec.model!r}",
            remedy="use a smaller batch or model",
        ))  # fmt: skip


def _die_with_parent() -> None:
    """A builder whose driver is gone serves nobody. On Linux alone; elsewhere it ends by itself."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
