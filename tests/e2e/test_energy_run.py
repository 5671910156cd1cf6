"""Joules per inference through the real command line, from a wall meter in another process.

The runs go at the same time, since each of them spends its time asleep.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fakes import STAMP
from running import HERE, Harness, Ran, assert_no_orphans, environment
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.records.store import read_result
from harness.views.markdown import render_markdown
from harness.views.terminal import render_result, to_text

pytestmark = pytest.mark.measures

IDLE_W, LOAD_W = 30.0, 50.0
RUN = ("run", "--backend", "fakes:Fake", "--option", "latency_us=2000", "--sample-rate", "40",
       "--warmup", "0.3", "--max-warmup", "1.5")  # fmt: skip
CSV = ("--power-source", "external:meter.csv")
FIVE = ("--duration", "5", "--idle", "5")


class Plan(NamedTuple):
    args: tuple[str, ...]
    meter: tuple[float, float] | None = None  # watts idle and under load
    stops: bool = False  # whether the meter dies as soon as the run has shown a reading
    phases: bool = False  # whether the meter sees when there is load


PLANS = {
    "phases": Plan((*RUN, *CSV, *FIVE, "--option", "beacon=beacon"), (IDLE_W, LOAD_W), phases=True),
    "constant": Plan((*RUN, *CSV, *FIVE), (LOAD_W, LOAD_W)),
    "short": Plan((*RUN, *CSV, "--duration", "1.5", "--idle", "0"), (LOAD_W, LOAD_W)),
    "stops": Plan((*RUN, *CSV, "--duration", "10", "--idle", "0"), (LOAD_W, LOAD_W), stops=True),
    "empty": Plan((*RUN, *CSV, "--duration", "0.5", "--require", "energy")),
    "none": Plan((*RUN, "--power-source", "none", "--duration", "0.5", "--require", "energy")),
}


class Measured(NamedTuple):
    """One run: what it printed, its folder, and its scalars as tag -> [(wall time, value)]."""

    ran: Ran
    folder: Path
    scalars: dict[str, list[tuple[float, float]]]

    @property
    def json(self) -> dict[str, Any]:
        return self.ran.result

    @property
    def energy(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["energy"]
        return found

    @property
    def wall(self) -> dict[str, Any]:
        found: dict[str, Any] = self.energy["sources"]["wall"]
        return found


def measure(plan: Plan, folder: Path, cache: Path) -> Measured:
    env, meter = environment(cache), None
    (folder / "beacon").write_bytes(bytes(STAMP.size))
    (folder / "meter.csv").touch()
    if plan.meter is not None:
        beacon = "beacon" if plan.phases else "-"
        args = ["meter.csv", beacon, *map(str, plan.meter), "3600"]
        meter = subprocess.Popen([sys.executable, HERE / "meter.py", *args], cwd=folder, env=env)
        wait_for_rows(folder / "meter.csv", 8)
    command = [sys.executable, "-m", "harness", *plan.args, "--json"]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True
        ) as process:
            if plan.stops and meter is not None:
                wait_for_a_reading(folder, process)
                meter.kill()
            out, err = process.communicate(timeout=600)
    finally:
        if meter is not None:
            meter.kill()
            meter.wait()
    assert_no_orphans(folder)
    (run,) = (folder / "results").iterdir()
    return Measured(Ran(process.returncode, out, err), run, scalars(run))


def wait_for_rows(path: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while not path.exists() or path.read_text().count("\n") <= count:
        assert time.monotonic() < deadline, "the meter writes nothing"
        time.sleep(0.02)


def wait_for_a_reading(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has shown what the meter says."""
    while not any(
        b"power/wall_w" in events.read_bytes()
        for events in folder.glob("results/*/events.out.tfevents.*")
    ):
        assert process.poll() is None, "the run has ended without a reading"
        time.sleep(0.02)


