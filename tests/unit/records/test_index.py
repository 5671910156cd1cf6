"""The index of a results folder: the figures of every run, each counted once."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privileges import nobody

from harness.errors import ResultError, UsageError
from harness.maybe import Unavailable
from harness.records.cell import cell_of
from harness.records.index.answers import Report
from harness.records.index.database import Index
from harness.records.index.figures import NAMES, read_figures
from harness.records.index.file import FILE_NAME
from harness.records.lookup import lookup
from harness.records.refs import resolve
from harness.records.result import Result
from harness.testing.results import fake_failure, fake_result

FINGERPRINT = fake_result().machine.fingerprint
CELL = cell_of(fake_result())


def a_result(number: int = 0, *, batch: int = 1, branch: str = "main", **changes: Any) -> Result:
    """A run of its own: ``number`` is its minute, and its median latency in ms."""
    result = fake_failure() if changes.get("status") == "failed" else fake_result()
    spec = msgspec.structs.replace(result.spec, batch_size=batch)
    software = msgspec.structs.replace(result.software, branch=branch, commit=f"{number:040x}")
    if not isinstance(result.timing, Unavailable):
        latency = msgspec.structs.replace(result.timing.latency_ms, median=float(number))
        result = msgspec.structs.replace(
            result, timing=msgspec.structs.replace(result.timing, latency_ms=latency)
        )
    started = f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00+00:00"
    fields = {"id": f"20260101T{number:06d}Z-digits-{batch}", "started_at": started}
    return msgspec.structs.replace(
        result, **{**fields, "spec": spec, "software": software, **changes}
    )


def put(results: Path, result: Result, place: str = "") -> Path:
    """Write ``result`` to a run folder, inside ``place``."""
    folder = results / place / result.id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_bytes(msgspec.json.encode(result))
    return folder


def refreshed(results: Path) -> Report:
    with Index(results) as index:
        return index.refresh()


def medians(results: Path, **asked: Any) -> list[float | None]:
    with Index(results) as index:
        index.refresh()
        points = index.series(CELL.key, FINGERPRINT, "latency_median", **asked)
    return [point.value for point in points]


def test_every_metric_is_the_figure_of_the_result(tmp_path: Path) -> None:
    result = fake_result()
    row = read_figures(str(put(tmp_path, result) / "result.json"))
    paths = {
        "latency_median": "timing.latency_ms.median",
        "latency_mean": "timing.latency_ms.mean",
        "latency_p90": "timing.latency_ms.p90",
        "latency_p95": "timing.latency_ms.p95",
        "latency_p99": "timing.latency_ms.p99",
        "throughput": "throughput.inferences_per_s",
        "energy_per_inference": "energy.joules_per_inference.value",
        "memory_peak": "memory.window_peak_bytes",
        "file_size": "precision.file_size_bytes",
        "top1": "accuracy.top1",
        "accuracy_top1": "accuracy.top1",
        "accuracy_f1": "accuracy.macro_f1",
    }
    expected = {name: lookup(result, path) for name, path in paths.items()}
    # of a figure that each launch has, the median; of the meter, what the primary one read
    expected |= {"first_inference": 2.5, "load": 0.08, "power_average": 1.5}
    found = dict(zip(NAMES, row.values, strict=True))
    assert {name: value for name, value in found.items() if value is not None} == expected
    assert (row.cell, row.fingerprint, row.id) == (CELL, FINGERPRINT, result.id)
    assert (row.commit, row.status, row.tags) == ("27521fe", "degraded", {"branch": "main"})
    assert row.model_sha == "0123456789abcdef" * 4


def test_a_run_that_failed_is_in_the_series_without_a_figure(tmp_path: Path) -> None:
    put(tmp_path, a_result(1))
    put(tmp_path, a_result(2, status="failed"))
    assert medians(tmp_path) == [1.0, None]


def test_what_came_changed_and_went(tmp_path: Path) -> None:
    first, _ = put(tmp_path, a_result(1)), put(tmp_path, a_result(2), "deep/er")
    assert refreshed(tmp_path) == Report(indexed=2, removed=0, unchanged=0)
    assert refreshed(tmp_path) == Report(indexed=0, removed=0, unchanged=2)
    changed = a_result(1, duration_s=2.5, started_at="2026-01-02T00:00:00+00:00")
    (first / "result.json").write_bytes(msgspec.json.encode(changed) + b"\n")
    assert refreshed(tmp_path) == Report(indexed=1, removed=0, unchanged=1)
    assert medians(tmp_path) == [2.0, 1.0]
    (first / "result.json").unlink()
    put(tmp_path, a_result(3))
    assert refreshed(tmp_path) == Report(indexed=1, removed=1, unchanged=1)
    assert medians(tmp_path) == [2.0, 3.0]
    (tmp_path / FILE_NAME).unlink()
    assert medians(tmp_path) == [2.0, 3.0]


def test_a_series_is_one_cell_on_one_machine(tmp_path: Path) -> None:
    elsewhere = msgspec.structs.replace(fake_result().machine, fingerprint="another")
    for result in (
        a_result(3, branch="fix"),
        a_result(1),
        a_result(2),
        a_result(4, batch=8),
        a_result(5, machine=elsewhere),
    ):
        put(tmp_path, result)
    assert medians(tmp_path) == [1.0, 2.0, 3.0]
    assert medians(tmp_path, branch="main") == [1.0, 2.0]
    assert medians(tmp_path, limit=2) == [2.0, 3.0]
    assert medians(tmp_path, branch="none") == []
    with Index(tmp_path) as index:
        found = {(one.cell.name, one.fingerprint): one.runs for one in index.cells()}
        assert found == {
            (CELL.name, FINGERPRINT): 3,
            (CELL.name, "another"): 1,
            ("digits/onnxruntime/cpu/int8/b8/latency", FINGERPRINT): 1,
        }
        assert len(index.series(CELL.name, "another", "throughput")) == 1
        newest = index.runs(cell=CELL.key, fingerprint=FINGERPRINT, limit=1)
        assert [(run.id, run.branch) for run in newest] == [(a_result(3).id, "fix")]
        assert index.commits()[0] == f"{5:040x}"
        with pytest.raises(UsageError, match="unknown metric 'speed'; one of latency_median"):
            index.series(CELL.key, FINGERPRINT, "speed")


def test_a_name_that_two_cells_share_is_refused(tmp_path: Path) -> None:
    other = msgspec.structs.replace(fake_result().spec, threads=2)
    put(tmp_path, a_result(1))
    put(tmp_path, a_result(2, spec=other))
    with Index(tmp_path) as index:
        index.refresh()
        with pytest.raises(ResultError, match=f"2 cells are called '{CELL.name}'; give a key: "):
            index.series(CELL.name, FINGERPRINT, "latency_median")


def test_of_the_attempts_at_a_launch_the_first_that_finished_counts(tmp_path: Path) -> None:
    tags = {"sweep": "s1", "launch": "0", "night": "2026-01-01"}
    for number, status in enumerate(("failed", "complete", "degraded", "interrupted"), start=1):
        put(tmp_path, a_result(number, status=status, tags=tags))
    put(tmp_path, a_result(9, tags=tags | {"launch": "1"}))
    report = refreshed(tmp_path)
    assert medians(tmp_path) == [2.0, 9.0]
    counted = a_result(2).id
    assert report.uncounted == tuple(
        (a_result(number).id, f"another attempt at {counted}") for number in (1, 3, 4)
    )
    with Index(tmp_path) as index:  # where none finished, the first stands for them
        index.refresh()
        (point, _) = index.series(CELL.key, FINGERPRINT, "load")
        assert (point.sweep, point.night, point.launch) == ("s1", "2026-01-01", "0")
    for number in (2, 3, 4):
        (tmp_path / a_result(number).id / "result.json").unlink()
    assert medians(tmp_path) == [None, 9.0]


def test_a_copy_of_a_run_counts_once(tmp_path: Path) -> None:
    put(tmp_path, a_result(1))
    assert refreshed(tmp_path).uncounted == ()
    put(tmp_path, a_result(1), "backup")
    put(tmp_path, a_result(1), "baselines/main")  # copies that are kept apart
    report = refreshed(tmp_path)
    name = a_result(1).id
    assert report.uncounted == ((f"backup/{name}", f"the same run as {name}"),)
    assert medians(tmp_path) == [1.0]
    (tmp_path / name / "result.json").unlink()
    assert refreshed(tmp_path).uncounted == ()
    assert medians(tmp_path) == [1.0]


RUNS = st.lists(
    st.tuples(
        st.integers(0, 3),  # whose copy or attempt it is
        st.sampled_from(["complete", "failed", "degraded"]),
        st.sampled_from([None, "s1", "s2"]),
        st.integers(0, 1),
        st.sampled_from(["", "a", "b/c"]),
    ),
    min_size=1,
    max_size=10,
)


@given(runs=RUNS, order=st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_runs_count_alike_in_any_order_and_without_the_index(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Any], order: Any
) -> None:
    results = tmp_path_factory.mktemp("results")
    folders = []
    for number, status, sweep, launch, place in runs:
        tags = {} if sweep is None else {"sweep": sweep, "launch": str(launch)}
        folders.append(put(results, a_result(number, status=status, tags=tags), place))
    hidden = [folder / "result.json" for folder in dict.fromkeys(folders)]
    for path in hidden:
        path.rename(path.with_name("later"))
    order.shuffle(hidden)
    for path in hidden:  # one after the other
        path.with_name("later").rename(path)
        refreshed(results)
    with Index(results) as index:
        grown = {run.path for run in index.runs()}
        report = index.rebuild()
        assert {run.path for run in index.runs()} == grown
    assert len(grown) + len(report.uncounted) == len(hidden)
    selected = resolve(str(results), results)
    assert {str(path.parent.relative_to(results)) for path in selected.paths} == grown
    assert len({result.id for result in selected.results}) == len(grown)


HOSTILE = {
    "cut": msgspec.json.encode(fake_result())[:2000],
    "empty": b"",
    "foreign": b'{"schema": "codecarbon/3", "id": "x"}',
    "list": b"[1, 2]",
    "future": msgspec.json.encode(fake_result(schema="harness.result/2")),
    "nan": msgspec.json.encode(fake_result()).replace(b"0.1236", b"NaN"),
    "infinite": msgspec.json.encode(fake_result()).replace(b"0.1236", b"1e999"),
    "deep": b'{"schema": "harness.result/1", "x": ' + b"[" * 100_000,
    "deeper": msgspec.json.encode(fake_result())[:-1] + b', "x": ' + b'{"y":' * 100_000,
    "text": "héé\0".encode("utf-16"),
    "numbers": b'{"schema": "harness.result/1", "id": 5}',
    "surrogate": msgspec.json.encode(fake_result()).replace(b'"digits"', b'"\\ud800"'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_result_is_reported_and_passed_over(tmp_path: Path, name: str) -> None:
    put(tmp_path, a_result(1))
    folder = tmp_path / f"20260101T000000Z-{name}"
    folder.mkdir()
    (folder / "result.json").write_bytes(HOSTILE[name])
    report = refreshed(tmp_path)
    ((path, reason),) = report.skipped
    assert path == folder.name and reason and "\n" not in reason
    assert report.indexed == 1 and refreshed(tmp_path).skipped == report.skipped
    assert medians(tmp_path) == [1.0]


def test_what_is_no_file_is_reported_and_passed_over(tmp_path: Path) -> None:
    put(tmp_path, a_result(1))
    for name in ("a-folder", "a-pipe", "huge", "dangling", "a-loop"):
        (tmp_path / name).mkdir()
    (tmp_path / "a-folder" / "result.json").mkdir()
    os.mkfifo(tmp_path / "a-pipe" / "result.json")
    with (tmp_path / "huge" / "result.json").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "dangling" / "result.json").symlink_to("nowhere")
    (tmp_path / "a-loop" / "result.json").symlink_to("result.json")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "a-folder" / "up").symlink_to(tmp_path.parent)
    skipped = dict(refreshed(tmp_path).skipped)
    assert skipped == {
        "a-folder": "cannot be read: Is a directory; look at its permissions",
        "a-pipe": "is no file; " + skipped["a-pipe"].partition("; ")[2],
        "huge": "is none of Harness: 1_099_511_627_776 bytes",
        "a-loop": "cannot be read: Too many levels of symbolic links",
    }
    assert medians(tmp_path) == [1.0]


def test_a_name_that_is_no_text_is_reported(tmp_path: Path) -> None:
    (folder := Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))).mkdir()
    (folder / "result.json").write_bytes(msgspec.json.encode(a_result(1)))
    put(tmp_path, a_result(2, id="été"))
    report = refreshed(tmp_path)
    assert report.skipped == (("\\udcff", "its name is no UTF-8"),)
    assert medians(tmp_path) == [2.0]


def test_what_may_not_be_read_is_reported(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(0o755)
    put(tmp_path, a_result(1))
    (put(tmp_path, a_result(2)) / "result.json").chmod(0)
    put(tmp_path, a_result(3), "closed")
    (tmp_path / "closed").chmod(0)
    with nobody(), Index(tmp_path) as index:
        report = index.refresh()
        found = index.series(CELL.key, FINGERPRINT, "latency_median")
    (tmp_path / "closed").chmod(0o755)
    assert [path for path, _ in report.skipped] == [a_result(2).id, "closed"]
    assert all("cannot be read: Permission denied" in reason for _, reason in report.skipped)
    assert [point.value for point in found] == [1.0]
    assert "is kept in memory: it is not writable" in report.notes[0]
    assert not (tmp_path / FILE_NAME).exists()


def test_a_folder_that_links_out_of_the_results_is_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "store", a_result(1))
    (tmp_path / "store" / "back").symlink_to(tmp_path / "store")
    results = tmp_path / "results"
    results.mkdir()
    for name in ("nightly", "the-same"):
        (results / name).symlink_to(tmp_path / "store")
    report = refreshed(results)
    assert (report.indexed, report.uncounted) == (1, ())
    assert medians(results) == [1.0]


def test_no_folder_is_no_runs_and_leaves_nothing(tmp_path: Path) -> None:
    assert refreshed(tmp_path / "nowhere") == Report(indexed=0, removed=0, unchanged=0)
    assert list(tmp_path.iterdir()) == []


def damage_all(path: Path) -> None:
    path.write_bytes(b"not a database, by far" * 1000)


def damage_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def older(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
        db.execute("DROP TABLE runs")
    db.close()


def without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE series")
    db.close()


def without_an_index(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP INDEX one_of_a_slot_counts")
    db.close()


def without_a_column(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE files RENAME COLUMN tags TO labels")
    db.close()


def no_text(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE files SET path = cast(x'ff' || path AS TEXT)")
    db.close()


def no_json(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE files SET tags = '{'")
    db.close()


@pytest.mark.parametrize(
    "damage",
    [damage_all, damage_inside, cut, older, without_a_table, without_an_index, without_a_column,
     no_text],
)  # fmt: skip
def test_a_database_of_no_use_is_built_again(tmp_path: Path, damage: Any) -> None:
    for number in range(1, 60):
        put(tmp_path, a_result(number))
    refreshed(tmp_path)
    damage(tmp_path / FILE_NAME)
    report = refreshed(tmp_path)
    assert (report.indexed, report.unchanged) == (59, 0)
    assert report.notes[0].endswith("built again")
    assert medians(tmp_path) == [float(number) for number in range(1, 60)]
    assert refreshed(tmp_path) == Report(indexed=0, removed=0, unchanged=59)


def test_a_line_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    for number in range(1, 4):
        put(tmp_path, a_result(number))
    refreshed(tmp_path)
    no_json(tmp_path / FILE_NAME)
    with Index(tmp_path) as index:
        assert [run.tags for run in index.runs()] == 3 * [{"branch": "main"}]
        assert index.notes == ["the index was damaged, and is built again"]


def a_foreign_database(path: Path, tables: tuple[str, ...] = ("experiments", "runs")) -> bytes:
    with sqlite3.connect(path) as db:
        for table in tables:
            db.execute(f"CREATE TABLE {table} (id INTEGER)")
            db.execute(f"INSERT INTO {table} VALUES (1)")
    db.close()
    return path.read_bytes()


def is_kept_in_memory(results: Path) -> bool:
    report = refreshed(results)
    with Index(results) as index:
        index.rebuild()
        return report.indexed == 1 and "kept in memory" in report.notes[0]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_link_in_its_place_is_not_followed(tmp_path: Path, suffix: str) -> None:
    results = tmp_path / "results"
    put(results, a_result(1))
    theirs = tmp_path / "mlflow.db"
    before = a_foreign_database(theirs)
    if suffix:
        refreshed(results)
    (results / f"{FILE_NAME}{suffix}").symlink_to(theirs)
    assert is_kept_in_memory(results)
    assert theirs.read_bytes() == before
    assert (results / f"{FILE_NAME}{suffix}").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "results"]


@pytest.mark.parametrize("tables", [("experiments", "runs"), ("runs",), ("files", "series")])
@pytest.mark.parametrize("linked", [False, True])
def test_the_database_of_another_program_is_not_touched(
    tmp_path: Path, tables: tuple[str, ...], linked: bool
) -> None:
    results = tmp_path / "results"
    put(results, a_result(1))
    theirs = tmp_path / "theirs.db" if linked else results / FILE_NAME
    before = a_foreign_database(theirs, tables)
    if linked:
        (results / FILE_NAME).hardlink_to(theirs)
    assert is_kept_in_memory(results)
    assert theirs.read_bytes() == before


def test_an_index_from_before_the_mark_is_used(tmp_path: Path) -> None:
    put(tmp_path, a_result(1))
    refreshed(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA application_id = 0")
    db.close()
    assert refreshed(tmp_path) == Report(indexed=0, removed=0, unchanged=1)


def test_something_else_in_its_place_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, a_result(1))
    (tmp_path / FILE_NAME).mkdir()
    report = refreshed(tmp_path)
    assert report.indexed == 1 and "kept in memory" in report.notes[0]
    assert (tmp_path / FILE_NAME).is_dir()


_WRITER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_index import a_result, put
from harness.records.index.database import Index
results, first = Path(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + 40):
    put(results, a_result(number, batch=1 + number % 3), "mine" if number % 2 else "")
    put(results, a_result(1000 + number % 20, tags={"sweep": "s", "launch": str(number % 20)}),
        str(first))
    with Index(results) as index:
        index.rebuild() if number % 20 == 7 else index.refresh()
"""


