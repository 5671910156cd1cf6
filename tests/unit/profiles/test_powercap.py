"""The powercap reader against trees laid out in folders, after the faults of other readers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.channels import growth, wrap_of
from harness.maybe import Unavailable, code_of
from harness.profiles.power.powercap import PowercapSource
from harness.protocols import Available, ProfilerContext

RANGE_UJ = 262_143_328_850  # (2^32 - 1) x 2^-14 J, what most Intel processors say
UNIT_UJ = 61
INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu msr sse2\n"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu msr sse2\n"
NOBODY = 65_534


class Tree:
    """A powercap class folder under ``root``; labels are zone names such as ``intel-rapl:0:1``."""

    def __init__(self, root: Path, cpuinfo: str = INTEL) -> None:
        self.root = root
        self.folder = root / "sys/class/powercap"
        self.folder.mkdir(parents=True)
        (root / "proc").mkdir()
        (root / "proc/cpuinfo").write_text(cpuinfo)

    def zone(
        self, label: str, name: str, energy_uj: int = 1_000_000, range_uj: int = RANGE_UJ
    ) -> None:
        path = self.folder / label
        path.mkdir(parents=True)
        (path / "name").write_text(name + "\n")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (path / "energy_uj").write_text(f"{energy_uj}\n")

    def add(self, label: str, joules: float, range_uj: int = RANGE_UJ) -> None:
        """Count ``joules`` more on one zone, wrapping as the register does."""
        path = self.folder / label / "energy_uj"
        unit_uj = round(range_uj / (2**32 - 1))
        energy_uj = (int(path.read_text()) + round(joules * 1e6)) % (range_uj + unit_uj)
        path.write_text(f"{energy_uj}\n")

    def source(self) -> PowercapSource:
        return PowercapSource(ProfilerContext(pid=1, root=str(self.root)))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def opened(tree: Tree) -> PowercapSource:
    source = tree.source()
    answer = source.open()
    assert isinstance(answer, Available), answer
    return source


def joules(source: PowercapSource) -> dict[str, float | None]:
    """Meter -> joules since opening."""
    names = [channel.name.removeprefix("energy/").removesuffix("_j") for channel in source.channels]
    return dict(zip(names, source.read(), strict=True))


def refusal(tree: Tree) -> Unavailable:
    source = tree.source()
    answer = source.open()
    assert isinstance(answer, Unavailable)
    assert all(value is None for value in source.read())
    return answer


# --- the fourteen trees -----------------------------------------------------------------------


def test_01_package_and_its_parts_are_kept_apart(tree: Tree) -> None:
    for label, name in (("", "package-0"), (":0", "core"), (":1", "uncore"), (":2", "dram")):
        tree.zone(f"intel-rapl:0{label}", name)
    source = opened(tree)
    for label, amount in (("", 8.0), (":0", 5.0), (":1", 1.0), (":2", 2.0)):
        tree.add(f"intel-rapl:0{label}", amount)
    assert joules(source) == {
        "package-0": 8.0,
        "package-0-core": 5.0,
        "package-0-dram": 2.0,
        "package-0-uncore": 1.0,
    }
    scopes = {channel.name: channel.scope for channel in source.channels}
    assert scopes["energy/package-0_j"] == "cpu-package"
    assert scopes["energy/package-0-dram_j"] == "dram"
    assert source.channels[0].facts["wrap_range_j"] == RANGE_UJ / 1e6
    assert source.channels[0].period_s == 0.001


def test_02_amd_has_no_dram_and_its_core_zone_is_a_single_core(tmp_path: Path) -> None:
    tree = Tree(tmp_path, AMD)
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:0:0", "core")
    source = opened(tree)
    tree.add("intel-rapl:0", 2.0)
    assert joules(source) == {"package-0": 2.0}


def test_03_a_wrap_on_one_socket_loses_nothing(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    source = opened(tree)
    tree.add("intel-rapl:0", 2.0)
    assert int((tree.folder / "intel-rapl:0/energy_uj").read_text()) == 1_000_000 - UNIT_UJ
    assert joules(source) == {"package-0": 2.0}


def test_03_what_it_says_of_its_range_unwraps_the_file_itself(tree: Tree) -> None:
    """For whoever reads the counter bare: the facts of its channel are enough."""
    zone = "intel-rapl:0"
    tree.zone(zone, "package-0", RANGE_UJ - 1_000_000)
    (channel,) = opened(tree).channels
    readings = []
    for _ in range(4):
        readings.append(int((tree.folder / zone / "energy_uj").read_text()) / 1e6)
        tree.add(zone, 2.0)
    assert readings[1] < readings[0]
    times_ns = np.arange(4, dtype=np.int64) * 10**9
    grown = growth(times_ns, np.array(readings), 0, 3 * 10**9, wrap_of(channel))
    assert grown == pytest.approx(6.0, abs=2e-6)
    assert channel.meter == "package-0"


def test_04_a_wrap_on_one_of_two_sockets(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", RANGE_UJ)
    tree.zone("intel-rapl:1", "package-1", 5_000_000)
    source = opened(tree)
    for label in ("intel-rapl:0", "intel-rapl:1"):
        tree.add(label, 3.0)
    assert joules(source) == {"package-0": 3.0, "package-1": 3.0}


def test_05_psys_at_the_top_is_no_socket(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:1", "psys")
    source = opened(tree)
    tree.add("intel-rapl:0", 2.0)
    tree.add("intel-rapl:1", 9.0)
    assert joules(source) == {"package-0": 2.0, "psys": 9.0}
    assert [channel.scope for channel in source.channels] == ["cpu-package", "psys"]


def test_06_psys_before_the_package(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "psys")
    tree.zone("intel-rapl:1", "package-0")
    tree.zone("intel-rapl:1:0", "dram")
    source = opened(tree)
    tree.add("intel-rapl:1:0", 1.5)
    assert joules(source) == {"package-0": 0.0, "package-0-dram": 1.5, "psys": 0.0}


def test_07_zone_numbers_are_not_socket_numbers(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-1")
    tree.zone("intel-rapl:1", "package-0")
    source = opened(tree)
    tree.add("intel-rapl:0", 4.0)
    assert joules(source) == {"package-0": 0.0, "package-1": 4.0}


def test_08_real_dies_are_summed(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0-die-0", 10_000_000)
    tree.zone("intel-rapl:1", "package-0-die-1", 70_000_000)
    source = opened(tree)
    tree.add("intel-rapl:0", 2.0)
    tree.add("intel-rapl:1", 3.0)
    assert joules(source) == {"package-0": 5.0}


def test_09_mirrored_dies_are_one_meter(tree: Tree) -> None:
    for number in range(4):
        tree.zone(f"intel-rapl:{number}", f"package-0-die-{number}", 10_000_000 + number * 61)
    source = opened(tree)
    for number in range(4):
        tree.add(f"intel-rapl:{number}", 2.0)
    assert joules(source) == {"package-0": pytest.approx(2.0)}
    assert source.channels[0].facts["mirrored"] == 1.0


def test_09b_mirrors_that_move_apart_were_none(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0-die-0")
    tree.zone("intel-rapl:1", "package-0-die-1")
    source = opened(tree)
    tree.add("intel-rapl:0", 5.0)
    values = [joules(source)["package-0"] for _ in range(3)]
    assert values == [5.0, 5.0, None]
    reason = source.channels[0].unavailable
    assert reason is not None
    assert code_of(reason) == "error"


def test_10_offline_cpus_do_not_matter(tree: Tree) -> None:
    cpu = tree.root / "sys/devices/system/cpu"
    cpu.mkdir(parents=True)
    (cpu / "present").write_text("0-3\n")  # cpu3 has no folder, as an offline one may
    tree.zone("intel-rapl:0", "package-0")
    assert joules(opened(tree)) == {"package-0": 0.0}


@contextmanager
def as_nobody() -> Iterator[None]:
    """The effective user without rights, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """``tmp_path``, enterable by everybody."""
    for folder in (tmp_path, *tmp_path.parents):
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o055 if folder == tmp_path else 0o755)
        if folder.name.startswith("pytest-of"):
            break
    return tmp_path


