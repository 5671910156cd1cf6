"""The workers of a duel's next launch import their runtime while those of this one warm up.

    launch 1    import | warm-up | turns ...       | end
    launch 2             import  | stopped           ...  | warm-up | turns ...

From the first turn on they are stopped by the kernel. They have imported by then, and before that
asked the kernel to end them with the driver: one that was stopped earlier would outlive it.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from harness.engine.driver.process import WorkerProcess

_LONGEST_IMPORT_S = 60.0


class Ahead:
    """A context manager: those that no launch took are ended."""

    def __init__(self, boot: Callable[[], list[WorkerProcess]]) -> None:
        self._boot = boot
        self._workers: list[WorkerProcess] = []

    def start(self, *, wanted: bool) -> None:
        """Idempotent."""
        if wanted and not self._workers:
            self._workers = self._boot()

    def stop(self) -> None:
        """Nobody but the sides of this launch may work from now on.

        One that does not come up in a minute is ended; its launch says so.
        """
        deadline_s = time.monotonic() + _LONGEST_IMPORT_S
        for worker in self._workers:
            left_s = max(deadline_s - time.monotonic(), 0.0)
            ready, _, _ = select.select([worker.peer.sock], [], [], left_s)
            if ready:  # it has said so, or died, which is found out at its launch
                worker.stop()
            else:
                worker.kill()

    def take(self) -> list[WorkerProcess]:
        """Those of the next launch; the caller ends them."""
        workers, self._workers = self._workers or self._boot(), []
        for worker in workers:
            worker.carry_on()
        return workers

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            with worker:
                pass
