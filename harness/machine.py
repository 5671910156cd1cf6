"""What this machine is (factors: must match to compare) and how it is set (context: only shown).

A factor never changes between boots of the same machine: no clock, load, BogoMIPS, name or address.
Everything is read from files below ``root``, so a test can lay out any machine in a folder; only
`software` starts a process (git), and none of it imports a framework.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness import registry
from harness.host import git
from harness.host.procfs import (
    cgroup_chain,
    cpu_list,
    cpu_quota,
    fields,
    memory_limit_bytes,
    read_text,
)
from harness.records.result import Machine, Software

UNKNOWN = "not shown by this system"
# Instruction sets that decide which kernels a runtime picks: x86, then Arm.
_ISA = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw",
    "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "amx_fp16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
_CLOCKSOURCES = {"kvm-clock": "kvm", "hyperv_clocksource_tsc_page": "hyperv", "xen": "xen"}
_VENDORS = {
    "VMware": "vmware",
    "Microsoft": "hyperv",
    "QEMU": "kvm",
    "Xen": "xen",
    "innotek": "vbox",
}
_DISTRIBUTIONS = (
    "hw-harness", "numpy", "msgspec", "psutil", "nvidia-ml-py", "tensorboardX", "onnx",
    "onnxscript", "pyRAPL",
)  # fmt: skip
_STEERING = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "DNNL_", "ONEDNN_", "CUDA_", "NVIDIA_", "ORT_",
    "TORCH", "PYTORCH_", "LD_PRELOAD", "MALLOC_", "MIMALLOC_",
)  # fmt: skip
_CPU = "sys/devices/system/cpu"
_GIT_TIMEOUT_S = 2.0
# of a pull request GITHUB_REF_NAME is no branch, so its head comes first
_CI_BRANCHES = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_BRANCH", "HARNESS_BRANCH")


def fingerprint(
    root: str = "/", devices: Mapping[str, str] | None = None, device: str = "cpu"
) -> Machine:
    """The machine, with ``devices``: stable facts of its accelerators, as their adapter names them.

    With ``device`` (``cuda:N``) the GPU under test is described too, and it alone: two runs on one
    kind of GPU compare, whatever else is plugged in beside.

    ``fingerprint`` is the first 16 hex digits of the SHA-256 of the factors as sorted JSON.
    """
    stable, shown = _device(device)
    factors = {**_factors(root), **stable, **(devices or {})}
    text = msgspec.json.encode(factors, order="sorted")
    return Machine(
        fingerprint=hashlib.sha256(text).hexdigest()[:16],
        factors=factors,
        context={**_context(root), **shown},
    )


def _device(device: str) -> tuple[dict[str, str], dict[str, str]]:
    """Factors and context of the device under test, beside the host's."""
    if not device.startswith("cuda"):
        return {}, {}
    from harness.profiles.nvml.facts import device_facts

    return device_facts(device)


def software(runtime: Mapping[str, str] | None = None, *, backends: Iterable[str] = ()) -> Software:
    """Installed versions, steering variables and the commit; ``runtime`` as the backend says.

    Of ``backends``, and of those that come with Harness, the distributions that they name.
    """
    from importlib import metadata  # slow to import, and not needed before a run

    versions = {"python": platform.python_version()}
    for name in (*_DISTRIBUTIONS, *registry.distributions(*backends)):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found = revision(Path.cwd())
    return Software(
        versions=versions,
        runtime=dict(runtime or {}),
        environment={k: v for k, v in sorted(os.environ.items()) if k.startswith(_STEERING)},
        commit=found.commit,
        branch=found.branch,
        commit_time=found.commit_time,
        dirty=found.dirty,
    )


class Revision(NamedTuple):
    """What lies in a folder, as git knows it. All None outside of git, but for the branch, which a
    CI system may name."""

    commit: str | None = None  # with ``-dirty`` where tracked files differ from it
    branch: str | None = None
    commit_time: str | None = None  # ISO 8601, as the committer's clock had it
    dirty: bool | None = None


def commit(folder: Path) -> str | None:
    """The git commit of ``folder``, ``-dirty`` where tracked files differ; None outside of git."""
    return revision(folder).commit


