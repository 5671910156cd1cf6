"""What the driver keeps while a disk is full."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_store import file_size_limit

from harness.engine.driver.journal import RunJournal, Seen
from harness.engine.driver.observer import RunObserver
from harness.engine.driver.tick import Estimate, Fresh, Tick
from harness.engine.outcome.evidence import LaunchRecord
from harness.protocols import Progress
from harness.records.samples import Stretch, read_samples
from harness.records.store import RunFolder
from harness.spec import RunSpec


@pytest.fixture
def observer(tmp_path: Path) -> RunObserver:
    folder = RunFolder.create(tmp_path, ("m", "b", "fp32"))
    return RunObserver(RunSpec(sample_rate_hz=0.0), folder, [], RunJournal(folder.path))


def second(index: int) -> Stretch:
    starts = np.arange(1000, dtype=np.int64) + 1000 * index
    return Stretch(0, 0, index > 0, starts, starts + 5)


def test_what_a_full_disk_refuses_waits_in_memory(observer: RunObserver) -> None:
    """One second is journalled, two are refused, and later all of them are there, in order."""
    folder = observer._folder.path
    observer._pending = [second(0)]
    observer._flush()
    observer._pending += [second(1), second(2)]
    with file_size_limit(20_000):
        observer._flush()
        assert observer.unsaved == 2000
        assert len(read_samples(folder).start_ns) == 1000
        observer._flush()
    (told,) = observer.problems  # once
    assert "samples.journal" in told
    observer.let_go()

    assert observer.unsaved == 0
    samples = read_samples(folder)
    assert np.array_equal(samples.start_ns, np.arange(3000))
    assert samples.timed.sum() == 2000


def test_no_window_is_noted_before_its_iterations(observer: RunObserver) -> None:
    """A kill between the two lines would leave a window that no sample belongs to."""
    folder = observer._folder.path
    on_disk: list[int] = []

    class Journal:
        problem = None

        def append(self, line: object) -> None:
            there = (folder / "samples.journal").exists()
            on_disk.append(len(read_samples(folder).start_ns) if there else 0)

    observer._run_journal = Journal()  # type: ignore[assignment]
    observer._flushed_s = float("inf")  # it is not the time for it yet
    seen = Seen.of(LaunchRecord(window_ns=(0, 9)), launch=0, doing="", at_ns=9, lost=None)
    starts = np.arange(7, dtype=np.int64)
    fresh = (Fresh(0, True, starts, starts + 1),)
    observer.tick(Tick(0, "idle", at_ns=9, phase_began_ns=0, fresh=fresh, iterations=7, seen=seen))
    observer.launch_over(
        Tick(0, "idle", at_ns=9, phase_began_ns=0, fresh=(), iterations=7, seen=seen)
    )
    observer.let_go()
    assert on_disk == [7, 7]


def test_a_terminal_that_is_gone_is_left_out(observer: RunObserver) -> None:
    class Gone:
        told = 0

        def update(self, progress: object) -> None:
            self.told += 1
            raise OSError(5, "Input/output error")

        def close(self, result: object) -> None:
            raise AssertionError("given up before")

    observer.sinks.append(sink := Gone())
    observer.preparing()
    observer.preparing()
    observer.close(None)
    assert sink.told == 1
    assert observer.problems == ["Gone was given up: Input/output error"]


def test_what_a_tick_says_reaches_journal_and_sinks(observer: RunObserver) -> None:
    """Ten iterations of 2 ms, of which the last six are timed, and their median."""
    heard: list[Progress] = []

    class Ear:
        def update(self, progress: Progress) -> None:
            heard.append(progress)

        def close(self, result: object) -> None: ...

    observer.sinks.append(Ear())
    starts = np.arange(10, dtype=np.int64) * 3_000_000
    ends = starts + 2_000_000
    parts = (Fresh(0, False, starts[:4], ends[:4]), Fresh(0, True, starts[4:], ends[4:]))
    tick = Tick(0, "window", at_ns=3 * 10**9, phase_began_ns=10**9, fresh=parts, iterations=10)
    observer.tick(tick)
    assert heard == []  # it brought no estimate
    observer.tick(replace(tick, fresh=(), estimate=Estimate(6, 2.0, 0.25)))
    (progress,) = heard
    assert (progress.iterations, progress.median_ms, progress.ci95_ms) == (6, 2.0, (1.5, 2.5))
    assert (progress.elapsed_s, progress.throughput_per_s) == (2.0, 3.0)
    assert list(progress.new_latencies_ms) == [2.0] * 6
    observer.let_go()
    assert read_samples(observer._folder.path).timed.tolist() == [0] * 4 + [1] * 6
