"""What took turns in a duel is kept apart from what ran by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import made

from harness.cli.main import main
from harness.compare.asked import compare
from harness.compare.comparison import compare_runs
from harness.compare.duel import by_policy, of_duel
from harness.compare.gate.confirm import confirmed, open_cells
from harness.compare.gate.judge import GateReport, judge, settings_of
from harness.compare.paired import Design, Paired, Rounds, paired
from harness.compare.policy import Limit, Policy
from harness.compression.from_results import board_from
from harness.errors import UsageError
from harness.maybe import Unavailable
from harness.records.cell import cell_of, fits
from harness.records.result import Result
from harness.spec import TURNS

SEPARATE = "digits/onnxruntime/cpu/fp32/b1/latency"


def turned(duel: str, median_ms: float = 1.0, **spec: Any) -> Result:
    tags = {"duel": duel, "design": TURNS, "duel_variant": str(spec.get("precision", ""))}
    run, none = made(median_ms, tags=tags, **spec), Unavailable("it took turns")
    launches = tuple(
        msgspec.structs.replace(one, inferences_per_s=none) for one in run.timing.launches
    )
    timing = msgspec.structs.replace(run.timing, launches=launches)
    return msgspec.structs.replace(run, timing=timing, throughput=none)


def a_duel(folder: Path, name: str, ratio: float = 0.9, **tags: str) -> list[Result]:
    """FP32 and INT8, as `harness duel` leaves them in ``folder``: INT8 takes ``ratio``."""
    runs = [turned(name, precision=one) for one in ("fp32", "int8")]
    runs = [
        msgspec.structs.replace(
            run,
            tags={**run.tags, **tags},
            spec=msgspec.structs.replace(run.spec, tags={**run.tags, **tags}),
        )
        for run in runs
    ]
    record = a_record(("fp32", "int8"), runs, ratio)
    write(folder / name, *runs)
    comparison = msgspec.json.encode(of_duel(record, runs))
    (folder / name / "comparison.json").write_bytes(comparison)
    return runs


def a_record(names: tuple[str, str], runs: list[Result], ratio: float) -> Paired:
    """Of five launches, all alike."""
    design = Design(block_ms=20.0, left_out=1, seed=0, goal=None, cpus=(0,))
    rounds = [
        Rounds(
            latency=tuple(tuple(f * (1e6 + 1e3 * (i % 7)) for i in range(40)) for f in (1, ratio)),
            cold=((1.0,) * 40,) * 2, cpu=((1e6,) * 40, (9e5,) * 40), resting=(0.0, 0.0),
        )
        for _ in range(5)
    ]  # fmt: skip
    return paired(names, [run.id for run in runs], design, rounds, "launches")


def write(folder: Path, *runs: Result) -> None:
    for run in runs:
        (folder / run.id).mkdir(parents=True)
        (folder / run.id / "result.json").write_bytes(msgspec.json.encode(run))


def test_a_run_of_a_duel_is_another_cell_than_one_by_itself() -> None:
    alone, duelled = cell_of(made()), cell_of(turned("d"))
    assert alone.name == SEPARATE
    assert duelled.name == f"{SEPARATE}@turns"
    assert alone.key != duelled.key
    assert cell_of(turned("another")) == duelled
    assert fits(duelled.name, "digits/*/fp32/*") and not fits(duelled.name, SEPARATE)


def test_a_history_keeps_the_two_apart(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path, made(1.0), made(1.0), turned("d", 3.0))
    assert main(["history", SEPARATE, "--json", "--results", str(tmp_path)]) == 0
    (series,) = json.loads(capsys.readouterr().out)
    assert [night["value"] for night in series["nights"]] == [1.0, 1.0]
    assert main(["history", f"{SEPARATE}@turns", "--json", "--results", str(tmp_path)]) == 0
    (series,) = json.loads(capsys.readouterr().out)
    assert [night["value"] for night in series["nights"]] == [3.0]


def test_the_gate_does_not_hold_the_one_against_the_other(tmp_path: Path, capsys: Any) -> None:
    alone, duelled = made(1.0), turned("d", 3.0)
    write(tmp_path, alone, duelled)
    arguments = [duelled.id, "--baseline", alone.id, "--json", "--results", str(tmp_path)]
    assert main(["check", *arguments]) == 4
    report = json.loads(capsys.readouterr().out)
    assert report["outcome"] == "nothing compared"


def test_the_board_pools_and_pairs_them_apart(tmp_path: Path) -> None:
    runs = [made(2.0), made(1.0, precision="int8"), *a_duel(tmp_path, "d")]
    entries = board_from(runs, [tmp_path / run.tags.get("duel", "") / run.id for run in runs])
    told = {(e.precision, e.setting): e for e in entries.entries}
    assert set(told) == {(p, s) for p in ("fp32", "int8") for s in ("", "in turns")}
    assert told["int8", ""].reference_run == told["fp32", ""].run
    assert told["int8", "in turns"].reference_run == told["fp32", "in turns"].run
    assert told["int8", "in turns"].judged["latency_ms"].design == TURNS


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (turned("one"), turned("two"), "each took turns in a duel of its own"),
        (turned("one"), made(), "A took turns in a duel, after rests, and B ran by itself"),
        (made(), turned("two"), "B took turns in a duel, after rests, and A ran by itself"),
        (made(), made(), ""),
    ],
)
def test_runs_that_took_no_turns_with_each_other_are_separate(
    a: Result, b: Result, why: str
) -> None:
    found = compare_runs(a, b)
    assert found.design == "separate launches"
    row = next(row for row in found.cells[0].rows if row.metric == "latency_median")
    assert row.verdict == "unchanged"
    assert row.doubt.startswith(why) if why else row.doubt == ""


def test_sets_show_the_paired_ratio_of_those_that_did(tmp_path: Path) -> None:
    runs = [*a_duel(tmp_path, "d", 0.9, sweep="s"), made(2.0, backend="pytorch"),
            made(1.0, backend="pytorch", precision="int8")]  # fmt: skip
    write(tmp_path / "s", *runs[2:])
    from harness.compare.asked import judged
    from harness.records.refs import resolve

    sides = resolve(str(tmp_path), tmp_path)
    found = judged(sides, sides, tmp_path, across="precision=fp32,int8")
    latency = {cell.cell: cell.rows[0] for cell in found.cells}
    assert latency["digits/onnxruntime/cpu/int8/b1/latency@turns"].ratio == pytest.approx(0.9)
    other = latency["digits/pytorch/cpu/int8/b1/latency"]
    assert other.ratio == pytest.approx(0.5) and not other.reason.startswith(TURNS)
    assert found.design == "separate launches"  # of the other cell; each row says its own
    alone = compare(runs[0], runs[1], results=tmp_path)
    assert alone.design == TURNS


# -- the gate, where both builds took turns -------------------------------------------------------


def confirmed_by(ratio: float, minimum_effect: float | None = None) -> GateReport:
    """A night that is 30 % worse in latency and throughput; side by side it is ``ratio``."""
    limits = () if minimum_effect is None else (
        Limit(metric="latency_median", minimum_effect=minimum_effect),
    )  # fmt: skip
    policy = Policy(metrics=("latency_median", "throughput"), limit=limits)
    report = judge([slower(1.0)], [slower(1.3)], policy)
    assert {case.metric for case in report.cases if case.code == 1} == {
        "latency_median", "throughput",
    }  # fmt: skip
    runs = [turned("d", value) for value in (1.0, ratio)]
    record = a_record(("baseline", "candidate"), runs, ratio)
    again = by_policy({SEPARATE: (record, *runs)}, settings_of(policy))
    assert again.schema == "harness.comparison/1" and again.design == TURNS
    assert open_cells(report, again) == []
    found = confirmed(report, [again], {})
    assert found.confirmations == (again,)
    return found


def slower(level: float) -> Result:
    run = made(level)
    launches = tuple(
        msgspec.structs.replace(one, window_s=2.0 * one.median_ms) for one in run.timing.launches
    )
    return msgspec.structs.replace(
        run, timing=msgspec.structs.replace(run.timing, launches=launches)
    )


def test_what_is_worse_in_turns_too_is_confirmed_throughput_with_it() -> None:
    found = confirmed_by(1.2)
    assert found.exit_code == 1
    latency, throughput = (
        next(case for case in found.cases if case.metric == name)
        for name in ("latency_median", "throughput")
    )
    assert "; confirmed side by side, paired rounds: worse by 20.0 %" in latency.message
    assert "by the latency, whose other side it is" in throughput.message


def test_what_is_not_worse_in_turns_was_the_night() -> None:
    found = confirmed_by(1.0)
    assert found.exit_code == 0
    kinds = {case.metric: case.kind for case in found.cases if case.metric}
    assert kinds == {"latency_median": "not confirmed", "throughput": "not confirmed"}


def test_the_policy_says_how_small_a_paired_change_counts() -> None:
    assert confirmed_by(1.05).exit_code == 1
    assert confirmed_by(1.05, minimum_effect=0.1).exit_code == 0
    assert confirmed_by(1.01).exit_code == 0  # below the 2 % of every latency


def test_what_a_duel_cannot_say_is_left_to_separate_launches() -> None:
    report = judge([slower(1.0)], [slower(1.3)], Policy(metrics=("throughput",)))
    runs = [turned("d"), turned("d")]
    record = a_record(("baseline", "candidate"), runs, 1.0)
    again = by_policy({SEPARATE: (record, *runs)}, settings_of(Policy(metrics=("throughput",))))
    assert open_cells(report, again) == [SEPARATE]
    left = confirmed(report, [again], {SEPARATE: "it hung"})
    assert left.exit_code == 1  # a figure that is absent the second time acquits nobody
    assert "could not be confirmed: it hung" in left.cases[0].message


def test_whoever_judges_separate_launches_names_the_duel_where_the_machine_changed() -> None:
    from harness.report import html, markdown
    from harness.report.gather import gather

    runs = [on_a_machine(made(1.0), 1.0), on_a_machine(made(1.1, precision="int8"), 1.3)]
    told = "let both take turns: harness duel"

    found = compare_runs(*runs)
    row = next(row for row in found.cells[0].rows if row.metric == "latency_median")
    assert (row.verdict, told in row.reason) == ("inconclusive", True)
    again = on_a_machine(made(1.1), 1.3)
    case = next(c for c in judge(runs[:1], [again]).cases if c.metric == "latency_median")
    assert (case.kind, told in case.message) == ("inconclusive", True)
    entry = board_from(runs).entries[1]
    assert entry.judged["latency_ms"].verdict == "inconclusive"
    assert told in entry.judged["latency_ms"].reason
    report = gather([(run, Path(run.id, "result.json")) for run in runs])
    assert told in html.render(report).decode()
    assert "inconclusive: the machine changed; harness duel" in markdown.render(report).decode()


def on_a_machine(run: Result, yardstick_ms: float) -> Result:
    both = (yardstick_ms, yardstick_ms)
    launches = tuple(msgspec.structs.replace(one, yardstick_ms=both) for one in run.timing.launches)
    return msgspec.structs.replace(
        run, timing=msgspec.structs.replace(run.timing, launches=launches)
    )


def test_a_report_says_which_ratio_is_paired(tmp_path: Path) -> None:
    from harness.report import html, markdown
    from harness.report.gather import gather

    runs = a_duel(tmp_path, "d", 0.9)
    report = gather([(run, tmp_path / "d" / run.id / "result.json") for run in runs])
    assert report.judged[0].paired is not None
    assert report.board.entries[1].ratios["speedup"] == pytest.approx(1 / 0.9)
    assert "improved, paired rounds" in markdown.render(report).decode()
    assert "paired rounds: better by 10.0 %" in html.render(report).decode()


def test_a_bisection_does_not_hold_a_run_by_itself_against_it(tmp_path: Path) -> None:
    from harness.compare.culprit import known
    from harness.sweep.again import measure_again

    with pytest.raises(UsageError, match="took turns in a duel, and a run by itself says nothing"):
        measure_again(known("night", turned("d"), 1.0), "latency_median", 6, tmp_path / "out")
    assert not (tmp_path / "out").exists()
