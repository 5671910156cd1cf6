"""What the gate writes: JUnit XML, Markdown, JSON, the terminal; and the command around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import failed, made

from harness.cli.main import main
from harness.compare.gate.judge import GateReport, judge
from harness.compare.policy import parse_policy
from harness.compare.verdicts import MetricVerdict
from harness.exports.csv import export as csv_of
from harness.exports.junit import export as junit_of
from harness.maybe import Unavailable
from harness.records.cell import Cell
from harness.records.figures import single
from harness.records.metric import METRICS
from harness.records.result import Result
from harness.report.gather import gather
from harness.report.html import render as html_of
from harness.report.markdown import render as markdown_of
from harness.sweep.folder import Attempt, Manifest
from harness.views.comparison import render_sets
from harness.views.gate import LIMIT_BYTES, direction, render_gate, render_gate_markdown
from harness.views.gate_junit import render_junit
from harness.views.terminal import to_text

EVIL = "]]>\x00\x1b[2J<b>&\"'|\u202e\ufffe`x`"


def night(slow: float = 1.1) -> GateReport:
    """A regression, a crash, a cell in quarantine, a missing one, and one that is fine."""
    sizes = (1, 2, 4, 8, 16)
    old = [made(1.0, batch_size=n) for n in sizes]
    new = [made(slow, batch_size=1), failed(batch_size=2), made(1.3, batch_size=4),
           made(1.0, batch_size=16)]  # fmt: skip
    return judge(old, new, parse_policy({"quarantine": {"cells": ["*/b4/*"]}}))


def test_junit_tells_failures_from_errors_and_skips() -> None:
    report = night()
    root = ET.fromstring(render_junit(report))
    suite = root[0]
    cases = {case.get("name").split("/")[4] + " " + case.get("name").split("latency ", 1)[1]: case
             for case in suite.iter("testcase")}  # fmt: skip
    assert cases["b1 latency_median change"].find("failure").get("type") == "regressed"
    assert cases["b2 measured"].find("error").get("type") == "failed"
    assert "quarantined" in [p.get("value") for p in cases["b4 latency_median change"][0]]
    assert cases["b4 latency_median change"].find("skipped").text.startswith("regressed: worse by")
    assert cases["b8 measured"].find("skipped").get("message") == "only A has this cell"
    fine = cases["b16 latency_median change"]
    assert all(fine.find(tag) is None for tag in ("failure", "error", "skipped"))
    for case in cases.values():
        assert case.get("classname") == "Imaginary CPU 9000 (5d41402abc4b)"
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute)) == len(list(suite.iter(tag)))
    assert int(suite.get("tests")) == len(cases) == len(report.cases)  # and every name is unique


def test_junit_holds_the_numbers() -> None:
    root = ET.fromstring(render_junit(night()))
    case = next(c for c in root.iter("testcase") if "b1/latency latency_median" in c.get("name"))
    values = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert float(values["ratio"]) == pytest.approx(1.1)
    assert (values["launches_baseline"], values["unit"]) == ("5", "ms")
    assert float(values["ratio_low"]) < 1.1 < float(values["ratio_high"])
    assert float(values["p_adjusted"]) >= float(values["p"])


def test_what_strict_counts_is_red_in_junit_too() -> None:
    lenient = judge([made(1.0)], [made([1.0, 1.0])])
    strict = judge([made(1.0)], [made([1.0, 1.0])], strict=True)
    assert ET.fromstring(render_junit(lenient)).get("failures") == "0"
    assert (strict.exit_code, ET.fromstring(render_junit(strict)).get("failures")) == (5, "3")
    nothing = judge([made(1.0)], [])
    assert int(ET.fromstring(render_junit(nothing)).get("failures")) == 1


def hostile() -> GateReport:
    old = made(1.0, model=f"{EVIL}.onnx", factors={"cpu": EVIL})
    gone = failed(batch_size=2, model=f"{EVIL}.onnx")
    gone = msgspec.structs.replace(gone, error=msgspec.structs.replace(gone.error, message=EVIL))
    fine = made(1.0, batch_size=2, model=f"{EVIL}.onnx")
    new = made(1.1, model=f"{EVIL}.onnx", factors={"cpu": EVIL})
    return judge([old, fine], [new, gone], names=(EVIL + "\ud800", EVIL), problems=(EVIL,))


def test_no_name_breaks_a_report() -> None:
    report = hostile()
    root = ET.fromstring(render_junit(report))
    assert int(root.get("failures")) == 3
    markdown = render_gate_markdown(report)
    lines = markdown.splitlines()
    for text in (markdown, to_text(render_gate(report)), render_junit(report).decode()):
        assert not set(text) & {"\x00", "\x1b", "\u202e", "\ud800", "\ufffe"}
    told = "\n".join(line for line in lines if "<summary>" not in line)  # HTML, escaped as such
    assert "<b>" not in markdown and "`x`" not in told.replace("\\`", "")
    assert all(line.count(" | ") == 3 for line in lines if line.startswith("| \\]"))


def test_markdown_puts_regressions_first_and_knows_what_is_better() -> None:
    text = render_gate_markdown(night())
    assert text.startswith("## Gate failed: worse than allowed\n")
    assert "10.0 % slower: 1.000 ms to 1.100 ms" in text
    assert "9.09 % less (worse): 1000 /s to 909.1 /s" in text
    order = [text.index(title) for title in (
        "### Worse than allowed (3)", "### Not measured (1)", "### In quarantine (3)",
        "### Not compared (1)", "<details>")]  # fmt: skip
    assert order == sorted(order)
    assert "Machines: Imaginary CPU 9000 (5d41402abc4b)." in text
    assert text.count("<details>") == text.count("</details>") == 5


@pytest.mark.parametrize(
    ("metric", "ratio", "words"),
    [
        ("latency_median", 1.1, "slower"), ("latency_median", 0.9, "faster"),
        ("throughput", 1.1, "more (better)"), ("throughput", 0.9, "less (worse)"),
        ("memory_peak", 1.1, "larger"), ("energy_per_inference", 1.1, "more (worse)"),
        ("top1", 0.9, "less (worse)"),
    ],
)  # fmt: skip
def test_words_know_the_direction(metric: str, ratio: float, words: str) -> None:
    kind = METRICS[metric]
    row = MetricVerdict(
        metric=metric,
        unit=kind.unit,
        better=kind.better,
        verdict="regressed",
        reason="",
        a=1.0,
        b=ratio,
        ratio=ratio,
    )
    assert direction(row) == words


def test_markdown_stays_within_a_megabyte() -> None:
    def side() -> list[Result]:
        return [made(1.0, model=f"{'x' * 900}{n}.onnx") for n in range(700)]

    text = render_gate_markdown(judge(side(), side()))
    assert 500_000 < len(text.encode()) <= LIMIT_BYTES
    assert text.rstrip().endswith("more parts were left out: see the JSON report.")
    assert text.count("<details>") == text.count("</details>")


extremes = st.one_of(st.floats(5e-324, 1.7e308), st.sampled_from([5e-324, 1.0, 1.7e308]))
launches = st.lists(extremes, min_size=1, max_size=6)


@given(launches, launches)
def test_no_figure_breaks_a_report(a: list[float], b: list[float]) -> None:
    report = judge([made(a)], [made(b)])
    assert report.exit_code in (0, 1, 4)
    ET.fromstring(render_junit(report))
    render_gate_markdown(report)
    to_text(render_gate(report))
    to_text(render_sets(report.comparison))
    msgspec.json.encode(report)


# --- the command ---


def write(folder: Path, *results: Result) -> None:
    for result in results:
        (folder / result.id).mkdir(parents=True)
        (folder / result.id / "result.json").write_bytes(msgspec.json.encode(result))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old", made(1.0))
    write(tmp_path / "same", made(1.0))
    write(tmp_path / "slow", made(1.1))
    return tmp_path


def test_reports_are_written_also_when_the_gate_is_red(here: Path, capsys: Any) -> None:
    assert main(["check", "slow", "--baseline", "old", "--report-dir", "a/b"]) == 1
    assert sorted(p.name for p in (here / "a/b").iterdir()) == [
        "junit.xml", "report.json", "summary.md",
    ]  # fmt: skip
    assert json.loads((here / "a/b/report.json").read_bytes())["exit_code"] == 1
    assert "gate: regression (exit code 1)" in capsys.readouterr().out
    single = ("--junit", "j", "--markdown", "m", "--json-file", "f")
    assert main(["check", "same", "--baseline", "old", *single, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((here / "f").read_bytes())
    assert ET.parse(here / "j").getroot().get("failures") == "0"
    assert (here / "m").read_text().startswith("## Gate passed")


def test_an_outcome_that_cannot_be_written_is_printed_all_the_same(here: Path, capsys: Any) -> None:
    args = ["check", "slow", "--baseline", "old", "--junit", "/proc/self/junit.xml"]
    assert main(args) == 2
    told = capsys.readouterr()
    assert "gate: regression (exit code 1)" in told.out
    assert told.err.startswith("harness: '/proc/self/junit.xml' cannot be written")


def test_a_confirmation_that_cannot_begin_leaves_the_reports(here: Path, capsys: Any) -> None:
    (here / "harness-policy.toml").write_text(
        "[confirm]\nenvironments = {baseline = 'nowhere', candidate = 'nowhere'}\n"
    )
    assert main(["check", "slow", "--baseline", "old", "--confirm", "--markdown", "m"]) == 2
    told = capsys.readouterr()
    assert "'nowhere' holds no bin/python" in told.err
    assert (here / "m").read_text().startswith("## Gate failed: worse than allowed")
    (here / "harness-policy.toml").unlink()
    assert main(["check", "slow", "--baseline", "old", "--confirm", "--markdown", "m2"]) == 2
    assert capsys.readouterr().err.startswith("harness: --confirm needs [confirm]")


def test_other_hardware_shows_its_ratios(here: Path, capsys: Any) -> None:
    write(here / "other", made(2.0, fingerprint="else", factors={"cpu": "Other"}))
    args = ["check", "other", "--baseline", "old", "--allow-different-hardware"]
    assert main(args) == 4
    flat = " ".join(capsys.readouterr().out.split())
    assert "latency_median not comparable: the machines differ: cpu" in flat
    assert "1.000 ms to 2.000 ms, B / A 2.000" in flat


def test_the_policy_of_the_folder_is_found(here: Path, capsys: Any) -> None:
    (here / "harness-policy.toml").write_text('[quarantine]\ncells = ["digits/*"]\n')
    assert main(["check", "slow", "--baseline", "old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "harness-policy.toml"
    (here / "harness-policy.toml").write_text('[quarantine]\ncells = ["digit/*"]\n')
    assert main(["check", "slow", "--baseline", "old"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "harness: quarantine.cells = 'digit/*' matches no cell; the nearest is 'di"
    )
    (here / "other.toml").write_text("alhpa = 1\n")
    assert main(["check", "slow", "--baseline", "old", "--policy", "other.toml"]) == 2
    assert capsys.readouterr().err == (
        "harness: policy 'other.toml': unknown key alhpa; did you mean alpha?\n"
    )


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--junit", "."], "the junit report cannot be '.'; name a file in a folder"),
        (["--markdown", "-"], "the markdown report cannot be '-'; name a file in a folder"),
        (
            ["--markdown", "x", "--junit", "./x"],
            "'x' cannot hold the junit and the markdown report; name two files",
        ),
        (["--markdown", "no/where/x.md"], "the markdown report cannot be 'no/where/x.md'"),
        (["--report-dir", "old/file"], "--report-dir 'old/file' cannot be made"),
        (["--policy", "none.toml"], "policy 'none.toml' cannot be read"),
        (["--policy", LONG], f"policy '{LONG}' cannot be read: File name too long"),
        (["--junit", LONG], f"the junit report cannot be '{LONG}'"),
        (["--report-dir", LONG], f"--report-dir '{LONG}' cannot be made: File name too long"),
        (["--results", ".", LONG], f"no run '{LONG}'"),
    ],
)
def test_bad_use_is_one_line_and_writes_nothing(
    here: Path, capsys: Any, args: list[str], text: str
) -> None:
    (here / "old" / "file").write_text("")
    before = sorted(here.rglob("*"))
    candidate = [] if len(args) == 3 else ["slow"]
    assert main(["check", *candidate, "--baseline", "old", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"harness: {text}") and err.count("\n") == 1
    assert sorted(p for p in here.rglob("*") if "index" not in p.name) == before


def test_what_a_sweep_could_not_measure_is_no_pass(here: Path, capsys: Any) -> None:
    run = made(1.0, tags={"sweep": "n2", "launch": "1"})
    write(here / "n2", run)
    names = ("digits/onnxruntime/cpu/fp32/b1/latency", "digits/onnxruntime/cpu/int8/b1/latency")
    manifest = Manifest(
        id="n2", name="n", label="2", plan_sha256="", launches=5, created_at="", state={},
        cells=tuple(Cell(name, str(i)) for i, name in enumerate(names)),
    )  # fmt: skip
    (here / "n2" / "sweep.json").write_bytes(msgspec.json.encode(manifest))
    attempt = Attempt(cell=names[1], launch=1, status="refused", started_at="", seconds=1.0,
                      reason="it fails to load")  # fmt: skip
    assert main(["check", "n2", "--baseline", "old", "--json"]) == 3
    (here / "n2" / "attempts.jsonl").write_bytes(msgspec.json.encode(attempt) + b"\n")
    capsys.readouterr()
    assert main(["check", "n2", "--baseline", "old", "--json"]) == 3
    (missing,) = [c for c in json.loads(capsys.readouterr().out)["cases"] if c["code"]]
    assert (missing["cell"], missing["message"]) == (
        names[1], "planned, and not measured: refused: it fails to load",
    )  # fmt: skip
    assert main(["check", f"n2/{run.id}", "--baseline", "old"]) == 0  # one run is no sweep
    (here / "n2" / "sweep.json").write_text("{")
    assert main(["check", "n2", "--baseline", "old", "--markdown", "m"]) == 0
    told = "'n2': its sweep cannot be read, so cells that it planned and did not measure may"
    assert f"harness: {told}" in capsys.readouterr().err
    assert f"- problem: {told}" in (here / "m").read_text()


def test_between_nights_a_change_must_beat_how_nights_differ(here: Path, capsys: Any) -> None:
    """Ten nights that lie 4 % up and down: one more is no news, though its launches agree."""
    (here / "harness-policy.toml").write_text('metrics = ["latency_median"]\n')
    levels = (1.0, 1.04, 0.96, 1.0, 1.04, 0.96, 1.0, 1.04, 0.96, 1.0)
    for day, level in enumerate(levels, 1):
        write(here / "results", made(level, started_at=f"2026-11-{day:02d}T02:00:00Z"))
    last, best = latest(here, -1), latest(here, -2)
    assert main(["check", last, "--baseline", best, "--results", "elsewhere", "--json"]) == 1
    unknown = json.loads(capsys.readouterr().out)["comparison"]["cells"][0]["rows"][0]
    assert unknown["doubt"] == "measured in different nights, whose own spread is not known"
    assert main(["check", last, "--baseline", best, "--json"]) == 0
    known = json.loads(capsys.readouterr().out)["comparison"]["cells"][0]["rows"][0]
    assert known["ratio"] == pytest.approx(1 / 0.96)
    assert known["minimum_effect"] > 0.1
    assert main(["compare", best, last, "--json"]) == 0  # whoever asks
    alone = json.loads(capsys.readouterr().out)
    row = next(r for r in alone["cells"][0]["rows"] if r["metric"] == "latency_median")
    assert (row["verdict"], row["minimum_effect"]) == ("unchanged", known["minimum_effect"])
    assert row["doubt"] == known["doubt"]
    assert main(["compare", best, last, "--allow-different-hardware", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == alone
    assert main(["compare", "results", "old", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(alone)


def latest(here: Path, index: int) -> str:
    return f"results/{sorted(p.name for p in (here / 'results').iterdir())[index]}"


def test_a_sweep_without_any_result_was_not_measured(here: Path, capsys: Any) -> None:
    (here / "results" / "n3").mkdir(parents=True)
    manifest = Manifest(
        id="n3", name="n", label="3", plan_sha256="", launches=5, created_at="", state={},
        cells=(Cell("digits/x", "0"),),
    )  # fmt: skip
    (here / "results/n3/sweep.json").write_bytes(msgspec.json.encode(manifest))
    assert main(["check", "n3", "--baseline", "old", "--report-dir", "gate"]) == 3
    assert "digits/x: missing: planned, and not measured" in capsys.readouterr().out
    assert (here / "gate/junit.xml").exists()
    assert main(["check", "n4", "--baseline", "old"]) == 2


def test_a_broken_file_is_reported_and_left_out(here: Path, capsys: Any) -> None:
    (here / "slow" / "20261121T020000Z-cut-000000").mkdir()
    (here / "slow" / "20261121T020000Z-cut-000000" / "result.json").write_bytes(b"{")
    assert main(["check", "slow", "--baseline", "old", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "cut short" in err and err.startswith("harness: ")
    assert any("cut short" in problem for problem in json.loads(out)["comparison"]["problems"])


def test_compare_of_sets(here: Path, capsys: Any) -> None:
    write(here / "old", made(1.0, batch_size=8))
    write(here / "slow", made(1.0, batch_size=8), made(0.5, precision="int8", batch_size=8))
    assert main(["compare", "old", "slow"]) == 0  # whatever the verdict
    assert capsys.readouterr().out.splitlines()[-1] == (
        "3 cells: 1 regressed, 1 unchanged, 1 not comparable"
    )
    assert main(["compare", "slow", "--across", "precision", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (compared,) = [cell for cell in found["cells"] if not cell["apart"]]
    assert compared["rows"][0]["ratio"] == pytest.approx(0.5)


def test_compare_of_sets_that_share_nothing(here: Path, capsys: Any) -> None:
    write(here / "other", made(1.0, batch_size=8), made(1.0, batch_size=4))
    assert main(["compare", "old", "other"]) == 4
    assert capsys.readouterr().err == (
        "harness: nothing could be compared: only A has this cell; "
        "cells that differ in one field compare with --across FIELD\n"
    )
    assert main(["compare", "old"]) == 2
    assert "name B, or give --across FIELD" in capsys.readouterr().err


def test_a_pass_says_how_much_of_it_is_undecided() -> None:
    """Two launches decide nothing: of three speeds none, and of two other figures the size."""
    report = judge([made(1.0)], [made([1.0, 1.0])])
    told = "3 of 3 speeds undecided"
    assert report.outcome == "pass" and str(report.undecided).startswith(told)
    assert (report.undecided.speeds, report.undecided.of_speeds) == (3, 3)
    assert f"gate: pass, {told}" in to_text(render_gate(report), 200)
    assert f"## Gate passed: nothing is worse than allowed; {told}" in render_gate_markdown(report)
    suite = ET.fromstring(render_junit(report))[0]
    properties = {one.get("name"): one.get("value") for one in suite[0]}
    assert (properties["undecided_speeds"], properties["undecided_of_speeds"]) == ("3", "3")
    assert msgspec.json.decode(msgspec.json.encode(report))["undecided"]["speeds"] == 3
    certain = judge([made(1.0)], [made(1.0)])
    assert str(certain.undecided) == "" and certain.undecided.of_speeds == 3
    assert "gate: pass (exit code 0)" in to_text(render_gate(certain), 200)


def test_a_report_says_how_much_it_could_not_judge() -> None:
    both = made(1.0), made([1.0], precision="int8")
    report = gather([(run, Path(run.id, "result.json")) for run in both])
    assert str(report.undecided).startswith("2 of 2 speeds undecided")
    assert b"2 of 2 speeds undecided" in markdown_of(report)
    assert b"2 of 2 speeds undecided" in html_of(report)


def test_an_export_says_how_many_figures_are_absent() -> None:
    run = made(1.0)
    absent = sum(isinstance(single(run, name), Unavailable) for name in METRICS)
    (note,) = csv_of([run], [Path("result.json")]).notes
    assert note.startswith(f"{absent} of {len(METRICS)} figures are absent")
    (note,) = junit_of([run], [Path("result.json")]).notes
    assert note == "3 of 8 figures are absent: each is skipped with its reason"
