"""``harness export`` in four formats, of runs whose figures are known."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import NOT_HERE, made
from pytest_benchmark.stats import Stats

from harness.analysis.rounds import MOST_ROUNDS, rounds_of, statistics_of
from harness.cli.main import main
from harness.compare.sides import measured
from harness.exports.pytest_benchmark.document import full_name
from harness.exports.pytest_benchmark.storage import machine_id, store
from harness.records.metric import COMPARED, METRICS
from harness.records.result import Result
from harness.records.samples import Samples
from harness.spec import RunSpec, parse
from harness.testing.results import fake_failure, fake_result

GPU = {"gpu_name": "Imaginary 9000"}


def lay(results: Path, *runs: Result, latencies_us: Sequence[float] = (30, 20, 10, 40)) -> None:
    """Run folders; each run's samples are one warm-up of 1 s and these timed iterations."""
    for run in runs:
        folder = results / run.id
        folder.mkdir(parents=True)
        (folder / "result.json").write_bytes(msgspec.json.encode(run))
        ends = np.array([10**9, *(round(value * 1000) for value in latencies_us)], dtype=np.int64)
        zeros = np.zeros(len(ends), dtype=np.int64)
        timed = (np.arange(len(ends)) > 0).astype(np.int64)
        fields = Samples(zeros, zeros, timed, zeros, ends).columns()
        np.savez(folder / "samples.npz", **fields)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def exported(capsys: pytest.CaptureFixture[str], form: str, *refs: str) -> tuple[str, str]:
    """What is written for ``refs``, and what is said."""
    assert main(["export", "--format", form, "-o", "-", *(refs or ("results",))]) == 0
    return capsys.readouterr()


def benchmarks(capsys: pytest.CaptureFixture[str], *refs: str) -> dict[str, dict[str, Any]]:
    found = json.loads(exported(capsys, "pytest-benchmark", *refs)[0])["benchmarks"]
    named = {one["fullname"]: one for one in found}
    assert len(named) == len(found)
    return named


# --- what pytest-benchmark means by its figures ---


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=40))
def test_statistics_are_those_of_pytest_benchmark(data: list[float]) -> None:
    theirs = Stats()
    for value in data:
        theirs.update(value)
    ours = statistics_of(data)
    assert ours.pop("iterations") == 1
    near = ("mean", "stddev", "q1", "q3", "iqr", "median", "ops", "total")
    # a quartile is rounded another way, so a datum on a fence may lie on its other side
    for name, value in theirs.as_dict().items():
        if name in near:
            assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-12 * max(data)), name
    assert ours.keys() == theirs.as_dict().keys()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 50])
def test_outliers_and_whiskers_are_those_of_pytest_benchmark(count: int) -> None:
    theirs = Stats()
    theirs.data = [float(value) for value in [*range(1, count), 1000]]  # quartiles are exact
    assert {**theirs.as_dict(), "iterations": 1} == statistics_of(theirs.data)


def test_constant_and_zero_data_have_no_operations_to_invent() -> None:
    found = statistics_of([0.0, 0.0])
    assert found["ops"] == 0 and found["stddev"] == 0.0 and found["outliers"] == "0;0"


def test_rounds_are_every_kth_timed_iteration_in_order() -> None:
    count = 2 * MOST_ROUNDS + 1
    ends = np.arange(count, dtype=np.int64)
    zeros, ones = np.zeros_like(ends), np.ones_like(ends)
    warm = Samples(*(np.array([value], dtype=np.int64) for value in (0, 0, 0, 0, 5)))
    found = rounds_of([warm, Samples(zeros, zeros, ones, zeros, ends)])
    assert found.iterations == count and found.every == 3
    assert found.seconds[:3] == (0.0, 3e-9, 6e-9) and len(found.seconds) == math.ceil(count / 3)
    few = rounds_of([Samples(zeros[:9], zeros[:9], ones[:9], zeros[:9], ends[:9])])
    assert few.every == 1 and len(few.seconds) == 9


