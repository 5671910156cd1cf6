"""Raw samples: the journal of a run under way, and the packed file that it becomes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ResultError
from harness.records.samples import (
    JOURNAL_NAME,
    PIECE,
    SamplesJournal,
    Stretch,
    bounded,
    journal_stretches,
    pack,
    read_samples,
)


def fill(journal: SamplesJournal) -> None:
    journal.append(0, [10, 20], [15, 27])
    journal.append(0, [], [])
    journal.append(1, [2**62], [2**62 + 1], stream=3, timed=False)


def check(folder: Path) -> None:
    samples = read_samples(folder)
    assert samples.launch.tolist() == [0, 0, 1]
    assert samples.stream.tolist() == [0, 0, 3]
    assert samples.timed.tolist() == [1, 1, 0]
    assert samples.start_ns.tolist() == [10, 20, 2**62]
    assert samples.end_ns.tolist() == [15, 27, 2**62 + 1]


def stretch(launch: int, stream: int, timed: bool, *pairs: tuple[int, int]) -> Stretch:
    starts, ends = np.array(pairs, np.int64).reshape(-1, 2).T
    return Stretch(launch, stream, timed, starts, ends)


def test_samples_can_be_read_while_running_and_after(tmp_path: Path) -> None:
    journal = SamplesJournal(tmp_path)
    fill(journal)
    check(tmp_path)
    late = stretch(1, 3, False, (2**62, 2**62 + 1))
    assert pack(tmp_path, [late, stretch(0, 0, True, (10, 15), (20, 27))]) == (
        tmp_path / "samples.npz"
    )
    journal.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]
    check(tmp_path)


def test_samples_are_packed_in_pieces_in_order_of_time(tmp_path: Path) -> None:
    """Two streams of more than one piece each: piece by piece, as they began."""
    starts = np.arange(PIECE + 10, dtype=np.int64) * 100
    pack(tmp_path, [Stretch(0, s, True, starts + s, starts + s + 7) for s in (1, 0)])

    samples = read_samples(tmp_path)
    assert samples.stream[[0, PIECE, 2 * PIECE, 2 * PIECE + 10]].tolist() == [0, 1, 0, 1]
    for stream in (0, 1):
        mine = samples.stream == stream
        assert np.array_equal(samples.start_ns[mine], starts + stream)
    assert set(samples.end_ns - samples.start_ns) == {7}


def test_a_run_without_samples_leaves_an_empty_file(tmp_path: Path) -> None:
    pack(tmp_path, [])
    assert [len(column) for column in read_samples(tmp_path).columns().values()] == [0] * 5


@pytest.mark.parametrize("timed", [True, False])
def test_when_a_request_was_due_is_kept_beside_it(tmp_path: Path, timed: bool) -> None:
    """In the journal and in the packed file, whether it counts or not."""
    journal = SamplesJournal(tmp_path)
    journal.append(0, [10, 20], [15, 27], timed=timed, others={"due": [9, 11], "unknown": [1, 1]})
    journal.close()
    assert due_of(tmp_path) == ([timed, timed], [9, 11])
    pack(tmp_path, journal_stretches(tmp_path / JOURNAL_NAME))
    (tmp_path / JOURNAL_NAME).unlink(missing_ok=True)
    assert due_of(tmp_path) == ([timed, timed], [9, 11])


def due_of(folder: Path) -> tuple[list[int], list[int]]:
    samples = read_samples(folder)
    assert samples.due_ns is not None
    return samples.timed.tolist(), samples.due_ns.tolist()


def test_an_empty_journal_has_empty_columns_of_one_type(tmp_path: Path) -> None:
    SamplesJournal(tmp_path).close()
    samples = read_samples(tmp_path)
    assert {column.shape for column in samples if column is not None} == {(0,)}
    assert {column.dtype for column in samples if column is not None} == {np.dtype(np.int64)}


@pytest.mark.parametrize(("unpacked", "refused"), [(1 << 20, False), ((1 << 20) + 65_536, True)])
def test_what_unpacks_to_a_mebibyte_and_many_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacked: int, refused: bool
) -> None:
    monkeypatch.setattr("harness.records.samples.MAX_RATIO", 1)
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("member", bytes(unpacked))
    with (tmp_path / "zip").open("rb") as file:
        if refused:
            with pytest.raises(ValueError, match=rf"bytes unpack to {unpacked:,}"):
                bounded(file, 1 << 30)
        else:
            bounded(file, 1 << 30)


def test_a_killed_writer_loses_nothing_that_it_appended(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from harness.records.samples import SamplesJournal\n"
        "journal = SamplesJournal(pathlib.Path(sys.argv[1]))\n"
        "journal.append(0, [10, 20], [15, 27])\n"
        "journal.append(1, [2**62], [2**62 + 1], stream=3, timed=False)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    check(tmp_path)


def test_a_block_cut_short_gives_its_whole_pairs(tmp_path: Path) -> None:
    journal = SamplesJournal(tmp_path)
    journal.append(0, range(100), range(1, 101))
    journal.close()
    os.truncate(tmp_path / "samples.journal", 8 * (4 + 2 * 7) + 8 + 3)  # 7 pairs and a bit
    assert read_samples(tmp_path).end_ns.tolist() == list(range(1, 8))


def test_a_full_disk_keeps_the_earlier_blocks_and_the_journal_goes_on(tmp_path: Path) -> None:
    from test_store import file_size_limit

    journal = SamplesJournal(tmp_path)
    journal.append(0, [10, 20], [15, 27])
    too_large = r"samples\.journal.*File too large"
    with file_size_limit(1000), pytest.raises(ResultError, match=too_large):
        journal.append(0, range(10_000), range(10_000))
    journal.append(1, [2**62], [2**62 + 1], stream=3, timed=False)
    check(tmp_path)
    with file_size_limit(100), pytest.raises(ResultError):
        pack(tmp_path, [stretch(0, 0, True, (10, 15))] * 50)
    check(tmp_path)
    journal.close()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY", b"{}"])
def test_a_damaged_samples_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "samples.npz").write_bytes(data)
    with pytest.raises(ResultError, match=r"samples.npz' is no samples file, or damaged"):
        read_samples(tmp_path)


def test_a_samples_file_with_other_contents_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, launch=np.zeros(2), start_ns=np.zeros(2), end_ns=np.zeros(2))
    with pytest.raises(ResultError, match="an array of float64"):
        read_samples(tmp_path)
    pickled = np.array([{}], dtype=object)
    np.savez(path, launch=pickled, start_ns=pickled, end_ns=pickled)
    with pytest.raises(ResultError, match="damaged"):
        read_samples(tmp_path)
    np.savez(path, launch=np.zeros(2, np.int64))
    with pytest.raises(ResultError, match="stream"):
        read_samples(tmp_path)


def test_a_folder_without_samples_and_a_damaged_journal_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"samples.journal' cannot be read"):
        read_samples(tmp_path)
    (tmp_path / "samples.journal").write_bytes(np.array([0, -5, 1, 2], "<i8").tobytes())
    with pytest.raises(ResultError, match="damaged at byte 0"):
        read_samples(tmp_path)
    with pytest.raises(ResultError, match="cannot be written"):
        SamplesJournal(tmp_path / "gone")
