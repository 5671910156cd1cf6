"""The shipped fakes do what their options say."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness.errors import UsageError
from harness.protocols import (
    Artifact,
    Available,
    Channel,
    ProfilerContext,
    SessionOptions,
    TensorSpec,
    Unavailable,
)
from harness.testing.clock import ManualClock
from harness.testing.fake_backend import FakeBackend, FakeSession
from harness.testing.replay import ReplayProfiler, Trace

INPUTS = {"x": np.array([1.0, 2.0], "f"), "ids": np.array([3], "int64")}
SPECS = tuple(TensorSpec(name, str(a.dtype), a.shape) for name, a in INPUTS.items())
ARTIFACT = Artifact("fake", "", "", "fp32", "", 0, SPECS)
CHANNELS = (
    Channel("power", "W", "gauge", "power/board_w"),
    Channel("energy", "J", "counter", "energy/board_j"),
)


def session(clock: ManualClock | None = None, **options: str) -> FakeSession:
    return FakeBackend(clock).prepare(ARTIFACT, INPUTS, SessionOptions(options=options))


def test_the_clock_steps_by_script_and_then_evenly() -> None:
    clock = ManualClock(step_ns=10, script=[1, 2], start_ns=100)
    assert [clock() for _ in range(5)] == [100, 101, 103, 113, 123]
    clock.advance(1000)
    assert clock.now_ns == 1133
    with pytest.raises(ValueError, match="cannot go back by 5 ns"):
        clock.advance(-5)


def test_latency_moves_the_clock() -> None:
    clock = ManualClock()
    fake = session(clock, latency_us="2.5")
    began = clock()
    fake.enqueue()
    fake.synchronize()
    assert clock() - began == 2500


def test_it_raises_at_the_inference_asked_for() -> None:
    fake = session(fail="raise", fail_at="2")
    fake.enqueue()
    fake.enqueue()
    with pytest.raises(RuntimeError, match="told to raise"):
        fake.enqueue()
    assert fake.inferences == 2


def test_it_raises_in_prepare() -> None:
    with pytest.raises(RuntimeError, match="told to raise"):
        session(fail="raise", fail_at="prepare")


def test_nan_spoils_floats_from_there_on() -> None:
    fake = session(fail="nan", fail_at="1")
    fake.enqueue()
    assert fake.outputs()["x"].tolist() == [1, 2]
    for _ in range(2):
        fake.enqueue()
        assert np.isnan(fake.outputs()["x"]).all()
        assert fake.outputs()["ids"].tolist() == [3]


@pytest.mark.parametrize(
    ("fail", "status"),
    [("segfault", -signal.SIGSEGV), ("kill", -signal.SIGKILL), ("exit", 7)],
)
def test_it_dies_as_asked(fail: str, status: int) -> None:
    script = (
        "from harness.testing.fake_backend import FakeBackend as B\n"
        "from harness.protocols import Artifact, SessionOptions as O\n"
        "a = Artifact('fake', '', '', 'fp32', '', 0, ())\n"
        f"s = B().prepare(a, {{}}, O(options={{'fail': '{fail}', 'fail_at': '1'}}))\n"
        "s.enqueue(); print('alive', flush=True); s.enqueue(); print('still alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (status, b"alive\n")


def test_it_hangs_as_asked() -> None:
    script = (
        "from harness.testing.fake_backend import FakeBackend as B\n"
        "from harness.protocols import Artifact, SessionOptions as O\n"
        "a = Artifact('fake', '', '', 'fp32', '', 0, ())\n"
        "s = B().prepare(a, {}, O(options={'fail': 'hang'}))\n"
        "print('alive', flush=True); s.enqueue(); print('still alive', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "alive\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.kill()
    assert process.communicate()[0] == ""


@pytest.mark.parametrize(
    "options", [{"fail": "sulk"}, {"fail_at": "soon"}, {"latency_us": "nan"}, {"latency_us": "-1"}]
)
def test_nonsense_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        FakeBackend().wants("fp32", SessionOptions(options=options))


def test_replay_plays_rows_and_holds_the_last() -> None:
    context = ProfilerContext(pid=1)
    profiler = ReplayProfiler(context, CHANNELS, [(1.0, None), OSError("bus"), (2.0, 5.0)])
    assert profiler.context is context
    assert isinstance(profiler.open(), Available)
    assert profiler.channels == CHANNELS
    assert profiler.read() == (1.0, None)
    with pytest.raises(OSError, match="bus"):
        profiler.read()
    assert [profiler.read() for _ in range(3)] == [(2.0, 5.0)] * 3
    profiler.close()
    assert profiler.closed


def test_replay_reads_a_trace_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace = Trace(channels=CHANNELS, readings=((1.0, 2.0), (None, 3.0)))
    path.write_bytes(msgspec.json.encode(trace))
    profiler = ReplayProfiler(ProfilerContext(pid=1, options={"replay": str(path)}))
    assert isinstance(profiler.open(), Available)
    assert [profiler.read() for _ in range(2)] == [(1.0, 2.0), (None, 3.0)]


def test_replay_without_a_usable_trace_says_why(tmp_path: Path) -> None:
    found = ReplayProfiler(ProfilerContext(pid=1)).open()
    assert isinstance(found, Unavailable)
    path = tmp_path / "trace.json"
    path.write_text("{")
    found = ReplayProfiler(ProfilerContext(pid=1, options={"replay": str(path)})).open()
    assert isinstance(found, Unavailable)
    assert "cannot be read" in found.reason


def test_replay_refuses_a_row_of_the_wrong_length() -> None:
    profiler = ReplayProfiler(ProfilerContext(pid=1), CHANNELS, [(1.0,)])
    profiler.open()
    with pytest.raises(ValueError, match="1 readings for 2 channels"):
        profiler.read()