# --- pytest-benchmark ---


def test_a_cell_is_one_benchmark_per_metric(results: Path, capsys) -> None:
    run = made([1.0, 3.0, 2.0], correct="1110", memory=[10, 30, 20])
    lay(results, run)
    found = benchmarks(capsys)
    cell = "digits/onnxruntime/cpu/fp32/b1/latency"
    shown = {name.removeprefix(f"{cell}::"): one for name, one in found.items()}
    assert {name: one["group"] for name, one in shown.items()} == {
        "latency": "latency (s)",
        "latency_median": "latency_median (s)",
        "latency_p99": "latency_p99 (s)",
        "throughput": "throughput (1/s, higher is better)",
        "memory_peak": "memory_peak (bytes)",
        "file_size": "file_size (bytes)",
        "top1": "top1 (share of 1, higher is better)",
    }
    data = {name: one["stats"]["data"] for name, one in shown.items()}
    assert data["latency"] == [30e-6, 20e-6, 10e-6, 40e-6]
    assert data["latency_median"] == [0.001, 0.003, 0.002]
    assert data["latency_p99"] == pytest.approx([0.0014, 0.0042, 0.0028])
    assert data["throughput"] == pytest.approx([1000, 1000 / 3, 500])
    assert (data["memory_peak"], data["file_size"]) == ([10, 30, 20], [98_304])
    assert data["top1"] == [0.75]
    for one in shown.values():
        assert one["name"] == cell and len(one["stats"]) == 18
        assert one["stats"]["rounds"] == len(one["stats"]["data"])
    assert shown["latency"]["stats"]["median"] == 25e-6
    assert shown["latency"]["extra_info"]["round"] == "an iteration"
    assert shown["latency_p99"]["extra_info"]["round"] == "a launch"
    assert shown["top1"]["extra_info"]["results"] == [run.id]


def test_energy_is_in_joules_and_its_absence_is_told(results: Path, capsys) -> None:
    replace = msgspec.structs.replace
    launches = tuple(
        replace(one, joules_per_inference=joules)
        for one, joules in zip(fake_result().timing.launches * 2, (0.5, 0.25), strict=False)
    )
    metered = replace(
        made(), energy=fake_result().energy, timing=replace(made().timing, launches=launches)
    )
    lay(results, metered, made(precision="int8"))
    out, err = exported(capsys, "pytest-benchmark")
    (one,) = (b for b in json.loads(out)["benchmarks"] if "energy" in b["group"])
    assert one["group"] == "energy_per_inference (J)" and one["stats"]["data"] == [0.5, 0.25]
    lines = err.splitlines()
    lacking = "energy_per_inference: left out of digits/onnxruntime/cpu/int8/b1/latency: no meter"
    assert f"harness: {lacking}" in lines
    assert "harness: top1: left out of 2 of 2 cells: no labelled data" in lines
    assert not any("device_" in line for line in lines)  # a CPU has none to miss
    assert json.loads(out)["harness"]["left_out"] == [x.removeprefix("harness: ") for x in lines]


def test_nothing_in_the_file_is_null_or_no_number(results: Path, capsys) -> None:
    lay(results, made(), fake_result())
    text = exported(capsys, "pytest-benchmark")[0]

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert None not in everything(json.loads(text, parse_constant=refuse))


