"""CPU use, switches, steal, pressure and throttling: of real children and of laid-out machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.maybe import Unavailable, code_of
from harness.profiles.utilization import UtilizationProfiler
from harness.protocols import Profiler, ProfilerContext

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
STAT = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 3 0 250 50 999 999 20 0 1 0 5 1 1\n"
SWITCHES = "Name:\tx\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n"


def lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def opened(root: Path, **options: str) -> UtilizationProfiler:
    profiler = UtilizationProfiler(ProfilerContext(7, root=str(root), options=options))
    profiler.open()
    return profiler


def values(profiler: Profiler) -> dict[str, float | None]:
    return dict(zip([c.name for c in profiler.channels], profiler.read(), strict=True))


def reasons(profiler: Profiler) -> dict[str, Unavailable | None]:
    return {channel.name: channel.unavailable for channel in profiler.channels}


def test_the_worker_s_own_counters(tmp_path: Path) -> None:
    lay_out(tmp_path, {"proc/7/stat": STAT})
    found = values(opened(tmp_path))
    assert found["worker_cpu_s"] == pytest.approx(300 * TICK_S)
    assert (found["minor_faults"], found["major_faults"]) == (100, 3)


def test_switches_of_a_thread_that_ended_stay_counted(tmp_path: Path) -> None:
    for thread, counts in {"7": (10, 1), "8": (20, 2)}.items():
        lay_out(tmp_path, {f"proc/7/task/{thread}/status": SWITCHES.format(*counts)})
    profiler = opened(tmp_path)
    assert values(profiler)["voluntary_switches"] == 30
    (tmp_path / "proc/7/task/8/status").unlink()
    (tmp_path / "proc/7/task/8").rmdir()
    lay_out(tmp_path, {"proc/7/task/9/status": SWITCHES.format(5, 5)})
    found = values(profiler)
    profiler.close()
    assert (found["voluntary_switches"], found["involuntary_switches"]) == (35, 8)


def test_busy_is_neither_idle_nor_waiting_nor_stolen(tmp_path: Path) -> None:
    line = " 1 2 4 1000 1000 8 16 500 1 1\n"  # user nice system idle iowait irq softirq steal ...
    lay_out(tmp_path, {"proc/stat": "cpu " + line + "cpu0" + line + "intr 1 2 3\n"})
    found = values(opened(tmp_path))
    assert found["machine_busy_s"] == pytest.approx(31 * TICK_S)
    assert found["cpu0_busy_s"] == pytest.approx(31 * TICK_S)
    assert found["machine_steal_s"] == pytest.approx(500 * TICK_S)


def test_a_machine_that_counts_nothing_is_not_idle(tmp_path: Path) -> None:
    lay_out(tmp_path, {"proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n"})
    profiler = opened(tmp_path)
    assert values(profiler)["machine_busy_s"] is None
    assert reasons(profiler)["machine_steal_s"] is not None


def test_a_core_that_goes_offline_has_no_reading(tmp_path: Path) -> None:
    line = " 1 0 0 1 0 0 0 0 0 0\n"
    lay_out(tmp_path, {"proc/stat": f"cpu{line}cpu0{line}cpu1{line}"})
    profiler = opened(tmp_path)
    lay_out(tmp_path, {"proc/stat": f"cpu{line}cpu0{line}intr 5\n"})
    found = values(profiler)
    assert found["cpu0_busy_s"] is not None
    assert found["cpu1_busy_s"] is None


def test_pressure_is_the_time_that_some_task_waited(tmp_path: Path) -> None:
    some = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"
    lay_out(tmp_path, {"proc/pressure/cpu": some + some.replace("some", "full")})
    profiler = opened(tmp_path)
    assert values(profiler)["pressure_cpu_s"] == 2.5
    assert code_of(reasons(profiler)["pressure_io_s"] or pytest.fail("readable")) == "not_present"


@pytest.mark.parametrize(
    ("files", "throttled_s"),
    [
        (
            {
                "proc/7/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.stat": "nr_throttled 4\nthrottled_usec 1500000\n",
            },
            1.5,
        ),
        (
            {
                "proc/7/cgroup": "4:cpu,cpuacct:/a\n0::/\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/a/cpu.stat": "nr_throttled 4\nthrottled_time 1500000000\n",
            },
            1.5,
        ),
    ],
    ids=["v2", "v1"],
)
def test_throttling_is_read_where_the_quota_is(
    tmp_path: Path, files: dict[str, str], throttled_s: float
) -> None:
    lay_out(tmp_path, files)
    found = values(opened(tmp_path))
    assert (found["cgroup_throttled_s"], found["cgroup_throttles"]) == (throttled_s, 4)


def test_without_a_quota_nothing_throttles(tmp_path: Path) -> None:
    lay_out(tmp_path, {"proc/7/cgroup": "0::/\n", "sys/fs/cgroup/cpu.stat": "usage_usec 9\n"})
    assert reasons(opened(tmp_path))["cgroup_throttled_s"] is not None


def test_harness_s_own_processes_are_counted_together(tmp_path: Path) -> None:
    lay_out(tmp_path, {f"proc/{pid}/stat": STAT for pid in (8, 9)})
    found = values(opened(tmp_path, own_pids="8,9"))
    assert found["harness_cpu_s"] == pytest.approx(600 * TICK_S)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of a real process")
def test_a_real_child_that_burns_and_sleeps() -> None:
    code = (
        "import time, threading\n"
        "def burn():\n"
        "    end = time.thread_time() + 0.2\n"
        "    while time.thread_time() < end: pass\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        "for _ in range(20): time.sleep(0.001)\n"
        "print(flush=True); input()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        profiler = UtilizationProfiler(ProfilerContext(child.pid))
        profiler.open()
        before = values(profiler)
        assert child.stdout is not None
        child.stdout.readline()
        after = values(profiler)
        profiler.close()
        child.kill()
    assert before["worker_cpu_s"] is not None
    assert (after["worker_cpu_s"] or 0) >= 0.2 - TICK_S  # the ended thread's time is included
    assert (after["voluntary_switches"] or 0) - (before["voluntary_switches"] or 0) >= 20
    assert (after["machine_busy_s"] or 0) > (before["machine_busy_s"] or 0)
