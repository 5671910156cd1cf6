"""Memory of real processes, and of laid-out ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.maybe import Maybe, Unavailable, code_of
from harness.profiles.memory import MemoryProfiler
from harness.protocols import PhaseProbe, ProfilerContext

MB = 1_000_000
_CHILD = """
import sys
print(flush=True)
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Child:
    """A process that does as told and answers when it is done."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self._answer()

    def does(self, statement: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(statement + "\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "\n"


@contextmanager
def child() -> Iterator[Child]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _CHILD]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def number(value: Maybe[float]) -> float:
    assert not isinstance(value, Unavailable), value
    return value


def lay_out(root: Path, files: dict[str, str]) -> ProfilerContext:
    for name, text in files.items():
        path = root / "proc" / "7" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return ProfilerContext(7, root=str(root))


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of a real process")


@linux
def test_a_peak_that_is_gone_when_anyone_looks_is_still_seen() -> None:
    with child() as worker:
        profiler = MemoryProfiler(ProfilerContext(worker.pid))
        profiler.reset_peaks()
        before = number(profiler.snapshot()["peak_bytes"])
        worker.does("b'x' * 50_000_000")
        after = profiler.snapshot()
        assert number(after["rss_bytes"]) < before + 25 * MB
        assert 49 * MB < number(after["peak_bytes"]) - before < 60 * MB
        profiler.reset_peaks()
        assert number(profiler.snapshot()["peak_bytes"]) < before + 25 * MB
        assert profiler.kind == "host_rss_hwm"


@linux
def test_private_memory_is_unique_and_shared_is_not() -> None:
    with child() as worker:
        profiler = MemoryProfiler(ProfilerContext(worker.pid))
        before = profiler.snapshot()
        worker.does("kept = b'x' * 50_000_000")
        after = profiler.snapshot()
        for name in ("rss_bytes", "pss_bytes", "uss_bytes"):
            assert 49 * MB < number(after[name]) - number(before[name]) < 60 * MB, name
        assert number(after["uss_bytes"]) <= number(after["pss_bytes"])
        assert number(after["pss_bytes"]) <= number(after["rss_bytes"])


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, where this process is root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@linux
@pytest.mark.skipif(
    os.geteuid() != 0 and Path("/proc/1").stat().st_uid == os.geteuid(),
    reason="process 1 is this user's own",
)
def test_what_another_user_may_not_see_is_forbidden_not_absent() -> None:
    profiler = MemoryProfiler(ProfilerContext(1))
    with unprivileged():
        profiler.reset_peaks()
        figures = profiler.snapshot()
    assert number(figures["rss_bytes"]) > 0  # the counter is for everyone
    for name in ("pss_bytes", "uss_bytes", "peak_bytes"):
        reason = figures[name]
        assert isinstance(reason, Unavailable), name
        assert code_of(reason) == "permission_denied", name
    assert profiler.kind == "host_rss_sampled"


@linux
def test_samples_follow_the_process() -> None:
    with child() as worker:
        profiler = MemoryProfiler(ProfilerContext(worker.pid))
        profiler.open()
        before = dict(zip([c.name for c in profiler.channels], profiler.read(), strict=True))
        worker.does("kept = b'x' * 50_000_000")
        after = dict(zip([c.name for c in profiler.channels], profiler.read(), strict=True))
        profiler.close()
    for name in ("rss_bytes", "peak_rss_bytes"):
        grown = (after[name] or 0) - (before[name] or 0)
        assert 49 * MB < grown < 60 * MB, name


def test_the_kernels_figures_are_pages_and_kibibytes(tmp_path: Path) -> None:
    context = lay_out(
        tmp_path,
        {
            "statm": "900 250 100 1 0 300 0\n",
            "status": "Name:\tx\nVmHWM:\t    2000 kB\nVmSwap:\t      3 kB\n",
            "smaps_rollup": "0-1 ---p 0 00:00 0 [rollup]\nRss:    1000 kB\nPss:     600 kB\n"
            "Private_Clean:   100 kB\nPrivate_Dirty:   200 kB\nSwapPss: 5 kB\n",
            "../meminfo": "MemTotal: 9 kB\nMemAvailable:   77 kB\n",
        },
    )
    profiler = MemoryProfiler(context)
    assert isinstance(profiler, PhaseProbe)
    profiler.open()
    values = profiler.read()
    profiler.close()
    page = os.sysconf("SC_PAGE_SIZE")
    assert values == [250 * page, 2000 * 1024, 3 * 1024, 77 * 1024]
    assert profiler.snapshot() == {
        "rss_bytes": 1000 * 1024,
        "pss_bytes": 600 * 1024,
        "uss_bytes": 300 * 1024,
        "peak_bytes": 2000 * 1024,
    }


def test_without_the_page_walk_the_counter_gives_the_rss(tmp_path: Path) -> None:
    context = lay_out(tmp_path, {"statm": "900 250 100 1 0 300 0\n", "status": "Name:\tx\n"})
    figures = MemoryProfiler(context).snapshot()
    assert figures["rss_bytes"] == 250 * os.sysconf("SC_PAGE_SIZE")
    for name in ("pss_bytes", "uss_bytes", "peak_bytes"):
        assert isinstance(figures[name], Unavailable), name


def test_a_peak_that_cannot_restart_is_no_peak_of_the_phase(tmp_path: Path) -> None:
    context = lay_out(tmp_path, {"status": "Name:\tx\nVmHWM:\t    2000 kB\n"})
    profiler = MemoryProfiler(context)
    assert profiler.snapshot()["peak_bytes"] == 2000 * 1024
    profiler.reset_peaks()
    peak = profiler.snapshot()["peak_bytes"]
    assert isinstance(peak, Unavailable)
    assert code_of(peak) == "not_supported"
    assert profiler.kind == "host_rss_sampled"


def test_a_zombie_has_no_memory_rather_than_none_at_all(tmp_path: Path) -> None:
    profiler = MemoryProfiler(lay_out(tmp_path, {"statm": "9 2 0 0 0 0 0\n"}))
    profiler.open()
    (tmp_path / "proc/7/statm").write_text("0 0 0 0 0 0 0\n")
    assert profiler.read()[0] is None
    profiler.close()
