"""What a machine is, from laid-out machines and from this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import machine
from harness.machine import (
    Revision,
    commit,
    fingerprint,
    physical_cores,
    revision,
    software,
    usable_cpus,
)

CPU = "sys/devices/system/cpu"


def lay_out(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def server(root: Path, **changes: str) -> str:
    """Two sockets of two cores of two threads, 32 GiB; ``changes`` by the last path component."""
    files = {
        "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n"
        "model\t\t: 143\nmodel name\t: Intel(R) Xeon(R) 8480\nstepping\t: 8\nmicrocode\t: 0x2b\n"
        "cpu MHz\t\t: 2000.1\nflags\t\t: fpu avx2 avx512_vnni amx_int8 sse4_2\nbogomips\t: 4000\n",
        "proc/meminfo": "MemTotal:       32700000 kB\n",
        "proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-7\n",
        "proc/loadavg": "0.10 0.20 0.30 1/99 1234\n",
        "proc/self/cgroup": "0::/box\n",
        "sys/fs/cgroup/box/cpu.max": "max 100000\n",
        f"{CPU}/online": "0-7\n",
        f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
        f"{CPU}/intel_pstate/no_turbo": "1\n",
    }
    for cpu in range(8):
        topology = f"{CPU}/cpu{cpu}/topology"
        files[f"{topology}/physical_package_id"] = f"{cpu % 4 // 2}\n"
        files[f"{topology}/thread_siblings_list"] = f"{cpu % 4},{cpu % 4 + 4}\n"
    for path in files:
        files[path] = changes.get(path.rpartition("/")[2].replace(".", "_"), files[path])
    return lay_out(root, files)


def test_the_factors_of_a_server(tmp_path: Path) -> None:
    factors = fingerprint(server(tmp_path)).factors
    assert factors == {
        "architecture": os.uname().machine,
        "os": os.uname().sysname,
        "cpu": "Intel(R) Xeon(R) 8480",
        "cpu_stepping": "GenuineIntel/6/143/8",
        "isa": "sse4_2 avx2 avx512_vnni amx_int8",
        "sockets": "2",
        "physical_cores": "4",
        "logical_cpus": "8",
        "smt": "on",
        "usable_cpus": "8",
        "cpu_quota": "none",
        "memory_class": "32 GiB",
        "virtual": "no",
    }


def test_settings_are_context(tmp_path: Path) -> None:
    context = fingerprint(server(tmp_path)).context
    assert context["governor"] == "performance"
    assert context["boost"] == "off"
    assert context["microcode"] == "0x2b"
    assert context["aslr"] == machine.UNKNOWN


@pytest.mark.parametrize(
    "changes",
    [
        {"loadavg": "9.9 9.9 9.9 5/99 77\n"},
        {"scaling_governor": "powersave\n"},
        {"no_turbo": "0\n"},
        {"meminfo": "MemTotal:       32100000 kB\n"},
    ],
    ids=["load", "governor", "boost", "memory kept by another kernel"],
)
def test_what_changes_between_boots_does_not_change_the_fingerprint(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    before = fingerprint(server(tmp_path / "before"))
    after = fingerprint(server(tmp_path / "after", **changes))
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"meminfo": "MemTotal:       65400000 kB\n"},
        {"cpu_max": "200000 100000\n"},
        {"status": "Cpus_allowed_list:\t0-3\n"},
        {"cpuinfo": "model name\t: Intel(R) Xeon(R) 8480\nflags\t: hypervisor\n"},
    ],
    ids=["memory", "quota", "affinity", "virtualisation"],
)
def test_what_makes_another_machine_changes_it(tmp_path: Path, changes: dict[str, str]) -> None:
    before = fingerprint(server(tmp_path / "before"))
    after = fingerprint(server(tmp_path / "after", **changes))
    assert after.fingerprint != before.fingerprint


def test_an_accelerator_is_a_factor(tmp_path: Path) -> None:
    root = server(tmp_path)
    with_device = fingerprint(root, {"gpu0": "H200 141 GB SXM"})
    assert with_device.factors["gpu0"] == "H200 141 GB SXM"
    assert with_device.fingerprint != fingerprint(root).fingerprint


@pytest.mark.parametrize(
    ("kib", "memory"),
    [(1_000_000, "1 GiB"), (7_900_000, "8 GiB"), (24_600_000, "24 GiB"), (130_000_000, "128 GiB")],
)
def test_memory_is_told_as_sold(tmp_path: Path, kib: int, memory: str) -> None:
    root = server(tmp_path, meminfo=f"MemTotal: {kib} kB\n")
    assert fingerprint(root).factors["memory_class"] == memory


@pytest.mark.parametrize(
    ("allowed", "quota", "cores"),
    [
        ("0-7", "max 100000", 4),
        ("0,4", "max 100000", 1),  # the two threads of one core
        ("0-1", "max 100000", 2),
        ("0-7", "250000 100000", 2),
        ("0-7", "50000 100000", 1),
    ],
)
def test_cores_that_can_be_kept_busy(tmp_path: Path, allowed: str, quota: str, cores: int) -> None:
    root = server(tmp_path, status=f"Cpus_allowed_list:\t{allowed}\n", cpu_max=f"{quota}\n")
    assert physical_cores(root) == cores


def test_an_outer_group_limits_an_inner_one(tmp_path: Path) -> None:
    root = server(tmp_path, cgroup="0::/box/inner\n")
    lay_out(tmp_path, {"sys/fs/cgroup/box/inner/cpu.max": "max 100000\n"})
    lay_out(tmp_path, {"sys/fs/cgroup/box/cpu.max": "300000 100000\n"})
    assert physical_cores(root) == 3


def test_a_group_that_is_not_mounted_here_is_the_mount_itself(tmp_path: Path) -> None:
    root = server(tmp_path, cgroup="0::/docker/0123abcd\n")
    lay_out(tmp_path, {"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    lay_out(tmp_path, {"sys/fs/cgroup/memory.max": "1048576\n"})
    assert physical_cores(root) == 2
    assert fingerprint(root).context["memory_limit_bytes"] == "1048576"


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    root = server(tmp_path, cgroup="4:cpu,cpuacct:/box\n3:memory:/box\n0::/\n")
    lay_out(tmp_path, {"sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "300000\n"})
    lay_out(tmp_path, {"sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n"})
    lay_out(tmp_path, {"sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{2**63 - 4096}\n"})
    assert physical_cores(root) == 3
    assert fingerprint(root).context["memory_limit_bytes"] == "none"


def test_a_machine_that_shows_nothing_is_still_described(tmp_path: Path) -> None:
    found = fingerprint(str(tmp_path))
    assert found.factors["isa"] == found.factors["memory_class"] == machine.UNKNOWN
    assert physical_cores(str(tmp_path)) >= 1


def test_arm_names_its_parts(tmp_path: Path) -> None:
    cpuinfo = "CPU implementer\t: 0x41\nCPU part\t: 0xd40\nCPU variant\t: 0x1\nCPU revision\t: 1\n"
    root = server(tmp_path, cpuinfo=cpuinfo + "Features\t: fp asimd asimddp i8mm bf16 sve\n")
    factors = fingerprint(root).factors
    assert factors["cpu"] == "Arm implementer 0x41 part 0xd40"
    assert factors["isa"] == "asimd asimddp i8mm bf16 sve"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_this_machine() -> None:
    assert set(usable_cpus()) == os.sched_getaffinity(0)
    assert 1 <= physical_cores() <= len(usable_cpus())
    assert fingerprint().fingerprint == fingerprint().fingerprint


def test_software_names_what_steers_and_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HOME_SECRET", "x")
    found = software({"provider": "CPU"})
    assert found.environment["OMP_NUM_THREADS"] == "3"
    assert "HOME_SECRET" not in found.environment
    assert found.runtime == {"provider": "CPU"}
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    code = (
        "import sys, harness.machine as m; m.fingerprint(); m.software()\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``git(*words)`` in an empty folder, away from any CI system."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in (*machine._CI_BRANCHES, "GITHUB_REF_TYPE"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", *identity, *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    return call


def test_the_commit_and_whether_it_is_what_lies_there(
    tmp_path: Path, git: Callable[..., str]
) -> None:
    assert commit(tmp_path) is None
    git("init", "-q")
    assert commit(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert commit(tmp_path) == head
    (tmp_path / "untracked").write_text("no matter")
    assert commit(tmp_path) == head
    assert revision(tmp_path).dirty is False
    (tmp_path / "file").write_text("other")
    assert commit(tmp_path) == f"{head}-dirty"
    assert revision(tmp_path).dirty is True


def test_the_branch_is_what_git_says_or_the_ci_system(
    tmp_path: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert revision(tmp_path) == Revision()
    monkeypatch.setenv("HARNESS_BRANCH", "told")
    assert revision(tmp_path) == Revision(branch="told")
    git("init", "-q", "-b", "feature/x")
    assert revision(tmp_path) == Revision(branch="feature/x")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-11-21T05:03:01+01:00")
    git("commit", "-q", "--allow-empty", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert revision(tmp_path) == Revision(head, "feature/x", "2026-11-21T05:03:01+01:00", False)
    git("checkout", "-q", "--detach")
    assert revision(tmp_path).branch == "told"
    monkeypatch.setenv("GITHUB_REF_NAME", "12/merge")
    monkeypatch.setenv("GITHUB_HEAD_REF", "fix")
    assert revision(tmp_path).branch == "fix"
    monkeypatch.setenv("GITHUB_HEAD_REF", "")
    assert revision(tmp_path).branch == "12/merge"
    monkeypatch.setenv("GITHUB_REF_TYPE", "tag")
    assert revision(tmp_path).branch == "told"
    assert revision(tmp_path / "nowhere") == Revision(branch="told")
