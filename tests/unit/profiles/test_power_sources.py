"""hwmon, Jetson, pyRAPL and the profiler that picks among the sources."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.errors import UsageError
from harness.host.procfs import is_virtual
from harness.maybe import Unavailable, code_of
from harness.profiles.power.sources import PowerProfiler, sources_of
from harness.protocols import Available, Profiler, ProfilerContext


def profiler(root: Path, power_source: str = "auto") -> PowerProfiler:
    return PowerProfiler(ProfilerContext(pid=1, root=str(root), power_source=power_source))


def readings(source: Profiler) -> dict[str, float | None]:
    answer = source.open()
    assert isinstance(answer, Available), answer
    names = [channel.name for channel in source.channels]
    values = dict(zip(names, source.read(), strict=True))
    source.close()
    return values


def chip(root: Path, number: int, name: str, **files: str) -> None:
    folder = root / f"sys/class/hwmon/hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    for file, text in files.items():
        (folder / file).write_text(text + "\n")


def rail(root: Path, device: str, number: int, label: str, millivolts: int, ma: int) -> None:
    folder = root / f"sys/bus/i2c/drivers/ina3221/{device}/hwmon/hwmon3"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"in{number}_label").write_text(label + "\n")
    (folder / f"in{number}_input").write_text(f"{millivolts}\n")
    (folder / f"curr{number}_input").write_text(f"{ma}\n")


def package(root: Path, energy_uj: str = "5000000") -> None:
    folder = root / "sys/class/powercap/intel-rapl:0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("package-0\n")
    (folder / "max_energy_range_uj").write_text("262143328850\n")
    (folder / "energy_uj").write_text(energy_uj)


def test_hwmon_reads_microwatts_and_microjoules_by_chip(tmp_path: Path) -> None:
    chip(tmp_path, 0, "amd_energy", energy1_input="2500000", energy1_label="Esocket0")
    chip(tmp_path, 1, "amdgpu", power1_average="31000000", power1_label="PPT")
    chip(tmp_path, 2, "nct6775", temp1_input="41000")
    found = profiler(tmp_path, "hwmon")
    assert readings(found) == {
        "energy/amd_energy-esocket0_j": 2.5,
        "power/amdgpu-ppt_w": 31.0,
    }


def test_hwmon_scopes_follow_the_chip_and_cores_are_left_out(tmp_path: Path) -> None:
    chip(
        tmp_path,
        0,
        "amd_energy",
        energy1_input="1",
        energy1_label="Ecore000",
        energy2_input="1",
        energy2_label="Esocket0",
    )
    chip(tmp_path, 1, "someboard", power1_input="1")
    found = profiler(tmp_path, "hwmon")
    found.open()
    assert [channel.scope for channel in found.channels] == ["cpu-package", "someboard"]
    found.close()


def test_twin_chips_are_told_apart(tmp_path: Path) -> None:
    for number in (3, 4):
        chip(tmp_path, number, "ltc2945", power1_input=f"{number}000000")
    assert readings(profiler(tmp_path, "hwmon")) == {
        "power/ltc2945-power1-hwmon3_w": 3.0,
        "power/ltc2945-power1-hwmon4_w": 4.0,
    }


def test_jetson_multiplies_volts_by_amperes_rail_by_rail(tmp_path: Path) -> None:
    rail(tmp_path, "1-0040", 1, "VDD_IN", 5000, 1500)
    rail(tmp_path, "1-0040", 2, "VDD_CPU_GPU_CV", 5000, 400)
    rail(tmp_path, "1-0040", 7, "sum of shunt voltages", 80, 1)
    found = profiler(tmp_path, "jetson")
    assert readings(found) == {
        "power/1-0040-vdd_in_w": 7.5,
        "power/1-0040-vdd_cpu_gpu_cv_w": 2.0,
    }
    assert [channel.scope for channel in found.channels] == []
    found.open()
    assert [channel.scope for channel in found.channels] == ["soc", "rail"]
    found.close()


def test_a_rail_without_current_says_so(tmp_path: Path) -> None:
    rail(tmp_path, "1-0040", 1, "VDD_IN", 5000, 1500)
    (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input").unlink()
    answer = profiler(tmp_path, "jetson").open()
    assert isinstance(answer, Unavailable)
    assert code_of(answer) == "error"


def test_auto_takes_all_that_is_there(tmp_path: Path) -> None:
    package(tmp_path)
    chip(tmp_path, 0, "someboard", power1_input="9000000")
    assert readings(profiler(tmp_path)) == {
        "energy/package-0_j": 0.0,
        "power/someboard-power1_w": 9.0,
    }


def test_auto_on_an_empty_machine_gives_the_reason_of_powercap(tmp_path: Path) -> None:
    found = profiler(tmp_path)
    answer = found.open()
    assert isinstance(answer, Unavailable)
    assert code_of(answer) == "not_present"
    assert "modprobe" in answer.remedy
    assert found.read() == []


def test_a_broken_source_keeps_its_place_among_the_channels(tmp_path: Path) -> None:
    package(tmp_path, "garbage")
    chip(tmp_path, 0, "someboard", power1_input="9000000")
    found = profiler(tmp_path)
    answer = found.open()
    assert isinstance(answer, Available)
    assert answer.details["powercap"].startswith("error:")
    assert [(channel.name, channel.unavailable is None) for channel in found.channels] == [
        ("power/someboard-power1_w", True),
        ("energy/powercap_j", False),
    ]
    assert found.read() == [9.0, None]
    found.close()


def test_none_means_none(tmp_path: Path) -> None:
    package(tmp_path)
    found = profiler(tmp_path, "none")
    answer = found.open()
    assert isinstance(answer, Unavailable)
    assert "--power-source none" in answer.reason
    assert found.channels == []


@pytest.mark.parametrize("text", ["rapl", "tdp", "external", ""])
def test_unknown_sources_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--power-source"):
        sources_of(text)


def test_the_registry_knows_it() -> None:
    assert isinstance(registry.find_profiler("power", ProfilerContext(pid=1)), PowerProfiler)


# --- pyRAPL -----------------------------------------------------------------------------------


def test_without_pyrapl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyRAPL", None)
    answer = profiler(Path("/"), "pyrapl").open()
    assert isinstance(answer, Unavailable)
    assert code_of(answer) == "not_present"
    assert "hw-harness[rapl]" in answer.remedy


def test_pyrapl_cannot_be_redirected(tmp_path: Path) -> None:
    answer = profiler(tmp_path, "pyrapl").open()
    assert isinstance(answer, Unavailable)
    assert code_of(answer) == "not_supported"


# Lays out machines under the real paths, in a mount namespace of its own, and reads each of them.
IN_NAMESPACE = """
import json, os, subprocess, sys, logging
from pathlib import Path
from harness.maybe import Unavailable, code_of
from harness.profiles.power.pyrapl import PyRaplSource
from harness.protocols import ProfilerContext

