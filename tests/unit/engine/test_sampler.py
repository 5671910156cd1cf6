"""The sampler: its schedule with a fake clock, and the real process with real children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from harness import registry
from harness.analysis.sampled import profiles as profiles_of
from harness.analysis.sampled import report
from harness.engine.driver.series_file import save_series
from harness.engine.sampler import main as sampler_module
from harness.engine.sampler.client import SamplerProcess
from harness.engine.sampler.main import Sampler, default_rate_hz, next_deadline_ns
from harness.engine.wire.frames import Failed, Frame, Header, Opened, SamplerJob, Tick, pack, unpack
from harness.errors import ResultError
from harness.maybe import Unavailable
from harness.protocols import Channel, Profiler, ProfilerContext
from harness.testing.clock import ManualClock
from harness.testing.contract_profiler import sleeping_child
from harness.testing.replay import ReplayProfiler

GAUGE = Channel("g", "W", "gauge", "power/g_w")
ALL = ("memory", "utilization", "clocks")


def test_deadlines_lie_on_the_first_grid_and_in_the_future() -> None:
    assert [next_deadline_ns(100, 10, now) for now in (100, 105, 109, 110, 149)] == [
        110, 110, 110, 120, 150,
    ]  # fmt: skip


def test_frames_survive_being_cut_anywhere() -> None:
    frames: list[Frame] = [
        Header((), 10.0),
        Tick(5, 7, None, ()),
        Failed(0, Unavailable("broken", "mend it")),
    ]
    data = b"".join(pack(frame) for frame in frames)
    buffer, found = bytearray(), []
    for byte in data:
        buffer.append(byte)
        found += list(unpack(buffer))
    assert found == frames and not buffer


class Recorded:
    """A `Sampler` of given profilers on a clock turned by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *profilers: Profiler) -> None:
        self.clock = ManualClock()
        self.frames: list[Frame] = []
        named = {str(i): profiler for i, profiler in enumerate(profilers)}
        monkeypatch.setattr(registry, "find_profiler", lambda name, context: named[name])
        context = ProfilerContext(os.getpid())
        job = SamplerJob(profilers=tuple(named), context=context, rate_hz=100)
        self.sampler = Sampler(job, self.frames.append, self.clock)
        self.sampler.open()

    def run(self, ticks: int) -> list[Tick]:
        left = ticks - 1

        def wait(timeout_s: float) -> bool:
            nonlocal left
            left -= 1
            self.clock.advance(round(timeout_s * 1e9))
            return left <= 0

        self.sampler.run(wait)
        self.sampler.close()
        return [frame for frame in self.frames if isinstance(frame, Tick)]


class Slow(ReplayProfiler):
    """Takes so long, once."""

    def __init__(self, read_ns: int, clock: Callable[[], ManualClock]) -> None:
        super().__init__(ProfilerContext(1), [GAUGE], [[1.0]])
        self._read_ns = read_ns
        self._clock = clock

    def read(self) -> list[float | None]:
        self._clock().advance(self._read_ns)
        self._read_ns = 0
        return [1.0]


def test_missed_ticks_are_skipped_and_the_grid_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Recorded] = []
    profiler = Slow(34_000_000, lambda: recorded[0].clock)
    recorded.append(Recorded(monkeypatch, profiler))
    ticks = recorded[0].run(4)
    assert [tick.t_ns for tick in ticks] == [0, 40_000_000, 50_000_000, 60_000_000]
    # the reading that took 34 ms is stamped in its middle
    assert ticks[0].readings[0].t_ns == 17_000_000


def test_a_profiler_that_raises_is_given_up_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = ProfilerContext(1)
    bad = ReplayProfiler(context, [GAUGE], [[1.0], OSError("unplugged"), [3.0]])
    short = ReplayProfiler(context, [GAUGE], [[1.0, 2.0]])
    good = ReplayProfiler(context, [GAUGE], [[1.0], [float("nan")], [3.0]])
    recorded = Recorded(monkeypatch, bad, short, good)
    ticks = recorded.run(3)
    assert [[r.profiler for r in tick.readings] for tick in ticks] == [[0, 2], [2], [2]]
    assert [tick.readings[-1].values for tick in ticks] == [(1.0,), (None,), (3.0,)]
    failed = {f.profiler: f.reason.reason for f in recorded.frames if isinstance(f, Failed)}
    assert failed.keys() == {0, 1}
    assert "unplugged" in failed[0]
    assert bad.closed and good.closed


