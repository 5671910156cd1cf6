"""Clocks, throttle counts and temperatures of laid-out machines."""

from __future__ import annotations

from pathlib import Path

from harness.maybe import Unavailable, code_of
from harness.profiles.clocks import ClocksProfiler
from harness.protocols import Available, ProfilerContext

CPU = "sys/devices/system/cpu"


def lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(root: Path, **options: str) -> dict[str, float | None]:
    profiler = ClocksProfiler(ProfilerContext(7, root=str(root), options=options))
    profiler.open()
    found = dict(zip([c.name for c in profiler.channels], profiler.read(), strict=True))
    profiler.close()
    return found


def test_frequencies_of_the_cores_that_the_worker_may_use(tmp_path: Path) -> None:
    for number, khz in enumerate((1_000_000, 2_000_000, 3_600_000)):
        policy = f"{CPU}/cpufreq/policy{number}"
        lay_out(tmp_path, {f"{policy}/scaling_cur_freq": f"{khz}\n"})
        lay_out(tmp_path, {f"{policy}/affected_cpus": f"{2 * number} {2 * number + 1}\n"})
    names = ("cpu_mean_mhz", "cpu_min_mhz", "cpu_max_mhz")
    found = read(tmp_path)
    assert [found[name] for name in names] == [2200, 1000, 3600]
    found = read(tmp_path, cpus="0-2")
    assert [found[name] for name in names] == [1500, 1000, 2000]


def test_a_package_s_throttles_count_once(tmp_path: Path) -> None:
    for cpu, package in enumerate((0, 0, 1, 1)):
        folder = f"{CPU}/cpu{cpu}"
        lay_out(
            tmp_path,
            {
                f"{folder}/topology/physical_package_id": f"{package}\n",
                f"{folder}/thermal_throttle/core_throttle_count": f"{cpu}\n",
                f"{folder}/thermal_throttle/package_throttle_count": f"{10 * (package + 1)}\n",
            },
        )
    found = read(tmp_path)
    assert (found["core_throttles"], found["package_throttles"]) == (0 + 1 + 2 + 3, 10 + 20)


def test_each_package_s_own_sensor_is_its_temperature(tmp_path: Path) -> None:
    for number in (0, 1):
        chip = f"sys/class/hwmon/hwmon{number}"
        lay_out(tmp_path, {f"{chip}/name": "coretemp\n", f"{chip}/temp2_label": "Core 0\n"})
        lay_out(tmp_path, {f"{chip}/temp1_label": f"Package id {number}\n"})
        lay_out(tmp_path, {f"{chip}/temp1_input": f"{50_500 + number * 1000}\n"})
        lay_out(tmp_path, {f"{chip}/temp2_input": "99000\n"})
    lay_out(tmp_path, {"sys/class/hwmon/hwmon2/name": "nvme\n"})
    lay_out(tmp_path, {"sys/class/hwmon/hwmon2/temp1_input": "30000\n"})
    found = read(tmp_path)
    assert (found["cpu0_temperature_c"], found["cpu1_temperature_c"]) == (50.5, 51.5)
    assert "cpu2_temperature_c" not in found


def test_the_die_is_taken_before_the_control_value_with_its_offset(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon0"
    lay_out(tmp_path, {f"{chip}/name": "k10temp\n"})
    for number, (label, value) in enumerate((("Tctl", 70_000), ("Tdie", 43_000)), start=1):
        lay_out(tmp_path, {f"{chip}/temp{number}_label": f"{label}\n"})
        lay_out(tmp_path, {f"{chip}/temp{number}_input": f"{value}\n"})
    assert read(tmp_path)["cpu0_temperature_c"] == 43


def test_a_thermal_zone_stands_in_for_a_sensor(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone3"
    lay_out(tmp_path, {f"{zone}/type": "cpu-thermal\n", f"{zone}/temp": "41000\n"})
    assert read(tmp_path)["cpu0_temperature_c"] == 41


def test_what_is_there_is_read_though_the_rest_is_not(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone3"
    lay_out(tmp_path, {f"{zone}/type": "cpu-thermal\n", f"{zone}/temp": "41000\n"})
    profiler = ClocksProfiler(ProfilerContext(7, root=str(tmp_path)))
    assert isinstance(profiler.open(), Available)
    profiler.close()


def test_a_virtual_machine_is_the_reason_on_a_virtual_machine(tmp_path: Path) -> None:
    codes = set()
    for flags in ("fpu", "fpu hypervisor"):
        lay_out(tmp_path, {"proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}\n"})
        answer = ClocksProfiler(ProfilerContext(7, root=str(tmp_path))).open()
        assert isinstance(answer, Unavailable)
        codes.add(code_of(answer))
    assert codes == {"not_present", "virtualized"}