RANGE = 262_143_328_850
RAPL, CPU = Path("/sys/class/powercap/intel-rapl"), Path("/sys/devices/system/cpu")

def fresh():
    for target in ("/sys/class", str(CPU)):
        subprocess.run(["umount", target], stderr=subprocess.DEVNULL)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target], check=True)

def cpus(packages, present=None):
    (CPU / "present").write_text(present or f"0-{len(packages) - 1}")
    for number, package in enumerate(packages):
        folder = CPU / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(str(package))

def zone(label, name, energy=1_000_000):
    folder = RAPL / label
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\\n")
    (folder / "energy_uj").write_text(f"{energy}\\n")

def count(label, joules):
    path = RAPL / label / "energy_uj"
    path.write_text(f"{(int(path.read_text()) + int(joules * 1e6)) % (RANGE + 61)}\\n")

def dram(number):
    return f"intel-rapl:{number}/intel-rapl:{number}:0"

def intel():
    cpus([0, 0]); zone("intel-rapl:0", "package-0"); zone(dram(0), "dram")
def no_dram():
    cpus([0]); zone("intel-rapl:0", "package-0")
def wrap_one():
    cpus([0]); zone("intel-rapl:0", "package-0", RANGE - 500_000)
def wrap_two():
    cpus([0, 1]); zone("intel-rapl:1", "package-1")
    zone("intel-rapl:0", "package-0", RANGE - 500_000)
