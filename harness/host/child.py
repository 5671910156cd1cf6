"""How a child process ended, by its return code: the number of a signal is negative."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """``SIGKILL`` of 9; ``signal 40`` of one without a name (a real-time signal)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending(code: int | None) -> str:
    """``was killed by SIGKILL``, ``left with exit code 1``."""
    if code is not None and code < 0:
        return f"was killed by {signal_name(-code)}"
    return f"left with exit code {code}"


def unanswered(code: int, stderr: bytes) -> str:
    """``signal 11`` or ``code 1``, and the last line that it wrote: of one that was asked."""
    how = f"signal {-code}" if code < 0 else f"code {code}"
    last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"{how}: {last}" if last else how
