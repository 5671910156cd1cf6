"""What does watching cost the watched? Sampling in every way there is, beside none.

    python benchmarks/perturbation.py [--rounds 20]       (peers: pip install codecarbon zeus)

One worker runs one inference after the other on one thread, at about 0.2 ms and at about 5 ms each.
Blocks of two seconds under each condition follow each other in shuffled order; a block in which
other programs took over 5 % of a core is thrown away and repeated. Printed are the ratios to the
block without sampling in the same round: the median over rounds, and its 95 % interval.

* ``thread``: psutil in a thread of the worker, what most tools do.
* ``process``: Harness's sampler process with all its profilers.
* ``codecarbon``, ``zeus``: the peers in the worker, at one reading a second, where they work.

Last, the whole of Harness on its own workload: ``harness run --overhead-check``, which switches
sampler, journal and TensorBoard on and off in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import psutil
from interleaved import counted, ratio

from harness.engine.sampler.client import SamplerProcess
from harness.engine.wire.frames import SamplerJob
from harness.protocols import ProfilerContext
from harness.registry import profiler_names

BLOCK_S = 2.0
FOREIGN_LIMIT = 0.05
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
TARGETS_MS = {"0.2 ms": 0.2, "5 ms": 5.0}


# -- in the worker ------------------------------------------------------------------------------


@contextlib.contextmanager
def thread_sampler(rate_hz: float) -> Iterator[None]:
    """psutil in a thread of this process."""
    over, me = threading.Event(), psutil.Process()

    def loop() -> None:
        while not over.wait(1 / rate_hz):
            me.memory_info()
            me.cpu_times()
            psutil.virtual_memory()
            psutil.cpu_times(percpu=True)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def codecarbon() -> Iterator[None]:
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", measure_power_secs=1, save_to_file=False, log_level="critical"
    )
    tracker.start()
    try:
        yield
    finally:
        tracker.stop()


@contextlib.contextmanager
def zeus() -> Iterator[None]:
    from zeus.monitor import ZeusMonitor

    monitor = ZeusMonitor()
    monitor.begin_window("block")
    try:
        yield
    finally:
        monitor.end_window("block")


IN_WORKER: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "none": contextlib.nullcontext,
    "thread 10 Hz": lambda: thread_sampler(10),
    "thread 100 Hz": lambda: thread_sampler(100),
    "codecarbon": codecarbon,
    "zeus": zeus,
}


def worker() -> None:
    """``{"batch": n}`` first, then one JSON line a block: a condition, or the word ``probe``."""
    import onnxruntime as ort

    from harness.zoo.shipped import ASSETS

    logging.disable(logging.CRITICAL)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        str(ASSETS / "digits.onnx"), options, providers=["CPUExecutionProvider"]
    )
    answer = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        feed = {"images": np.zeros((order["batch"], 1, 8, 8), np.float32)}
        try:
            with IN_WORKER.get(order["condition"], contextlib.nullcontext)():
                times = block(session, feed, order["seconds"])
            reply: dict[str, Any] = {n: float(np.quantile(times, q)) for n, q in QUANTILES.items()}
        except Exception as error:  # a peer that cannot work here says so in its own way
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:100]}
        print(json.dumps(reply), file=answer, flush=True)


def block(session: Any, feed: dict[str, Any], seconds: float) -> list[int]:
    times: list[int] = []
    for _ in range(20):
        session.run(None, feed)
    end = time.perf_counter_ns() + round(seconds * 1e9)
    while (start := time.perf_counter_ns()) < end:
        session.run(None, feed)
        times.append(time.perf_counter_ns() - start)
    return times


# -- in the parent ------------------------------------------------------------------------------


class Workload:
    """A worker process, and the conditions under which its blocks run."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, condition: str, batch: int, seconds: float) -> dict[str, Any]:
        """Quantiles of one block, in ns."""
        order = {"condition": condition, "batch": batch, "seconds": seconds}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._watching(condition):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        return reply

    def quiet_block(self, condition: str, batch: int) -> tuple[dict[str, Any], int]:
        """A block that other programs left alone, and how many were thrown away before it."""
        for thrown in range(20):
            before, began = self._foreign_s(), time.monotonic()
            reply = self.run(condition, batch, BLOCK_S)
            foreign = (self._foreign_s() - before) / (time.monotonic() - began)
            if foreign <= FOREIGN_LIMIT or "error" in reply:
                return reply, thrown
        return reply, 20

    @contextlib.contextmanager
    def _watching(self, condition: str) -> Iterator[None]:
        if not condition.startswith("process"):
            yield
            return
        sampler = SamplerProcess()
        rate_hz = float(condition.split()[1])
        context = ProfilerContext(self._process.pid)
        sampler.start(
            SamplerJob(profilers=tuple(profiler_names()), context=context, rate_hz=rate_hz)
        )
        sampler.wait_ready(10)
        try:
            yield
        finally:
            sampler.stop()  # and waited for, so that its CPU time counts among our children's

    def _foreign_s(self) -> float:
        """CPU seconds of everybody else so far; a sampler's start-up counts as ours."""
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        mine, workers = psutil.Process().cpu_times(), psutil.Process(self.pid).cpu_times()
        own = sum(mine[:4]) + sum(workers[:2])  # of ours: self, and the children that have ended
        return float(busy - own)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def batch_for(workload: Workload, target_ms: float) -> int:
    """The batch size at which one inference takes about ``target_ms``."""
    ones = float(workload.run("none", 1, 0.5)["p50"]) / 1e6
    many = float(workload.run("none", 64, 0.5)["p50"]) / 1e6
    return max(1, round(1 + (target_ms - ones) * 63 / (many - ones)))


