"""What docs/method.md names must be there, and its numbers must be those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_analysis_validity import GOOD

from harness.analysis import validity
from harness.analysis.energy import attribute as energy
from harness.engine.driver import observer, overhead
from harness.engine.sampler import main as sampler
from harness.profiles.power.powercap import GRANT, UNMASK
from harness.profiles.power.sources import SOURCES
from harness.spec import DEFAULT_CAP_S, DEFAULT_FLOOR_S, DEFAULT_GOAL, RunSpec

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/method.md").read_text()


def table(first: str) -> list[list[str]]:
    """The cells of the table whose header begins with ``first``."""
    lines = TEXT.split(f"| {first} |", 1)[1].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_check_is_described_in_order() -> None:
    assert [row[0] for row in table("Check")] == [c.name for c in validity.checks(GOOD)]


@pytest.mark.parametrize("row", table("Check"), ids=lambda row: row[0])
def test_the_test_that_provokes_a_check_exists(row: list[str]) -> None:
    path, _, name = row[2].strip("`").partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


def test_every_power_source_is_described() -> None:
    assert [row[0].split("`")[1] for row in table("Source")] == list(SOURCES)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_]+/[\w/]+\.\w+)`", TEXT))))
def test_files_that_are_named_exist(path: str) -> None:
    assert (ROOT / path).is_file()


def test_commands_are_those_of_the_code() -> None:
    for command in ("sudo chmod a+r /sys/class/powercap/*/energy_uj", 'SUBSYSTEM=="powercap"'):
        assert command in GRANT
        assert command in TEXT
    for flag in re.findall(r"--security-opt \S+", UNMASK):
        assert flag in TEXT


def test_numbers_are_those_of_the_code() -> None:
    flat = " ".join(TEXT.split())
    for phrase in (
        f"within ± {DEFAULT_GOAL:.0%}".replace("%", " %"),
        f"at least {DEFAULT_FLOOR_S:g} s and at most {DEFAULT_CAP_S:g} s",
        f"`--warmup` ({RunSpec().warmup_s:g} s)",
        f"`--max-warmup` ({RunSpec().max_warmup_s:g} s)",
        f"({sampler.RATE_HZ:g} Hz, or {sampler.FAST_RATE_HZ:g} Hz where a power sensor",
        f"for {observer.GUARD_S:g} s after it",
        f"**Floor**: {energy.MIN_WINDOW_S:g} s, {energy.MIN_PERIODS} periods of the meter, or "
        f"{energy.MIN_ITERATIONS} iterations",
        f"at least {energy.MIN_IDLE_S:g} s each, or {energy.idle_floor_s(1.0):g} periods",
        f"drawn anew every {energy.PAUSE_EVERY} iterations",
    ):
        assert phrase in flat, phrase
    assert overhead.ROUNDS == 12
    assert "twelve rounds" in flat
