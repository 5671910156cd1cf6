"""What the benchmark scripts say while they measure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "interleaved.py"
spec = importlib.util.spec_from_file_location("interleaved", FILE)
assert spec is not None and spec.loader is not None
interleaved = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interleaved)


def test_rounds_are_told_on_stderr_about_ten_times(capsys: pytest.CaptureFixture[str]) -> None:
    figures = interleaved.in_turn({"ours": lambda: 1.0, "theirs": lambda: 2.0}, 40, "net")
    out, err = capsys.readouterr()
    assert figures == {"ours": [1.0] * 40, "theirs": [2.0] * 40}
    lines = err.splitlines()
    assert out == "" and len(lines) == 10
    assert lines[0] == "net: round 1 of 40"
    assert lines[-1] == "net: round 37 of 40, about 0 s left"


def test_a_terminal_has_one_line_taken_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(interleaved.counted(3, "net")) == [0, 1, 2]
    err = capsys.readouterr().err
    assert "\n" not in err and err.count("round") == 3 and err.endswith("\r\x1b[K")
