"""Small files that would cost a lot, and odd ones: one line, soon, and little memory."""

from __future__ import annotations

import io
import types
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import maybe
from harness.cli.main import main
from harness.compare.policy import read_policy
from harness.errors import DataError, ResultError, UsageError
from harness.models.data import read_samples as read_arrays
from harness.profiles.power.external import Table, cells_of
from harness.records.samples import MAX_RATIO, Samples, read_samples
from harness.records.store import MAX_BYTES, MAX_LAUNCHES, decode_result, read_bytes
from harness.sweep.plan import MAX_CELLS, read_plan
from harness.testing.results import fake_result
from harness.text import LONGEST, plain, visible


def refused_plan(folder: Path, text: str | bytes) -> str:
    path = folder / "night.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as refused:
        read_plan(path)
    told = str(refused.value)
    assert "\n" not in told and "night.toml" in told
    return told


def test_the_cells_of_a_sweep_are_counted_before_they_are_made(tmp_path: Path) -> None:
    values = list(range(1, 41))
    fields = ("batch_size", "threads", "launches", "inter_threads", "iterations", "warmup_s")
    wide = "".join(f"{field} = {values}\n" for field in fields if field != "launches")
    told = refused_plan(tmp_path, f"[matrix]\n{wide}")
    assert told.endswith(f"the matrix has {40**5:,} cells; ask for {MAX_CELLS:,} at most")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"launches = {'9' * 5000}", "is no TOML"),
        ("a = [" * 5000, "is no TOML"),
        (b"\xff = 1", "is no TOML"),
        (f'[matrix]\nmodel = ["{"a" * 5000}"]\nbatch_size = [0]', "--batch-size is '0'"),
        (f'[matrix]\nmodel = ["{"a/" * 5000}net.onnx"]\nbatch_size = [0]', "--batch-size is '0'"),
        ('[matrix]\nmodel = ["a\\u0000.onnx"]', "without null characters"),
        ("#" * (1 << 20) + "\n", "it is too large"),
    ],
)
def test_odd_sweep_files_are_one_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert told in refused_plan(tmp_path, text)


def test_a_number_without_an_end_in_a_policy_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(f"minimum_launches = {'9' * 5000}")
    with pytest.raises(UsageError, match="is no TOML"):
        read_policy(tmp_path / "policy.toml")


def packed(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)
    return buffer.getvalue()


def columns(rows: int) -> dict[str, Any]:
    return {name: np.zeros(rows, np.int64) for name in Samples._fields[:5]}


def test_samples_that_unpack_to_far_more_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "samples.npz").write_bytes(packed(**columns(1_000_000)))  # 40 kB, 40 MB
    with pytest.raises(ResultError, match=r"bytes unpack to 40,000,\d+"):
        read_samples(tmp_path)


def test_what_the_zip_file_hides_is_not_believed(tmp_path: Path) -> None:
    """The array's own header says how much there is, and no more is read than the zip said."""
    header = io.BytesIO()
    shape = {"descr": "<i8", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "samples.npz", "w") as file:
        for name in Samples._fields[:5]:
            file.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(ResultError, match="no samples file, or damaged"):
        read_samples(tmp_path)


def test_real_samples_stay_far_below_the_limit(tmp_path: Path) -> None:
    starts = np.cumsum(np.random.default_rng(0).integers(30_000, 40_000, 200_000))
    real = {**columns(len(starts)), "timed": np.ones(len(starts), np.int64), "start_ns": starts}
    data = packed(**{**real, "end_ns": starts + 29_000})
    assert 40 * len(starts) / len(data) < MAX_RATIO / 4
    (tmp_path / "samples.npz").write_bytes(data)
    assert len(read_samples(tmp_path).start_ns) == len(starts)


def test_data_that_no_memory_holds_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(packed(x=np.zeros(100_000)))
    free = types.SimpleNamespace(available=799_999)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(
        DataError, match=r"unpacks to 800,\d+ bytes, and 799,999 of memory are free"
    ):
        read_arrays(path, "--dataset", [], 1, labelled=False)


def test_columns_that_differ_in_length_are_damage(tmp_path: Path) -> None:
    odd = {**columns(5), "timed": np.ones(4, np.int64)}
    (tmp_path / "samples.npz").write_bytes(packed(**odd))
    with pytest.raises(ResultError, match="its columns differ in length"):
        read_samples(tmp_path)


def test_results_beyond_any_run_are_refused(tmp_path: Path) -> None:
    result = fake_result()
    assert not isinstance(result.timing, maybe.Unavailable)
    many = msgspec.structs.replace(
        result.timing, launches=result.timing.launches[:1] * (MAX_LAUNCHES + 1)
    )
    for change in ({"timing": many}, {"id": "x" * 256}):
        data = msgspec.json.encode(msgspec.structs.replace(result, **change))
        with pytest.raises(ResultError, match="is no run's result: it has"):
            decode_result(data, tmp_path / "result.json")
    (tmp_path / "result.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ResultError, match="is none of Harness"):
        read_bytes(tmp_path / "result.json")


def test_a_text_that_nobody_could_read_keeps_its_ends() -> None:
    for tame in (plain, visible):
        told = tame("a" + 10_000_000 * "x" + "z")
        assert len(told) == LONGEST + len(" [...] ")
        assert told[0] == "a" and told[-1] == "z"


def test_a_sweep_whose_manifest_is_no_text_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "results" / "nightly"
    run = sweep / "20260101T000000Z-a"
    run.mkdir(parents=True)
    (run / "result.json").write_bytes(msgspec.json.encode(fake_result(id=run.name)))
    for data in (b"\xff\xfe{}", b"[" * 100_000, b'{"schema": "\xff"}'):
        (sweep / "sweep.json").write_bytes(data)
        assert main(["check", "nightly", "--baseline", run.name]) in (0, 2, 4)
        assert "its sweep cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["1.0,2\r3", "1.0," + "9" * 131_073, '1.0,"'])
def test_a_line_that_is_no_csv_is_counted_and_passed_over(line: str) -> None:
    table = Table(["time_s", "power_w"])
    assert table.parse(line, 10.0) is None
    assert table.malformed == 1 and table.problem
    row = table.parse("1.0,2", 10.0)
    assert row is not None and row.power_w == 2.0


def test_a_header_that_is_no_csv_is_refused() -> None:
    with pytest.raises(ValueError, match="new-line character"):
        cells_of("time_s,pow\rer_w")
