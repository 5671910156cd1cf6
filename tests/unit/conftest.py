"""What unit tests share.

A room's tests may use the helpers that stand here, and those of other rooms, by their names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GOLDENS = HERE.parent / "data" / "goldens"
sys.path += [str(path) for path in sorted(HERE.iterdir()) if path.is_dir()]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: the text is what the file says; ``--update-goldens`` writes it."""

    def check(name: str, text: str) -> None:
        path = GOLDENS / name
        if request.config.getoption("--update-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        assert text == path.read_text("utf-8"), "if it is meant to be: make goldens, and look at it"

    return check