def test_11_forbidden_names_the_command_that_grants_access(open_folder: Path) -> None:
    tree = Tree(open_folder)
    tree.zone("intel-rapl:0", "package-0")
    (tree.folder / "intel-rapl:0/energy_uj").chmod(0o000)
    with as_nobody():
        reason = refusal(tree)
    assert code_of(reason) == "permission_denied"
    assert "sudo chmod a+r /sys/class/powercap/*/energy_uj" in reason.remedy
    assert "udev" in reason.remedy


def test_12_no_zone_on_bare_metal(tree: Tree) -> None:
    reason = refusal(tree)
    assert code_of(reason) == "not_present"
    assert "modprobe" in reason.remedy


def test_12b_no_zone_in_a_virtual_machine(tmp_path: Path) -> None:
    reason = refusal(Tree(tmp_path, "flags\t\t: fpu hypervisor lm\n"))
    assert code_of(reason) == "virtualized"


def test_13_the_mmio_twin_counts_nothing_twice(tree: Tree) -> None:
    tree.zone("intel-rapl-mmio:0", "package-0", 3_000_000)
    tree.zone("intel-rapl:0", "package-0", 9_000_000)
    tree.zone("intel-rapl:0:0", "dram")
    tree.zone("intel-rapl-mmio:0:0", "dram")
    source = opened(tree)
    for label in ("intel-rapl-mmio:0", "intel-rapl:0", "intel-rapl:0:0", "intel-rapl-mmio:0:0"):
        tree.add(label, 3.5)
    assert joules(source) == {"package-0": 3.5, "package-0-dram": 3.5}


