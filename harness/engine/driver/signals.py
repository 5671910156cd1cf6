"""Ctrl-C, ``kill`` and a terminal that is closed, as the driver takes them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Set by the driver's signal handler; looked at between two sleeps."""

    def __init__(self) -> None:
        self.requested = False
        self.measuring = False  # from now on there is something to lose


@contextmanager
def interruptible(interrupt: Interrupt) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request, so that what was measured is written.

    Before anything is measured they raise KeyboardInterrupt. Afterwards they never do, however many
    come: the request is heeded within seconds, and what then remains is to write the result. A
    SIGHUP that is ignored (``nohup``) stays so. Off the main thread, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(signum: int, frame: FrameType | None) -> None:
        interrupt.requested = True
        if not interrupt.measuring:
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
