"""What a name stands for: runs, folders, sweeps, branches, commits, tags, baselines."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare.promote import promote
from harness.errors import HarnessError, ResultError
from harness.records import refs
from harness.records.refs import resolve, resolve_one
from harness.records.result import Result
from harness.testing.results import fake_result

NIGHTS = {
    # sweep -> (branch, commit, day)
    "nightly-01": ("main", "a" * 40, 1),
    "nightly-02": ("main", "b" * 40, 2),
    "nightly-03": ("fix", "c" * 40, 3),
}


def a_run(name: str, day: int, **changes: Any) -> Result:
    """``branch``, ``commit`` and ``launch`` besides the fields of a result."""
    branch, commit = changes.pop("branch", None), changes.pop("commit", None)
    software = msgspec.structs.replace(fake_result().software, branch=branch, commit=commit)
    started = f"2026-01-{day:02d}T00:00:00+00:00"
    id = f"202601{day:02d}T000000Z-{name}"
    return fake_result(**{"id": id, "started_at": started, "tags": {}} | changes, software=software)


def put(folder: Path, result: Result) -> Path:
    (run := folder / result.id).mkdir(parents=True)
    (run / "result.json").write_bytes(msgspec.json.encode(result))
    return run


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three sweeps of two launches, and two runs by hand."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    for sweep, (branch, commit, day) in NIGHTS.items():
        for launch in range(2):
            tags = {"sweep": sweep, "launch": str(launch)}
            run = a_run(f"{sweep}-{launch}", day, branch=branch, commit=commit, tags=tags)
            put(results / sweep, run)
        (results / sweep / "sweep.json").write_text("{}")
    put(results, a_run("hand-1", 4, branch="main", commit="d" * 40 + "-dirty", tags={"rig": "a"}))
    put(results, a_run("hand-2", 5, tags={"rig": "b=c"}))
    return results


def short(ref: str, results: Path) -> list[str]:
    return [result.id.partition("Z-")[2] for result in resolve(ref, results).results]


@pytest.mark.parametrize(
    ("ref", "runs"),
    [
        ("latest", "hand-2"),
        ("latest~1", "hand-1"),
        ("latest~2", "nightly-03-1"),
        ("20260105", "hand-2"),
        ("20260102T000000Z-nightly-02-0", "nightly-02-0"),
        ("results/20260105T000000Z-hand-2", "hand-2"),
        ("results/20260105T000000Z-hand-2/result.json", "hand-2"),
        ("20260105T000000Z-hand-2/result.json", "hand-2"),
        ("nightly-02", "nightly-02-0 nightly-02-1"),
        ("nightly-03/", "nightly-03-0 nightly-03-1"),
        ("results/nightly-02", "nightly-02-0 nightly-02-1"),
        ("results/nightly-02/sweep.json", "nightly-02-0 nightly-02-1"),
        ("latest@main", "hand-1"),
        ("latest~1@main", "nightly-02-0 nightly-02-1"),
        ("latest~2@main", "nightly-01-0 nightly-01-1"),
        ("latest@fix", "nightly-03-0 nightly-03-1"),
        ("@bbbb", "nightly-02-0 nightly-02-1"),
        ("latest@cccccc", "nightly-03-0 nightly-03-1"),
        ("tag:rig=a", "hand-1"),
        ("tag:rig=b=c", "hand-2"),
        ("tag:sweep=nightly-01", "nightly-01-0 nightly-01-1"),
        ("tag:launch=1", "nightly-01-1 nightly-02-1 nightly-03-1"),
        ("latest, nightly-02,latest", "nightly-02-0 nightly-02-1 hand-2"),
    ],
)
def test_each_kind_of_name(results: Path, ref: str, runs: str) -> None:
    selection = resolve(ref, results)
    assert short(ref, results) == runs.split()
    assert selection.name == ref and selection.problems == ()
    for result, path in zip(selection.results, selection.paths, strict=True):
        assert json.loads(path.read_bytes())["id"] == result.id


def test_going_back_looks_through_as_many_runs_as_it_takes(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "_SOME", 1)
    assert short("latest~2@main", results) == ["nightly-01-0", "nightly-01-1"]
    assert short("latest@main", results) == ["hand-1"]
    with pytest.raises(ResultError, match="'main' has 3 sweeps or commits measured"):
        resolve("latest~3@main", results)


def test_a_folder_is_all_that_lies_below_it(results: Path) -> None:
    everything = short("results", Path("nowhere"))
    assert len(everything) == 8 and everything == short(str(results), results)


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("nothing", "no run 'nothing' in '.*results'; give a run folder, a result file, a run id"),
        ("", "no run ''"),
        ("latest,", "no run ''"),
        ("latest~8", "no run 'latest~8' in"),
        ("2026", r"'2026' begins the ids of 8 runs: .*, \.\.\.; give more of the id"),
        ("nightly", r"'nightly' stands for 3 things: .*nightly-01, .*02, .*03; give one of them"),
        ("tag:rig", "'tag:rig' names no tag; give tag:KEY=VALUE"),
        ("tag:rig=c", "no run in '.*results' has the tag rig=c"),
        (
            "latest@nowhere",
            "no run in .* is of branch or commit 'nowhere', and git knows none"
            " here; branches measured: main, fix; git's: none",
        ),
        ("latest~9@main", "'main' has 3 sweeps or commits measured; go less back"),
        ("@--all", "no run in .* is of branch or commit '--all'"),
        ("@dddd", "no run in .* is of branch or commit 'dddd'"),
        ("baseline:none", "no baseline 'none' in '.*'; there are: none"),
        ("baseline:../x", "a baseline cannot be called '../x'"),
        ("empty", "'empty' holds no result.json"),
        ("\0", "no run"),
        ("x" * 5000, "no run"),
    ],
)
def test_a_name_that_fits_nothing_or_several_things(results: Path, ref: str, told: str) -> None:
    (results.parent / "empty").mkdir()
    with pytest.raises(ResultError, match=told) as caught:
        resolve(ref, results)
    assert "\n" not in str(caught.value)


def test_one_name_for_a_folder_and_a_baseline(results: Path) -> None:
    promote(resolve("nightly-01", results), "nightly-02", results)
    assert short("baseline:nightly-02", results) == ["nightly-01-0", "nightly-01-1"]
    assert short("results/nightly-02", results) == ["nightly-02-0", "nightly-02-1"]
    with pytest.raises(ResultError, match=r"stands for 2 things: baseline:nightly-02, .*; give"):
        resolve("nightly-02", results)
    shutil.rmtree(results / "nightly-02")
    assert short("nightly-02", results) == ["nightly-01-0", "nightly-01-1"]


def test_what_is_broken_in_a_folder_is_a_problem(results: Path) -> None:
    (results / "nightly-02" / "20260102T000000Z-nightly-02-0" / "result.json").write_text("{")
    (killed := results / "nightly-02" / "20260102T000001Z-killed").mkdir()
    selection = resolve("nightly-02", results)
    assert [result.tags["launch"] for result in selection.results] == ["1"]
    assert len(selection.problems) == 1 and "is no JSON, or cut short" in selection.problems[0]
    with pytest.raises(ResultError, match="cut short"):
        resolve("20260102T000000Z-nightly-02-0", results)
    with pytest.raises(ResultError, match=r"holds no result.json; the run is still going"):
        resolve(killed.name, results)
    (results / "nightly-02" / "20260102T000000Z-nightly-02-1" / "result.json").write_text("[]")
    with pytest.raises(ResultError, match=r"'nightly-02' holds no result that can be read: .* cut"):
        resolve("nightly-02", results)


def test_attempts_and_copies_count_once(results: Path) -> None:
    tags = {"sweep": "nightly-02", "launch": "0"}
    put(results / "nightly-02", a_run("again", 6, tags=tags))
    put(results / "nightly-02", a_run("before", 1, tags=tags, status="interrupted"))
    shutil.copytree(
        results / "20260105T000000Z-hand-2", results / "old" / "20260105T000000Z-hand-2"
    )
    selection = resolve("nightly-02", results)
    assert short("nightly-02", results) == ["nightly-02-0", "nightly-02-1"]
    assert sorted(problem.partition(" is ")[0][-6:] for problem in selection.problems) == [
        "-again",
        "before",
    ]
    copied = resolve("20260105", results)
    assert len(copied.results) == 1 and "is the same run as" in copied.problems[0]
    assert short("results/old,tag:rig=b=c", results) == ["hand-2"]


def test_one_run_where_one_is_asked_for(results: Path) -> None:
    result, path = resolve_one("latest@main", results)
    assert result.id.endswith("hand-1") and path == results / result.id / "result.json"
    with pytest.raises(ResultError, match=r"'nightly-02' stands for 2 runs: \S+-0, \S+-1; give"):
        resolve_one("nightly-02", results)
    with pytest.raises(ResultError, match=r"stands for 6 runs: \S+, \S+, \.\.\.; give the id"):
        resolve_one("nightly-01,nightly-02,nightly-03", results)


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    call("init", "-q", "-b", "main")
    yield call


def test_a_commit_that_was_not_measured_is_the_nearest_before_it(
    tmp_path: Path, git: Callable[..., str]
) -> None:
    commits = []
    for number in range(5):
        git("commit", "-q", "--allow-empty", "-m", str(number))
        commits.append(git("rev-parse", "HEAD"))
    git("tag", "v1", commits[3])
    results = tmp_path / "results"
    for day, index in ((1, 0), (3, 2)):
        put(results, a_run(f"commit-{index}", day, commit=commits[index]))
    put(results, a_run("changed", 4, commit=f"{commits[4]}-dirty"))
    assert short(f"@{commits[2]}", results) == ["commit-2"]
    assert resolve(f"@{commits[2][:9]}", results).problems == ()
    for ref, name, distance in (("@v1", "v1", 1), ("latest@main", "main", 2), ("@HEAD", "HEAD", 2)):
        selection = resolve(ref, results)
        assert short(ref, results) == ["commit-2"]
        assert selection.problems == (
            f"{name} was not measured: {commits[2]} lies {distance} commits before it",
        )
    assert short("@HEAD~3", results) == ["commit-0"]
    git("checkout", "-q", "--orphan", "other")
    git("commit", "-q", "--allow-empty", "-m", "apart")
    with pytest.raises(
        ResultError, match=r"neither 'other' nor a commit before it was measured"
    ) as refused:
        resolve("latest@other", results)
    changed = f"with uncommitted changes, so at none: {commits[4][:12]}"
    assert refused.value.remedy.endswith(changed)


NAMES = st.sampled_from(["latest", "nightly-01", "@aaaa", "tag:rig=a", "2026", "main", ""])
TEXTS = st.text("latest~@:=,/.0123nigh-\0é ", max_size=12) | NAMES


@given(parts=st.lists(TEXTS, min_size=1, max_size=3), glue=st.sampled_from([",", "@", "~", ":"]))
@settings(max_examples=150, deadline=None)
def test_whatever_is_asked_runs_or_a_clear_error(shared: Path, parts: list[str], glue: str) -> None:
    try:
        selection = resolve(glue.join(parts), shared)
    except HarnessError as error:
        assert isinstance(error, ResultError) and "\n" not in str(error)
    else:
        ids = [result.id for result in selection.results]
        assert ids and len(set(ids)) == len(ids) == len(selection.paths)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("shared")
    put(results, a_run("hand", 1, branch="main", commit="a" * 40, tags={"rig": "a"}))
    put(results / "nightly-01", a_run("sweep", 2, tags={"sweep": "nightly-01", "launch": "0"}))
    return results
