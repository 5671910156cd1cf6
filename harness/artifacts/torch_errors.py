"""What torch says of a failure, without what it says around it. Imports no torch."""

from __future__ import annotations

from harness.errors import one_line

_NOISE = "TorchScript interpreter"


def cause(error: BaseException) -> str:
    """One line; empty where ``error`` says nothing.

    TorchScript's interpreter begins with its own trace, and says last what happened.
    """
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if lines and _NOISE in lines[0]:
        return one_line(lines[-1])
    return one_line(error)
