"""Locks between real processes: a sweep waits, shares what may be shared, dies with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import MeasurementFailed
from harness.spec import RunSpec
from harness.sweep.locks import held, needs

HOLDER = """
import sys, pathlib, time
from harness.sweep.locks import held
with held({sys.argv[2]: sys.argv[3] == "alone"}, 0, folder=pathlib.Path(sys.argv[1])) as fds:
    if sys.argv[4:]:  # hand them on to a child, as a sweep does with its runs
        import subprocess
        child = subprocess.Popen(["sleep", "60"], pass_fds=fds, stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
    else:
        print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, name: str, kind: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), name, kind, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_cpu_cell_takes_its_processors_alone() -> None:
    assert needs([RunSpec(cpus=(0, 2)), RunSpec(cpus=(2, 3))]) == {
        "cpu0000": True, "cpu0002": True, "cpu0003": True,
    }  # fmt: skip


def test_a_second_holder_waits_and_then_gives_up(tmp_path: Path) -> None:
    told: list[str] = []
    with holder(tmp_path, "cpu0", "alone") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(MeasurementFailed, match=r"another sweep holds harness-cpu0\.lock"),
            held({"cpu0": True}, 0, told.append, tmp_path),
        ):
            pass
        with held({"cpu1": True}, 0, told.append, tmp_path):
            pass  # another one is free
        other.kill()
    with held({"cpu0": True}, 5, told.append, tmp_path):  # a kill lets go
        pass
    assert told == []  # with no time to wait nobody is told to


def test_the_waiting_one_goes_on_when_the_other_has_ended(tmp_path: Path) -> None:
    told: list[str] = []
    with holder(tmp_path, "cpu0", "alone") as other:
        assert other.stdout is not None
        other.stdout.readline()

        def end(name: str) -> None:
            told.append(name)
            other.kill()

        with held({"cpu0": True}, 60, end, tmp_path) as descriptors:
            assert len(descriptors) == 1
    assert told == ["harness-cpu0.lock"]


def test_two_may_share_what_neither_needs_alone(tmp_path: Path) -> None:
    with holder(tmp_path, "cpu0", "shared") as other:
        assert other.stdout is not None
        other.stdout.readline()
        with held({"cpu0": False}, 0, folder=tmp_path):
            pass
        with pytest.raises(MeasurementFailed), held({"cpu0": True}, 0, folder=tmp_path):
            pass
        other.kill()


def test_a_run_whose_sweep_was_killed_still_holds_the_lock(tmp_path: Path) -> None:
    import psutil

    with holder(tmp_path, "cpu0", "alone", "child") as other:
        assert other.stdout is not None
        child = psutil.Process(int(other.stdout.readline()))
        other.kill()
    with pytest.raises(MeasurementFailed), held({"cpu0": True}, 0, folder=tmp_path):
        pass
    child.kill()
    with held({"cpu0": True}, 30, folder=tmp_path):
        pass


def test_a_folder_that_takes_no_lock_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(MeasurementFailed, match="cannot be opened: No such file"),
        held({"cpu0": True}, 0, folder=tmp_path / "gone"),
    ):
        pass
