"""What history, bisect and baseline print: whole, true wherever the results lie."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import SPREAD, made

from harness.cli.main import main
from harness.records.result import Result
from harness.views.history import render_histories
from harness.views.terminal import to_text

CELL = "digits/onnxruntime/cpu/fp32/b1/latency"


def night(number: int, level: float, batch_size: int = 1) -> Result:
    result = made(
        [level * s for s in SPREAD],
        started_at=(datetime(2026, 8, 1, 2, tzinfo=UTC) + timedelta(days=number)).isoformat(),
        batch_size=batch_size,
    )
    software = msgspec.structs.replace(result.software, commit=f"{number:040x}", branch="main")
    return msgspec.structs.replace(result, software=software)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten nights at 1 ms and ten at 1.2 ms, of two cells, in a folder called ``lab``."""
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        for batch_size in (1, 8):
            write(tmp_path / "lab", night(number, 1.2 if number >= 10 else 1.0, batch_size))
    return tmp_path


def write(folder: Path, result: Result) -> None:
    (folder / result.id).mkdir(parents=True)
    (folder / result.id / "result.json").write_bytes(msgspec.json.encode(result))


def test_a_list_of_series_cuts_no_figure_off(here: Path, capsys: Any) -> None:
    assert main(["history", "--results", "lab"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(CELL))
    assert line.split()[1:] == ["5d41402a", "20", "1.200", "ms", "regressed", "+20.0", "%",
                                "2026-08-11"]  # fmt: skip


def test_on_a_narrow_terminal_the_name_gives_way(here: Path) -> None:
    from harness.compare.series import find
    from harness.records.metric import metric

    text = to_text(render_histories(find(here / "lab", "*", metric("latency_median"))), width=80)
    assert "…" not in text and text.count("regressed +20.0 %  2026-08-11") == 2


def test_what_bisect_says_to_type_works_on_this_folder(here: Path, capsys: Any) -> None:
    assert main(["bisect", CELL, "--results", "lab"]) == 0
    told = capsys.readouterr().out.splitlines()
    (line,) = (line for line in told if line.strip().startswith("git bisect run"))
    assert line.endswith(" --run --results lab")
    (here / "lab").rename(here / "results")
    assert main(["bisect", CELL]) == 0
    assert capsys.readouterr().out.rstrip().endswith(" --run")


def test_code_that_only_a_run_names_is_not_run(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (here / "lab").glob("*/result.json"):
        result = msgspec.json.decode(path.read_bytes())
        result["spec"]["backend"] = "mine:Ours"
        path.write_bytes(msgspec.json.encode(result))
    cell, ran = CELL.replace("onnxruntime", "mine:Ours"), []
    monkeypatch.setattr("harness.sweep.again.measure_again", lambda *_: ran.append(1) or (1.2,))
    assert main(["bisect", cell, "--results", "lab", "--run"]) == 128
    told = capsys.readouterr().err
    assert "'mine:Ours' executed" in told and "give --trust NAME" in told and ran == []
    assert main(["bisect", cell, "--results", "lab"]) == 0
    assert " --run --trust mine:Ours --results lab" in capsys.readouterr().out
    assert main(["bisect", cell, "--results", "lab", "--run", "--trust", "mine:Ours"]) != 128
    assert ran


def test_a_bug_says_nothing_about_the_commit(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[float]:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("harness.sweep.again.measure_again", broken)
    assert main(["bisect", CELL, "--results", "lab", "--run"]) == 125
    assert "ZeroDivisionError: ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--machine", "zz"), f"{CELL!r} was not measured on that machine; there are 5d41402abc4b"),
        (("--branch", "nope"), f"no run of {CELL!r} is of branch 'nope' and has a latency_median"),
    ],
)
def test_what_is_missing_is_named(
    here: Path, capsys: Any, flags: tuple[str, ...], told: str
) -> None:
    assert main(["history", CELL, "--results", "lab", *flags]) == 4
    assert capsys.readouterr().err.startswith(f"harness: {told}")


def test_nights_that_are_all_alike_do_not_differ(tmp_path: Path, capsys: Any) -> None:
    for number in range(19):
        write(tmp_path, night(number, 539 / 540))
    assert main(["history", CELL, "--results", str(tmp_path)]) == 0
    assert "nights of one level differ by 0 % (sd)" in capsys.readouterr().out


