"""The results folder: atomic writes, suspicious reads, ids."""

from __future__ import annotations

import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from harness.errors import ResultError
from harness.host.files import write_atomically
from harness.records.result import SCHEMA
from harness.records.store import (
    RunFolder,
    iter_results,
    read_result,
    run_folders,
)
from harness.testing.results import fake_failure, fake_result

PARTS = ("digits", "onnxruntime", "int8")


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Every write beyond the limit fails in this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def make_run(out: Path, name: str, text: bytes | None = None) -> Path:
    folder = out / name
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "result.json").write_bytes(text)
    return folder


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("there/file")
    write_atomically(link, b"one")
    write_atomically(link, b"two")
    assert link.is_symlink() and (tmp_path / "there" / "file").read_bytes() == b"two"
    with pytest.raises(ResultError, match="cannot be written: File name too long"):
        write_atomically(tmp_path / ("x" * 300), b"")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"three")
    assert pipe.is_fifo() and os.read(reader, 9) == b"three"
    os.close(reader)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "there"]


@pytest.mark.parametrize("result", [fake_result(), fake_failure()], ids=["degraded", "failed"])
def test_a_result_comes_back_as_it_was_written(tmp_path: Path, result) -> None:
    folder = RunFolder.create(tmp_path / "results", PARTS)
    path = folder.write_result(result)
    assert [entry.name for entry in folder.path.iterdir()] == ["result.json"]
    for name in (folder.path, path, str(path)):
        assert read_result(name) == result


def test_the_id_names_time_model_backend_and_precision(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, ("path/to/My model (v2).onnx", "onnxruntime", "int8"))
    stamp, *rest, suffix = folder.id.split("-")
    assert rest == ["My_model_v2", "onnxruntime", "int8"]
    assert len(stamp) == 16 and stamp[8] == "T" and stamp.endswith("Z")
    assert len(suffix) == 6 and int(suffix, 16) >= 0


@pytest.mark.parametrize("name", ["../../evil", "..", "a/b\\c", "\n\x1b[31m", "x" * 500, "", "héé"])
def test_a_strange_model_name_stays_inside_the_results_folder(tmp_path: Path, name: str) -> None:
    folder = RunFolder.create(tmp_path, (name, "onnxruntime", "fp32"))
    assert folder.path.parent == tmp_path and folder.path.is_dir()
    assert folder.id.isascii() and folder.id.isprintable()


def test_concurrent_runs_get_folders_of_their_own(tmp_path: Path) -> None:
    made: list[Path] = []

    def create() -> None:
        made.extend(RunFolder.create(tmp_path / "results", PARTS).path for _ in range(25))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 200
    assert len(run_folders(tmp_path / "results")) == 200


def test_a_results_folder_that_cannot_be_is_refused_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    with pytest.raises(ResultError, match=r"results folder '.*file' cannot be written: a file is"):
        RunFolder.create(tmp_path / "file", PARTS)
    with pytest.raises(ResultError, match="Not a directory"):
        RunFolder.create(tmp_path / "file" / "results", PARTS)
    with pytest.raises(ResultError, match="No such file or directory; name a writable folder") as e:
        RunFolder.create(tmp_path / "no" / "such" / "parent", PARTS)
    assert e.value.exit_code == 2
    with pytest.raises(ResultError):
        RunFolder.create("/proc", PARTS)


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"the old content")
    with file_size_limit(4096), pytest.raises(ResultError, match=r"cannot be written: File too"):
        write_atomically(path, bytes(1_000_000))
    assert path.read_bytes() == b"the old content"
    assert list(tmp_path.iterdir()) == [path]


def test_a_vanished_run_folder_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, PARTS)
    folder.discard()
    assert not folder.path.exists()
    with pytest.raises(ResultError, match="No such file or directory"):
        folder.write_result(fake_result())


