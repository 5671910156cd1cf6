"""A small part of the campaign of mutated files; `make campaign` runs all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parents[1] / "campaign" / "campaign.py"


def test_mutated_files_do_no_harm(tmp_path: Path) -> None:
    """In a process of its own: it forks, with everything imported."""
    keep = tmp_path / "keep"
    ran = subprocess.run(
        [sys.executable, CAMPAIGN, "files", "--count", "102", "--seed", "7", "--keep", keep],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert ran.stdout.startswith("mutated files of 17 kinds: 102 files, 0 faults, at most ")