def test_opening_that_raises_costs_one_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ReplayProfiler):
        def open(self) -> Unavailable:
            raise RuntimeError("no driver")

    good = ReplayProfiler(ProfilerContext(1), [GAUGE], [[1.0]])
    recorded = Recorded(monkeypatch, Broken(ProfilerContext(1)), good)
    header = recorded.frames[0]
    assert isinstance(header, Header)
    assert header.opened[0].unavailable is not None
    assert "no driver" in header.opened[0].unavailable.reason
    assert header.opened[1].unavailable is None


# -- the real process ---------------------------------------------------------------------------


@contextmanager
def started(
    pid: int, rate_hz: float = 50, profilers: tuple[str, ...] = ALL
) -> Iterator[SamplerProcess]:
    process = SamplerProcess()
    process.start(SamplerJob(profilers=profilers, context=ProfilerContext(pid), rate_hz=rate_hz))
    try:
        assert process.wait_ready(300)
        yield process
    finally:
        process.stop()


def gone(pid: int, within_s: float = 300) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_a_real_child_is_sampled_over_the_window() -> None:
    with sleeping_child() as child, started(child.pid) as process:
        start_ns = time.perf_counter_ns()
        while len(process.series()["rss_bytes"][0]) < 30:
            time.sleep(0.02)
            process.drain()
        end_ns = time.perf_counter_ns()
        process.stop()
        profiles = profiles_of(process.sampled(), start_ns, end_ns)
        live = process.live()
    rss = profiles.channels["rss_bytes"]
    assert not isinstance(rss, Unavailable) and not isinstance(rss.mean, Unavailable)
    assert rss.mean > 1_000_000
    cpu = profiles.channels["worker_cpu_s"]
    assert not isinstance(cpu, Unavailable)
    assert cpu.mean == 0  # it sleeps
    assert live["memory/rss_bytes"] == rss.last
    report = profiles.sampler
    assert not isinstance(report, Unavailable)
    assert report.requested_rate_hz == 50
    assert not isinstance(report.achieved_rate_hz, Unavailable)
    assert 0 < report.achieved_rate_hz < 60
    assert process.lost is None


def test_its_times_increase_and_share_the_driver_s_clock() -> None:
    before_ns = time.perf_counter_ns()
    with started(os.getpid()) as process:
        while len(process.series()["rss_bytes"][0]) < 5:
            process.drain()
            time.sleep(0.01)
        process.stop()
        times_ns = process.series()["rss_bytes"][0].tolist()
    assert all(a < b for a, b in pairwise([before_ns, *times_ns, time.perf_counter_ns()]))


def test_stopping_takes_a_last_reading_and_leaves_no_process() -> None:
    with started(os.getpid(), rate_hz=0.1) as process:
        pid = process.pid
        start_ns = int(process.series()["rss_bytes"][0][0])
        end_ns = time.perf_counter_ns()
        process.stop()
        process.stop()
        times_ns = process.series()["rss_bytes"][0]
    assert start_ns < end_ns < times_ns[-1]
    assert pid is not None and gone(pid)


def test_a_killed_sampler_leaves_its_series_and_a_reason() -> None:
    with started(os.getpid()) as process:
        start_ns = time.perf_counter_ns()
        while len(process.series()["rss_bytes"][0]) < 20:
            process.drain()
            time.sleep(0.01)
        covered_ns = int(process.series()["rss_bytes"][0][-1])
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        while not process.ended:
            process.drain()
            time.sleep(0.01)
        kept = len(process.series()["rss_bytes"][0])
        later_ns = covered_ns + 3_600_000_000_000
        cut_short = profiles_of(process.sampled(), start_ns, later_ns)
        whole = profiles_of(process.sampled(), start_ns, covered_ns)
        process.stop()
    assert kept >= 20
    assert process.lost is not None and "SIGKILL" in process.lost.reason
    assert cut_short.channels["rss_bytes"] == process.lost
    assert not isinstance(whole.channels["rss_bytes"], Unavailable)
    assert process.live() == {}