def scalars(run: Path) -> dict[str, list[tuple[float, float]]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.wall_time, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> Iterator[Callable[[str], Measured]]:
    """All of `PLANS`, begun together."""
    with ThreadPoolExecutor(len(PLANS)) as pool:
        runs = {
            name: pool.submit(measure, plan, tmp_path_factory.mktemp(name), cache)
            for name, plan in PLANS.items()
        }
        yield lambda name: runs[name].result()


def test_energy_is_power_times_the_window(measured: Callable[[str], Measured]) -> None:
    run = measured("phases")
    assert run.ran.code == 0, run.ran.err
    seconds, count = run.energy["window_s"], run.json["timing"]["iterations"]
    assert run.energy["inferences"] == count > 1000
    assert (run.energy["primary"], run.wall["scope"]) == ("wall", "wall")

    # The meter counts joules as well: its counter is the figure, its power the check.
    assert run.wall["method"] == "counter"
    gross, net = run.wall["gross_j_per_inference"], run.wall["net_j_per_inference"]
    assert gross == run.energy["joules_per_inference"]
    assert 0 < gross["comparative"] < 0.01 * gross["value"]
    assert abs(gross["value"] - LOAD_W * seconds / count) < 3 * gross["comparative"]
    assert run.wall["average_power_w"] == pytest.approx(LOAD_W, rel=0.005)
    assert run.wall["integral_j"] == pytest.approx(run.wall["counter_j"], rel=0.01)
    assert run.wall["idle_before_w"] == pytest.approx(IDLE_W, rel=0.02)
    assert run.wall["idle_after_w"] == pytest.approx(IDLE_W, rel=0.02)
    expected = (LOAD_W - IDLE_W) * seconds / count
    assert abs(net["value"] - expected) < 3 * net["comparative"]
    assert "unavailable" in gross["absolute"]  # nobody calibrated this meter
    assert run.wall["self_test"]["verdict"] == "pass"


def test_the_result_on_disk_says_the_same(measured: Callable[[str], Measured]) -> None:
    run = measured("phases")
    assert json.loads((run.folder / "result.json").read_text()) == run.json


def test_tensorboard_holds_the_same_joules_and_the_live_power(
    measured: Callable[[str], Measured],
) -> None:
    run = measured("phases")
    ((_, value),) = run.scalars["energy/joules_per_inference"]
    assert value == float(np.float32(run.energy["joules_per_inference"]["value"]))
    watts = [value for _, value in run.scalars["power/wall_w"]]
    assert set(watts) == {IDLE_W, LOAD_W}
    assert watts[0] == IDLE_W
    assert min(watts.count(IDLE_W), watts.count(LOAD_W)) >= 8  # 10 s idle and 5 s window
    joules = [value for _, value in run.scalars["energy/wall_j"]]
    assert joules == sorted(joules)
    assert joules[-1] > LOAD_W * run.energy["window_s"]


def test_load_that_draws_no_more_than_idling_has_no_net_energy(
    measured: Callable[[str], Measured],
) -> None:
    run = measured("constant")
    assert run.ran.code == 0, run.ran.err
    assert run.wall["method"] == "integral"
    gross = run.wall["gross_j_per_inference"]
    expected = LOAD_W * run.energy["window_s"] / run.energy["inferences"]
    assert abs(gross["value"] - expected) < 3 * gross["comparative"]
    assert run.wall["average_power_w"] == pytest.approx(LOAD_W)
    assert run.wall["net_j_per_inference"]["unavailable"].startswith("not_resolvable: ")
    assert run.scalars["power/wall_w"]
    assert "energy/joules_per_inference" in run.scalars


# --- no figure where there is none -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [
        ("short", r"window_too_short: [\d.]+ s, and this meter needs 5 s$", "add --duration 5"),
        ("stops", "insufficient_samples: ", ""),
    ],
)
def test_a_meter_that_cannot_answer_says_why(
    measured: Callable[[str], Measured], name: str, reason: str, remedy: str
) -> None:
    run = measured(name)
    assert run.ran.code == 0, run.ran.err  # nobody required energy
    absent = run.energy["joules_per_inference"]
    assert re.match(reason, absent["unavailable"]), absent
    assert remedy in absent["remedy"]
    assert run.wall["status"] == "unavailable"


def test_a_meter_that_went_silent_leaves_no_stale_readings(
    measured: Callable[[str], Measured],
) -> None:
    run = measured("stops")
    last_row = (run.folder.parents[1] / "meter.csv").read_text().splitlines()[-1]
    silent_since_s = float(last_row.split(",")[0])
    shown_s = [wall for wall, _ in run.scalars["power/wall_w"]]
    assert shown_s
    # a second, the half between two events, and what a busy machine makes of them
    assert max(shown_s) < silent_since_s + 3.0
    assert max(wall for wall, _ in run.scalars["latency/median_ms"]) > silent_since_s + 4.0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("empty", "meter.csv has no header yet"), ("none", "switched off by --power-source none")],
)
def test_required_energy_that_is_absent_exits_3_and_leaves_the_result(
    measured: Callable[[str], Measured], name: str, reason: str
) -> None:
    run = measured(name)
    assert run.ran.code == 3
    (line,) = run.ran.err.splitlines()
    assert line.startswith("harness: --require energy: ")
    assert reason in line
    assert reason in run.energy["unavailable"]
    assert read_result(run.folder).timing.iterations == run.json["timing"]["iterations"] > 0
    assert [tag for tag in run.scalars if tag.startswith(("energy/", "power/"))] == []


MAY_BE_NUMBERS = {"window_s", "inferences", "updates", "update_period_s"}


def numbers(value: Any, key: str = "") -> Iterator[str]:
    """The keys under which numbers stand."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key


@pytest.mark.parametrize("name", ["short", "stops", "empty", "none"])
def test_no_energy_figure_anywhere(measured: Callable[[str], Measured], name: str) -> None:
    run = measured(name)
    assert set(numbers(run.energy)) <= MAY_BE_NUMBERS
    assert "energy/joules_per_inference" not in run.scalars
    result = read_result(run.folder)
    for text in (to_text(render_result(result)), render_markdown(result)):
        assert re.findall(r"\d\s*(?:[mµnk]?J|[mµk]?W)\b", text) == []
        assert "n/a" in text


# --- what is refused beforehand ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "bogus",
            "--power-source is 'bogus'; choose one of auto, none, nvml, powercap, hwmon, jetson, "
            "pyrapl, external:FILE.csv",
        ),
        ("external:", "--power-source is 'external:'; give external:FILE.csv"),
        (
            "external:gone.csv",
            "--power-source names 'gone.csv', which is no file; start the meter first",
        ),
    ],
)
def test_a_source_that_cannot_be_is_one_line_and_leaves_nothing(
    harness: Harness, tmp_path: Path, source: str, line: str
) -> None:
    ran = harness(*RUN, "--power-source", source)
    assert (ran.code, ran.out, ran.err) == (2, "", f"harness: {line}\n")
    assert list(tmp_path.iterdir()) == []