def everything(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from everything(one)
    else:
        yield value


def test_launches_of_a_sweep_pool_into_their_cell(results: Path, capsys) -> None:
    runs = [
        made([value], tags={"sweep": "n", "launch": str(i)})
        for i, value in enumerate((1.0, 2.0, 4.0))
    ]
    lay(results, *runs)
    found = benchmarks(capsys)
    cell = "digits/onnxruntime/cpu/fp32/b1/latency"
    assert found[f"{cell}::latency_median"]["stats"]["data"] == [0.001, 0.002, 0.004]
    assert found[f"{cell}::latency"]["stats"]["rounds"] == 12


def test_where_the_samples_are_gone_the_launches_remain(results: Path, capsys) -> None:
    run = made()
    lay(results, run)
    (results / run.id / "samples.npz").unlink()
    out, err = exported(capsys, "pytest-benchmark")
    groups = {one["group"] for one in json.loads(out)["benchmarks"]}
    assert "latency (s)" not in groups and "latency_median (s)" in groups
    assert "latency: left out of digits/onnxruntime/cpu/fp32/b1/latency: " in err


def test_failed_cells_are_named_and_nothing_at_all_is_an_error(results: Path, capsys) -> None:
    failed = fake_failure()
    lay(results, failed)
    assert main(["export", "--format", "pytest-benchmark", "-o", "x.json", "results"]) == 4
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "killed by SIGKILL" in err and not Path("x.json").exists()
    lay(results, made())
    err = exported(capsys, "pytest-benchmark")[1]
    assert "digits/onnxruntime/cpu/int8/b1/latency: left out: failed: the worker was killed" in err


def test_a_run_that_says_complete_and_has_no_timing_has_failed(results: Path, capsys) -> None:
    hollow = msgspec.structs.replace(made(precision="int8"), timing=NOT_HERE)
    lay(results, hollow, made())
    for form in ("pytest-benchmark", "junit", "markdown", "csv"):
        out, err = exported(capsys, form)
        assert hollow.id in out + err
    failed = "digits/onnxruntime/cpu/int8/b1/latency: left out: failed: no figures"
    assert failed in exported(capsys, "pytest-benchmark")[1]


def test_damaged_samples_cost_the_latencies_alone(results: Path, capsys) -> None:
    run = made()
    lay(results, run)
    numbers = np.arange(3, dtype=np.int64)
    fields = Samples(numbers, numbers, numbers[:2], numbers, numbers).columns()
    for spoil in (lambda p: np.savez(p, **fields), lambda p: p.write_bytes(b"PK\x03\x04")):
        spoil(results / run.id / "samples.npz")
        out, err = exported(capsys, "pytest-benchmark")
        groups = {one["group"] for one in json.loads(out)["benchmarks"]}
        assert "latency (s)" not in groups and "throughput (1/s, higher is better)" in groups
        assert "latency: left out of digits/onnxruntime/cpu/fp32/b1/latency: " in err


def test_one_cell_on_two_machines_has_one_place(results: Path, capsys) -> None:
    one, other = made(fingerprint="a" * 16), made(fingerprint="b" * 16)
    lay(results, one, other)
    assert main(["export", "--format", "pytest-benchmark", "-o", "x.json", "results"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and one.id in err and other.id in err
    gpu = made(fingerprint="c" * 16, factors=GPU, device="cuda:0")  # beside a CPU cell: no clash
    lay(results, gpu)
    info = json.loads(exported(capsys, "pytest-benchmark", one.id, gpu.id)[0])["machine_info"]
    machines = info["harness"]["machines"]
    assert set(machines) == {"a" * 16, "c" * 16}
    assert machines["c" * 16]["gpu_name"] == "Imaginary 9000"


def test_the_commit_and_the_date_are_the_newest_runs(results: Path, capsys) -> None:
    replace = msgspec.structs.replace
    old, new = (
        replace(
            made(started_at=f"2026-11-{day}T02:00:00Z"),
            software=replace(made().software, commit=commit, branch="main", dirty=dirty),
        )
        for day, commit, dirty in (("20", "aaa", False), ("21", "bbb-dirty", True))
    )
    lay(results, old, new)
    found = json.loads(exported(capsys, "pytest-benchmark", new.id, old.id)[0])
    assert found["commit_info"] == {"id": "bbb", "dirty": True, "branch": "main"}
    assert found["datetime"] == "2026-11-21T02:00:00Z"
    assert found["harness"]["results"] == [old.id, new.id]


@pytest.mark.parametrize(
    ("fields", "name"),
    [({}, "digits/onnxruntime/cpu/fp32/b1/latency"),
     ({"duration_s": "5", "out": "x", "launches": "5"}, "digits/onnxruntime/cpu/fp32/b1/latency"),
     ({"threads": "1", "options": ["b=2", "a=1"]},
      "digits/onnxruntime/cpu/fp32/b1/latency[option=a=1,option=b=2,threads=1]"),
     ({"model": "my/net.onnx", "dataset": "/night/one.npz", "batch_size": "8"},
      "net/onnxruntime/cpu/fp32/b8/latency[dataset=one]"),
     ({"model": "net", "input_shapes": ["x=1x3"]},
      "net/onnxruntime/cpu/fp32/b1/latency[input-shape=x=1x3]"),
     ({"backend": "tensorrt"}, "digits/tensorrt/cuda:0/fp32/b1/latency")],
)  # fmt: skip
def test_a_cell_is_called_the_same_every_night(fields: dict[str, Any], name: str) -> None:
    assert full_name(parse(fields)) == name
    assert full_name(parse(fields), "latency") == f"{name}::latency"


def test_names_cannot_steer_a_terminal() -> None:
    assert "\x1b" not in full_name(RunSpec(model="\x1b[2Jnet"))


# --- its storage ---


def test_a_folder_is_numbered_as_pytest_benchmark_does(results: Path, capsys) -> None:
    first, second = made(started_at="2026-11-20T02:00:00Z"), made()
    lay(results, first, second)
    for run in (first, second):
        assert main(["export", "--format", "pytest-benchmark", "-o", "store/", run.id]) == 0
    place = Path("store") / machine_id()
    names = sorted(path.name for path in place.iterdir())
    assert names == [f"0001_{first.id}.json", f"0002_{second.id}.json"]
    assert capsys.readouterr().out.splitlines() == [str(place / name) for name in names]


def test_a_storage_replaces_nothing_and_ends_at_9999(tmp_path: Path) -> None:
    place = tmp_path / machine_id()
    assert store(tmp_path, "../../evil name", b"1") == place / "0001_.._.._evil_name.json"
    (place / "9998_x.json").write_bytes(b"old")
    assert store(tmp_path, "x", b"2").name == "9999_x.json"
    with pytest.raises(Exception, match="9999 is its last number"):
        store(tmp_path, "x", b"3")
    assert (place / "9998_x.json").read_bytes() == b"old" and len(list(place.iterdir())) == 3
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="cannot be written"):
        store(tmp_path / "file", "x", b"4")


# --- CSV ---


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_row_per_run_and_metric(results: Path, capsys) -> None:
    full = fake_result(status="complete")
    lay(results, full, made(2.0))
    text, err = exported(capsys, "csv")
    rows = rows_of(text)
    assert err == "harness: 15 of 38 figures are absent: its last column says why\n"
    assert len(rows) == 2 * len(METRICS)
    mine = {row["metric"]: row for row in rows if row["run"] == full.id}
    median = mine["latency_median"]
    told = [median[name] for name in ("time", "cell", "unit", "better", "value", "low", "high")]
    cell = "digits/onnxruntime/cpu/int8/b1/latency"
    assert told == [full.started_at, cell, "ms", "lower", "0.1236", "0.1234", "0.1239"]
    assert (median["commit"], median["tags"]) == ("27521fe", "branch=main")
    assert mine["throughput"]["value"] == "8000.0" and mine["throughput"]["low"] == "7985.0"
    assert float(mine["top1"]["value"]) == 0.875 and mine["top1"]["low"] == ""
    lacking = mine["latency_p99_9"]
    assert lacking["value"] == "" and "too few" in lacking["absent"]
    (energy,) = (r for r in rows if r["run"] != full.id and r["metric"] == "energy_per_inference")
    assert (energy["value"], energy["absent"]) == ("", NOT_HERE.unavailable)


def test_csv_holds_no_formula(results: Path, capsys) -> None:
    replace = msgspec.structs.replace
    evil = made(model="=cmd|' /C calc'!A0", tags={"@SUM(A1)": "x\ny"})
    evil = replace(evil, software=replace(evil.software, branch="-2+3", commit="+1"))
    lay(results, evil)
    text = exported(capsys, "csv")[0]
    assert len(text.splitlines()) == 1 + len(METRICS)
    row = rows_of(text)[0]
    assert row["model"] == "'=cmd|' /C calc'!A0" and row["tags"] == "'@SUM(A1)=x y"
    assert (row["branch"], row["commit"]) == ("'-2+3", "'+1")


def test_a_runs_energy_interval_is_twice_its_uncertainty() -> None:
    run = fake_result()
    spread = run.energy.joules_per_inference
    found = measured([run], "energy_per_inference")
    assert found.value == spread.value
    assert found.interval == (
        spread.value - 2 * spread.comparative,
        spread.value + 2 * spread.comparative,
    )


# --- JUnit and Markdown ---


def test_junit_has_a_case_per_cell_and_metric(results: Path, capsys) -> None:
    run = made([1.0, 3.0, 2.0], correct="1110")
    lay(results, run, fake_failure())
    root = ET.fromstring(exported(capsys, "junit")[0])
    metrics = [n for n in COMPARED if not n.startswith("device_") and n != "capacity"]
    assert root.attrib == {
        "name": "harness export", "tests": str(len(metrics) + 1), "failures": "0", "errors": "1",
        "skipped": "2",  # joules, and the processor time that a file of before lacks
    }  # fmt: skip
    cases = {case.get("name"): case for case in root.iter("testcase")}
    cell = "digits/onnxruntime/cpu/fp32/b1/latency"
    median = {p.get("name"): p.get("value") for p in cases[f"{cell} latency_median"].iter()}
    assert (median["value"], median["unit"], median["figures"]) == ("2.0", "ms", "3")
    assert median["runs"] == run.id
    skipped = cases[f"{cell} energy_per_inference"].find("skipped")
    assert skipped is not None and skipped.get("message") == "no meter"
    error = cases["digits/onnxruntime/cpu/int8/b1/latency run"].find("error")
    assert error is not None and "SIGKILL" in str(error.get("message"))
    assert all("Imaginary CPU 9000" in str(case.get("classname")) for case in cases.values())


def test_markdown_is_one_table(results: Path, capsys) -> None:
    lay(results, made(2.0, model="a|b"), made(3.0, device="cuda:0"), fake_failure())
    text, err = exported(capsys, "markdown")
    lines = text.splitlines()
    assert lines[0].startswith("| cell | machine | latency median | latency p99 | throughput |")
    assert "energy" not in lines[0] and "energy_per_inference: left out of 2 of 3 cells" in err
    assert len(lines) == 5 and "a\\|b/onnxruntime" in lines[2] and "| 2.000 ms |" in lines[2]
    assert "0 of 1 |" in lines[4] and "killed by SIGKILL" in lines[4] and "| n/a |" in lines[4]


# --- the command ---


@pytest.mark.parametrize("form", ["pytest-benchmark", "csv", "junit", "markdown"])
def test_a_file_is_replaced_whole_or_kept(results: Path, capsys, form: str) -> None:
    lay(results, made())
    Path("out").write_text("old")
    Path("folder").mkdir()
    assert main(["export", "--format", form, "-o", "out", "nonesuch"]) == 2
    assert main(["export", "--format", form, "-o", "missing/out", "latest"]) == 2
    assert main(["export", "--format", form, "-o", "", "latest"]) == 2
    if form != "pytest-benchmark":  # there it is a storage
        assert main(["export", "--format", form, "-o", ".", "latest"]) == 2
    assert Path("out").read_text() == "old"
    assert main(["export", "--format", form, "-o", "out", "latest", "latest"]) == 0
    capsys.readouterr()
    assert Path("out").read_text() == exported(capsys, form)[0]
    assert not list(Path().glob(".*"))