def test_13b_the_mmio_twin_serves_where_it_alone_is_readable(open_folder: Path) -> None:
    tree = Tree(open_folder)
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl-mmio:0", "package-0")
    (tree.folder / "intel-rapl:0/energy_uj").chmod(0o000)
    with as_nobody():
        source = opened(tree)
    tree.add("intel-rapl-mmio:0", 1.25)
    assert joules(source) == {"package-0": 1.25}


def test_14_zone_numbers_are_hexadecimal(tree: Tree) -> None:
    for number in range(12):
        tree.zone(f"intel-rapl:{number:x}", f"package-{number}", 1_000_000 * (number + 1))
    source = opened(tree)
    tree.add("intel-rapl:a", 2.0)
    tree.add("intel-rapl:b", 3.0)
    found = joules(source)
    assert len(found) == 12
    assert {meter: value for meter, value in found.items() if value} == {
        "package-10": 2.0,
        "package-11": 3.0,
    }


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 150_000_000), min_size=1, max_size=80),
)
def test_any_run_of_the_register_adds_up(start_uj: int, steps_uj: list[int]) -> None:
    """A register of 1 uJ wraps every 4295 J; steps of up to 150 J wrap it at any place."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        tree.zone("intel-rapl:0", "package-0", start_uj, range_uj=2**32 - 1)
        source = opened(tree)
        total_uj = 0
        for step_uj in steps_uj:
            tree.add("intel-rapl:0", step_uj / 1e6, range_uj=2**32 - 1)
            total_uj += step_uj
            assert joules(source) == {"package-0": pytest.approx(total_uj / 1e6, abs=1e-9)}
        source.close()


# --- beyond the fourteen ----------------------------------------------------------------------


def test_nested_folders_and_flat_links_are_the_same_zones(tree: Tree) -> None:
    tree.zone("intel-rapl/intel-rapl:0", "package-0")
    tree.zone("intel-rapl/intel-rapl:0/intel-rapl:0:0", "dram")
    for label in ("intel-rapl:0", "intel-rapl:0/intel-rapl:0:0"):
        link = tree.folder / label.rpartition("/")[2]
        link.symlink_to(tree.folder / "intel-rapl" / label)
    source = opened(tree)
    tree.add("intel-rapl:0:0", 7.0)
    assert joules(source) == {"package-0": 0.0, "package-0-dram": 7.0}


def test_psys_that_counts_whole_joules_says_so(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "psys", 5_000_000, range_uj=(2**32 - 1) * 1_000_000)
    assert opened(tree).channels[0].facts["resolution_j"] == pytest.approx(1.0)


def test_a_restarted_counter_is_no_wrap(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 9_000_000_000)
    source = opened(tree)
    (tree.folder / "intel-rapl:0/energy_uj").write_text("12\n")
    assert joules(source) == {"package-0": None}
    tree.add("intel-rapl:0", 1.0)
    assert joules(source) == {"package-0": None}, "a broken meter must not come back"
    reason = source.channels[0].unavailable
    assert reason is not None
    assert code_of(reason) == "counter_reset"


def test_time_enough_for_a_second_wrap_is_refused(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    tree.zone("intel-rapl:0", "package-0")
    source = opened(tree)
    clock[0] += 60.0
    tree.add("intel-rapl:0", 100.0)
    assert joules(source) == {"package-0": 100.0}
    clock[0] += 140.0  # 262 kJ at the 2 kW that no socket exceeds take 131 s
    tree.add("intel-rapl:0", 100.0)
    assert joules(source) == {"package-0": None}


def test_a_garbled_file_is_an_error(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0")
    (tree.folder / "intel-rapl:0/energy_uj").write_text("soon\n")
    assert code_of(refusal(tree)) == "error"


def test_a_garbled_moment_is_one_missing_value(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0")
    source = opened(tree)
    path = tree.folder / "intel-rapl:0/energy_uj"
    path.write_text("\n")
    assert joules(source) == {"package-0": None}
    path.write_text("4000000\n")
    assert joules(source) == {"package-0": 3.0}


def test_zones_without_any_package_are_not_supported(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "dtpm")
    assert code_of(refusal(tree)) == "not_supported"


def test_zones_hidden_by_a_container_are_forbidden(tree: Tree) -> None:
    (tree.folder / "intel-rapl:0").symlink_to(tree.root / "masked/intel-rapl:0")
    reason = refusal(tree)
    assert code_of(reason) == "permission_denied"
    assert "systempaths=unconfined" in reason.remedy


def test_a_forbidden_part_leaves_the_package(open_folder: Path) -> None:
    tree = Tree(open_folder)
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:0:0", "dram")
    (tree.folder / "intel-rapl:0:0/energy_uj").chmod(0o000)
    with as_nobody():
        source = opened(tree)
    assert joules(source) == {"package-0": 0.0, "package-0-dram": None}


def test_sgx_is_a_fact_of_the_channel(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "vendor_id\t: GenuineIntel\nflags\t\t: fpu sgx lm\n")
    tree.zone("intel-rapl:0", "package-0")
    assert opened(tree).channels[0].facts["filtered"] == 1.0


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_descriptors_stay_open_and_are_released(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0")
    before = descriptors()
    source = opened(tree)
    assert descriptors() == before + 1
    for _ in range(3):
        source.read()
    source.close()
    source.close()
    assert descriptors() == before


COUNTING = """
import os, signal, sys, time
running = True
def stop(*_):
    global running
    running = False
