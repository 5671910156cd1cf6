"""The contract of `harness.protocols.Profiler` as a test class: subclass it, supply ``make``.

    class TestMyProfiler(ProfilerContract):
        @pytest.fixture
        def make(self):
            return MyProfiler

Needs pytest. It runs on any machine: what is not there must be absent with a reason, which is most
of what is tested.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.maybe import Unavailable
from harness.protocols import Available, Channel, PhaseProbe, Profiler, ProfilerContext

Make = Callable[[ProfilerContext], Profiler]


@contextmanager
def sleeping_child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until its stdin closes."""
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


class ProfilerContract:
    """What every profiler must do, here and on machines that have nothing to read.

    ``files`` are paths below the root that the profiler reads, ``{pid}`` filled in. ``rooted`` is
    False for one that reads no file of the machine, but asks over a network: an empty machine says
    nothing of it.
    """

    files: Sequence[str] = ()
    rooted = True

    def _needs_files(self) -> None:
        if not self.rooted:
            pytest.skip("it reads no file of the machine")

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError("return the profiler's class, or a function of a ProfilerContext")

    def test_opens_or_says_why_not(self, make: Make) -> None:
        profiler = make(ProfilerContext(os.getpid()))
        check_answer(profiler)
        profiler.close()

    def test_reads_one_value_per_channel(self, make: Make) -> None:
        profiler = make(ProfilerContext(os.getpid()))
        profiler.open()
        names = [channel.name for channel in profiler.channels]
        for _ in range(3):
            check_values(profiler.channels, profiler.read())
            assert [channel.name for channel in profiler.channels] == names
        profiler.close()

    def test_channels_are_distinct_and_named_for_people(self, make: Make) -> None:
        profiler = make(ProfilerContext(os.getpid()))
        profiler.open()
        for attribute in ("name", "tag"):
            values = [getattr(channel, attribute) for channel in profiler.channels]
            assert len(set(values)) == len(values)
            assert all(value and value.isprintable() and " " not in value for value in values)
        assert all(channel.unit and channel.scope for channel in profiler.channels)
        profiler.close()

    def test_counters_never_fall(self, make: Make) -> None:
        profiler = make(ProfilerContext(os.getpid()))
        profiler.open()
        before = profiler.read()
        for _ in range(5):
            sum(range(50_000))
            time.sleep(0.005)
            after = profiler.read()
            for channel, old, new in zip(profiler.channels, before, after, strict=True):
                if channel.kind == "counter" and old is not None and new is not None:
                    assert new >= old, channel.name
            before = after
        profiler.close()

    def test_an_empty_machine_gives_reasons_and_no_number(self, make: Make, tmp_path: Path) -> None:
        self._needs_files()
        profiler = make(ProfilerContext(os.getpid(), root=str(tmp_path)))
        check_nothing(profiler)

    def test_unreadable_files_give_reasons_and_no_number(self, make: Make, tmp_path: Path) -> None:
        self._needs_files()
        for file in self.files:  # a folder in a file's place cannot be read, not even by root
            (tmp_path / file.format(pid=os.getpid())).mkdir(parents=True)
        check_nothing(make(ProfilerContext(os.getpid(), root=str(tmp_path))))

    def test_garbage_gives_reasons_and_no_number(self, make: Make, tmp_path: Path) -> None:
        self._needs_files()
        for file in self.files:
            path = tmp_path / file.format(pid=os.getpid())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\xff what?\n")
        check_nothing(make(ProfilerContext(os.getpid(), root=str(tmp_path))))

    def test_outlives_the_process_that_it_watches(self, make: Make) -> None:
        with sleeping_child() as child:
            profiler = make(ProfilerContext(child.pid))
            profiler.open()
            profiler.read()
        for channel, value in zip(profiler.channels, profiler.read(), strict=True):
            assert value is None or channel.scope != "process", channel.name
        profiler.close()

    def test_a_process_that_is_gone_has_no_numbers(self, make: Make) -> None:
        with sleeping_child() as child:
            pass
        profiler = make(ProfilerContext(child.pid))
        check_answer(profiler)
        for channel, value in zip(profiler.channels, profiler.read(), strict=True):
            if channel.scope == "process":
                assert channel.unavailable is not None and value is None, channel.name
        profiler.close()

    def test_close_is_idempotent_and_frees_descriptors(self, make: Make) -> None:
        profiler = make(ProfilerContext(os.getpid()))
        profiler.close()
        profiler.open()  # libraries may keep what they opened for good, so count from the second
        profiler.close()
        before = _descriptors()
        profiler = make(ProfilerContext(os.getpid()))
        profiler.open()
        profiler.close()
        profiler.close()
        assert _descriptors() == before


def check_answer(profiler: Profiler) -> None:
    """Open ``profiler``: the answer and every absent channel must say why and what would help."""
    answer = profiler.open()
    assert isinstance(answer, Available | Unavailable)
    reasons = [channel.unavailable for channel in profiler.channels]
    if isinstance(answer, Unavailable):
        assert None not in reasons, "no channel can be read while its profiler cannot"
        reasons.append(answer)
    for reason in reasons:
        assert reason is None or (reason.reason and reason.remedy)


def check_nothing(profiler: Profiler) -> None:
    """A machine that shows nothing: every channel has its reason, and no value is a number."""
    check_answer(profiler)
    assert all(channel.unavailable is not None for channel in profiler.channels)
    assert list(profiler.read()) == [None] * len(profiler.channels)
    if isinstance(profiler, PhaseProbe):
        profiler.reset_peaks()
        for figure in profiler.snapshot().values():
            assert isinstance(figure, Unavailable) and figure.reason and figure.remedy
    profiler.close()


def check_values(channels: Sequence[Channel], values: Sequence[float | None]) -> None:
    """One finite number or None per channel, and None where the channel is unavailable."""
    assert len(values) == len(channels)
    for channel, value in zip(channels, values, strict=True):
        assert value is None or (isinstance(value, float) and math.isfinite(value)), channel.name
        assert channel.unavailable is None or value is None, channel.name


def _descriptors() -> int:
    """How many descriptors this process has open; -1 where the system does not list them."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    except OSError:
        return -1
