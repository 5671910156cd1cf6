"""What TensorRT says, kept: it tells why something failed in its log, and nowhere else.

TensorRT reports failure as None, False or a bare exception, and the reason to its logger. No error
recorder is set, since errors would then go to the recorder and past the log. TensorRT keeps the
first logger of a process for good, so there is one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from harness.errors import HarnessError, one_line
from harness.host.cuda_errors import cuda_failure

_KEPT = 50
# As TensorRT words what CUDA and the rest of the world call out of memory.
_MEMORY = re.compile(r"OutOfMemory|bad.?alloc|failed to allocate(?: \w+)* memory", re.IGNORECASE)


class Log:
    """``native`` is the `tensorrt.ILogger`; errors stay here, and nothing is printed."""

    def __init__(self, trt: Any, title: str = "TensorRT") -> None:
        self.title = title
        self.errors: deque[str] = deque(maxlen=_KEPT)
        self.native = _listener(trt, self.errors)

    def failure(self, what: str, kind: type[HarnessError], remedy: str = "") -> HarnessError:
        """``what`` with what TensorRT said of it; an error of CUDA is that, whatever ``kind``."""
        # Without a driver, errors of any kind are followed by one of CUDA's: not their cause.
        told = [line for line in self.errors if "catchCudaError" not in line] or self.errors
        said = "; ".join(dict.fromkeys(told)) or f"{self.title} gave no reason"
        known = cuda_failure(_MEMORY.sub("out of memory", said), what)
        return known or kind(f"{what}: {one_line(said)}", remedy)

    @contextmanager
    def mapped(self, what: str, kind: type[HarnessError], remedy: str = "") -> Iterator[None]:
        """Everything foreign that is raised within becomes one of ours, with the log's reason."""
        self.errors.clear()
        try:
            yield
        except HarnessError:
            raise
        except Exception as error:
            if not self.errors:
                self.errors.append(_line(f"{type(error).__name__}: {error}"))
            raise self.failure(what, kind, remedy) from error


def _listener(trt: Any, errors: deque[str]) -> Any:
    error = int(trt.ILogger.ERROR)

    class Listener(trt.ILogger):  # type: ignore[misc]
        """Called by TensorRT, at times from threads of its own."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= error:
                errors.append(_line(msg))

    return Listener()


def _line(text: str) -> str:
    return one_line(text)


@cache
def log_of(trt: Any, title: str = "TensorRT") -> Log:
    """The one log of this process's TensorRT."""
    return Log(trt, title)
