"""The builder: a process that prepares one model and ends. See `harness.models.builder_client`.

Whatever a library or a user's code raises comes back as one line that says what to do.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import traceback
from pathlib import Path

import msgspec

from harness import registry
from harness.errors import HarnessError, one_line
from harness.host.extras import extra_for
from harness.host.lifetime import end_with_parent
from harness.models.builder_client import ENDED, Answer, Failure, Job
from harness.models.cache import Cache
from harness.models.prepare import assemble
from harness.protocols import Compiler, Node, SessionOptions
from harness.spec import RunSpec

_MEMORY = re.compile(
    r"bad_alloc|[Cc]an't allocate|[Cc]annot allocate|[Ff]ailed to allocate memory|[Oo]ut of memory"
)


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
    try:
        cache = Cache(Path(job.root), building=True)
        if job.examine:
            return Answer(nodes=_examined(job, cache))
        return Answer(prepared=msgspec.to_builtins(assemble(job.spec, job.wanted, cache)))
    except HarnessError as error:
        return Answer(failure=Failure(
            kind=type(error).__name__, message=error.message, remedy=error.remedy
        ))  # fmt: skip
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        extra = extra_for(name)
        return _failure(
            f"preparing {job.spec.model!r} needs {error.name or error}, which is not installed",
            f"pip install 'hw-harness[{extra}]'" if extra else f"pip install {name}".strip(),
        )
    except SystemExit as error:
        number = error.code is None or isinstance(error.code, int)
        how = f"exit code {error.code or 0}" if number else f"it said: {one_line(error.code)}"
        message = f"the code of {job.spec.model!r} ended the process ({how})"
        return _failure(message, ENDED)
    except KeyboardInterrupt:  # no signal's: that one ends the process
        return _failure(f"the code of {job.spec.model!r} raised KeyboardInterrupt", ENDED)
    except Exception as error:  # a library's or the user's; there is no list of them
        return _unexpected(job.spec, error)


def _examined(job: Job, cache: Cache) -> list[Node]:
    """What the backend's parser says of the graph, or nothing where it has no say."""
    backend = registry.backend(job.spec.backend)
    if not isinstance(backend, Compiler):
        return []
    prepared = assemble(job.spec, job.wanted.of or job.wanted, cache)
    options = SessionOptions(device=job.spec.device, options=job.spec.options)
    return list(backend.examine(prepared.artifact, options))


def _failure(message: str, remedy: str, trace: str = "") -> Answer:
    # a path that is no UTF-8 must not keep the answer from being written
    texts = [text.encode(errors="replace").decode() for text in (message, remedy, trace)]
    return Answer(
        failure=Failure(kind="ModelError", message=texts[0], remedy=texts[1], trace=texts[2])
    )


def _unexpected(spec: RunSpec, error: Exception) -> Answer:
    """What was raised, by whom, and what can be tried."""
    trace = "".join(traceback.format_exception(error))
    said = one_line(error) or "no reason given"
    if isinstance(error, MemoryError) or _MEMORY.search(said):
        message = f"there is not enough memory to prepare {spec.model!r}"
        return _failure(message, "use a smaller batch or model", trace)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    message = f"{spec.model!r} cannot be prepared: {type(error).__name__}{place}: {said}"
    if spec.precision != "fp32":
        return _failure(message, "run it with --precision fp32, and report this line", trace)
    return _failure(message, "check the model with its own framework, or report this line", trace)


def _die_with_parent() -> None:
    """A builder whose driver is gone serves nobody. Elsewhere than on Linux it ends by itself."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()


def start() -> None:
    """The process's whole life. A thread that a user's code left running does not prolong it."""
    code = main()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    start()
