"""What does a fleet cost: per cell beside ``harness sweep``, and for a night of 100,000 cells?

    python benchmarks/fleet.py [--cells 8] [--pairs 0] [--tasks 100000] [--night 5000]

* ``per cell``: the same cells by ``harness sweep`` and ``harness fleet run --local 1``, each from
  start to end; of the fleet also without the start of Ray, from the plan to the last row.
* ``agreement``: median latencies of one cell through the fleet over those of ``harness run`` just
  before or after it, in turn, with the interval between pairs. A duel cannot go through the fleet.
* ``plan and report``: a plan of so many tasks written and read, a lease and a row for each by as
  many simulated nodes, and the report. No Ray, no measurement: what the files cost.
* ``night``: the real driver over so many tasks, half of them for machines that never come, on a
  simulated Ray with ten nodes that answer at once. What remains is what the driver itself costs a
  task, and the share of that in which the disk was waited for (fsync).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from interleaved import counted, ratio

from harness.fleet.ledger import Ledger, Row, create
from harness.fleet.plan import FleetPlan, Task, read_fleet_plan, task_id
from harness.fleet.report import report_of
from harness.sweep.needs import FleetRules, Needs

NIGHT = """
name = "cost"
launches = 1
[defaults]
iterations = 50
warmup_s = 0
[matrix]
batch_size = {sizes}
"""
_ONE = """
name = "one"
launches = 1
[[include]]
model = "digits"
threads = 1
duration_s = 2
"""


def measure_cells(cells: int, folder: Path) -> None:
    """Prints seconds per cell of both."""
    (folder / "cost.toml").write_text(NIGHT.format(sizes=list(range(1, cells + 1))))
    _harness(folder, "run", "--iterations", "5", "--quiet")  # caches are warm for both
    sweep_s = _harness(folder, "sweep", "cost.toml", "--label", "sweep", "--quiet")
    fleet_s = _harness(folder, "fleet", "run", "cost.toml", "--local", "1", "--label", "fleet",
                       "--quiet")  # fmt: skip
    night = folder / "results" / "cost-fleet"
    planned = datetime.fromisoformat(json.loads((night / "fleet.json").read_bytes())["created_at"])
    rows = [json.loads(path.read_bytes()) for path in night.glob("*/row.json")]
    last = max(path.stat().st_mtime for path in night.glob("*/row.json"))
    assert [row["outcome"] for row in rows] == ["result"] * cells, rows
    after_s = last - planned.timestamp()
    print(
        f"{cells} cells: sweep {sweep_s / cells:.2f} s a cell; fleet {fleet_s / cells:.2f} s with "
        f"the start of Ray ({fleet_s - after_s:.1f} s), {after_s / cells:.2f} s without"
    )


def measure_agreement(pairs: int, folder: Path) -> None:
    """Prints the ratio of medians, fleet over run."""
    (folder / "one.toml").write_text(_ONE)
    sides: dict[str, list[float]] = {"fleet": [], "run": []}
    for number in counted(pairs, "fleet and run"):
        for side in ("fleet", "run") if number % 2 else ("run", "fleet"):
            label = f"{side}{number}"
            if side == "fleet":
                _harness(folder, "fleet", "run", "one.toml", "--local", "1", "--label", label,
                         "--quiet")  # fmt: skip
                (path,) = (folder / f"results/one-{label}").glob("*/*/result.json")
            else:
                _harness(folder, "run", "--threads", "1", "--duration", "2", "--out", label,
                         "--quiet")  # fmt: skip
                (path,) = (folder / label).glob("*/result.json")
            result = json.loads(path.read_bytes())
            sides[side].append(result["timing"]["latency_ms"]["median"])
    print(f"median through the fleet over harness run, {pairs} pairs: {ratio(*sides.values())}")


def _harness(folder: Path, *args: str) -> float:
    """Seconds that the command took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "harness", *args], cwd=folder, check=True)
    return time.perf_counter() - began


