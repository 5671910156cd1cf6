"""The gate: which cases there are, what each costs, and what it never passes in silence."""

from __future__ import annotations

import tomllib
from datetime import date
from typing import Any

import pytest
from made_runs import failed, made

from harness.compare.gate.judge import Case, GateReport, judge, regressions
from harness.compare.policy import parse_policy
from harness.errors import NothingComparable, UsageError
from harness.records.result import Result

CELL = "digits/onnxruntime/cpu/fp32/b1/latency"
TODAY = date(2026, 11, 21)


def gate(old: list[Result], new: list[Result], policy: str = "", **options: Any) -> GateReport:
    return judge(old, new, parse_policy(tomllib.loads(policy)), today=TODAY, **options)


def case_of(report: GateReport, metric: str, check: str = "change") -> Case:
    (found,) = [c for c in report.cases if (c.metric, c.check) == (metric, check)]
    return found


def test_nothing_worse_passes_and_a_regression_does_not() -> None:
    green = gate([made(1.0)], [made(1.0)])
    assert (green.exit_code, green.outcome) == (0, "pass")
    red = gate([made(1.0)], [made(1.1)])
    assert (red.exit_code, red.outcome) == (1, "regression")
    worst = red.cases[0]
    assert (worst.cell, worst.kind, worst.code) == (CELL, "regressed", 1)
    assert case_of(red, "file_size").code == 0
    assert gate([made(1.1)], [made(1.0)]).exit_code == 0


def test_regressions_are_lines_for_whoever_promotes_a_baseline() -> None:
    assert regressions([made(1.0)], [made(1.0)]) == []
    lines = regressions([made(1.0)], [made(1.1)])
    assert lines[0].startswith(f"{CELL}: latency_median regressed: worse by 10.0 %, beyond ")
    assert {line.split(": ")[1] for line in lines} == {
        "latency_median regressed", "latency_p99 regressed", "throughput regressed",
    }  # fmt: skip
    gone = [made(1.0), made(1.0, batch_size=2)], [made(1.0), failed(batch_size=2)]
    assert [line.split(": ")[1] for line in regressions(*gone)] == ["failed"]
    with pytest.raises(NothingComparable, match="only A has this cell; 1 more reason"):
        regressions([made(1.0)], [made(1.0, batch_size=2)])


@pytest.mark.parametrize("strict", [False, True])
def test_too_few_launches_are_undecided(strict: bool) -> None:
    report = gate([made(1.0)], [made([2.0, 2.0])], strict=strict)
    assert report.exit_code == (5 if strict else 0)
    found = case_of(report, "latency_median")
    assert found.kind == "inconclusive"
    assert found.message.startswith("5 and 2 launches; 5 a side are needed")
    assert gate([made(1.0)], [made([2.0, 2.01])], "minimum_launches = 2").exit_code == 1


def test_a_failed_cell_is_not_a_regression() -> None:
    report = gate([made(1.0), made(1.0, batch_size=2)], [made(1.0), failed(batch_size=2)])
    assert (report.exit_code, report.outcome) == (3, "failed")
    assert report.cases[0].message.startswith("B failed: the worker was killed by SIGKILL")
    both = gate([made(1.0), made(1.0, batch_size=2)], [made(1.5), failed(batch_size=2)])
    assert both.exit_code == 1  # the regression is the stronger news


@pytest.mark.parametrize("strict", [False, True])
def test_an_attempt_that_failed_beside_one_that_finished(strict: bool) -> None:
    report = gate([made(1.0)], [failed(), made(1.0)], strict=strict)
    assert report.exit_code == (3 if strict else 0)
    found = case_of(report, "", "measured")
    assert (found.kind, found.code) == ("failed", 3 * strict)


@pytest.mark.parametrize("strict", [False, True])
def test_cells_of_one_side_are_listed(strict: bool) -> None:
    old, new = [made(1.0), made(1.0, batch_size=2)], [made(1.0), made(1.0, batch_size=4)]
    report = gate(old, new, strict=strict)
    assert report.exit_code == (4 if strict else 0)
    assert report.outcome == ("not compared" if strict else "pass")  # b1 was
    kinds = {case.cell.split("/")[4]: case.kind for case in report.cases if not case.metric}
    assert kinds == {"b2": "missing", "b4": "not comparable"}


def test_a_cell_that_was_expected_and_is_missing_is_told_once() -> None:
    old, new = [made(1.0), made(1.0, batch_size=2)], [made(1.0)]
    report = gate(old, new, "[expect]\ncells = ['*/b2/*']")
    (missing,) = (case for case in report.cases if case.kind == "missing")
    assert (report.exit_code, missing.check, missing.code) == (3, "expected", 3)