def test_a_sampler_that_crashes_tells_by_its_stderr(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no sampler today')\n")
    process = SamplerProcess()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        process.start(SamplerJob(profilers=ALL, context=ProfilerContext(os.getpid()), rate_hz=10))
    assert not process.wait_ready(300)
    assert process.lost is not None and "no sampler today" in process.lost.reason
    assert process.unavailable().keys() == set(ALL)
    assert isinstance(report(process.sampled(), 0, 1), Unavailable)
    assert profiles_of(process.sampled(), 0, 1).channels == dict.fromkeys(ALL, process.lost)
    process.stop()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_it_keeps_to_the_processors_that_it_is_given() -> None:
    cpu = max(os.sched_getaffinity(0))
    process = SamplerProcess()
    context = ProfilerContext(os.getpid())
    process.start(SamplerJob(profilers=("memory",), context=context, rate_hz=10, cpus=(cpu,)))
    assert process.wait_ready(300) and process.pid is not None
    assert os.sched_getaffinity(process.pid) == {cpu}
    process.stop()


def test_unknown_profilers_are_absent_with_the_reason() -> None:
    with started(os.getpid(), profilers=("memory", "sonar")) as process:
        assert "sonar" in process.unavailable()["sonar"].reason
        assert "rss_bytes" in process.series()


_DRIVER = """
import os, sys, time
from harness.engine.wire.frames import SamplerJob
from harness.engine.sampler.client import SamplerProcess
from harness.protocols import ProfilerContext
process = SamplerProcess()
process.start(SamplerJob(profilers=("memory",), context=ProfilerContext(os.getpid()), rate_hz=10))
assert process.wait_ready(300)
print(process.pid, flush=True)
time.sleep(600)
"""


def test_it_ends_when_its_driver_is_killed() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _DRIVER], stdout=pipe, text=True) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        driver.kill()
    assert gone(pid)


@pytest.fixture
def hanging(tmp_path: Path) -> ProfilerContext:
    """A machine with a sensor that does not answer: a pipe without a writer."""
    (tmp_path / "proc" / "7").mkdir(parents=True)
    os.mkfifo(tmp_path / "proc" / "7" / "statm")
    return ProfilerContext(7, root=str(tmp_path))


def test_a_sampler_that_hangs_is_killed(hanging: ProfilerContext) -> None:
    process = SamplerProcess()
    process.start(SamplerJob(profilers=("memory",), context=hanging, rate_hz=10))
    assert not process.wait_ready(1)
    process.stop(timeout_s=0.1)
    assert process.pid is not None and gone(process.pid)
    assert process.lost is not None and "hung" in process.lost.reason
    assert process.unavailable() == {"memory": process.lost}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's doing, on Linux alone")
def test_it_ends_with_its_driver_even_while_it_hangs(hanging: ProfilerContext) -> None:
    code = _DRIVER.replace("os.getpid()", f"7, root={hanging.root!r}")
    code = code.replace("assert process.wait_ready(300)", "process.wait_ready(1)")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, text=True) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        driver.kill()
    assert gone(pid)


def test_ctrl_c_is_not_for_the_sampler() -> None:
    with started(os.getpid()) as process:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        seen = len(process.series()["rss_bytes"][0])
        while len(process.series()["rss_bytes"][0]) < seen + 5:
            assert not process.ended
            process.drain()
            time.sleep(0.01)


def test_a_driver_that_does_not_drain_loses_nothing(tmp_path: Path) -> None:
    with started(os.getpid(), rate_hz=100) as process:
        time.sleep(0.5)
        process.stop()
        series = process.series()
        save_series(process.sampled(), tmp_path / "series.npz")
    times_ns = series["rss_bytes"][0]
    assert len(times_ns) > 10
    with np.load(tmp_path / "series.npz", allow_pickle=False) as saved:
        assert np.array_equal(saved["times_ns.memory"], times_ns)
        assert np.array_equal(saved["values.memory.rss_bytes"], series["rss_bytes"][1])
        (clock_ns, wall_ns), *_ = saved["wall_ns"].tolist()
    ahead_ns = time.time_ns() - time.perf_counter_ns()
    assert abs((wall_ns - clock_ns) - ahead_ns) < 1_000_000_000
    with pytest.raises(ResultError):
        save_series(process.sampled(), tmp_path / "absent" / "series.npz")


def test_the_sampler_imports_no_framework() -> None:
    code = (
        f"import sys, {sampler_module.__name__}\n"
        "heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'tensorboardX', 'pynvml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("period_s", "rate_hz"), [(None, 10.0), (0.1, 10.0), (0.02, 20.0), (0.001, 20.0)]
)
def test_a_fast_power_sensor_is_read_twice_as_often(period_s: float | None, rate_hz: float) -> None:
    meter = Channel("power/gpu0_w", "W", "gauge", "power/gpu0_w", period_s=period_s)
    other = Channel("cpu_max_mhz", "MHz", "gauge", "clocks/cpu_max_mhz", period_s=0.001)
    opened = [Opened("power", (meter,), None), Opened("clocks", (other,), None)]
    assert default_rate_hz(opened) == rate_hz
    refused = Opened("power", (meter,), Unavailable("forbidden"))
    assert default_rate_hz([refused]) == 10.0


def test_waiting_until_it_has_sampled_for_a_while() -> None:
    """A baseline that began at the first reading would lack the update before its edge."""
    with sleeping_child() as child, started(child.pid) as process:
        process.wait_sampled(0.5, timeout_s=30)
        times_ns, _ = process.series()["rss_bytes"]
        assert times_ns[-1] - times_ns[0] > 0.4e9
