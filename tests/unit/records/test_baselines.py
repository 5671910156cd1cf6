"""Baselines: promoted with who and why, kept whole, and not replaced by something worse."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.compare.promote import promote
from harness.errors import NothingComparable, Regressed, ResultError
from harness.maybe import Unavailable
from harness.records import baselines
from harness.records.baselines import Baseline, read
from harness.records.cell import cell_of
from harness.records.refs import resolve
from harness.records.result import Result
from harness.testing.results import fake_failure, fake_result

WORSE = "digits: latency_median is worse by 10 %"


def a_run(results: Path, name: str, *medians: float, **changes: Any) -> Path:
    """One run of a launch for each of ``medians`` (ms)."""
    result = fake_result(id=f"20260101T000000Z-{name}", **changes)
    assert not isinstance(result.timing, Unavailable)
    launches = tuple(
        msgspec.structs.replace(result.timing.launches[0], median_ms=value) for value in medians
    )
    timing = msgspec.structs.replace(result.timing, launches=launches)
    return put(results, msgspec.structs.replace(result, timing=timing))


def put(results: Path, result: Result) -> Path:
    (folder := results / result.id).mkdir(parents=True)
    (folder / "result.json").write_bytes(msgspec.json.encode(result))
    return folder


def all_is_well(baseline: Sequence[Result], candidate: Sequence[Result]) -> list[str]:
    return []


def promoted(ref: str, results: Path, name: str = "main", **how: Any) -> Baseline:
    return promote(resolve(ref, results), name, results, **{"gate": all_is_well, **how})


def test_a_baseline_says_who_when_why_and_what(tmp_path: Path) -> None:
    a_run(tmp_path, "a", 1.0, 2.0, 4.0)
    found = promoted("latest", tmp_path, by="ada", reason="release 2")
    assert found == read("main", tmp_path)
    assert (found.by, found.reason, found.source) == ("ada", "release 2", "latest")
    (run,) = found.runs
    assert (run.id, run.commit, run.status) == ("20260101T000000Z-a", "27521fe", "degraded")
    (cell,) = found.cells
    assert cell.cell == cell_of(fake_result())
    assert cell.launches["latency_median"] == (1.0, 2.0, 4.0)
    assert cell.launches["throughput"] == (8000.0,) * 3  # 2000 iterations in 0.25 s
    assert cell.launches["file_size"] == (98304.0,)
    assert cell.launches["top1"] == (0.875,)
    assert "latency_p99_9" not in cell.launches
    assert baselines.names(tmp_path) == ["main"]
    assert promoted("latest", tmp_path, "other").by  # somebody is always named


def test_a_baseline_outlives_its_runs(tmp_path: Path) -> None:
    folder = a_run(tmp_path, "a", 1.0)
    before = (folder / "result.json").read_bytes()
    promoted("latest", tmp_path)
    shutil.rmtree(folder)
    selection = resolve("baseline:main", tmp_path)
    assert selection.paths[0].read_bytes() == before
    assert resolve("main", tmp_path).results == selection.results
    again = promoted("main", tmp_path, "copy")
    assert resolve("copy", tmp_path).results == selection.results
    assert again.cells == read("main", tmp_path).cells


def test_what_is_replaced_is_remembered(tmp_path: Path) -> None:
    for name, values in {"a": (1.0, 3.0), "b": (4.0,), "c": (5.0,)}.items():
        a_run(tmp_path, name, *values)
        promoted(f"20260101T000000Z-{name}", tmp_path, reason=name)
    found = read("main", tmp_path)
    assert [old.reason for old in found.history] == ["b", "a"]
    ((cell, medians),) = found.history[1].medians.items()
    assert cell == "digits/onnxruntime/cpu/int8/b1/latency on 5d41402abc4b"
    assert medians["latency_median"] == 2.0
    assert [path.name for path in (tmp_path / "baselines" / "main").iterdir()] == [found.runs[0].id]


def test_a_worse_candidate_is_refused_until_someone_says_why(tmp_path: Path) -> None:
    a_run(tmp_path, "a", 1.0)
    asked: list[tuple[list[str], list[str]]] = []

    def gate(baseline: Sequence[Result], candidate: Sequence[Result]) -> list[str]:
        asked.append(([run.id for run in baseline], [run.id for run in candidate]))
        return [WORSE]

    first = promoted("latest", tmp_path, gate=gate)  # there is nothing to be worse than
    assert asked == [] and first.acknowledged is None
    a_run(tmp_path, "b", 2.0)
    for blank in ("", "  "):
        with pytest.raises(Regressed, match=f"not replaced: {WORSE}; .*--acknowledge") as caught:
            promoted("20260101T000000Z-b", tmp_path, gate=gate, acknowledge=blank)
    assert caught.value.exit_code == 1
    assert asked[-1] == (["20260101T000000Z-a"], ["20260101T000000Z-b"])
    assert read("main", tmp_path) == first
    found = promoted("20260101T000000Z-b", tmp_path, gate=gate, acknowledge="new kernel")
    assert (found.acknowledged, found.regressions) == ("new kernel", (WORSE,))
    better = promoted("20260101T000000Z-a", tmp_path, acknowledge="not needed")
    assert (better.acknowledged, better.regressions) == (None, ())


def test_nothing_compared_is_no_reason_to_promote(tmp_path: Path) -> None:
    def gate(baseline: Sequence[Result], candidate: Sequence[Result]) -> list[str]:
        raise NothingComparable("the machines differ: cpu")

    a_run(tmp_path, "a", 1.0)
    promoted("latest", tmp_path)
    with pytest.raises(Regressed, match="the machines differ: cpu"):
        promoted("latest", tmp_path, gate=gate)


def test_the_gate_of_the_analysis_is_asked(tmp_path: Path) -> None:
    a_run(tmp_path, "a", 1.0, 1.01, 0.99, 1.005, 0.995)
    a_run(tmp_path, "b", 1.2, 1.21, 1.19, 1.205, 1.195)
    promoted("20260101T000000Z-a", tmp_path, gate=None)
    with pytest.raises(Regressed, match="latency_median"):
        promoted("20260101T000000Z-b", tmp_path, gate=None)
    assert promoted("20260101T000000Z-b", tmp_path, gate=None, acknowledge="x").regressions


def test_runs_that_failed_are_left_out(tmp_path: Path) -> None:
    failure = msgspec.structs.replace(fake_failure(), id="20260102T000000Z-failed")
    put(tmp_path, failure)
    with pytest.raises(ResultError, match="'latest' has no run that finished"):
        promoted("latest", tmp_path)
    assert not (tmp_path / "baselines").exists()
    a_run(tmp_path, "a", 1.0)
    assert [run.id for run in promoted(str(tmp_path), tmp_path).runs] == ["20260101T000000Z-a"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "-x", "latest", "x" * 65, "a b", "é"]
)
def test_a_name_that_cannot_be(tmp_path: Path, name: str) -> None:
    a_run(tmp_path, "a", 1.0)
    with pytest.raises(ResultError, match="a baseline cannot be called"):
        promoted("latest", tmp_path, name)
    assert not (tmp_path / "baselines").exists()


def test_a_run_whose_id_is_no_name_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    evil = fake_result(id="../../../evil")
    (tmp_path / "run" / "result.json").write_bytes(msgspec.json.encode(evil))
    found = promoted(str(tmp_path / "run"), tmp_path)
    assert found.runs[0].folder.startswith("id-") and found.runs[0].id == "../../../evil"
    assert resolve("main", tmp_path).results == (evil,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["baselines", "run"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: "{", "is no baseline: "),
        (lambda raw: "[" * 100_000, "is no baseline: "),
        (lambda raw: json.dumps(raw | {"schema": "harness.baseline/9"}), "has schema '.*9', not"),
        (lambda raw: json.dumps({"schema": "harness.baseline/9"}), "has schema '.*9', not"),
        (lambda raw: json.dumps(raw | {"runs": 3}), "is no baseline: "),
        (
            lambda raw: json.dumps(raw | {"runs": [raw["runs"][0] | {"folder": "../../x"}]}),
            "names a folder outside of its own",
        ),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, change: Any, why: str) -> None:
    a_run(tmp_path, "a", 1.0)
    promoted("latest", tmp_path)
    record = tmp_path / "baselines" / "main.json"
    record.write_text(change(json.loads(record.read_text())))
    for use in (lambda: resolve("main", tmp_path), lambda: promoted("latest", tmp_path)):
        with pytest.raises(ResultError, match=why) as caught:
            use()
        assert "main.json" in str(caught.value) and "delete it and promote" in str(caught.value)


@pytest.mark.parametrize("damage", ["gone", "empty"])
def test_half_a_baseline_is_none(tmp_path: Path, damage: str) -> None:
    """A gate that knew only the rest would pass what it must not."""
    a_run(tmp_path, "a", 1.0)
    a_run(tmp_path, "b", 1.0)
    promoted(str(tmp_path), tmp_path)
    assert len(resolve("main", tmp_path).results) == 2
    copy = next((tmp_path / "baselines" / "main").glob("*-a/result.json"))
    if damage == "gone":
        copy.unlink()
    else:
        copy.write_bytes(b"")
    with pytest.raises(
        ResultError, match=r"baseline 'main' has lost 1 of its 2 runs: '.*-a"
    ) as lost:
        resolve("main", tmp_path)
    assert "promote anew" in str(lost.value)
    assert len(read("main", tmp_path).runs) == 2


def files_in(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "place", ["baselines", "baselines/main", "baselines/main.json", "baselines/main/COPY",
              "baselines/main/COPY/result.json"],
)  # fmt: skip
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_or_removed_through_a_link(
    tmp_path: Path, place: str, dangling: bool
) -> None:
    """A pull request can bring the link to where the gate runs."""
    results, theirs = tmp_path / "results", tmp_path / "theirs"
    run = a_run(results, "a", 1.0)
    (theirs / "project").mkdir(parents=True)
    (theirs / "project" / "result.json").write_text("theirs")
    link = results / place.replace("COPY", run.name)
    link.parent.mkdir(parents=True, exist_ok=True)
    as_file = theirs / "project" / "result.json"
    link.symlink_to(theirs / "absent" if dangling else as_file if link.suffix else theirs)
    with pytest.raises(ResultError, match=r"is a link, and .*; remove it"):
        promoted("latest", results)
    assert files_in(theirs) == {"project/result.json": "theirs"}
    assert link.is_symlink() and not (theirs / "absent").exists()


def test_only_copies_of_runs_are_removed(tmp_path: Path) -> None:
    a_run(tmp_path, "a", 1.0)
    promoted("latest", tmp_path)
    home = tmp_path / "baselines" / "main"
    for name in ("project", "20260101T000000Z-b"):
        (home / name).mkdir()
        (home / name / "result.json").write_text("theirs")
    shutil.copytree(home / "20260101T000000Z-a", home / "20260101T000000Z-c")
    (home / "20260101T000000Z-d").symlink_to(home / "20260101T000000Z-a")
    (home / "notes.txt").write_text("theirs")
    a_run(tmp_path, "e", 1.0)
    promoted("20260101T000000Z-e", tmp_path)
    kept = {"project", "20260101T000000Z-b", "20260101T000000Z-c", "20260101T000000Z-d"}
    assert {path.name for path in home.iterdir()} == kept | {"notes.txt", "20260101T000000Z-e"}


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Every write beyond the limit fails in this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_baseline(tmp_path: Path) -> None:
    a_run(tmp_path, "a", 1.0)
    first = promoted("latest", tmp_path)
    a_run(tmp_path, "b", 2.0)
    chosen = resolve("20260101T000000Z-b", tmp_path)
    with file_size_limit(4096), pytest.raises(ResultError, match="cannot be written"):
        promote(chosen, "main", tmp_path, gate=all_is_well)
    assert read("main", tmp_path) == first
    assert len(resolve("main", tmp_path).results) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    a_run(tmp_path, "a", 1.0)
    (tmp_path / "baselines").write_text("here first")
    with pytest.raises(ResultError, match="baselines' cannot be written"):
        promoted("latest", tmp_path)


_PROMOTER = """
import sys
from harness.compare.promote import promote
from harness.records.refs import resolve
for _ in range(10):
    promote(resolve(sys.argv[2], sys.argv[1]), "main", sys.argv[1], gate=lambda a, b: [])
"""


def test_promotions_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    for name in names:
        a_run(tmp_path, name, 1.0)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _PROMOTER, str(tmp_path), f"20260101T000000Z-{name}"]
        )
        for name in names
    ]
    assert [one.wait(timeout=600) for one in running] == [0, 0, 0]
    found = read("main", tmp_path)
    assert len(found.history) == 29
    assert [result.id for result in resolve("main", tmp_path).results] == [found.runs[0].id]