def measure_plan(tasks: int, folder: Path) -> None:
    """Prints seconds for planning, for leases and rows, and for the report."""
    began = time.perf_counter()
    plan = FleetPlan(
        id="night", name="cost", label="n", sha256="0" * 64, launches=1, time_limit_s=60.0,
        rules=FleetRules(), created_at="", classes={},
        tasks=tuple(_task(number) for number in range(tasks)),
    )  # fmt: skip
    create(folder, plan)
    read = read_fleet_plan(folder)
    planned = time.perf_counter()
    assert read == plan
    ledger = Ledger(folder, 60.0)
    for task in plan.tasks:
        lease = ledger.acquire(task.id)
        assert lease is not None
        row = Row(task=task.id, cell=task.cell, machine_class=task.machine_class,
                  outcome="result", node="simulated", attempt=lease.attempt)  # fmt: skip
        assert ledger.publish(row)
    done = time.perf_counter()
    report = report_of(plan, ledger)
    told = time.perf_counter()
    assert report.outcomes == {"result": tasks}
    print(
        f"{tasks:,} tasks: plan {planned - began:.1f} s, leases and rows {done - planned:.1f} s "
        f"({1e3 * (done - planned) / tasks:.2f} ms a task), report {told - done:.1f} s"
    )


def measure_night(tasks: int, folder: Path) -> None:
    """Prints milliseconds per task of the driver, and of that the disk's."""
    sys.path.append(str(Path(__file__).parents[1] / "tests/unit/fleet"))
    fakes: Any = import_module("test_driver")

    from harness.fleet import cluster, driver, nodes
    from harness.fleet import tasks as fleet_tasks

    clock = fakes.Clock()
    ray = fakes.FakeRay(clock, [fakes.node(f"n{number}") for number in range(10)])
    modules: list[Any] = [driver, nodes, fleet_tasks]
    for module in modules:
        module.time = clock
    patched: Any = cluster
    patched.connect = lambda *_: ray
    patched.reach = lambda *_: None
    planned = [fakes.task(number, "" if number % 2 else "absent") for number in range(tasks)]
    night = fakes.Night(folder, clock, ray, *planned)
    fsync_s, fsync = 0.0, os.fsync

    def timed(descriptor: int) -> None:
        nonlocal fsync_s
        at = time.perf_counter()
        fsync(descriptor)
        fsync_s += time.perf_counter() - at

    os.fsync = timed  # type: ignore[assignment]
    began = time.perf_counter()
    night.driver.run(lambda snapshot: None)
    took_s = time.perf_counter() - began
    os.fsync = fsync
    outcomes = night.driver.snapshot().outcomes
    assert outcomes == {"result": tasks // 2, "no-runner": tasks - tasks // 2}, outcomes
    print(
        f"night of {tasks:,} on simulated nodes: {1e3 * took_s / tasks:.2f} ms a task, of it "
        f"{1e3 * fsync_s / tasks:.2f} ms for the disk"
    )


def _task(number: int) -> Task:
    machine_class = f"class-{number % 100}"
    key = f"{number:016x}"
    needs, fields = Needs(machine=machine_class), {"batch_size": str(number)}
    name = f"digits/cpu/fp32/b{number}"
    return Task(task_id(key, machine_class, "night"), name, key, machine_class, needs, fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=8, help="0 leaves this part out")
    parser.add_argument("--pairs", type=int, default=0, help="half a minute each; 12 tell 1 %%")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--night", type=int, default=5_000, help="0 leaves this part out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HARNESS_CACHE", f"{folder}/cache")
        if given.cells:
            measure_cells(given.cells, Path(folder))
        if given.pairs:
            measure_agreement(given.pairs, Path(folder))
        night = Path(folder, "night")
        night.mkdir()
        measure_plan(given.tasks, night)
        if given.night:
            measure_night(given.night, Path(folder, "driven"))


if __name__ == "__main__":
    main()