def test_a_baseline_that_loses_a_cell_says_so(here: Path, capsys: Any) -> None:
    for folder, sizes in (("whole", (1, 8)), ("half", (1,))):
        for batch_size in sizes:
            write(here / folder, night(1, 1.0, batch_size))
    assert main(["baseline", "promote", "whole", "--name", "good", "--results", "lab"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["baseline", "promote", "half", "--name", "good", "--results", "lab"]) == 0
    gone = "digits/onnxruntime/cpu/fp32/b8/latency on 5d41402abc4b"
    told = f"harness: baseline 'good' no longer holds {gone}, which the one before did\n"
    assert capsys.readouterr().err == told


def test_no_figure_and_no_date_breaks_a_history(tmp_path: Path, capsys: Any) -> None:
    for number, (level, at) in enumerate([
        (5e-324, ""), (1.7e308, "not a date"), (1e308, "9999-12-31T23:59:59+00:00"), (1.0, "x"),
    ]):  # fmt: skip
        write(tmp_path, msgspec.structs.replace(night(number, level), started_at=at))
    assert main(["history", CELL, "--results", str(tmp_path)]) == 0
    assert "4 nights" in capsys.readouterr().out
    plot = ("--plot", str(tmp_path / "x.svg"))
    assert main(["history", CELL, "--results", str(tmp_path), *plot]) == 2
    assert capsys.readouterr().err.startswith(f"harness: --plot cannot draw {CELL!r}: ")


def test_nights_without_dates_are_numbered(tmp_path: Path) -> None:
    for number, at in enumerate(["", "not a date", "2026-11-21T02:00:00Z"]):
        write(tmp_path, msgspec.structs.replace(night(number, 1.0), started_at=at))
    plot = ("--plot", str(tmp_path / "x.svg"))
    assert main(["history", CELL, "--results", str(tmp_path), *plot]) == 0
    assert "night (without readable dates)" in (tmp_path / "x.svg").read_text()


def test_a_closed_stdout_is_no_verdict(here: Path) -> None:
    """1 would say that something is worse."""
    command = [sys.executable, "-m", "harness", "check", "lab", "--baseline", "lab"]
    shell = f"{shlex.join(command)} >&-"
    ran = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (4, "")


def of_model(number: int, model: str, content: str) -> Result:
    run = night(number, 1.0)
    return msgspec.structs.replace(
        run,
        spec=msgspec.structs.replace(run.spec, model=model),
        model=msgspec.structs.replace(run.model, sha256=content * 64),
    )


def test_models_of_one_file_name_are_series_of_their_own(tmp_path: Path, capsys: Any) -> None:
    for number in range(3):
        write(tmp_path / "h", of_model(number, "small/model.onnx", "a"))
        write(tmp_path / "h", of_model(number, "/ci/7/large/model.onnx", "b"))
    assert main(["history", "model/*", "--results", str(tmp_path / "h")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "/cpu/" in line]
    assert sorted(line[0].partition("/onnxruntime")[0] for line in lines) == [
        "large/model",
        "small/model",
    ]
    assert {line[2] for line in lines} == {"3"}
    assert main(["history", "large/*", "--results", str(tmp_path / "h")]) == 0
    assert "large/model/onnxruntime" in capsys.readouterr().out
    cell = "model/onnxruntime/cpu/fp32/b1/latency"
    assert main(["bisect", cell, "--results", str(tmp_path / "h")]) == 4


def test_a_model_that_is_built_anew_stays_one_series_with_its_contents_marked(
    tmp_path: Path, capsys: Any
) -> None:
    for number, content in enumerate("aabbcde"):
        write(tmp_path / "h", of_model(number, "build/model.onnx", content))
    assert main(["history", "--results", str(tmp_path / "h")]) == 0
    out = capsys.readouterr().out
    assert "7 nights" in out and out.startswith("model/onnxruntime")
    flat = " ".join(out.split())
    assert "model: 1 earlier change of content model: new content cccccccc since" in flat
    assert "(2026-08-05), bbbbbbbb before" in flat
    assert flat.count("new content") == 3 and "new content eeeeeeee" in flat
    assert main(["history", "--json", "--results", str(tmp_path / "h")]) == 0
    (series,) = json.loads(capsys.readouterr().out)
    assert series["model_changes"] == [2, 4, 5, 6]
    assert series["nights"][2]["model_sha256"] == "b" * 64


def test_what_was_acknowledged_under_an_older_key_stays_acknowledged(tmp_path: Path) -> None:
    from harness.compare.series import acknowledge, find
    from harness.records import acknowledged
    from harness.records.cell import key_by_stem
    from harness.records.metric import metric

    for number in range(20):
        run = night(number, 1.2 if number >= 10 else 1.0)
        spec = msgspec.structs.replace(run.spec, model="build/model.onnx")
        write(tmp_path, msgspec.structs.replace(run, spec=spec))
    (series,) = find(tmp_path, "model/*", metric("latency_median"))
    assert series.history.incident is not None
    older = msgspec.structs.replace(series, key=key_by_stem(spec))
    acknowledge(tmp_path, older, "known")
    assert acknowledged.read(tmp_path)[0].key != series.key
    assert find(tmp_path, "model/*", metric("latency_median"))[0].history.incident is None
