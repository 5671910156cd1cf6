"""``harness sweep`` for real: interleaved, continued after a kill, failures, time limits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Harness, environment

from harness.views.text import duration

FILE = """
name = "night"
launches = 2
[defaults]
backend = "fakes:Fake"
iterations = 20
warmup_s = 0
sample_rate_hz = 0
idle_s = 0
{defaults}
[matrix]
options = [{{latency_us = 100}}, {{latency_us = 200}}]
{more}
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks lie in TMPDIR: other tests and users of this machine keep theirs."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


def write(folder: Path, defaults: str = "", more: str = "") -> None:
    (folder / "night.toml").write_text(FILE.format(defaults=defaults, more=more))


def results(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_bytes()) for path in folder.glob("*/result.json")]
    return sorted(found, key=lambda result: (result["started_at"], result["id"]))


def test_a_terminal_sees_inside_a_launch(tmp_path: Path, cache: Path) -> None:
    write(tmp_path, "duration_s = 0.7")
    (tmp_path / "night.toml").write_text(
        (tmp_path / "night.toml").read_text().replace("iterations = 20\n", "")
    )
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "harness", "sweep", "night.toml", "--label", "one"]
    variables = {**environment(cache), "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=variables, stdout=subprocess.DEVNULL, stderr=theirs
    ) as child:
        os.close(theirs)
        seen = "".join(iter(lambda: read_some(ours), ""))
    os.close(ours)
    assert child.returncode == 0, seen
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", seen)
    assert re.search(r"\[1/4\], about \d s left of this launch: measuring, \d+ iterations", text)
    assert re.search(r"\[4/4\], about \d+ s left: ", text)
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h")  # the cursor comes back


def read_some(descriptor: int) -> str:
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:  # how a terminal says that nobody is left at its other end
        return ""


