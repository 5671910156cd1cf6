"""What does measuring cost? The timed loop with a session that does nothing, beside MLPerf LoadGen.

    python benchmarks/loop_cost.py            (pip install mlcommons-loadgen, for the peer)

Rounds are interleaved; each figure is the median over rounds, with their 5th and 95th percentile.

* ``in all``: wall time per iteration of our loop, chunk bookkeeping included, less that of the bare
  calls ``enqueue(); synchronize()`` in the same kind of loop.
* ``inside``: the mean latency that our loop reports, less the cost of the two calls.
* LoadGen: SingleStream driven from Python with a system that completes each query at once: wall
  time per query, and its own reported mean latency.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from interleaved import counted

from harness.engine.loads.closed import StreamLoop
from harness.engine.wire.timeline import STOP, WINDOW, Timeline

ITERATIONS = 1 << 17


class NullSession:
    def enqueue(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


def ours(session: NullSession) -> tuple[float, float]:
    """(wall ns per iteration, mean reported latency in ns)."""
    timeline = Timeline.create(1, ITERATIONS)
    stream = timeline.streams[0]
    loop = StreamLoop(timeline, stream, session.enqueue, session.synchronize)
    timeline.command, stream.limit = WINDOW, ITERATIONS
    began = time.perf_counter_ns()
    loop.window()
    wall = time.perf_counter_ns() - began
    timeline.command = STOP
    latencies = [e - s for s, e in zip(stream.starts, stream.ends, strict=True)]
    timeline.close()
    return wall / ITERATIONS, statistics.fmean(latencies)


def bare(session: NullSession) -> tuple[float, float]:
    """(ns per iteration of a loop with the two calls, the calls' own share of it)."""
    enqueue, synchronize = session.enqueue, session.synchronize
    began = time.perf_counter_ns()
    for _ in range(ITERATIONS):
        enqueue()
        synchronize()
    middle = time.perf_counter_ns()
    for _ in range(ITERATIONS):
        pass
    end = time.perf_counter_ns()
    return (middle - began) / ITERATIONS, (2 * middle - began - end) / ITERATIONS


def loadgen() -> Callable[[], tuple[float, float]] | None:
    """A round of LoadGen, or None where it is not installed."""
    try:
        import mlperf_loadgen as lg
    except ImportError:
        return None

    def issue(queries: list[object]) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(q.id, 0, 0) for q in queries])  # type: ignore[attr-defined]

    def one_round() -> tuple[float, float]:
        settings = lg.TestSettings()
        settings.scenario = lg.TestScenario.SingleStream
        settings.mode = lg.TestMode.PerformanceOnly
        settings.min_query_count = settings.max_query_count = 20_000
        settings.min_duration_ms = 0
        sut = lg.ConstructSUT(issue, lambda: None)
        qsl = lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
        with tempfile.TemporaryDirectory() as folder:
            output = lg.LogOutputSettings()
            output.outdir = folder
            log = lg.LogSettings()
            log.log_output = output
            log.enable_trace = False
            lg.StartTestWithLogSettings(sut, qsl, settings, log)
            summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
        pairs = (line.partition(":") for line in summary.splitlines())
        figures = {name.strip(): value.strip() for name, _, value in pairs}
        per_second = float(figures["QPS w/ loadgen overhead"])
        return 1e9 / per_second, float(figures["Mean latency (ns)"])

    return one_round


def report(name: str, values: list[float], limit_ns: float | None = None) -> None:
    values = sorted(values)
    low, high = values[len(values) // 20], values[-1 - len(values) // 20]
    median = statistics.median(values)
    verdict = (
        ""
        if limit_ns is None
        else f"   limit {limit_ns:g}: {'ok' if median <= limit_ns else 'OVER'}"
    )
    print(f"{name:46} {median:8.1f} ns   [{low:.1f}, {high:.1f}]{verdict}")


def differences(
    mine: list[tuple[float, float]], calls: list[tuple[float, float]], which: int
) -> list[float]:
    return [m[which] - c[which] for m, c in zip(mine, calls, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    session, peer = NullSession(), loadgen()
    mine, calls, peers = [], [], []
    for _ in counted(rounds, "loop cost"):
        mine.append(ours(session))
        calls.append(bare(session))
        if peer is not None:
            peers.append(peer())
    report("harness: loop, per iteration in all", differences(mine, calls, 0), 200)
    report("harness: inside the measured interval", differences(mine, calls, 1), 80)
    if peer is None:
        print("MLPerf LoadGen is not installed: pip install mlcommons-loadgen")
        return
    report("LoadGen SingleStream: per query in all", [p[0] for p in peers])
    report("LoadGen SingleStream: in its mean latency", [p[1] for p in peers])


if __name__ == "__main__":
    main()
