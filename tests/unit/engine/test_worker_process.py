"""The worker as a process: how it is made to stand still."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from harness.engine.driver.process import WorkerProcess

SPIN = """
import threading
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()
spin()
"""


def _of(process: subprocess.Popen[bytes]) -> WorkerProcess:
    worker = WorkerProcess.__new__(WorkerProcess)
    worker._process = process
    return worker


def _used(worker: WorkerProcess) -> int:
    used = worker.cpu_ns()
    assert used is not None
    return used


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the clock of another process")
def test_a_stopped_worker_takes_no_processor_time_however_its_threads_spin() -> None:
    process = subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True)
    worker, deadline = _of(process), time.monotonic() + 600
    try:
        for _ in range(3):
            before = _used(worker)
            while _used(worker) - before < 5_000_000:
                assert time.monotonic() < deadline
            worker.stop()
            stopped = _used(worker)
            time.sleep(0.02)
            assert _used(worker) == stopped
            worker.carry_on()
        worker.stop()
    finally:
        process.kill()  # which ends one that is stopped, too
        process.wait(60)
    worker.stop()
    worker.carry_on()
    assert worker.cpu_ns() is None
