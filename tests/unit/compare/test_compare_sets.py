"""Sets of results: pooled by cell, matched, judged together; nothing left out in silence."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import SPREAD, failed, made
from scipy import stats

from harness.compare.comparison import (
    CellComparison,
    Comparison,
    compare_runs,
    compare_sets,
    counts,
)
from harness.compare.gate.judge import judge, regressions
from harness.compare.match import Across, match, match_across, parse_across
from harness.compare.series import NightSpreads
from harness.compare.sides import group
from harness.compare.verdicts import MetricVerdict, Settings
from harness.errors import NothingComparable, UsageError
from harness.maybe import Unavailable
from harness.records.metric import METRICS
from harness.records.result import ModelInfo, Result
from harness.report.gather import JUDGED, gather
from harness.stats.mcnemar import mcnemar
from harness.stats.two_samples import adjust, night_floor
from harness.views.comparison import render_pair, render_sets
from harness.views.comparison_matrix import distinct
from harness.views.terminal import to_text

CELL = "digits/onnxruntime/cpu/fp32/b1/latency"


def rows(report: CellComparison) -> dict[str, MetricVerdict]:
    return {row.metric: row for row in report.rows}


def only(found: Comparison) -> CellComparison:
    (report,) = found.cells
    return report


def test_launches_of_many_runs_and_of_one_run_pool_alike() -> None:
    sweep = [made([1.0 * s]) for s in SPREAD]  # one launch each, as a sweep leaves them
    found = only(compare_sets(sweep, [made(1.1)]))
    row = rows(found)["latency_median"]
    assert row.launches == (5, 5)
    assert (row.verdict, row.ratio) == ("regressed", pytest.approx(1.1))
    assert (row.a, row.b) == (pytest.approx(1.0), pytest.approx(1.1))
    assert rows(found)["throughput"].verdict == "regressed"  # higher is better there
    assert (found.a.launches, found.b.launches) == (5, 5)
    assert found.cell == CELL


def test_the_shown_ratio_agrees_with_the_shown_values() -> None:
    old, new = [1.0, 1.02, 0.99, 1.01, 1.0], [1.20, 1.21, 1.19, 1.22, 1.2]
    row = rows(only(compare_sets([made(old)], [made(new)])))["latency_median"]
    assert (row.a, row.b) == (median(old), median(new))
    assert row.b / row.a == pytest.approx(row.ratio, rel=0.01)


def test_every_p_value_is_adjusted_for_all_the_others() -> None:
    a = [made(1.0, batch_size=n) for n in (1, 2, 4)]
    b = [made(1.0 + 0.004 * n, batch_size=n) for n in (1, 2, 4)]
    found = compare_sets(a, b)
    tested = [row for cell in found.cells for row in cell.rows if isinstance(row.p, float)]
    assert found.comparisons == len(tested) == 9  # median, p99 and throughput of three cells
    alone = adjust([(0.004, 0.996)], 0.01)[0]
    beside = adjust([(0.004, 0.996), (0.9, 0.1), (0.5, 0.5)], 0.01)[0]
    assert (alone.p_worse, alone.level) == (0.004, 0.01)
    assert beside.p_worse == pytest.approx(0.012)
    assert beside.level == pytest.approx(0.01 / 3)
    assert all(row.p_adjusted >= row.p for row in tested)


def test_the_smallest_change_that_can_be_seen_grows_with_the_family() -> None:
    noisy = [0.98, 1.02, 1.0, 0.99, 1.01]
    one = only(compare_sets([made(noisy)], [made(noisy)]))
    sides = [[made(noisy, batch_size=n) for n in range(1, 40)] for _ in "ab"]
    many = compare_sets(*sides)
    alone, beside = rows(one)["latency_median"], rows(many.cells[0])["latency_median"]
    assert 0.02 <= alone.detectable < beside.detectable


def test_other_hardware_is_named_and_never_judged() -> None:
    theirs = {"cpu": "Another CPU", "isa": "avx9"}
    other = made(2.0, fingerprint="else", factors=theirs)
    found = only(compare_sets([made(1.0)], [other]))
    assert (found.apart, found.rows) == ("other hardware", ())
    assert (found.fingerprint, found.hardware) == ("else", "Another CPU")  # of one machine
    assert found.reason == (
        "the machines differ: cpu (Imaginary CPU 9000 and Another CPU), isa (absent and avx9)"
    )
    shown = only(compare_sets([made(1.0)], [other], other_hardware=True))
    row = rows(shown)["latency_median"]
    assert (row.verdict, row.ratio) == ("not comparable", pytest.approx(2.0))


def test_each_machine_is_compared_with_itself() -> None:
    def fleet(slow: float) -> list[Result]:
        return [made(1.0), made(slow, fingerprint="b", factors={"cpu": "B"})]

    found = compare_sets(fleet(3.0), fleet(3.3))
    verdicts = {cell.hardware: rows(cell)["latency_median"].verdict for cell in found.cells}
    assert verdicts == {"Imaginary CPU 9000": "unchanged", "B": "regressed"}


def test_a_side_that_is_missing_or_failed_is_listed() -> None:
    a = [made(1.0), made(1.0, batch_size=2), failed(batch_size=4), made(1.0, batch_size=4)]
    b = [made(1.0), failed(batch_size=2), made(1.0, batch_size=4), made(1.0, batch_size=8)]
    found = {cell.cell.split("/")[4]: cell for cell in compare_sets(a, b).cells}
    assert (found["b1"].apart, found["b4"].apart) == ("", "")
    assert found["b2"].apart == "failed"
    assert found["b2"].reason.startswith("B failed: the worker was killed by SIGKILL while loading")
    assert (found["b8"].apart, found["b8"].reason) == ("missing", "only B has this cell")
    assert list(found["b4"].a.failed.values()) == ["the worker was killed by SIGKILL while loading"]
    assert counts(compare_sets(a, b)) == {"unchanged": 2, "not comparable": 2}


def test_a_run_that_died_before_its_machine_was_known_joins_its_cell() -> None:
    lost = failed()
    lost = msgspec.structs.replace(
        lost, machine=msgspec.structs.replace(lost.machine, fingerprint="half known")
    )
    (side,) = group([made(1.0), lost]).values()
    assert (len(side.finished), len(side.failed)) == (1, 1)


def test_another_boundary_is_another_benchmark() -> None:
    found = only(compare_sets([made(1.0)], [made(1.0, boundary="transfer")]))
    assert found.apart == "another benchmark"
    assert found.reason == "the benchmarks differ: boundary (compute and transfer)"


def test_one_launch_of_a_sweep_counts_once() -> None:
    def attempt(value: float, at: str) -> Result:
        tags = {"sweep": "s1", "launch": "3"}
        return made([value], started_at=f"2026-11-21T0{at}:00:00Z", tags=tags)

    (side,) = group([attempt(2.0, "3"), attempt(1.0, "2")]).values()
    assert [run.timing.launches[0].median_ms for run in side.finished] == [1.0]  # the first


def test_a_run_beside_itself_is_no_comparison() -> None:
    same = made(1.0)
    found = only(compare_sets([same], [same]))
    assert (found.apart, found.reason) == ("the same runs", f"{same.id} is on both sides")


def test_doubts_go_with_the_verdict() -> None:
    found = only(compare_sets([made(1.0)], [made(1.1, status="degraded")]))
    row = rows(found)["latency_median"]
    assert (row.verdict, row.doubt) == ("regressed", "B degraded (cpu steal)")
    assert rows(found)["file_size"].doubt == ""


# --- memory, size, accuracy ---


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([100_000] * 2, [100_900] * 2, "unchanged"),
        ([100_000] * 2, [101_100] * 2, "regressed"),
        ([100_000] * 2, [90_000] * 2, "improved"),
        ([100_000, 100_004], [110_000] * 2, "inconclusive"),  # a spread, and too few launches
        ([100_000], [110_000], "inconclusive"),
        ([100_000, 100_010] * 3, [110_000, 110_010] * 3, "regressed"),  # by the test
    ],
)
def test_memory_without_spread_is_judged_by_its_size_alone(
    a: list[int], b: list[int], verdict: str
) -> None:
    runs = [made([1.0 + i / 1000 for i in range(len(peaks))], memory=peaks) for peaks in (a, b)]
    row = rows(only(compare_sets(runs[:1], runs[1:])))["memory_peak"]
    assert row.verdict == verdict
    if verdict in ("unchanged", "improved"):
        assert not isinstance(row.p, float)


def test_a_file_size_is_exact() -> None:
    found = compare_sets([made(1.0, size_bytes=1000)], [made(1.0, size_bytes=1011)])
    row = rows(only(found))["file_size"]
    assert (row.verdict, row.ratio, row.interval) == ("regressed", 1.011, (1.011, 1.011))


@given(st.lists(st.sampled_from(["11", "10", "01", "00"]), min_size=1, max_size=200))
def test_mcnemar_is_the_binomial_test_of_what_differs(answers: list[str]) -> None:
    a, b = ("".join(side) for side in zip(*answers, strict=True))
    found = mcnemar(a, b)
    assert (found.lost, found.gained) == (answers.count("10"), answers.count("01"))
    for p, count in ((found.p_worse, found.lost), (found.p_better, found.gained)):
        total = found.lost + found.gained
        theirs = stats.binomtest(count, total, alternative="greater").pvalue if total else 1.0
        assert p == pytest.approx(theirs, rel=1e-9)


def test_mcnemar_needs_the_same_samples() -> None:
    with pytest.raises(NothingComparable, match="3 and 2 samples"):
        mcnemar("111", "11")


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        ("1" * 200, "unchanged"),
        ("0" * 12 + "1" * 188, "regressed"),  # p = 2^-12
        ("0" * 4 + "1" * 196, "inconclusive"),  # 2 % lost, p = 1/16
        ("0" * 1 + "1" * 199, "unchanged"),  # 0.5 %: of no consequence
    ],
)
def test_accuracy_is_tested_on_paired_answers(b: str, verdict: str) -> None:
    found = compare_sets([made(1.0, correct="1" * 200)], [made(1.0, correct=b)])
    row = rows(only(found))["top1"]
    assert row.verdict == verdict
    assert (row.a, row.b) == (1.0, b.count("1") / 200)
    if verdict == "regressed":
        assert row.p == pytest.approx(2.0**-12)
        assert "12 lost and 0 gained of 200 samples" in row.reason


def test_accuracies_on_other_data_do_not_compare() -> None:
    other = made(1.0, correct="1111")
    other = msgspec.structs.replace(
        other, accuracy=msgspec.structs.replace(other.accuracy, dataset_sha256="f" * 64)
    )
    row = rows(only(compare_sets([made(1.0, correct="1111")], [other])))["top1"]
    assert row.verdict == "not comparable"
    assert row.reason.endswith("(SHA-256 0123456789ab and ffffffffffff)")


def test_a_figure_that_one_side_lacks_does_not_compare() -> None:
    row = rows(only(compare_sets([made(1.0, correct="11")], [made(1.0)])))["top1"]
    assert (row.verdict, row.reason) == ("not comparable", "B has none: no labelled data")


# --- nights ---


def test_nights_that_differ_raise_the_minimum() -> None:
    tonight = made(1.05, started_at="2026-11-22T02:00:00Z")
    (cell,) = match(group([made(1.0)]), group([tonight]))
    unknown = only(compare_sets([made(1.0)], [tonight]))
    assert unknown.one_night is False
    row = rows(unknown)["latency_median"]
    assert (row.verdict, row.minimum_effect) == ("regressed", 0.02)
    assert row.doubt == "measured in different nights, whose own spread is not known"
    sds = {(cell.key, cell.fingerprint, "latency_median"): 0.02}
    known = only(compare_sets([made(1.0)], [tonight], Settings(night_sd=sds)))
    row = rows(known)["latency_median"]
    assert row.minimum_effect == pytest.approx(math.expm1(3 * math.sqrt(2) * 0.02))
    assert row.verdict == "unchanged"
    assert "changes count from 8.9 % on" in row.doubt


def test_one_sweep_or_one_night_has_no_such_floor() -> None:
    assert only(compare_sets([made(1.0)], [made(1.0)])).one_night is True
    late = "2026-11-21T12:00:00Z"
    assert only(compare_sets([made(1.0)], [made(1.0, started_at=late)])).one_night is False
    tags = {"sweep": "s1"}
    runs = made(1.0, tags={**tags, "launch": "1"}), made(1.0, tags=tags, started_at=late)
    assert only(compare_sets(runs[:1], runs[1:])).one_night is True
    assert night_floor(0.5, 0.02) == 0.5


# --- across a field ---


def test_a_sweep_compares_its_precisions() -> None:
    sweep = [made(v, precision=p, batch_size=n)
             for p, v in (("int8", 0.5), ("fp32", 1.0)) for n in (1, 8)]  # fmt: skip
    found = compare_sets(sweep, sweep, across=parse_across("precision"))
    assert [
        (cell.reference.split("/")[3:5], cell.cell.split("/")[3:5]) for cell in found.cells
    ] == [
        (["fp32", "b1"], ["int8", "b1"]),
        (["fp32", "b8"], ["int8", "b8"]),
    ]
    assert all(rows(c)["latency_median"].ratio == pytest.approx(0.5) for c in found.cells)
    turned = compare_sets(sweep, sweep, across=parse_across("precision=int8,fp32"))
    assert [rows(c)["latency_median"].verdict for c in turned.cells] == ["regressed"] * 2


def test_launches_of_one_sweep_are_alike_in_number_and_not_the_same_runs() -> None:
    sweep = [
        made([v * s], precision=p, tags={"sweep": "s1", "launch": str(launch)})
        for launch, s in enumerate(SPREAD, 1)
        for p, v in (("fp32", 1.0), ("int8", 0.5))
    ]
    found = only(compare_sets(sweep, sweep, across=parse_across("precision")))
    assert (found.apart, found.reason) == ("", "")
    assert rows(found)["latency_median"].verdict == "improved"


def test_what_has_no_partner_across_is_listed() -> None:
    sweep = [made(1.0), made(0.5, precision="int8"), made(1.0, batch_size=8)]
    apart = [m for m in match_across(sweep, sweep, Across("precision")) if m.apart]
    assert [(m.cell.split("/")[4], m.reason) for m in apart] == [
        ("b8", "no other cell differs from it in precision alone")
    ]


def test_across_batches_latency_does_not_compare_and_throughput_does() -> None:
    found = only(compare_sets([made(1.0)], [made(4.0, batch_size=8)], across=Across("batch_size")))
    assert rows(found)["latency_median"].verdict == "not comparable"
    assert rows(found)["throughput"].ratio == pytest.approx(2.0)


@pytest.mark.parametrize("text", ["speed", "precision=fp32", "precision=a,a", "precision=,", ""])
def test_across_refuses_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--across is"):
        parse_across(text)


# --- the environment ---


@pytest.mark.parametrize(("slow", "suspected"), [(3, True), (2, True), (1, False)])
def test_half_of_a_machines_cells_moving_together_is_the_machine(
    slow: int, suspected: bool
) -> None:
    a = [made(1.0, batch_size=n) for n in range(1, 5)]
    b = [made(1.2 if n <= slow else 1.0, batch_size=n) for n in range(1, 5)]
    told = compare_sets(a, b).environment
    expected = (
        f"environment suspected: {slow} of 4 cells on Imaginary CPU 9000 (5d41402abc4b) "
        "are slower together",
    )
    assert told == (expected if suspected else ())


# --- shown ---


def test_regressions_come_first_and_hostile_names_stay_harmless() -> None:
    evil = "\x1b[2Jx\u202e"
    a = [made(1.0, model="a.onnx"), made(1.0, model=f"{evil}.onnx")]
    b = [made(1.0, model="a.onnx"), made(1.3, model=f"{evil}.onnx")]
    text = to_text(render_sets(compare_sets(a, b, names=("old", evil))))
    assert not set(text) & {"\x1b", "\u202e"}
    assert text.index("regressed") < text.index("a/onnxruntime")
    assert text.splitlines()[-1] == "2 cells: 1 regressed, 1 unchanged"
    assert max(map(len, text.splitlines())) <= 80


def test_sets_begin_with_a_line_a_cell_and_a_column_a_metric() -> None:
    a = [made(1.0, batch_size=n) for n in (1, 2, 4)]
    b = [made(1.3, batch_size=1), made(1.0, batch_size=2), made(0.5, batch_size=4)]
    lines = to_text(render_sets(compare_sets(a, b, names=("old", "new")))).splitlines()
    assert lines[:4] == ["A  old", "B  new", "", lines[3]]
    # of a cell's name, what the others have as well is left out
    header, *table = (line.split() for line in lines[3:7])
    assert header[:3] == ["median", "p99", "/s"] and header[-1] == "cell"
    assert [row[:2] for row in table] == [["1.30", "!"], ["0.500", "+"], ["1.00", "="]]
    assert [row[-1] for row in table] == ["b1", "b4", "b2"]
    assert lines[7].startswith("B / A. ! regressed, ")
    one = to_text(render_sets(compare_sets(a[:1], b[:1])))
    assert "B / A. !" not in one  # of one cell the table below says all


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        (["a/ort/cpu/fp32", "a/ort/cpu/int8"], ["fp32", "int8"]),
        (["a/ort/fp32", "b/ort/int8"], ["a/fp32", "b/int8"]),
        (["a/b", "a/b/c"], ["a/b", "a/b/c"]),
        (["a/b", "a/b"], ["a/b", "a/b"]),  # on two machines
    ],
)
def test_cells_are_named_by_what_tells_them_apart(cells: list[str], shown: list[str]) -> None:
    assert distinct(cells) == shown


def test_doubts_that_differ_name_their_metrics() -> None:
    later = "2026-11-22T02:00:00Z"
    base = made(1.0)
    ((cell, fingerprint),) = group([base])
    sds = {(cell, fingerprint, name): 0.01 for name in ("latency_median", "throughput")}
    found = compare_sets([base], [made(1.0, started_at=later)], Settings(night_sd=sds))
    text = " ".join(to_text(render_sets(found)).split())
    assert "doubt (latency median, throughput): measured in different nights: changes" in text
    assert "doubt (latency p99, memory peak): measured in different nights, whose own" in text


def test_a_pair_says_in_its_heading_what_differs() -> None:
    a, b = made(1.0), made(0.5, precision="int8")
    report = only(compare_runs(a, b))
    assert report.differences["precision"] == ("fp32", "int8")
    text = to_text(render_pair(report, a, b))
    assert "A and B differ in precision fp32 / int8\n" in text and "differs:" not in text


# --- a pair is a comparison of one match ---


def test_two_runs_of_a_cell_are_judged_like_the_sets_that_hold_them() -> None:
    a, b = made(1.0), made(1.05, started_at="2026-11-22T02:00:00Z")
    ((key, fingerprint),) = group([a])
    sds = {(key, fingerprint, name): 0.02 for name in METRICS}
    for settings in (Settings(), Settings(night_sd=sds)):
        pair, sets = compare_runs(a, b, settings), compare_sets([a], [b], settings)
        apart = {row.metric: row for row in only(sets).rows}
        alike = {row.metric: row for row in only(pair).rows if row.metric in apart}
        assert alike == apart
        gate = judge([a], [b], night_sd=settings.night_sd)
        assert {r.metric: r for r in only(gate.comparison).rows} == apart
    assert alike["latency_median"].verdict == "unchanged"
    names = [set(msgspec.to_builtins(one)) for one in (pair, sets)]
    assert names[0] == names[1] and pair.schema == sets.schema == "harness.comparison/1"


def test_two_runs_of_different_cells_allow_for_the_nights_of_both() -> None:
    a, b = made(1.0), made(1.05, precision="int8", started_at="2026-11-22T02:00:00Z")
    keys = [next(iter(group([run]))) for run in (a, b)]
    sds = {(*keys[0], "latency_median"): 0.01, (*keys[1], "latency_median"): 0.03}
    row = rows(only(compare_runs(a, b, Settings(night_sd=sds))))["latency_median"]
    both = math.sqrt((0.01**2 + 0.03**2) / 2)
    assert row.minimum_effect == pytest.approx(math.expm1(3 * math.sqrt(2) * both))
    del sds[(*keys[0], "latency_median")]
    row = rows(only(compare_runs(a, b, Settings(night_sd=sds))))["latency_median"]
    assert row.minimum_effect == pytest.approx(math.expm1(3 * math.sqrt(2) * 0.03))
    assert row.doubt.endswith("by the nights of B alone")


def test_a_report_judges_as_the_comparison_of_two_runs() -> None:
    a, b = made(1.0), made(1.05, precision="int8", started_at="2026-11-22T02:00:00Z")
    sds = {(*next(iter(group([run]))), "latency_median"): 0.02 for run in (a, b)}
    runs = [(run, Path(run.id, "result.json")) for run in (a, b)]
    (judged,) = gather(runs, night_sd=sds).judged
    compared = rows(only(compare_runs(a, b, Settings(night_sd=sds))))
    assert {row.metric: row for row in judged.rows} == {
        name: row
        for name, row in compared.items()
        if name in JUDGED and not isinstance(row.a, Unavailable)
    }
    assert compared["latency_median"].verdict == "unchanged"


def test_the_same_question_has_the_same_answer_whoever_asks(tmp_path: Path) -> None:
    """Ten nights of both precisions that lie 4 % up and down; the last two are held together.

    Pair, sets, sets across, gate, promotion and report read one history, and judge by it.
    """
    levels = (1.0, 1.04, 0.96, 1.0, 1.04, 0.96, 1.0, 1.04, 0.96, 1.0)
    runs = {
        precision: [
            made(level, precision=precision, started_at=f"2026-11-{day:02d}T02:00:00Z")
            for day, level in enumerate(levels, 1)
        ]
        for precision in ("fp32", "int8")
    }
    for run in (*runs["fp32"], *runs["int8"]):
        (folder := tmp_path / run.id).mkdir()
        (folder / "result.json").write_bytes(msgspec.json.encode(run))
    settings = Settings(night_sd=NightSpreads(tmp_path))
    a, b = runs["fp32"][-2:]
    alone = rows(only(compare_runs(a, b, settings)))
    assert alone["latency_median"].minimum_effect > 0.1
    assert alone["latency_median"].verdict == "unchanged"
    assert only(compare_sets([a], [b], settings)).rows == tuple(
        row for row in alone.values() if not isinstance(row.a, Unavailable) and row.metric != "f1"
    )
    gate = judge([a], [b], night_sd=settings.night_sd)
    assert only(gate.comparison).rows == only(compare_sets([a], [b], settings)).rows
    assert regressions([a], [b], settings.night_sd) == []

    b = runs["int8"][-1]
    pair = rows(only(compare_runs(a, b, settings)))
    across = rows(only(compare_sets([a], [b], settings, across=parse_across("precision"))))
    assert across == {name: row for name, row in pair.items() if name in across}
    files = [(run, tmp_path / run.id / "result.json") for run in (a, b)]
    (reported,) = gather(files, night_sd=settings.night_sd).judged
    assert reported.rows == tuple(row for name, row in across.items() if name in JUDGED)
    assert pair["latency_median"].verdict == "unchanged"


def test_a_run_beside_itself_is_exactly_one() -> None:
    run = made([1.0, 1.3, 0.9, 1.1, 7.0])
    for row in only(compare_runs(run, run)).rows:
        assert row.a == row.b
        assert row.ratio == 1.0 or isinstance(row.a, Unavailable) or row.metric == "f1"


def test_two_runs_that_share_no_figure_say_why() -> None:
    report = only(compare_runs(made(1.0), failed()))
    assert (report.apart, report.rows) == ("failed", ())
    assert "share no figure" in report.reason and "SIGKILL" in report.reason


# --- which model ---


def of_model(content: str, *given: float, **spec: str) -> Result:
    """A run of a model file with this content."""
    run = made(*given, **spec)
    assert isinstance(run.model, ModelInfo)
    return msgspec.structs.replace(run, model=msgspec.structs.replace(run.model, sha256=content))


def test_models_of_one_file_name_are_compared_each_with_itself() -> None:
    before = [
        of_model("s", 1.0, model="small/model.onnx"),
        of_model("l", 9.0, model="large/model.onnx"),
    ]
    after = [
        of_model("l", 9.0, model="large/model.onnx"),
        of_model("s", 1.0, model="small/model.onnx"),
    ]
    found = match(group(before), group(after))
    assert [m.cell.split("/onnxruntime")[0] for m in found] == ["small/model", "large/model"]
    for m in found:
        assert m.a is not None and m.b is not None
        assert m.a.first.spec.model == m.b.first.spec.model


def test_a_model_of_another_checkout_is_the_same_cell_where_it_is_the_only_one() -> None:
    before, after = (
        of_model("1", 1.0, model="/ci/17/net.onnx"),
        of_model("2", 1.0, model="net.onnx"),
    )
    (one,) = match(group([before]), group([after]))
    assert (one.apart, one.a and one.a.first, one.b and one.b.first) == ("", before, after)
    assert only(compare_sets([before], [after])).differences["model file"] == ("1", "2")
    two = [after, of_model("3", 1.0, model="other/net.onnx")]
    assert {m.apart for m in match(group([before]), group(two))} == {"missing", "another benchmark"}


@pytest.mark.parametrize(("content", "pairs"), [("1", 1), ("2", 0)])
def test_an_int8_is_compared_with_the_fp32_that_it_was_made_from(content: str, pairs: int) -> None:
    sides = [
        of_model("1", 1.0, model="net.onnx"),
        of_model(content, 0.5, model="net.onnx", precision="int8"),
    ]
    found = match_across(sides, sides, Across("precision", ("fp32", "int8")))
    assert len([m for m in found if not m.apart]) == pairs


@pytest.mark.parametrize(
    ("yardsticks", "times", "verdict"),
    [
        ((2.0, 2.0), 1.10, "regressed"),
        ((2.0, 2.18), 1.10, "regressed"),  # the machine was slower by 9 %, the run by 10 %
        ((2.0, 2.24), 1.10, "inconclusive"),
        ((2.0, 1.78), 1.10, "inconclusive"),  # faster by more than that: the effect may be larger
        ((2.0, 2.02), 1.0, "unchanged"),
        ((2.0, 2.2), 1.0, "inconclusive"),  # a change as large may hide behind it
        ((None, 3.0), 1.10, "regressed"),  # of files of before nobody knows
    ],
)
def test_a_machine_that_changed_by_more_than_the_effect_decides_nothing(
    yardsticks: tuple[float | None, float | None], times: float, verdict: str
) -> None:
    sides = [
        _beside_a_yardstick(made(median_ms), yardstick)
        for median_ms, yardstick in zip((1.0, times), yardsticks, strict=True)
    ]
    found = rows(only(compare_sets([sides[0]], [sides[1]])))
    assert found["latency_median"].verdict == verdict
    if verdict == "inconclusive":
        assert "the machine itself was " in found["latency_median"].reason
    assert found["memory_peak"].verdict == "unchanged"  # no time


def _beside_a_yardstick(run: Result, took_ms: float | None) -> Result:
    if took_ms is None:
        return run
    replace = msgspec.structs.replace
    launches = tuple(replace(one, yardstick_ms=(took_ms, took_ms)) for one in run.timing.launches)
    return replace(run, timing=replace(run.timing, launches=launches))