def test_nothing_compared_is_never_success() -> None:
    for old, new in (
        ([made(1.0)], [made(1.0, batch_size=2)]),
        ([made(1.0)], []),
        ([], [made(1.0)]),
        ([], []),
        ([made(1.0)], [made(1.0, fingerprint="else", factors={"cpu": "Other"})]),
    ):
        report = gate(old, new)
        assert (report.exit_code, report.outcome) == (4, "nothing compared")
        assert case_of(report, "", "anything").code == 4
    same = made(1.0)
    assert gate([same], [same]).exit_code == 4
    assert gate([made(1.0)], [failed()]).exit_code == 3


def test_other_hardware_shows_ratios_that_neither_pass_nor_fail() -> None:
    other = made(9.0, fingerprint="else", factors={"cpu": "Other"})
    report = gate([made(1.0)], [other], other_hardware=True, strict=True)
    found = case_of(report, "latency_median")
    assert (found.kind, found.code) == ("not comparable", 0)
    assert found.row is not None and found.row.ratio == pytest.approx(9.0)
    assert report.exit_code == 4  # nothing was compared


# --- limits ---


def test_limits_per_metric_and_cell() -> None:
    old, new = [made(1.0), made(1.0, batch_size=8)], [made(1.04), made(1.04, batch_size=8)]
    wide = '[[limit]]\nmetric = "{}"\nminimum_effect = 0.1\n'
    policy = "".join(wide.format(name) for name in ("latency_median", "latency_p99", "throughput"))
    assert gate(old, new).exit_code == 1
    assert gate(old, new, policy).exit_code == 0
    narrow = (
        policy + f'[[limit]]\ncell = "{CELL}"\nmetric = "latency_median"\nminimum_effect = 0.02'
    )
    red = [case for case in gate(old, new, narrow).cases if case.code]
    assert [(case.cell, case.metric) for case in red] == [(CELL, "latency_median")]


@pytest.mark.parametrize(
    ("limit", "kind"),
    [("maximum = 0.9", "limit broken"), ("maximum = 1.1", "within limit"),
     ("minimum = 1.1", "limit broken"), ("minimum = 0.9", "within limit")],
)  # fmt: skip
def test_absolute_limits_hold_whatever_the_baseline(limit: str, kind: str) -> None:
    report = gate([made(1.0)], [made(1.0)], f'[[limit]]\nmetric = "latency_median"\n{limit}')
    found = case_of(report, "latency_median", limit.split()[0])
    assert found.kind == kind
    assert report.exit_code == (1 if kind == "limit broken" else 0)


def test_a_limit_on_what_was_not_measured_is_not_kept_in_silence() -> None:
    policy = '[[limit]]\nmetric = "energy_per_inference"\nmaximum = 1.0'
    report = gate([made(1.0)], [made(1.0)], policy)
    found = case_of(report, "energy_per_inference", "maximum")
    assert (found.kind, found.code) == ("not comparable", 0)
    assert gate([made(1.0)], [made(1.0)], policy, strict=True).exit_code == 4


def test_accuracy_must_keep_its_share_of_fp32s() -> None:
    right, fewer = "1" * 200, "1" * 197 + "0" * 3
    fp32 = made(1.0, correct=right)
    old = [fp32, made(0.5, precision="int8", correct=fewer)]
    new = [made(1.0, correct=right), made(0.5, precision="int8", correct=fewer)]
    report = gate(old, new)
    broken = [case for case in report.cases if case.check == "floor" and case.code]
    assert [case.message for case in broken] == ["98.50%, FP32 100.00%, floor 0.99 of it"]
    assert (broken[0].kind, report.exit_code) == ("accuracy floor", 1)
    assert gate(old, new, '[[limit]]\nmetric = "top1"\nfloor_of_fp32 = 0.98').exit_code == 0
    assert gate(old, new[1:]).exit_code == 1  # FP32 of the baseline serves, too
    assert gate(old[1:], new[1:]).exit_code == 0  # no FP32 anywhere, no floor asked for
    asked = '[[limit]]\nmetric = "top1"\nfloor_of_fp32 = 0.9'
    assert gate(old[1:], new[1:], asked, strict=True).exit_code == 4


# --- waivers, quarantine, expected cells ---