def test_processes_at_once_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    here = [str(folder) for folder in Path(__file__).parents[:2]]
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), str(first), *here])
        for first in (0, 40, 80, 120)
    ]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0, 0, 0]
    with Index(tmp_path) as index:
        report = index.refresh()
        assert (report.indexed, report.removed, report.skipped) == (0, 0, ())
        # 160 runs of their own, and 20 launches that each process left a copy of
        assert len(index.runs()) == 180 and len(report.uncounted) == 60
        grown = {run.path for run in index.runs()}
        assert [run.tags["launch"] for run in index.runs(sweep="s")] == [
            str(number) for number in reversed(range(20))
        ]
        index.rebuild()
        assert {run.path for run in index.runs()} == grown
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_message_about_the_file_that_is_no_text_is_damage(tmp_path: Path) -> None:
    """SQLite quotes what it could not make sense of, and the quotation may be no UTF-8."""
    put(tmp_path, a_result(1))
    refreshed(tmp_path)
    path = tmp_path / FILE_NAME
    data = path.read_bytes()
    path.write_bytes(data.replace(b"CREATE TABLE files", b"\xdfREATE TABLE files", 1))
    report = refreshed(tmp_path)
    assert (report.indexed, report.notes) == (1, ("the index was damaged, and is built again",))
