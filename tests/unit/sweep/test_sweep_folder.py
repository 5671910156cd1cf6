"""A sweep's folder may come from elsewhere, with links to what is not the sweep's."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ResultError
from harness.host.files import opened_to_append
from harness.sweep.folder import ATTEMPTS, LOGS, MANIFEST, Attempt, open_sweep
from harness.sweep.plan import Plan, read_plan

ATTEMPT = Attempt(cell="c", launch=1, status="complete", started_at="t", seconds=1.0)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "night.toml"
    path.write_text('name = "night"\n[matrix]\nbatch_size = [1]\n')
    return read_plan(path)


@pytest.mark.parametrize("name", [MANIFEST, ATTEMPTS, LOGS])
def test_a_sweep_is_written_through_no_link(plan: Plan, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "night-x"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResultError, match=f"{name}' is a link, and is not written through"):
        open_sweep(plan, tmp_path, "x", new=False)
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_that_comes_later_is_not_written_through_either(plan: Plan, tmp_path: Path) -> None:
    sweep = open_sweep(plan, tmp_path, "x", new=False)
    sweep.record(ATTEMPT)
    mine = tmp_path / "mine"
    mine.write_text("text")
    (sweep.path / ATTEMPTS).unlink()
    (sweep.path / ATTEMPTS).symlink_to(mine)
    with pytest.raises(ResultError, match="is a link"):
        sweep.record(ATTEMPT)
    with pytest.raises(ResultError, match="is a link"):
        opened_to_append(sweep.path / ATTEMPTS)
    assert mine.read_text() == "text"


def test_a_sweep_goes_on_whose_logs_were_tidied_away(plan: Plan, tmp_path: Path) -> None:
    (open_sweep(plan, tmp_path, "x", new=False).path / LOGS).rmdir()
    assert (open_sweep(plan, tmp_path, "x", new=False).path / LOGS).is_dir()