def waiver(ceiling: float, expires: str = "2026-11-21", metric: str = "latency_median") -> str:
    return (
        f'metrics = ["{metric}"]\n[[waiver]]\ncell = "digits/*"\nmetric = "{metric}"\n'
        f'ceiling = {ceiling}\nexpires = {expires}\nissue = "#7"\nreason = "new kernel"\n'
    )


@pytest.mark.parametrize(
    ("new_ms", "policy", "state", "code"),
    [
        (1.1, waiver(1.2), "active", 0),
        (1.3, waiver(1.2), "exceeded", 1),
        (1.1, waiver(1.2, "2026-11-20"), "expired", 1),
        (1.0, waiver(1.2, "2026-11-20"), "expired", 1),
        (1.0, waiver(1.2), "stale", 0),
        (0.8, waiver(1.2), "stale", 0),
        ([1.3, 1.3], waiver(1.2), "idle", 0),
        (1.1, waiver(1000.0, metric="throughput"), "exceeded", 1),  # 909 per second
        (1.1, waiver(900.0, metric="throughput"), "active", 0),
    ],
)
def test_a_waiver_covers_what_it_says_until_it_ends(
    new_ms: float, policy: str, state: str, code: int
) -> None:
    report = gate([made(1.0)], [made(new_ms)], policy)
    assert [one.state for one in report.waivers] == [state]
    assert report.exit_code == code
    assert "#7: new kernel" in report.waivers[0].message
    if state == "active":
        assert report.cases[0].kind == "waived"
        assert report.cases[0].message.startswith("until 2026-11-21 up to ")


def test_quarantined_cells_are_shown_and_never_fail() -> None:
    policy = '[quarantine]\ncells = ["*/b8/*"]'
    old = [made(1.0), made(1.0, batch_size=8)]
    report = gate(old, [made(1.0), made(1.5, batch_size=8)], policy)
    found = [case for case in report.cases if case.kind == "quarantined"]
    assert {case.metric for case in found} == {"latency_median", "latency_p99", "throughput"}
    assert found[0].message.startswith("regressed: worse by 50.0 %")
    assert found[0].row is not None and found[0].row.ratio == pytest.approx(1.5)
    assert report.exit_code == 0
    assert gate(old, [made(1.0), failed(batch_size=8)], policy, strict=True).exit_code == 0
    assert gate(old[1:], [made(1.5, batch_size=8)], policy).exit_code == 0


def test_a_noisy_cell_is_proposed_for_quarantine_and_not_put_there() -> None:
    noisy = [1.0, 1.5, 0.7, 1.2, 0.9]
    report = gate([made(1.0)], [made(noisy)])
    assert [text.split(":")[0] for text in report.proposals] == [CELL]
    assert not any(case.kind == "quarantined" for case in report.cases)
    policy = "[quarantine]\npropose_above_cv = 0.5"
    assert gate([made(1.0)], [made(noisy)], policy).proposals == ()


def test_an_expected_cell_that_is_missing_is_an_alert_of_its_own() -> None:
    old = [made(1.0), made(1.0, batch_size=8)]
    report = gate(old, [made(1.0)], '[expect]\ncells = ["*/b8/*"]')
    found = next(case for case in report.cases if case.check == "expected")
    assert (found.kind, found.code, report.exit_code) == ("missing", 3, 3)
    assert found.cell.split("/")[4] == "b8"
    report = gate(old, old and [made(1.0)], '[expect]\ncells = ["resnet/*"]')
    found = next(case for case in report.cases if case.check == "expected")
    assert (found.cell, found.code) == ("resnet/*", 3)
    assert gate(old, [made(1.0)], '[expect]\ncells = ["*/b1/*"]').exit_code == 0


def test_a_cell_that_a_sweep_planned_must_be_there() -> None:
    planned = {CELL: "", "digits/x": ": refused: no such backend"}
    report = gate([made(1.0)], [made(1.0)], planned=planned)
    found = [case for case in report.cases if case.check == "expected"]
    assert [(case.cell, case.code) for case in found] == [("digits/x", 3)]
    assert found[0].message == "planned, and not measured: refused: no such backend"
    assert report.exit_code == 3


def test_globs_are_held_against_the_cells_of_both_sides() -> None:
    policy = '[quarantine]\ncells = ["*/b9/*"]'
    with pytest.raises(UsageError, match="matches no cell"):
        gate([made(1.0)], [made(1.0)], policy)
    assert gate([made(1.0, batch_size=9), made(1.0)], [made(1.0)], policy).exit_code == 0
    assert gate([], [], policy).exit_code == 4
