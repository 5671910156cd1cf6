"""Starts the worker's interpreter. Imports next to nothing: a run waits for this above all.

``harness run`` calls `start_early` before it has even imported its command line, so that worker and
driver come up side by side; the worker waits for its orders.
"""

from __future__ import annotations

import socket
import subprocess
import sys

# Rather than -m, whose machinery takes a few milliseconds to import.
_CODE = "import gc; gc.disable(); from harness.engine.worker.main import start; start()"


class Interpreter:
    """A fresh process that runs `harness.engine.worker.main`, and our end of the socket to it."""

    def __init__(
        self,
        python: str = sys.executable,
        environment: dict[str, str] | None = None,
        folder: str | None = None,
    ) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                # -P: a file in the user's folder must not shadow a module of the runtime.
                [python, "-P", "-c", _CODE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=environment,
                cwd=folder,
            )


_early: list[Interpreter] = []


def start_early() -> None:
    """Start one for whoever calls `take` first."""
    _early.append(Interpreter())


def take() -> Interpreter:
    """The one started early, or a new one."""
    return _early.pop() if _early else Interpreter()


def discard() -> None:
    """End the one that nobody took."""
    while _early:
        unused = _early.pop()
        unused.process.kill()
        unused.process.communicate()
        unused.sock.close()
