"""``harness history`` and ``harness bisect`` on a folder of nights, and a real ``git bisect``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import builds
import nightly
import pytest
from running import Harness, environment

from harness.records.cell import cell_of

CELL = "digits/onnxruntime/cpu/int8/b1/latency"
WOBBLE = (1.0, 1.004, 0.996, 1.002, 0.998)


def fill(results: Path, launches: tuple[float, ...]) -> None:
    """Twenty nights at 0.1 ms, then ten at 0.107 ms with another ONNX Runtime."""
    runs = []
    for number in range(30):
        level = 0.1 * WOBBLE[number % 5] * (1.07 if number >= 20 else 1)
        version = "1.31.1" if number >= 20 else "1.30.0"
        runs += [
            nightly.night(number, launch, level * factor, version)
            for launch, factor in enumerate(launches, start=1)
        ]
    nightly.write(results, runs)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Three launches a night, of which an odd one does not move its night."""
    fill(tmp_path / "results", (1.0, 1.0, 1.5))
    return tmp_path


def test_a_series_has_a_night_per_sweep_and_dates_its_change(lab: Path, harness: Harness) -> None:
    ran = harness("history", CELL, "--json")
    assert ran.code == 0, ran.err
    (series,) = json.loads(ran.out)
    assert len(series["nights"]) == 30
    assert series["nights"][7]["launches"] == 3
    assert series["nights"][7]["value"] == pytest.approx(0.1 * 0.996)
    (change,) = series["history"]["changes"]
    assert change["index"] == 20
    assert change["ratio"] == pytest.approx(1.07)
    assert series["history"]["incident"] == change
    assert series["history"]["level"] == pytest.approx(0.107)
    assert series["history"]["baseline"] == pytest.approx(0.1)

    shown = harness("history", "digits/*").out
    assert "since nightly-020 (2026-08-21); last good nightly-019" in shown
    assert "+7.0 %" in shown
    assert "▂" in shown


def test_the_plot_is_a_picture(lab: Path, harness: Harness) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    assert harness("history", CELL, "--plot", "cell.png").code == 0
    assert (lab / "cell.png").read_bytes().startswith(b"\x89PNG")
    assert harness("history", CELL, "--plot", "cell.svg").code == 0
    assert b"</svg>" in (lab / "cell.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("history", "digit"), 4, "no cell 'digit' in 'results'; there are digits/"),
        (("history", CELL, "--metric", "speed"), 2, "unknown metric 'speed'"),
        (("history", CELL, "--metric", "p99"), 2, "unknown metric 'p99'"),
        (("history", CELL, "--machine", "ffff"), 4, "was not measured on that machine"),
        (("history", CELL, "--last", "0"), 2, "--last is '0'"),
        (("history", CELL, "--plot", "x.pdf"), 2, "--plot cannot draw '.pdf'"),
        (("history", CELL, "--plot", "no/where.png"), 2, "no/where.png"),
        (("history", CELL, "--results", "gone"), 4, "'gone' holds no results"),
        (("bisect", CELL, "--good", "latest"), 2, "--good and --bad go together"),
        (("bisect", CELL, "--good", "nightly-025", "--bad", "nightly-003"), 4, "is no worse than"),
        (("bisect", "other/cell"), 4, "no cell 'other/cell'"),
        (("bisect", CELL, "--metric", "memory_peak"), 4, "0 of 1 series"),
    ],
)
def test_what_does_not_fit_is_one_line(
    lab: Path, harness: Harness, arguments: tuple[str, ...], code: int, told: str
) -> None:
    ran = harness(*arguments)
    assert ran.code == code
    assert told in ran.err
    assert ran.err.count("\n") == 1


def test_the_hint_names_what_changed_and_how_to_go_on(lab: Path, harness: Harness) -> None:
    found = json.loads(harness("bisect", CELL, "--json").out)
    assert found["good"]["name"] == "nightly-019"
    assert found["bad"]["name"] == "nightly-020"
    assert found["differences"]["onnxruntime"] == ["1.30.0", "1.31.1"]
    assert set(found["differences"]) == {"commit", "onnxruntime"}

    shown = harness("bisect", CELL).out
    assert f"git bisect start {20:040x} {19:040x}" in shown
    assert "harness run --precision=int8 --launches=5" in shown
    assert "--good nightly-019 --bad nightly-020 --run" in shown  # all launches of the nights


