"""What this machine can and cannot measure, why, and how to fix it.

It looks and never changes a setting.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec

from harness import machine
from harness.host.procfs import read_text
from harness.inspect import meters as matrix
from harness.inspect import probe
from harness.maybe import Maybe
from harness.records.result import CheckVerdict, Machine
from harness.views.text import number

_DISK_FLOOR_BYTES = 500_000_000


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at: ``found`` is what is so, ``remedy`` what would better it."""

    name: str
    verdict: CheckVerdict
    found: str
    remedy: str = ""


class Report(msgspec.Struct, frozen=True):
    machine: Machine
    findings: tuple[Finding, ...]
    meters: tuple[matrix.MeterStatus, ...]
    profilers: tuple[probe.ProfilerStatus, ...]
    backends: tuple[probe.BackendStatus, ...]
    gpus: Maybe[list[probe.GpuStatus]]


def examine(out: Path, root: str = "/") -> Report:
    """All that can be said of the machine whose files lie below ``root``."""
    described = machine.fingerprint(root)
    findings = [
        *_settings(described, root), *_facilities(root), _clock(), _disk(out), _tensorboard(),
    ]  # fmt: skip
    return Report(
        machine=described,
        findings=tuple(findings),
        meters=tuple(matrix.meters(root)),
        profilers=tuple(probe.profilers(os.getpid())),
        backends=tuple(probe.backends()),
        gpus=probe.gpus(),
    )


def _settings(described: Machine, root: str) -> Iterator[Finding]:
    factors, context = described.factors, described.context
    yield _virtual(factors.get("virtual", machine.UNKNOWN))
    yield _governor(context.get("governor", machine.UNKNOWN))
    cores = int(factors.get("physical_cores", "1"))
    usable = int(factors.get("usable_cpus", "1"))
    if usable < 2:
        fix = "allow at least two CPUs, or expect wider intervals"
        yield Finding("CPUs", "warn", "one CPU for the worker and its observer", fix)
    else:
        yield Finding("CPUs", "pass", f"{usable} usable of {cores} physical cores")
    load = (context.get("load_average") or "").split()[:1]
    if load and load[0].replace(".", "").isdigit():
        yield _load(float(load[0]), usable)
    yield _pressure(context.get("pressure_stall") == "on")


def _virtual(kind: str) -> Finding:
    if kind == "no":
        return Finding("virtualisation", "pass", "none: the clocks and meters are the machine's")
    found = f"a virtual machine ({kind}): other guests may take CPU time, meters are often hidden"
    return Finding("virtualisation", "warn", found, "measure energy on bare metal")


def _governor(governor: str) -> Finding:
    if governor == machine.UNKNOWN:
        return Finding("CPU frequency", "unknown", "no cpufreq: clocks can be neither read nor set")
    if governor == "performance":
        return Finding("CPU frequency", "pass", "governor performance")
    fix = "sudo cpupower frequency-set -g performance"
    return Finding("CPU frequency", "warn", f"governor {governor}: clocks follow the load", fix)


def _load(load: float, usable: int) -> Finding:
    found = f"{load:g} over the last minute, {usable} CPUs"
    if load > 0.5 * usable:
        return Finding("load", "warn", found, "stop other work while measuring")
    return Finding("load", "pass", found)


def _pressure(on: bool) -> Finding:
    if on:
        return Finding("pressure stall", "pass", "readable: waiting for CPU can be seen")
    fix = "boot a kernel with psi=1"
    return Finding("pressure stall", "unknown", "the kernel tells nothing about waiting", fix)


def _facilities(root: str) -> Iterator[Finding]:
    """What the measuring itself leans on."""
    yield _steal(read_text(root, "proc/stat") or "")
    yield _peaks(Path(root) / "proc/self/clear_refs")
    if hasattr(os, "memfd_create"):
        yield Finding("shared memory", "pass", "memfd: the timeline touches no disk")
    else:
        found = "no memfd: the timeline is a deleted temporary file"
        yield Finding("shared memory", "warn", found, "measure on Linux, or set TMPDIR to a tmpfs")


def _steal(stat: str) -> Finding:
    times = stat.partition("\n")[0].split()[1:]
    if len(times) > 7 and any(value != "0" for value in times):
        return Finding("CPU steal", "pass", "/proc/stat counts it, and the time of other processes")
    found = "/proc/stat counts nothing: neither steal nor other processes can be seen"
    return Finding("CPU steal", "unknown", found, "measure on an ordinary Linux kernel")


def _peaks(path: Path) -> Finding:
    """Opening it for writing changes nothing; writing would."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        found = f"{path} cannot be written ({error.strerror}): peaks are sampled, a lower bound"
        return Finding("memory peaks", "unknown", found, "measure on an ordinary Linux kernel")
    return Finding("memory peaks", "pass", f"{path} resets them: each phase has its own")


def _clock() -> Finding:
    """The smallest step that the timer shows: reads follow each other until it has moved."""
    steps = []
    for _ in range(200):
        first = now = time.perf_counter_ns()
        while now == first:
            now = time.perf_counter_ns()
        steps.append(now - first)
    clock = time.get_clock_info("perf_counter").implementation
    found = f"{clock}, smallest step {min(steps)} ns"
    if min(steps) > 1_000:
        return Finding("timer", "warn", found, "short latencies will be coarse")
    return Finding("timer", "pass", found)


def _disk(out: Path) -> Finding:
    try:
        folder = next(path for path in (out, *out.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            "disk", "unknown", f"{out}: {error.strerror}", "choose another with --results"
        )
    found = f"{number(free / 1e9, 3)} GB free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "fail", f"{folder} is not writable", "choose another with --results")
    if free < _DISK_FLOOR_BYTES:
        return Finding("disk", "warn", found, "make room: a long run leaves tens of megabytes")
    return Finding("disk", "pass", found)


def _tensorboard() -> Finding:
    try:
        version = metadata.version("tensorboard")
    except metadata.PackageNotFoundError:
        found = "not installed: events are written, but cannot be looked at here"
        return Finding("TensorBoard", "unknown", found, "pip install 'hw-harness[board]'")
    return Finding("TensorBoard", "pass", f"{version}: tensorboard --logdir results")
