"""Do requests start when they are due? Our server scenario beside MLPerf LoadGen's.

    python benchmarks/server.py [--model digits] [--rate 1000] [--rounds 8] [--seconds 5]
                                        (pip install mlcommons-loadgen, for the peer)

One ONNX Runtime session, one server, one schedule: LoadGen draws it (Server scenario, Poisson) in a
first pass, and every pass meets it again. Rounds are interleaved. LoadGen's system under test runs
each query where it is issued and completes it at once, the shortest way through its Python binding;
its schedule and its starts are read from its own trace. Because a trace is work too, a third
candidate is LoadGen without one, with the quantiles that its own summary has.

* ``p50, p90, p99``: latency from due, on both sides.
* ``lateness``: from due to start, of the requests whose server was free when they were due: what
  the generator itself adds. The aim is a median of at most 100 us on a quiet core, and no more than
  LoadGen's.

Figures are medians over rounds; ratios are ours over LoadGen's, with the 95 % interval between
rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from interleaved import counted, ratio
from numpy.typing import NDArray

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend
from harness.engine.loads.server import Server, Serving
from harness.engine.wire.messages import Requests
from harness.engine.wire.timeline import WINDOW, Timeline
from harness.models import prepare
from harness.protocols import Session, SessionOptions, Wanted
from harness.spec import RunSpec
from harness.stats.arrivals import Schedule

AIM_US = 100
_PR_SET_TIMERSLACK = 29
_TRACED = re.compile(
    r'"Latency","ph": "C",.*?"ts":([\d.]+).*?"issue_delay":(-?\d+),"issue_to_done":(\d+)'
)
_QUANTILE = re.compile(r"^([\d.]+) percentile latency \(ns\)\s*: (\d+)", re.MULTILINE)
Times = NDArray[np.int64]


class Pass(NamedTuple):
    """One pass over the schedule, in us. ``lateness``: median and p99; None: it does not say."""

    quantiles: tuple[float, float, float]
    lateness: tuple[float, float] | None


def passed(due: Times, start: Times, end: Times) -> Pass:
    """From what each request met, in ns and in the order of arrival, of a single server."""
    before = np.concatenate([[np.iinfo(np.int64).min], end[:-1]])
    late = (start - due)[before <= due] / 1e3
    p50, p90, p99 = np.quantile((end - due) / 1e3, (0.5, 0.9, 0.99))
    return Pass((p50, p90, p99), (float(np.median(late)), float(np.quantile(late, 0.99))))


def ours(session: Session, schedule: Schedule) -> Pass:
    """The real engine's drive of one server."""
    timeline = Timeline.create(1, 1 << (len(schedule.due_ns)).bit_length(), Server.columns)
    timeline.command = WINDOW
    requests = Requests(
        arrivals="", trace=None, rate_per_s=0, seed=0, launch=0, lead_s=0, duration_s=None,
        count=None,
    )  # fmt: skip
    drive = Serving(timeline, [session], requests, schedule)
    drive.window()
    (stream,) = timeline.streams
    count = stream.written
    columns = stream.columns["due"], stream.starts, stream.ends
    due, start, end = (np.array(column[:count]) for column in columns)
    timeline.close()
    return passed(due, start, end)