def psys():
    cpus([0]); zone("intel-rapl:0", "package-0"); zone("intel-rapl:1", "psys")
def swapped():
    cpus([0, 1]); zone("intel-rapl:0", "package-1"); zone("intel-rapl:1", "package-0")
def dies():
    cpus([0]); zone("intel-rapl:0", "package-0-die-0"); zone("intel-rapl:1", "package-0-die-1")
def offline():
    cpus([0], present="0-3"); zone("intel-rapl:0", "package-0")
def forbidden():
    no_dram(); (RAPL / "intel-rapl:0/energy_uj").chmod(0o400)
def nothing():
    cpus([0])

def read(source):
    names = [channel.name for channel in source.channels]
    return dict(zip(names, source.read()))

def run(case):
    fresh()
    case()
    os.seteuid(65534 if case is forbidden else 0)
    source = PyRaplSource(ProfilerContext(pid=1))
    answer = source.open()
    os.seteuid(0)
    if isinstance(answer, Unavailable):
        return {"open": code_of(answer), "reason": answer.reason, "values": source.read()}
    for label in sorted(RAPL.glob("intel-rapl:*")):
        count(label.name, 2)
    first = read(source)
    for label in sorted(RAPL.glob("intel-rapl:*")):
        count(label.name, 2)
    second = read(source)
    codes = [c.unavailable and code_of(c.unavailable) for c in source.channels]
    return {"open": "ok", "first": first, "second": second, "codes": codes}

cases = [intel, no_dram, wrap_one, wrap_two, psys, swapped, dies, offline, forbidden, nothing]
found = {case.__name__: run(case) for case in cases}
found["handlers"] = len(logging.getLogger().handlers)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def real_pyrapl() -> dict[str, Any]:
    pytest.importorskip(
        "pyRAPL", reason="pyRAPL is not installed (extra rapl)", exc_type=ImportError
    )
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/sys/class"]
    try:
        allowed = subprocess.run(probe, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("pyRAPL's path is fixed, and there is no unshare to redirect it")
    if allowed.returncode:
        pytest.skip(f"pyRAPL's path is fixed, and mounts are not allowed: {allowed.stderr.strip()}")
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-W", "error::SyntaxWarning", "-c", IN_NAMESPACE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


PKG0, PKG1 = "energy/package-0_j", "energy/package-1_j"


@pytest.mark.parametrize(
    ("case", "second"),
    [
        ("intel", {PKG0: 4.0, "energy/package-0-dram_j": 0.0}),
        ("no_dram", {PKG0: 4.0}),
        ("psys", {PKG0: 4.0}),
        ("swapped", {PKG0: 4.0, PKG1: 4.0}),
    ],
)
def test_pyrapl_where_it_is_right(
    real_pyrapl: dict[str, Any], case: str, second: dict[str, float]
) -> None:
    assert real_pyrapl[case]["second"] == second


@pytest.mark.parametrize(
    ("case", "second", "codes"),
    [
        ("wrap_one", {PKG0: None}, ["counter_reset"]),
        ("wrap_two", {PKG0: None, PKG1: 4.0}, ["counter_reset", None]),
    ],
)
def test_pyrapl_after_a_wrap_gives_nothing(
    real_pyrapl: dict[str, Any], case: str, second: dict[str, Any], codes: list[str | None]
) -> None:
    """The package gives None with one socket and minus 262 kJ with two."""
    assert real_pyrapl[case]["first"][PKG0] is None
    assert real_pyrapl[case]["second"] == second
    assert real_pyrapl[case]["codes"] == codes


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("dies", "not_supported"),
        ("nothing", "not_supported"),
        ("offline", "error"),
        ("forbidden", "permission_denied"),
    ],
)
def test_pyrapl_exceptions_become_reasons(
    real_pyrapl: dict[str, Any], case: str, code: str
) -> None:
    if code == "not_supported" and is_virtual("/"):
        code = "virtualized"
    assert real_pyrapl[case]["open"] == code
    assert real_pyrapl[case]["values"] == []


def test_importing_pyrapl_leaves_logging_alone(real_pyrapl: dict[str, Any]) -> None:
    assert real_pyrapl["handlers"] == 0
