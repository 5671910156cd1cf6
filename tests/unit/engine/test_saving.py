"""How a run is written: what fails on the way costs itself alone, and takes bounded memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_assemble import evidence, sampled
from test_energy import counter

from harness.engine.driver import saving
from harness.engine.driver.journal import RunJournal
from harness.engine.driver.recorder import Recorder
from harness.engine.driver.saving import Saving
from harness.engine.outcome.evidence import Evidence, LaunchRecord
from harness.engine.outcome.iterations import Iterations
from harness.engine.wire.timeline import Timeline, capacity_for
from harness.errors import ResultError
from harness.records.result import Result
from harness.records.samples import SamplesJournal, read_samples
from harness.records.store import RunFolder, read_result

STEP_NS = 10_000


def recorded(count: int, streams: int = 1, chunk: int = 5_000) -> list[Recorder]:
    """As a driver takes them in: ``count`` iterations a stream, the middle half of them timed."""
    timeline = Timeline.create(streams, 8_192)
    random = np.random.default_rng(0)
    recorders = [Recorder(stream) for stream in timeline.streams]
    for low, high in pairwise([*range(0, count, chunk), count]):
        for stream, recorder in zip(timeline.streams, recorders, strict=True):
            taken = random.integers(5_000, 9_000, high - low).tolist()
            for index, took_ns in zip(range(low, high), taken, strict=True):
                stream.starts[index % stream.capacity] = index * STEP_NS
                stream.ends[index % stream.capacity] = index * STEP_NS + took_ns
            stream.window_start, stream.window_end = count // 4, 3 * count // 4
            stream.written = high
            recorder.drain()
    timeline.close()
    return recorders


def long(count: int) -> Iterations:
    """The same of many iterations, and quicker: in chunks, as a driver keeps them."""
    random = np.random.default_rng(0)
    found = Iterations()
    found.window_start, found.window_end = count // 4, 3 * count // 4
    for low, high in pairwise([*range(0, count, 5_000), count]):
        starts = np.arange(low, high) * STEP_NS
        found.add(starts, starts + random.integers(5_000, 5_008, high - low))
    return found


def run_of(*launches: Sequence[Iterations], rate_hz: float | None = 0.0) -> Evidence:
    records = []
    for recorders in launches:
        windows = [recorder.window() for recorder in recorders]
        bounds = min(int(s[0]) for s, _ in windows), max(int(e[-1]) for _, e in windows)
        records.append(
            LaunchRecord(
                warmup_end="steady",
                stop_reason="duration",
                window_ns=bounds,
                recorders=list(recorders),
            )
        )
    found = evidence(None, records[0], sample_rate_hz=rate_hz, launches=len(records))
    found.launches, found.samplers = records, [None] * len(records)
    return found


class Folder:
    """A run folder with the journals of a run that is over, and what became of it."""

    def __init__(self, out: Path, found: Evidence) -> None:
        self.run = RunFolder.create(out, ("m", "b", "fp32"))
        self.journal = RunJournal(self.run.path)
        self.journal.open()
        found.id = self.run.id
        self.samples = SamplesJournal(self.run.path)
        for one in saving.stretches(found):
            self.samples.append(
                one.launch, one.start_ns, one.end_ns, stream=one.stream, timed=one.timed
            )
        self.samples.close()
        self.told: list[str] = []
        self.saving = Saving(self.run, found, self.journal, self.told.append)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.run.path.iterdir())

    def result(self) -> Result:
        return read_result(self.run.path)


def test_a_run_ends_as_result_and_samples(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "r", run_of(recorded(400)))
    result = folder.saving.save()

    assert folder.told == []
    assert folder.names == ["result.json", "samples.npz"]
    assert folder.result() == result
    assert list(result.artifacts) == ["samples.npz"]
    samples = read_samples(folder.run.path)
    assert [int(samples.timed.sum()), len(samples.timed)] == [200, 400]
    assert not [check for check in result.validity if check.name == "samples"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_a_failed_packing_is_told_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(saving, "pack", fail)
    folder = Folder(tmp_path / "r", run_of(recorded(400)))
    result = folder.saving.save()

    (told,) = folder.told
    assert "memory" in told or "No space" in told
    assert folder.names == ["result.json", "samples.journal"]
    assert folder.result().timing == result.timing
    assert list(folder.result().artifacts) == ["samples.journal"]
    assert int(read_samples(folder.run.path).timed.sum()) == result.timing.iterations == 200


def test_the_result_is_there_before_the_samples_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stops the packing, a kill included, finds a result."""
    folder = Folder(tmp_path / "r", run_of(recorded(400)))

    def stopped(*_: object) -> None:
        assert folder.names == ["result.json", "run.journal", "samples.journal"]
        assert folder.result().timing.iterations == 200
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "pack", stopped)
    with pytest.raises(KeyboardInterrupt):
        folder.saving.save()
    assert folder.names == ["result.json", "run.journal", "samples.journal"]