def test_a_figure_that_json_cannot_hold_is_refused_at_the_writer(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, PARTS)
    with pytest.raises(ResultError, match=r"duration_s"):
        folder.write_result(fake_result(duration_s=float("nan")))
    assert list(folder.path.iterdir()) == []


def test_ids_prefixes_and_latest_are_looked_up(tmp_path: Path) -> None:
    ids = ("20260101T000000Z-a-x-fp32-000001", "20260101T000000Z-a-x-int8-000002",
           "20260102T000000Z-b-x-fp32-000003")  # fmt: skip
    for name in ids:
        make_run(tmp_path, name, msgspec.json.encode(fake_result(id=name)))
    make_run(tmp_path, "20260103T000000Z-still-running-000004")
    make_run(tmp_path, "not-a-run")

    assert read_result(ids[0], tmp_path).id == ids[0]
    assert read_result("20260101T000000Z-a-x-int8", tmp_path).id == ids[1]
    assert read_result("latest", tmp_path).id == ids[2]
    assert read_result("latest~0", tmp_path).id == ids[2]
    assert read_result("latest~2", tmp_path).id == ids[0]
    with pytest.raises(ResultError, match="no run 'latest~3' in"):
        read_result("latest~3", tmp_path)
    with pytest.raises(ResultError, match=r"begins the ids of 2 runs: .*000001, .*000002; give"):
        read_result("20260101", tmp_path)
    with pytest.raises(ResultError, match=r"no run '2027' in '"):
        read_result("2027", tmp_path)
    with pytest.raises(ResultError, match=r"no run '' in"):
        read_result("", tmp_path / "nowhere")
    with pytest.raises(ResultError, match=r"holds no result.json; the run is still going"):
        read_result("20260103", tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no JSON, or cut short"),
        (msgspec.json.encode(fake_result())[:700], "no JSON, or cut short"),
        (b"\xff\xfe", "no JSON, or cut short"),
        (b'{"schema": "harness.result/1", "id": "\xff"}', "no JSON, or cut short"),
        (b"[" * 100_000, "no JSON, or cut short"),
        (b"[1, 2]", "no Harness result: its schema is None"),
        (b'{"schema": "codecarbon/3"}', "no Harness result: its schema is 'codecarbon/3'"),
        (b'{"schema": {"x": 1}}', "no Harness result"),
        (b'{"schema": "harness.result/2"}', r"reads up to harness.result/1; upgrade"),
        (b'{"schema": "harness.result/1"}', r"missing required field `id`"),
    ],
)
def test_a_damaged_or_foreign_file_is_named_with_the_reason(
    tmp_path: Path, text: bytes, why: str
) -> None:
    path = make_run(tmp_path, "run", text) / "result.json"
    with pytest.raises(ResultError, match=why) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_of_a_later_minor_version_are_let_through(tmp_path: Path) -> None:
    raw = json.loads(msgspec.json.encode(fake_result()))
    for part in (raw, raw["spec"], raw["timing"], raw["machine"]):
        part["news"] = {"unavailable": "x"}
    folder = make_run(tmp_path, "run", json.dumps(raw).encode())
    assert read_result(folder) == fake_result()


def test_broken_runs_in_a_listing_are_values(tmp_path: Path) -> None:
    make_run(tmp_path, "20260101T000000Z-a", b"{")
    make_run(tmp_path, "20260102T000000Z-b", msgspec.json.encode(fake_result()))
    broken, good = iter_results(tmp_path)
    assert isinstance(broken, ResultError) and "20260101T000000Z-a" in str(broken)
    assert good == fake_result()
    assert list(iter_results(tmp_path / "nowhere")) == []


def test_a_name_that_no_file_can_have_is_an_ordinary_error() -> None:
    for name in ("\0", "x" * 100_000):
        with pytest.raises(ResultError):
            read_result(name)


def test_schema_one_is_what_this_suite_covers() -> None:
    assert SCHEMA == "harness.result/1"  # a new version needs a golden file and a reader for both
