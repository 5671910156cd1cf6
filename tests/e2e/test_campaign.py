"""The smallest campaign: its tries find nothing, and it tells what it tried in figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parent.parent / "campaign"


@pytest.mark.slow
def test_signals_lose_nothing() -> None:
    command = [sys.executable, str(CAMPAIGN / "campaign.py"), "signals", "--count", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.startswith("signals: 2 tries, ")
    assert ran.stdout.endswith(", 0 faults, 0 left in the temporary folder\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["driver", "sweep"])
def test_a_kill_leaves_results_and_nothing_else(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.syspath_prepend(str(CAMPAIGN))
    import kills

    (summary,) = kills.run(1, seed=1, seconds=600, kinds=[kind])
    assert (summary.counts["tries"], summary.faults, summary.left_in_tmp) == (1, [], 0)
