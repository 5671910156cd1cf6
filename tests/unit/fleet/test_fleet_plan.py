"""From a sweep file to tasks, and from rows to a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.fleet.ledger import Ledger, Outcome, Row
from harness.fleet.night import cancel, driving, open_night, reopen
from harness.fleet.plan import FleetPlan, classes_before, plan_night, task_id
from harness.fleet.report import absent_cells, headline, render_report, report_of
from harness.sweep.needs import FleetRules, Needs, Offers, lacking
from harness.sweep.plan import Plan, read_plan, refuse_needs
from harness.views.terminal import to_text

BOX = Offers(machine="box", machine_class="avx2", isa=("avx", "avx2"))
SERVER = Offers(
    machine="server", machine_class="vnni", isa=("avx2", "avx512_vnni"), meters=("powercap",)
)
GPU = Offers(machine="gpu-1", machine_class="h100", isa=("avx2",), gpus=("NVIDIA H100 PCIe",))


def plan_of(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "nightly.toml"
    path.write_text(text)
    return read_plan(path)


@pytest.mark.parametrize(
    ("needs", "able"),
    [
        (Needs(), ["box", "server", "gpu-1"]),
        (Needs(gpu="*"), ["gpu-1"]),
        (Needs(gpu="*h100*"), ["gpu-1"]),
        (Needs(gpu="*A100*"), []),
        (Needs(cpu=("avx512_vnni",)), ["server"]),
        (Needs(meter=True), ["server"]),
        (Needs(machine="box"), ["box"]),
        (Needs(machine="vnni"), ["server"]),
        (Needs(machine="vnni", gpu="*"), []),
    ],
)
def test_who_may_measure_it(needs: Needs, able: list[str]) -> None:
    found = [one.machine for one in (BOX, SERVER, GPU) if not lacking(needs, one)]
    assert found == able


def test_what_is_lacking_is_said() -> None:
    needs = Needs(gpu="*A100*", cpu=("avx512_vnni",), meter=True, machine="jetson")
    assert lacking(needs, BOX) == [
        "a GPU called *A100*", "avx512_vnni", "a meter of energy", "the name jetson",
    ]  # fmt: skip


def test_a_file_says_what_its_cells_need(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        """
        [fleet]
        retries = 1
        [defaults]
        cpu = "avx2"
        [matrix]
        machine = ["box", "server"]
        precision = ["fp32", "int8"]
        [[include]]
        needs = "gpu:*H100*"
        meter = true
        cpu = ["avx512_vnni", "avx2"]
        """,
    )
    assert plan.fleet == FleetRules(retries=1)
    assert [str(one.needs) for one in plan.cells] == [
        "box", "box", "server", "server", "gpu:*H100*+avx2+avx512_vnni+meter",
    ]  # fmt: skip
    assert len({one.cell.key for one in plan.cells}) == 2  # what measures it defines no cell
    with pytest.raises(UsageError, match="is for machines of the class 'box'"):
        refuse_needs(plan)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('needs = "cpu"', "needs is 'cpu'"),
        ("needs = 1", "needs is 1"),
        ('cpu = "AVX 512"', "cpu is 'AVX 512'"),
        ('meter = "yes"', "meter is 'yes'"),
        ('machine = "a b"', "machine is 'a b'"),
        ('machne = "a"', "unknown field in .include. 'machne'; did you mean 'machine'"),
    ],
)
def test_needs_that_make_no_sense_are_refused(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        plan_of(tmp_path, f"[[include]]\n{line}")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("retries = -1", "retries is -1; give 0 to 100"),
        ("lease_s = 0.5", "lease_s is 0.5"),
        ('wait_s = "long"', r"\[fleet\]"),
        ("leases = 1", r"\[fleet\]"),
    ],
)
def test_rules_that_make_no_sense_are_refused(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        plan_of(tmp_path, f"[fleet]\n{line}\n[[include]]\nbatch_size = 1")


def test_a_cell_on_a_gpu_needs_one_said_or_not(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, '[[include]]\ndevice = "cuda"')
    (task,) = plan_night(plan, "n", "s-n", {}).tasks
    assert task.needs == Needs(gpu="*") and task.machine_class == "gpu"
    assert lacking(task.needs, SERVER)


def test_every_class_that_there_is_and_was(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, '[[include]]\nmachine = "every"\ncpu = "avx2"')
    classes = {one.machine_class: one for one in (BOX, SERVER)}
    planned = plan_night(plan, "n", "s-n", classes)
    assert [task.machine_class for task in planned.tasks] == ["avx2", "vnni"]
    assert len({task.id for task in planned.tasks}) == 2


def test_ids_are_those_of_cell_class_and_night() -> None:
    found = task_id("0123456789abcdef", "any", "nightly-2026-11-27")
    assert found == task_id("0123456789abcdef", "any", "nightly-2026-11-27")
    assert len(found) == 16 and int(found, 16)
    others = [("1", "any", "n"), ("0123456789abcdef", "gpu", "nightly-2026-11-27"),
              ("0123456789abcdef", "any", "nightly-2026-11-28")]  # fmt: skip
    assert len({found, *(task_id(*other) for other in others)}) == 4


THREE = '[matrix]\nprecision = ["fp32", "int8"]\n[[include]]\nmachine = "jetson"\nbatch_size = 2'


def opened(tmp_path: Path) -> tuple[Plan, FleetPlan, Ledger]:
    plan = plan_of(tmp_path, THREE)
    found = open_night(plan, tmp_path / "nightly-x", "x", {"avx2": BOX}, "code")
    return plan, *found


def ended(plan: FleetPlan, ledger: Ledger, outcomes: list[Outcome]) -> None:
    for task, outcome in zip(plan.tasks, outcomes, strict=False):
        cause = "" if outcome == "result" else "because"
        ledger.publish(
            Row(task=task.id, cell=task.cell, machine_class=task.machine_class, outcome=outcome,
                cause=cause)
        )  # fmt: skip


def test_a_night_is_planned_once_and_continued(tmp_path: Path) -> None:
    plan, planned, _ = opened(tmp_path)
    again, _ = open_night(plan, tmp_path / "nightly-x", "x", {}, "code")
    assert again == planned
    assert classes_before(tmp_path, "nightly") == {"avx2": BOX}
    other = plan_of(tmp_path, THREE + "\nthreads = 1")
    with pytest.raises(UsageError, match="was planned from another sweep file"):
        open_night(other, tmp_path / "nightly-x", "x", {}, "code")
    with pytest.raises(UsageError, match=r"another Harness \(code then, code2 now\)"):
        open_night(plan, tmp_path / "nightly-x", "x", {}, "code2")


def test_a_report_is_of_the_plan(tmp_path: Path) -> None:
    _, plan, ledger = opened(tmp_path)
    ended(plan, ledger, ["result", "no-runner"])
    stranger = tmp_path / "nightly-x" / "20261127T000000Z-digits"
    stranger.mkdir()
    (stranger / "result.json").write_text("{}")
    report = report_of(plan, ledger)
    assert report.outcomes == {"result": 1, "no-runner": 1, "open": 1}
    assert [row.outcome for row in report.rows] == ["result", "no-runner", "open"]
    assert report.unplanned == (stranger.name,)
    assert not report.whole
    assert headline(report) == "night nightly-x: 3 planned, 1 result, 1 no-runner, 1 open"
    text = to_text(render_report(report), 100)
    assert "digits/onnxruntime/cpu/int8/b1/latency on any     no-runner: because" in text
    assert text.endswith(headline(report))


def test_the_gate_hears_of_absent_cells(tmp_path: Path) -> None:
    _, plan, ledger = opened(tmp_path)
    ended(plan, ledger, ["result", "lost"])
    assert absent_cells(tmp_path / "nightly-x") == {
        "digits/onnxruntime/cpu/int8/b1/latency on any": ": lost: because",
        "digits/onnxruntime/cpu/fp32/b2/latency on jetson": ": open",
    }
    assert absent_cells(tmp_path) == {}


def test_the_rest_can_be_cancelled_and_what_failed_be_tried_again(tmp_path: Path) -> None:
    _, plan, ledger = opened(tmp_path)
    ended(plan, ledger, ["result"])
    assert cancel(plan, ledger, "enough") == 2
    assert report_of(plan, ledger).outcomes == {"result": 1, "cancelled": 2}
    assert cancel(plan, ledger, "enough") == 0
    assert reopen(plan, ledger) == 2
    assert report_of(plan, ledger).outcomes == {"result": 1, "open": 2}


def test_the_first_driver_sweeps_up_and_a_second_knows_that_it_is_one(tmp_path: Path) -> None:
    _, plan, ledger = opened(tmp_path)
    task = plan.tasks[0].id
    assert ledger.acquire(task)
    with driving(ledger) as alone:
        assert alone
        assert not ledger.held(task)  # its driver was killed
        assert ledger.acquire(task)
        with driving(ledger) as second:
            assert not second
            assert ledger.held(task)
