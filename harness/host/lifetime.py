"""Processes that end with whoever started them."""

from __future__ import annotations

import os
import signal
import sys

PARENT_VARIABLE = "HARNESS_PARENT"  # of a run that shall end with its sweep: the sweep's process id
_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Have the kernel send ``number`` when the thread that started this process ends.

    At once where that was ``parent`` and is gone already. On Linux alone; elsewhere the pipe to the
    parent, closed, has to do.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)