signal.signal(signal.SIGTERM, stop)
path, start, modulus = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd, added = os.open(path, os.O_WRONLY), 0
print("counting", flush=True)
while running:
    added += 150_000  # 0.15 J about every millisecond
    os.pwrite(fd, b"%-20d\\n" % ((start + added) % modulus), 0)
    time.sleep(0.001)
print(added, flush=True)
"""


def test_another_process_counts_while_we_read(tree: Tree) -> None:
    start = RANGE_UJ - 3_000_000
    tree.zone("intel-rapl:0", "package-0", start)
    path = tree.folder / "intel-rapl:0/energy_uj"
    path.write_text(f"{start:<20d}\n")
    source = opened(tree)
    arguments = [str(path), str(start), str(RANGE_UJ + UNIT_UJ)]
    with subprocess.Popen(
        [sys.executable, "-c", COUNTING, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "counting\n"
        seen: list[float] = []
        while len(set(seen)) < 50 or seen[-1] < 6.0:
            value = joules(source)["package-0"]
            if value is not None:
                seen.append(value)
            time.sleep(0.002)
        process.terminate()
        added_uj = int(process.stdout.readline())
    assert seen == sorted(seen)
    # Each reading is a whole number of the other side's steps, across the wrap as well.
    assert all(value / 0.15 == pytest.approx(round(value / 0.15), abs=1e-6) for value in seen)
    assert joules(source)["package-0"] == pytest.approx(added_uj / 1e6, abs=1e-9)


# --- without a range ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0\n", "", "none\n", None])
def test_without_a_range_the_counter_is_read_until_it_goes_backwards(
    tree: Tree, text: str | None
) -> None:
    tree.zone("intel-rapl:0", "package-0", 123_456_789)
    file = tree.folder / "intel-rapl:0/max_energy_range_uj"
    file.unlink()
    if text is not None:
        file.write_text(text)
    source = opened(tree)
    assert "wrap_range_j" not in source.channels[0].facts
    assert source.channels[0].facts["resolution_j"] == 1e-6
    tree.add("intel-rapl:0", 5.0)
    assert joules(source) == {"package-0": 5.0}
    (tree.folder / "intel-rapl:0/energy_uj").write_text("1000\n")  # it wrapped, or was reset
    assert joules(source) == {"package-0": None}
    reason = source.channels[0].unavailable
    assert reason is not None and code_of(reason) == "counter_reset"
    assert "max_energy_range_uj" in reason.reason
    source.close()
