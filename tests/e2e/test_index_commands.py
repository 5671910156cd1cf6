"""The results folder from the command line: what is in it, baselines, and the index."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
from running import Harness

from harness.maybe import Unavailable
from harness.records.result import Result
from harness.testing.results import fake_failure, fake_result

FIRST, SECOND, WORSE = (
    f"2026010{day}T000000Z-digits-onnxruntime-int8-00000{day}" for day in (1, 2, 3)
)


def put(results: Path, name: str, factor: float = 1.0, result: Result | None = None) -> Path:
    """A run of five launches, ``factor`` times slower than the others."""
    result = msgspec.structs.replace(
        result or fake_result(), id=name, started_at=f"{name[:4]}-{name[4:6]}-{name[6:8]}T00:00:00Z"
    )
    if not isinstance(result.timing, Unavailable):
        launches = tuple(
            msgspec.structs.replace(result.timing.launches[0], median_ms=factor * (1 + n / 1000))
            for n in range(5)
        )
        timing = msgspec.structs.replace(result.timing, launches=launches)
        result = msgspec.structs.replace(result, timing=timing)
    (folder := results / name).mkdir(parents=True)
    (folder / "result.json").write_bytes(msgspec.json.encode(result))
    return folder


def test_runs_are_listed_newest_first(harness: Harness, tmp_path: Path) -> None:
    results = tmp_path / "results"
    put(results, FIRST)
    put(results / "nightly", SECOND, result=fake_failure())
    (put(results, WORSE) / "result.json").write_text("{")
    ran = harness("list", "runs")
    header, *rows = ran.out.splitlines()
    assert ran.code == 0 and header.split() == ["Run", "age", "status", "median"]
    shape = r"(\S+)  \d+ d +(\w+)(?:  (.+))?"
    found = [match.groups() for row in rows if (match := re.fullmatch(shape, row))]
    assert found == [(SECOND, "failed", None), (FIRST, "degraded", "123.6 µs")]
    assert max(map(len, ran.out.splitlines())) <= 80
    assert ran.err.startswith(f"harness: {WORSE}: is no JSON, or cut short")
    ran = harness("list", "results", "--json", "--limit", "1")
    assert [run["path"] for run in json.loads(ran.out)] == [f"nightly/{SECOND}"]
    ran = harness("list", "runs", "--results", "nowhere")
    assert (ran.code, ran.out, ran.err) == (
        2, "", "harness: there is no results folder 'nowhere'; name one with --results\n",
    )  # fmt: skip
    assert json.loads(harness("list", "--json").out).keys() == {"models", "backends", "profilers"}


def test_the_index_is_rebuilt_and_says_what_it_left_out(harness: Harness, tmp_path: Path) -> None:
    results = tmp_path / "results"
    put(results, FIRST)
    shutil.copytree(results / FIRST, results / "copy" / FIRST)
    (put(results, SECOND) / "result.json").write_text('{"schema": "harness.result/9"}')
    (results / ".index.sqlite").write_text("damaged")
    ran = harness("index", "rebuild")
    first, *rest = ran.out.splitlines()
    assert ran.code == 0 and first.startswith("2 runs indexed in ")
    assert rest[0].startswith(f"skipped: {SECOND}: has schema harness.result/9")
    assert rest[1:] == [
        f"not counted: copy/{FIRST}: the same run as {FIRST}",
        "the index was damaged, and is built again",
    ]
    report = harness("index", "rebuild", "--json").result
    assert report["indexed"] == 2 and report["notes"] == [] and len(report["skipped"]) == 1
    ran = harness("index", "rebuild", "--results", "nowhere")
    assert (ran.code, ran.out) == (2, "") and ran.err.startswith("harness: there is no results")


def test_a_baseline_is_promoted_kept_and_defended(harness: Harness, tmp_path: Path) -> None:
    results = tmp_path / "results"
    put(results, FIRST)
    ran = harness(
        "baseline", "promote", "latest", "--name", "main", "--by", "ada", "--reason", "v1"
    )
    assert ran.code == 0 and "digits/onnxruntime/cpu/int8/b1/latency  latency_median" in ran.out
    assert harness("compare", "main", FIRST).code in (0, 4)  # found, whatever comes of it
    put(results, WORSE, factor=1.2)
    ran = harness("baseline", "promote", "latest", "--name", "main")
    assert (ran.code, ran.out) == (1, "") and "latency_median" in ran.err
    assert ran.err.startswith("harness: baseline 'main' is not replaced: ")
    assert len(ran.err.splitlines()) == 1
    shutil.rmtree(results / FIRST)
    shown = harness("baseline", "show", "main", "--json").result
    assert (shown["by"], shown["reason"], shown["runs"][0]["id"]) == ("ada", "v1", FIRST)
    assert harness("show", "main", "--json").result["id"] == FIRST
    ran = harness(
        "baseline", "promote", WORSE, "--name", "main", "--acknowledge", "safer", "--json"
    )
    assert ran.code == 0 and ran.result["acknowledged"] == "safer" and ran.result["history"]
    ran = harness("baseline", "list")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["Baseline", "main"]
    (results / "baselines" / "cut.json").write_text("{")
    ran = harness("baseline", "list", "--json")
    assert [one["name"] for one in json.loads(ran.out)] == ["main"] and "cut.json" in ran.err
    text = harness("baseline", "show", "main").out
    assert "acknowledged: safer (" in text and "replaced: 1 run promoted" in text


def test_what_makes_no_sense_is_one_line(harness: Harness, tmp_path: Path) -> None:
    put(tmp_path / "results", FIRST)
    for text, told in {
        "baseline show none": "no baseline 'none'",
        "baseline promote latest --name ../x": "a baseline cannot be called '../x'",
        "baseline promote nothing --name x": "no run 'nothing'",
        "baseline promote latest": "Missing option '--name'",
        "baseline fly": "No such command 'fly'",
        "list runs --limit 0": "Invalid value for '--limit'",
        "show tag:a=b": "has the tag a=b",
    }.items():
        ran = harness(*text.split())
        assert (ran.code, ran.out) == (2, ""), text
        assert ran.err.startswith("harness: ") and told in ran.err
        assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "results" / "baselines").exists()