def test_every_launch_is_a_result_and_a_second_call_runs_nothing(
    tmp_path: Path, harness: Harness
) -> None:
    write(tmp_path)
    ran = harness("sweep", "night.toml", "--label", "one", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["id"] == "night-one"
    assert (told["cells"], told["launches"], told["done"]) == (2, 2, 4)
    order = [attempt["run"] for attempt in told["attempts"]]
    by_id = {result["id"]: result for result in results(tmp_path / "results" / "night-one")}
    assert sorted(order) == sorted(by_id)
    spread = [
        (by_id[run]["spec"]["options"]["latency_us"], by_id[run]["tags"]["launch"]) for run in order
    ]
    assert spread == [("100", "1"), ("200", "1"), ("200", "2"), ("100", "2")]
    assert {result["tags"]["sweep"] for result in by_id.values()} == {"night-one"}

    again = harness("sweep", "night.toml", "--label", "one", "--json")
    assert again.code == 0
    assert json.loads(again.out)["attempts"] == []
    assert len(results(tmp_path / "results" / "night-one")) == 4


def test_a_failed_cell_is_recorded_and_the_others_are_measured(
    tmp_path: Path, harness: Harness
) -> None:
    write(tmp_path, more='[[include]]\noptions = {fail = "segfault", fail_at = 3}')
    ran = harness("sweep", "night.toml", "--label", "x")
    assert ran.code == 3
    assert "[1/6]" in ran.err
    lines = (tmp_path / "results/night-x/attempts.jsonl").read_text().splitlines()
    attempts = [json.loads(line) for line in lines]
    assert [attempt["status"] == "failed" for attempt in attempts] == [
        False, False, True, False, False,
    ]  # fmt: skip
    assert "SIGSEGV" in attempts[2]["reason"]
    assert attempts[2]["run"]  # its failed result lies there
    assert ran.err.splitlines()[-1].startswith("harness: digits/fakes:Fake/cpu/fp32/b1/latency: ")

    # mended, the sweep goes on with what is missing
    again = harness("sweep", "night.toml", "--label", "x", "--json")
    assert again.code == 3
    assert [attempt["status"] for attempt in json.loads(again.out)["attempts"]] == ["failed"]


def test_a_killed_sweep_is_continued_without_running_a_launch_twice(
    tmp_path: Path, harness: Harness, start: Callable[..., subprocess.Popen[str]]
) -> None:
    write(tmp_path)
    folder = tmp_path / "results" / "night-k"
    with start("sweep", "night.toml", "--label", "k") as sweep:
        while len(results(folder)) < 2:
            assert sweep.poll() is None
            time.sleep(0.02)
        sweep.send_signal(signal.SIGKILL)
    ran = harness("sweep", "night.toml", "--label", "k", "--json")
    assert ran.code == 0, ran.err
    finished = [
        (result["spec"]["options"]["latency_us"], result["tags"]["launch"])
        for result in results(folder)
        if result["status"] in ("complete", "degraded")
    ]
    assert sorted(finished) == [("100", "1"), ("100", "2"), ("200", "1"), ("200", "2")]
    assert len(json.loads(ran.out)["attempts"]) <= 2


def test_a_launch_past_its_time_is_stopped_with_all_it_started(
    tmp_path: Path, harness: Harness
) -> None:
    """Of one cell that hangs for good: however fast the machine, it is past any limit."""
    write(tmp_path)
    text = (tmp_path / "night.toml").read_text().replace('name = "night"', "time_limit_s = 5")
    matrix = "options = [{latency_us = 100}, {latency_us = 200}]"
    text = text.replace(matrix, 'options = [{fail = "hang", fail_at = 3}]')
    (tmp_path / "night.toml").write_text(text)
    ran = harness("sweep", "night.toml", "--label", "t", "--only", "*", "--json")
    assert ran.code == 3
    statuses = [attempt["status"] for attempt in json.loads(ran.out)["attempts"]]
    assert statuses == ["timeout"]  # and no second launch of it
    assert "longer than time_limit_s = 5" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_kill_and_a_closed_terminal_end_the_run_too(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    from running import assert_no_orphans

    write(tmp_path, defaults="timeout_s = 60", more="")
    text = (tmp_path / "night.toml").read_text().replace("iterations = 20", "duration_s = 60")
    (tmp_path / "night.toml").write_text(text)
    with start("sweep", "night.toml", "--label", "c") as sweep:
        while not list((tmp_path / "results").glob("night-c/*/samples.journal")):
            assert sweep.poll() is None
            time.sleep(0.02)
        os.kill(sweep.pid, number)
        assert sweep.wait(600) == 130
    assert_no_orphans(tmp_path)
    folder = tmp_path / "results" / "night-c"
    (result,) = results(folder)
    (attempt,) = map(json.loads, (folder / "attempts.jsonl").read_text().splitlines())
    assert (result["status"], attempt["status"]) == ("interrupted", "interrupted")


def test_a_run_ends_with_the_sweep_that_was_killed(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    write(tmp_path, defaults="timeout_s = 60", more="")
    text = (tmp_path / "night.toml").read_text().replace("iterations = 20", "duration_s = 60")
    (tmp_path / "night.toml").write_text(text)
    folder = tmp_path / "results" / "night-c"
    with start("sweep", "night.toml", "--label", "c") as sweep:
        while not list(folder.glob("*/samples.journal")):
            assert sweep.poll() is None
            time.sleep(0.02)
        sweep.kill()
    deadline = time.monotonic() + 600
    while not list(folder.glob("*/samples.npz")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (result,) = results(folder)
    assert result["status"] == "interrupted"


def write_paired(folder: Path, duration_s: float) -> None:
    """Two options, ten times apart, in turns."""
    text = FILE.format(defaults=f"duration_s = {duration_s}\nmax_warmup_s = 0.2", more="")
    text = text.replace("launches = 2", 'launches = 2\npaired = "options"')
    text = text.replace("latency_us = 100}", "latency_us = 1000}").replace("200}", "10000}")
    (folder / "night.toml").write_text(text.replace("iterations = 20\n", ""))


def test_cells_that_take_turns_are_compared_by_their_paired_ratio(
    tmp_path: Path, harness: Harness
) -> None:
    write_paired(tmp_path, 0.2)
    ran = harness("sweep", "night.toml", "--label", "d", "--json")
    assert ran.code == 0, ran.err
    attempts = json.loads(ran.out)["attempts"]
    assert len(attempts) == 2 and len({attempt["duel"] for attempt in attempts}) == 1
    assert all(attempt["cell"].endswith("/latency@turns") for attempt in attempts)
    compared = json.loads(harness("compare", "night-d", "--across", "options", "--json").out)
    assert compared["design"] == "paired rounds"
    (cell,) = (cell for cell in compared["cells"] if cell["rows"])
    assert cell["rows"][0]["reason"].startswith("paired rounds: ")
    again = harness("check", "night-d", "--baseline", "night-d")
    assert again.code == 4 and "is on both sides" in again.out  # and no cell is missing
    done = harness("sweep", "night.toml", "--label", "d")
    assert done.code == 0 and "0 of 1 launches and duels of 2 cells to run" in done.err


def test_what_took_turns_is_kept_when_the_sweep_is_interrupted(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    from running import assert_no_orphans

    write_paired(tmp_path, 60)
    folder = tmp_path / "results" / "night-d"
    with start("sweep", "night.toml", "--label", "d") as sweep:
        while not list(folder.glob("*/comparison.json")):  # some rounds are measured
            assert sweep.poll() is None
            time.sleep(0.02)
        sweep.terminate()
        assert sweep.wait(120) == 130
    assert_no_orphans(tmp_path)
    (broken,) = folder.glob("*/comparison.json")
    assert json.loads(broken.read_bytes())["paired"]["ended"] == "interrupted"
    kept = [json.loads(path.read_bytes()) for path in folder.glob("*/*/result.json")]
    assert [run["status"] for run in kept] == ["interrupted"] * 2
    assert all(run["timing"]["launches"] for run in kept)
    attempts = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert [attempt["status"] for attempt in attempts] == ["interrupted"] * 2


def test_what_was_begun_from_another_file_is_not_continued(
    tmp_path: Path, harness: Harness
) -> None:
    write(tmp_path)
    harness("sweep", "night.toml", "--label", "s", "--shard", "1/2")
    assert len(results(tmp_path / "results" / "night-s")) == 2
    write(tmp_path, defaults="seed = 1")
    ran = harness("sweep", "night.toml", "--label", "s")
    assert ran.code == 2
    assert "begun before this changed: the sweep file; give --new" in ran.err
    assert harness("sweep", "night.toml", "--label", "s", "--new").code == 0
    assert len(results(tmp_path / "results" / "night-s.2")) == 4


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ('{"schema": "harness.sweep/9"}', "has schema 'harness.sweep/9', not harness.sweep/1; up"),
        ('{"id": "x"}', "cannot be read: Object missing required field"),
        ("", "cannot be read: Input data was truncated; restore it, or give --new"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(
    tmp_path: Path, harness: Harness, manifest: str, told: str
) -> None:
    write(tmp_path)
    folder = tmp_path / "results" / "night-m"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(manifest)
    ran = harness("sweep", "night.toml", "--label", "m")
    assert ran.code == 2
    assert told in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(89.4, "89 s"), (90, "2 min"), (3580, "1 h 0 min"), (7190, "2 h 0 min"), (7300, "2 h 2 min")],
)
def test_the_time_left(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_dry_run_leaves_nothing(tmp_path: Path, harness: Harness) -> None:
    write(tmp_path)
    ran = harness("sweep", "night.toml", "--dry-run")
    assert ran.code == 0
    assert ran.out.endswith("2 cells, 2 launches of each\n")
    assert not (tmp_path / "results").exists()