def revision(folder: Path) -> Revision:
    """The commit, branch and time of what lies in ``folder``."""
    asked = ("status", "--porcelain=v2", "--branch", "--untracked-files=no", git.NOT_INSIDE)
    lines = _told(folder, *asked).splitlines()
    heads = dict(line.split(" ", 3)[1:3] for line in lines if line.startswith("# branch."))
    branch = heads.get("branch.head", "(detached)")
    branch_known = _ci_branch() if branch == "(detached)" else branch
    head = heads.get("branch.oid", "(initial)")
    if head == "(initial)":
        return Revision(branch=branch_known)
    dirty = any(not line.startswith("#") for line in lines) or any(
        revision(inside).dirty for inside in git.submodules(folder)
    )
    time = _told(folder, "show", "--no-patch", "--no-show-signature", "--format=%cI", head)
    return Revision(
        commit=head + ("-dirty" if dirty else ""),
        branch=branch_known,
        commit_time=time.strip() or None,
        dirty=dirty,
    )


def _told(folder: Path, *words: str) -> str:
    return (git.ask(*words, folder=folder, timeout_s=_GIT_TIMEOUT_S) or b"").decode(
        errors="replace"
    )


def _ci_branch() -> str | None:
    """The branch that a CI system checked out, whose checkouts are detached."""
    told = {name: os.environ.get(name, "").strip() for name in _CI_BRANCHES}
    if os.environ.get("GITHUB_REF_TYPE") == "tag":
        told["GITHUB_REF_NAME"] = ""
    return next((branch for branch in told.values() if branch and branch.isprintable()), None)


def usable_cpus(root: str = "/") -> tuple[int, ...]:
    """The CPUs that this process may run on, by its affinity."""
    allowed = cpu_list(fields(read_text(root, "proc/self/status")).get("Cpus_allowed_list"))
    return allowed or tuple(range(os.cpu_count() or 1))


def physical_cores(root: str = "/") -> int:
    """How many physical cores this process can keep busy, at least 1.

    Cores of its affinity (SMT siblings count once), and no more than its cgroup's CPU quota.
    """
    usable = usable_cpus(root)
    cores = {_siblings(root, cpu) for cpu in usable}
    quota = cpu_quota(root)
    return max(1, len(cores) if quota is None else min(len(cores), math.floor(quota)))


def one_cpu_a_core(root: str = "/") -> tuple[int, ...]:
    """Of each physical core that this process may use, one processor."""
    found = {_siblings(root, cpu): cpu for cpu in reversed(usable_cpus(root))}
    return tuple(sorted(found.values()))


def _siblings(root: str, cpu: int) -> tuple[int, ...]:
    text = read_text(root, f"{_CPU}/cpu{cpu}/topology/thread_siblings_list")
    return cpu_list(text) or (cpu,)


def _factors(root: str) -> dict[str, str]:
    info = fields(read_text(root, "proc/cpuinfo"))
    online = cpu_list(read_text(root, f"{_CPU}/online")) or usable_cpus(root)
    packages = {read_text(root, f"{_CPU}/cpu{cpu}/topology/physical_package_id") for cpu in online}
    cores = {_siblings(root, cpu) for cpu in online}
    quota = cpu_quota(root)
    return {
        "architecture": platform.machine(),
        "os": platform.system(),
        "cpu": _cpu_name(info),
        "cpu_stepping": _cpu_stepping(info),
        "isa": " ".join(flag for flag in _ISA if flag in _flags(info)) or UNKNOWN,
        "sockets": str(len(packages)),
        "physical_cores": str(len(cores)),
        "logical_cpus": str(len(online)),
        "smt": "on" if len(cores) < len(online) else "off",
        "usable_cpus": str(len(usable_cpus(root))),
        "cpu_quota": "none" if quota is None else f"{quota:g}",
        "memory_class": _memory_class(read_text(root, "proc/meminfo")),
        "virtual": _virtual(root, info),
    }


def _flags(info: Mapping[str, str]) -> set[str]:
    return set((info.get("flags") or info.get("Features") or "").split())


def _cpu_name(info: Mapping[str, str]) -> str:
    arm = f"Arm implementer {info.get('CPU implementer')} part {info.get('CPU part')}"
    return (
        info.get("model name") or (arm if "CPU part" in info else platform.processor()) or UNKNOWN
    )