def test_without_memory_for_a_result_the_journals_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(saving, "assemble", fail)
    folder = Folder(tmp_path / "r", run_of(recorded(400)))
    with pytest.raises(MemoryError):
        folder.saving.save()
    assert folder.names == ["run.journal", "samples.journal"]


def test_what_no_file_holds_is_told_by_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that lacks 7 iterations, and a disk that has no room for packing them all."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    found = run_of(recorded(400))
    found.unsaved = 7
    folder = Folder(tmp_path / "r", found)
    monkeypatch.setattr(saving, "pack", fail)
    folder.saving.save()

    result = folder.result()
    (check,) = [check for check in result.validity if check.name == "samples"]
    assert check.verdict == "warn"
    assert check.reason.startswith("7 iterations could not be written")
    assert result.status == "degraded"


def test_packed_from_memory_nothing_is_lacking(tmp_path: Path) -> None:
    found = run_of(recorded(400))
    found.unsaved = 7  # the journal lacks them, yet they are in memory
    folder = Folder(tmp_path / "r", found)
    result = folder.saving.save()

    assert len(read_samples(folder.run.path).timed) == 400
    assert not [check for check in result.validity if check.name == "samples"]


def test_a_result_that_had_no_room_a_second_time_is_written_by_the_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its temporary file lies beside it for a moment, and the events' room is free at the end."""
    found = run_of(recorded(400))
    found.unsaved = 400  # no journal took them
    folder = Folder(tmp_path / "r", found)
    write, refused = folder.run.write_result, [False, True]

    def full(result: Result) -> None:
        if refused and refused.pop(0):
            raise ResultError("no room", "")
        write(result)

    monkeypatch.setattr(folder.run, "write_result", full)
    result = folder.saving.save()
    assert folder.result().status == "degraded" and "run.journal" in folder.names
    sealed = folder.saving.seal(result)

    assert folder.told == [] and folder.names == ["result.json", "samples.npz"]
    assert folder.result() == sealed and list(sealed.sha256) == ["samples.npz"]
    assert not [check for check in sealed.validity if check.name == "samples"]


def test_a_result_that_stays_behind_its_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path / "r", run_of(recorded(400)))
    result = folder.saving.save()

    def full(_: Result) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.run, "write_result", full)
    assert folder.saving.seal(result) == result == folder.result()
    (told,) = folder.told
    assert told == (
        "the result lacks the hashes of the files beside it: "
        f"{str(folder.run.path)!r} cannot be written: No space left on device"
    )


@pytest.mark.parametrize(("launches", "streams"), [(1, 1), (1, 2), (5, 1)])
def test_an_iteration_takes_the_driver_a_bounded_number_of_bytes(
    tmp_path: Path, launches: int, streams: int
) -> None:
    """From the recorders to the packed samples. Its two times are stored in 16 bytes; of the timed
    half each has a latency (8), that latency in ms, sorted, and as a deviation (8 each) besides: 16
    + 32 / 2, and masks of a byte. Two streams are put in order of time: ends and order, 16 / 2."""

    def peak(count: int) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            found = run_of(*([long(count) for _ in range(streams)] for _ in range(launches)))
            folder = RunFolder.create(tmp_path / "r", ("m", "b", "fp32"))
            journal = RunJournal(folder.path)
            journal.open()
            Saving(folder, found, journal, pytest.fail).save()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = (total // launches // streams for total in (200_000, 400_000))
    peak(few)  # tables and modules that are loaded once
    grown = (peak(many) - peak(few)) / ((many - few) * launches * streams)
    assert 16 <= grown <= 16 + 32 / 2 + (16 / 2 if streams > 1 else 0) + 4


def test_many_streams_share_one_timeline_of_bounded_size() -> None:
    assert capacity_for(1) == 1 << 17
    for streams in (1, 8, 64, 1024):
        size = Timeline.size_bytes(streams, capacity_for(streams))
        assert size < 70e6, streams
    assert capacity_for(1024) >= 1024


def test_a_meter_is_saved_with_its_series(tmp_path: Path) -> None:
    found = run_of(recorded(400), rate_hz=None)
    sampler = sampled([counter()])
    found.samplers = [sampler.sampled()]
    folder = Folder(tmp_path / "r", found)
    (folder.run.path / "series.journal").write_bytes(bytes(sampler.unsaved))
    result = folder.saving.save()
    assert folder.names == ["result.json", "samples.npz", "series.npz"]
    assert list(result.artifacts) == ["samples.npz", "series.npz"]
