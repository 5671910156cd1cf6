"""From what a run gathered to a Result: real evidence, made by hand, through all of `assemble`."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from privileges import nobody
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_energy import COUNTS, FAILURES, READS, SECOND, WINDOW, counter, numbers

from harness.analysis.energy.attribute import SourceReadings
from harness.engine.driver.recorder import Recorder
from harness.engine.outcome.assemble import assemble
from harness.engine.outcome.evidence import Evidence, LaunchRecord, Placement
from harness.engine.sampler.client import SamplerProcess
from harness.engine.wire.frames import Header, Opened, Reading, SamplerJob, Tick
from harness.engine.wire.timeline import Timeline
from harness.maybe import coded
from harness.profiles.clocks import ClocksProfiler
from harness.protocols import Available, ProfilerContext
from harness.records.result import Check, CheckVerdict, Result
from harness.spec import RunSpec
from harness.tensorboard.live import TensorBoardSink
from harness.views.markdown import render_markdown
from harness.views.terminal import render_result, to_text

NOT_THERE = coded("not_present", "no meter", "buy one")


def iterations(first_ns: int, window: tuple[int, int], last_ns: int, count: int) -> Recorder:
    """Equal iterations without gaps: half of ``count`` before the window, the rest within it, and
    one that covers the guard behind it."""
    timeline = Timeline.create(1, 4096)
    (stream,) = timeline.streams
    half = count // 2
    edges = np.concatenate(
        [
            np.linspace(first_ns, window[0], half + 1)[:-1],
            np.linspace(*window, count - half + 1),
            [last_ns],
        ]
    ).astype(np.int64)
    for index, (start, end) in enumerate(pairwise(edges)):
        stream.starts[index], stream.ends[index] = int(start), int(end)
    stream.window_start, stream.window_end = half, count
    stream.written = count + 1
    recorder = Recorder(stream)
    recorder.drain()
    timeline.close()
    return recorder


def evidence(sampler: SamplerProcess | None, record: LaunchRecord, **spec: Any) -> Evidence:
    return Evidence(
        spec=RunSpec(**spec),
        id="20260101T000000Z-digits-fake-fp32-000000",
        started_at="2026-01-01T00:00:00.000+00:00",
        began_ns=time.perf_counter_ns(),
        placement=Placement(threads=1, cpus=None, rest=None, usable=2),
        launches=[record],
        samplers=[sampler and sampler.sampled()],
    )


def launch(window: tuple[int, int], guard_s: float = 2.0, count: int = 1600) -> LaunchRecord:
    guard_ns = round(guard_s * SECOND)
    return LaunchRecord(
        warmup_end="steady",
        stop_reason="duration",
        window_ns=window,
        recorders=[iterations(window[0] - guard_ns, window, window[1] + guard_ns, count)],
        idle={
            "before": WINDOW.idle_before or (0, 0),
            "after": WINDOW.idle_after or (0, 0),
        },
    )


def sampled(readings: list[SourceReadings]) -> SamplerProcess:
    """A sampler that has sent these readings of one profiler called power."""
    sampler = SamplerProcess()
    channels = tuple(item.channel for item in readings)
    refused = None if readings else NOT_THERE
    sampler._take(Header((Opened("power", channels, refused),), 10.0))
    times = readings[0].times_ns if readings else [round(t * SECOND) for t in READS]
    for index, t_ns in enumerate(times):
        values = tuple(_known(item.values[index]) for item in readings)
        known = (Reading(0, int(t_ns), values),) if readings else ()
        sampler._take(Tick(int(t_ns), 0, None, known))
    return sampler


def _known(value: float | None) -> float | None:
    """As the sampler sends it."""
    return value if value is not None and np.isfinite(value) else None


def result_of(readings: list[SourceReadings], width_s: float = 8.0) -> Result:
    window = (WINDOW.start_ns, WINDOW.start_ns + round(width_s * SECOND))
    return assemble(evidence(sampled(readings), launch(window)))


def tags(folder: Path) -> list[str]:
    events = EventAccumulator(str(folder))
    events.Reload()
    found: list[str] = events.Tags()["scalars"]
    return found


# --- energy -----------------------------------------------------------------------------------


def test_a_sound_meter_gives_its_joules_everywhere(tmp_path: Path) -> None:
    """Without this the test below could pass by showing nothing at all."""
    result = result_of([counter()])
    gross = result.energy.joules_per_inference
    assert result.energy.inferences == 800
    assert gross.value == pytest.approx(1.0)  # 100 W for 8 s over 800 inferences
    assert result.energy.sources["package-0"].net_j_per_inference.value == pytest.approx(0.8)
    for text in (to_text(render_result(result)), render_markdown(result)):
        assert re.search(r"1\.000 J|1000\.?0? mJ|99\d\.\d mJ", text), text
    TensorBoardSink(tmp_path, result.spec).close(result)
    assert "energy/joules_per_inference" in tags(tmp_path)


@pytest.mark.parametrize("failure", FAILURES)
def test_no_figure_in_any_output_where_a_source_fails(failure: str, tmp_path: Path) -> None:
    width_s = 4.0 if failure == "too slow for the window" else 8.0
    result = result_of(FAILURES[failure](), width_s)

    energy = json.loads(msgspec.json.encode(result))["energy"]
    assert set(numbers(energy)) <= COUNTS
    for text in (to_text(render_result(result)), render_markdown(result)):
        assert re.findall(r"\d\s*(?:[mµn]?J|[mµk]?W)\b", text) == []
        assert re.search(r"Energy\W+(per inf\W+)?(\|\s*)*n/a", text), text
    TensorBoardSink(tmp_path, result.spec).close(result)
    found = tags(tmp_path)
    assert "latency/median_ms" in found
    assert [tag for tag in found if tag.startswith(("energy/", "power/"))] == []


@pytest.mark.parametrize(
    "failure", [name for name in FAILURES if name.startswith(("refused", "only", "no ", "infin"))]
)
def test_a_source_that_was_never_read_shows_nothing_live(failure: str) -> None:
    live = sampled(FAILURES[failure]()).live()
    if failure != "refused yet reading":  # it was read until it broke
        assert live == {}


# --- clocks and throttling, replayed -----------------------------------------------------------

CPU = "sys/devices/system/cpu"


class Machine:
    """The files of a bare machine with one processor, rewritten while a real sampler reads them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.put("proc/cpuinfo", "model name : Real CPU\nflags : sse4_2\n")
        self.put(f"{CPU}/cpu0/topology/physical_package_id", "0\n")
        self.put(f"{CPU}/cpufreq/policy0/affected_cpus", "0\n")
        self.set(mhz=3000, core=7, package=2)

    def put(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def set(self, mhz: int, core: int, package: int) -> None:
        # equal lengths, so that a reader in the middle of a write sees nothing torn
        self.put(f"{CPU}/cpufreq/policy0/scaling_cur_freq", f"{mhz * 1000:08d}\n")
        throttle = f"{CPU}/cpu0/thermal_throttle"
        self.put(f"{throttle}/core_throttle_count", f"{core:08d}\n")
        self.put(f"{throttle}/package_throttle_count", f"{package:08d}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def sampler(machine: Machine) -> Iterator[SamplerProcess]:
    process = SamplerProcess()
    context = ProfilerContext(os.getpid(), root=str(machine.root))
    process.start(SamplerJob(profilers=("clocks",), context=context, rate_hz=50))
    assert process.wait_ready(20)
    yield process
    process.stop()


def checks_after(sampler: SamplerProcess, machine: Machine, **after: int) -> dict[str, Check]:
    """The checks of a window in whose middle the machine changed."""
    pause(sampler, 0.3)
    start_ns = time.perf_counter_ns()
    pause(sampler, 0.3)
    machine.set(**{"mhz": 3000, "core": 7, "package": 2, **after})
    pause(sampler, 0.3)
    window = (start_ns, time.perf_counter_ns())
    pause(sampler, 0.3)
    sampler.stop()
    result = assemble(evidence(sampler, launch(window, guard_s=0.1, count=100)))
    return {check.name: check for check in result.validity}


def pause(sampler: SamplerProcess, seconds: float) -> None:
    sampler._drain_until(lambda: False, seconds)


def test_an_undisturbed_processor(sampler: SamplerProcess, machine: Machine) -> None:
    found = checks_after(sampler, machine)
    assert (found["throttled"].verdict, found["clocks"].verdict) == ("pass", "pass")
    assert found["throttled"].reason == "0 throttle events in the window"


@pytest.mark.parametrize(("after", "events"), [({"core": 10}, 3), ({"core": 8, "package": 6}, 5)])
def test_throttling_in_the_window(
    sampler: SamplerProcess, machine: Machine, after: dict[str, int], events: int
) -> None:
    found = checks_after(sampler, machine, **after)["throttled"]
    assert found.verdict == "warn"
    assert found.reason.startswith(f"{events} throttle events in the window; ")


@pytest.mark.parametrize(("mhz", "verdict"), [(2950, "pass"), (2700, "warn"), (3300, "warn")])
def test_clocks_that_change(
    sampler: SamplerProcess, machine: Machine, mhz: int, verdict: CheckVerdict
) -> None:
    found = checks_after(sampler, machine, mhz=mhz)["clocks"]
    assert found.verdict == verdict
    assert "clocks drifted by " in found.reason


def test_a_forbidden_counter_is_unknown_with_a_remedy() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        machine = Machine(Path(folder))
        machine.root.chmod(0o755)
        for name in ("core", "package"):
            (machine.root / f"{CPU}/cpu0/thermal_throttle/{name}_throttle_count").chmod(0)
        profiler = ClocksProfiler(ProfilerContext(os.getpid(), root=folder))
        with nobody():
            assert isinstance(profiler.open(), Available)  # there are clocks
        sampler = SamplerProcess()
        sampler._take(Header((Opened("clocks", tuple(profiler.channels), None),), 10.0))
        profiler.close()
    window = (WINDOW.start_ns, WINDOW.end_ns)
    result = assemble(evidence(sampler, launch(window)))
    (found,) = [check for check in result.validity if check.name == "throttled"]
    assert found.verdict == "unknown"
    assert "is forbidden to this user; run as its owner or as root" in found.reason