def compare(name: str, target_ms: float, rounds: int) -> None:
    workload = Workload()
    batch = batch_for(workload, target_ms)
    conditions = ["none", "thread 10 Hz", "thread 100 Hz", "process 10 Hz", "process 100 Hz"]
    for peer in ("codecarbon", "zeus"):
        error = workload.run(peer, batch, 0.5).get("error")
        if error:
            print(f"  {peer} does not work here: {error}")
        else:
            conditions.append(peer)
    figures: dict[str, dict[str, list[float]]] = {c: {q: [] for q in QUANTILES} for c in conditions}
    thrown = 0
    for _ in counted(rounds, name):
        for condition in random.sample(conditions, len(conditions)):
            reply, repeated = workload.quiet_block(condition, batch)
            thrown += repeated
            for quantile in QUANTILES:
                figures[condition][quantile].append(reply[quantile])
    workload.close()
    p50 = float(np.median(figures["none"]["p50"])) / 1e6
    print(f"{name} (batch {batch}, {p50:.3f} ms), {rounds} rounds, {thrown} blocks thrown away")
    for condition in conditions[1:]:
        ratios = (f"{q} {ratio(figures[condition][q], figures['none'][q])}" for q in QUANTILES)
        print(f"  {condition:15} " + "   ".join(ratios))


def whole(name: str, batch: int) -> None:
    """All of Harness on and off, by its own check."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--batch-size", str(batch), "--threads", "1", "--duration", "1", "--out", folder]
        command = ["-m", "harness", "run", "--overhead-check", "--json", *flags]
        ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)["overhead"]
    shown = [f"p50 {found['median']:.4f} {spread(found['median_ci95'])} (limit 1.005)"]
    if isinstance(found["p99"], float):
        shown.append(f"p99 {found['p99']:.4f} {spread(found['p99_ci95'])} (limit 1.02)")
    print(f"  harness run, {name}: " + "   ".join(shown))


def spread(interval: list[float]) -> str:
    return f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--whole-only", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker()
        return
    workload = Workload()
    batches = {name: batch_for(workload, target) for name, target in TARGETS_MS.items()}
    workload.close()
    if not given.whole_only:
        for name, target_ms in TARGETS_MS.items():
            compare(name, target_ms, given.rounds)
    for name, batch in batches.items():
        whole(name, batch)


if __name__ == "__main__":
    main()