class LoadGen:
    """MLPerf LoadGen's Server scenario over the session."""

    def __init__(self, session: Session, rate: float, count: int) -> None:
        import mlperf_loadgen

        self._lg: Any = mlperf_loadgen
        self._enqueue, self._synchronize = session.enqueue, session.synchronize
        self._rate, self._count = rate, count

    def schedule(self) -> Schedule:
        """As it draws it: when each request is due, since the first."""
        due = self._run(traced=True)[0]
        due = due - due[0]
        return Schedule(due, 0, len(due), 0, int(due[-1]) + 1)

    def traced(self) -> Pass:
        return passed(*self._run(traced=True)[:3])

    def untraced(self) -> Pass:
        summary = self._run(traced=False)[3]
        found = {float(name): float(value) / 1e3 for name, value in _QUANTILE.findall(summary)}
        return Pass((found[50.0], found[90.0], found[99.0]), None)

    def _issue(self, queries: list[Any]) -> None:
        for query in queries:
            self._enqueue()
            self._synchronize()
            self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(query.id, 0, 0)])

    def _run(self, *, traced: bool) -> tuple[Times, Times, Times, str]:
        lg = self._lg
        settings = lg.TestSettings()
        settings.scenario = lg.TestScenario.Server
        settings.mode = lg.TestMode.PerformanceOnly
        settings.server_target_qps = self._rate
        settings.min_query_count = settings.max_query_count = self._count
        settings.min_duration_ms = 0
        settings.schedule_rng_seed = 5
        _ordinary_sleep()
        sut = lg.ConstructSUT(self._issue, lambda: None)
        qsl = lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
        with tempfile.TemporaryDirectory() as folder:
            log = lg.LogSettings()
            log.log_output = lg.LogOutputSettings()
            log.log_output.outdir = folder
            log.enable_trace = traced
            lg.StartTestWithLogSettings(sut, qsl, settings, log)
            summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
            trace = (Path(folder) / "mlperf_log_trace.json").read_text() if traced else ""
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
        rows = [(round(float(ts) * 1e3), int(a), int(b)) for ts, a, b in _TRACED.findall(trace)]
        due, delay, service = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3).T
        return due, due + delay, due + delay + service, summary


def _ordinary_sleep() -> None:
    """Our drive asks the kernel for precise sleep, which this thread would keep."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 0, 0, 0, 0)


def onnx_session(model: str, threads: int) -> Session:
    prepared = prepare(RunSpec(model=model), Wanted("onnx"))
    with np.load(prepared.inputs_path) as arrays:
        inputs = dict(arrays)
    options = SessionOptions(threads=threads)
    session = OnnxRuntimeBackend().prepare(prepared.artifact, inputs, options)
    for _ in range(200):
        session.enqueue()
        session.synchronize()
    return session


def report(passes: dict[str, list[Pass]]) -> None:
    print(
        f"{'us, medians over rounds':28}{'p50':>9}{'p90':>9}{'p99':>9}{'late':>9}{'late p99':>10}"
    )
    for name, rounds in passes.items():
        figures = [statistics.median(one.quantiles[at] for one in rounds) for at in range(3)]
        told = [one.lateness for one in rounds if one.lateness is not None]
        figures += [statistics.median(one[at] for one in told) for at in (0, 1) if told]
        print(f"{name:28}" + "".join(f"{figure:10.1f}" for figure in figures))


def compare(mine: list[Pass], theirs: list[Pass], name: str) -> None:
    for at, what in enumerate(("p50", "p90", "p99")):
        both = ([one.quantiles[at] for one in side] for side in (mine, theirs))
        print(f"ours over {name}, {what}: {ratio(*both)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="digits")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each pass")
    asked = parser.parse_args()
    session = onnx_session(asked.model, asked.threads)
    try:
        peer = LoadGen(session, asked.rate, round(asked.rate * asked.seconds))
    except ImportError:
        parser.exit(2, "MLPerf LoadGen is not installed: pip install mlcommons-loadgen\n")
    schedule = peer.schedule()
    gc.disable()  # as a worker has it
    candidates: dict[str, Callable[[], Pass]] = {
        "harness": lambda: ours(session, schedule),
        "LoadGen": peer.traced,
        "LoadGen without its trace": peer.untraced,
    }
    passes: dict[str, list[Pass]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in counted(asked.rounds, "server scenario"):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            passes[name].append(candidates[name]())
    session.close()
    report(passes)
    compare(passes["harness"], passes["LoadGen"], "LoadGen")
    compare(passes["harness"], passes["LoadGen without its trace"], "LoadGen without its trace")
    late, theirs = (
        statistics.median(one.lateness[0] for one in passes[name] if one.lateness is not None)
        for name in ("harness", "LoadGen")
    )
    good = late <= AIM_US and late <= theirs
    print(f"median lateness {late:.1f} us; LoadGen's {theirs:.1f}; aim: at most {AIM_US}, and no "
          f"more than LoadGen's: {'ok' if good else 'OVER'}")  # fmt: skip


if __name__ == "__main__":
    main()