def _cpu_stepping(info: Mapping[str, str]) -> str:
    keys = ("vendor_id", "cpu family", "model", "stepping")
    if "CPU part" in info:
        keys = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
    return "/".join(info.get(key, "?") for key in keys)


def _memory_class(meminfo: str | None) -> str:
    """Installed memory as sold: the next of 1, 2, 3, 4, 6, 8, 12, 16, ... GiB.

    The figure itself varies from boot to boot with what kernel and firmware keep for themselves.
    """
    words = fields(meminfo).get("MemTotal", "").split()
    if not words:
        return UNKNOWN
    gib = int(words[0]) / 2**20
    power = 2.0 ** math.floor(math.log2(gib))
    sizes = [power, 1.5 * power, 2 * power]
    return f"{next(size for size in sizes if size >= gib):g} GiB"


def _virtual(root: str, info: Mapping[str, str]) -> str:
    """``no``, or the hypervisor as far as the system tells."""
    if "gvisor" in (read_text(root, "proc/version") or "").lower():
        return "gvisor"
    vendor = read_text(root, "sys/class/dmi/id/sys_vendor") or ""
    known = [kind for start, kind in _VENDORS.items() if vendor.startswith(start)]
    clocks = (read_text(root, f"{_CLOCK}/available_clocksource") or "").split()
    known += [kind for clock, kind in _CLOCKSOURCES.items() if clock in clocks]
    if "hypervisor" not in _flags(info) and not known:
        return "no"
    return known[0] if known else "yes"


_CLOCK = "sys/devices/system/clocksource/clocksource0"
# context -> file below the root that says it
_SETTINGS = {
    "governor": f"{_CPU}/cpu0/cpufreq/scaling_governor",
    "frequency_driver": f"{_CPU}/cpu0/cpufreq/scaling_driver",
    "frequency_min_khz": f"{_CPU}/cpu0/cpufreq/scaling_min_freq",
    "frequency_max_khz": f"{_CPU}/cpu0/cpufreq/scaling_max_freq",
    "clocksource": f"{_CLOCK}/current_clocksource",
    "load_average": "proc/loadavg",
    "numa_nodes": "sys/devices/system/node/online",
    "isolated_cpus": f"{_CPU}/isolated",
    "nohz_full": f"{_CPU}/nohz_full",
    "transparent_hugepages": "sys/kernel/mm/transparent_hugepage/enabled",
    "aslr": "proc/sys/kernel/randomize_va_space",
    "swappiness": "proc/sys/vm/swappiness",
}


def _context(root: str) -> dict[str, str]:
    info = fields(read_text(root, "proc/cpuinfo"))
    limit_bytes = memory_limit_bytes(root)
    found = {
        "kernel": read_text(root, "proc/sys/kernel/osrelease") or platform.release(),
        "libc": " ".join(platform.libc_ver()).strip() or UNKNOWN,
        "microcode": info.get("microcode", UNKNOWN),
        "boost": _boost(root),
        "affinity": ",".join(map(str, usable_cpus(root))),
        "memory_limit_bytes": "none" if limit_bytes is None else str(limit_bytes),
        "cgroup": f"v{cgroup_chain(root, 'cpu')[0]}",
        "container": _container(root),
        "pressure_stall": "on" if read_text(root, "proc/pressure/cpu") else "off",
        "sgx": "on" if "sgx" in _flags(info) else "off",
    }
    for name, path in _SETTINGS.items():
        found[name] = " ".join((read_text(root, path) or UNKNOWN).split())
    return found


def _boost(root: str) -> str:
    no_turbo = read_text(root, f"{_CPU}/intel_pstate/no_turbo")
    boost = read_text(root, f"{_CPU}/cpufreq/boost")
    if no_turbo is None and boost is None:
        return UNKNOWN
    return "on" if no_turbo == "0" or boost == "1" else "off"


def _container(root: str) -> str:
    for name in (".dockerenv", "run/.containerenv"):
        if (Path(root) / name).exists():
            return "docker" if name == ".dockerenv" else "podman"
    environ = read_text(root, "proc/1/environ") or ""
    kinds = [word[10:] for word in environ.split("\0") if word.startswith("container=")]
    return kinds[0] if kinds else "none seen"