@pytest.mark.measures
def test_git_bisect_finds_the_commit(tmp_path: Path, harness: Harness, cache: Path) -> None:
    """Six commits, of which the fourth made the backend sleep four times as long: far enough apart
    for a commit to be near one of the two whatever else the machine does."""
    builds.git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("results\n.harness-bisect\n__pycache__\n")
    commits = []
    for number, seconds in enumerate((0.001, 0.001, 0.001, 0.004, 0.004, 0.004)):
        builds.write(tmp_path, seconds)
        commits.append(builds.commit(tmp_path, str(number)))
    runs = {}
    for name, commit in (("good", commits[0]), ("bad", commits[-1])):
        builds.git(tmp_path, "checkout", "-q", commit)
        ran = harness("run", "--backend", "ours:Ours", *builds.QUICK)
        assert ran.code == 0, ran.err
        runs[name] = ran.result["id"]

    cell = "digits/ours:Ours/cpu/fp32/b1/latency"
    test = ("bisect", cell, "--good", runs["good"], "--bad", runs["bad"])
    told = json.loads(harness(*test, "--json").out)
    assert told["ratio"] == pytest.approx(4, rel=0.4)
    builds.git(tmp_path, "bisect", "start", commits[-1], commits[0])
    found = subprocess.run(
        [
            "git",
            "bisect",
            "run",
            sys.executable,
            "-m",
            "harness",
            *test,
            "--run",
            "--trust",
            "ours:Ours",
        ],
        cwd=tmp_path,
        env=environment(cache),
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{commits[3]} is the first bad commit" in found.stdout, found.stdout + found.stderr


def test_a_commit_that_cannot_be_measured_is_skipped(lab: Path, harness: Harness) -> None:
    ran = harness("bisect", CELL, "--run")
    assert ran.code == 125
    assert "bisect on the machine that regressed" in ran.err


def test_a_bisection_with_a_wrong_name_stops(lab: Path, harness: Harness) -> None:
    """Any code from 1 to 127 would be taken for a verdict on the commit."""
    assert harness("bisect", CELL, "--good", "nope", "--bad", "latest", "--run").code == 128
    assert harness("bisect", CELL, "--run", "--launches", "2").code == 128


def test_the_spread_of_nights_is_known_from_six_on(lab: Path, tmp_path: Path) -> None:
    from harness.compare.series import night_spreads

    few = tmp_path / "few"
    nightly.write(few, [nightly.night(number, 1, 0.1) for number in range(5)])
    cell = cell_of(nightly.night(0, 1, 0.1)).key
    fingerprint = nightly.night(0, 1, 0.1).machine.fingerprint
    assert night_spreads(few, [(cell, fingerprint)], ["latency_median"]) == {}
    found = night_spreads(lab / "results", [(cell, fingerprint)], ["latency_median"])
    # the middle of |ln WOBBLE|: of 1, 1.004, 0.996, 1.002, 0.998 about their mean
    assert found == {(cell, fingerprint, "latency_median"): pytest.approx(1.4826 * 0.002, rel=0.02)}


def test_an_acknowledged_change_is_no_incident_and_is_kept_with_its_reason(
    lab: Path, harness: Harness
) -> None:
    assert harness("history", CELL, "--acknowledge", "ORT 1.31, known").code == 0
    (series,) = json.loads(harness("history", CELL, "--json").out)
    assert series["history"]["incident"] is None
    assert series["history"]["baseline"] == pytest.approx(0.107)
    (kept,) = json.loads((lab / "results" / "acknowledged.json").read_bytes())["changes"]
    assert (kept["night"], kept["reason"]) == ("nightly-020", "ORT 1.31, known")
    again = harness("history", CELL, "--acknowledge", "twice")
    assert again.code == 4
    assert "has no regression to acknowledge" in again.err
    # the index knows no such file as a run
    assert "acknowledged" not in harness("index", "rebuild").err


def test_the_gate_holds_a_night_against_the_good_ones_before(
    tmp_path: Path, harness: Harness
) -> None:
    """The nights before the step are the standard until somebody accepts the step."""
    fill(tmp_path / "results", (0.999, 1.0, 1.001))
    policy = 'metrics = ["latency_median"]\nminimum_launches = 2\n'
    (tmp_path / "harness-policy.toml").write_text(policy)
    red = harness("check", "nightly-029", "--baseline", "history", "--json")
    assert red.code == 1, red.err
    row = json.loads(red.out)["comparison"]["cells"][0]["rows"][0]
    assert row["launches"] == [60, 3]  # of twenty nights and of one
    assert row["ratio"] == pytest.approx(1.07, rel=0.01)
    assert harness("check", "nightly-015", "--baseline", "history").code == 0
    assert harness("history", CELL, "--acknowledge", "known").code == 0
    green = harness("check", "nightly-029", "--baseline", "history", "--json")
    assert green.code == 0, green.out
    row = json.loads(green.out)["comparison"]["cells"][0]["rows"][0]
    assert row["launches"] == [27, 3]  # of the nine nights at the accepted level

    young = harness("check", "nightly-003", "--baseline", "history")
    assert young.code == 2
    assert "3 nights before this one are no baseline; measure at least 6 nights" in young.err
    other = harness("check", "nightly-029", "--baseline", "history@dev")
    assert other.code == 2
    assert "'history@dev' is no baseline yet" in other.err
