"""What does a fleet cost: per cell beside ``harness sweep``, and for a night of 100,000 cells?

    python benchmarks/fleet.py [--cells 8] [--tasks 100000]

* ``per cell``: the same cells by ``harness sweep`` and ``harness fleet run --local 1``, each from
  start to end; of the fleet also without the start of Ray, from the plan to the last row.
* ``plan and report``: a plan of so many tasks written and read, a lease and a row for each by as
  many simulated nodes, and the report. No Ray, no measurement: what the files cost.
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
from pathlib import Path

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


def _task(number: int) -> Task:
    machine_class = f"class-{number % 100}"
    key = f"{number:016x}"
    needs, fields = Needs(machine=machine_class), {"batch_size": str(number)}
    name = f"digits/cpu/fp32/b{number}"
    return Task(task_id(key, machine_class, "night"), name, key, machine_class, needs, fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=8, help="0 leaves this part out")
    parser.add_argument("--tasks", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HARNESS_CACHE", f"{folder}/cache")
        if given.cells:
            measure_cells(given.cells, Path(folder))
        night = Path(folder, "night")
        night.mkdir()
        measure_plan(given.tasks, night)


if __name__ == "__main__":
    main()
