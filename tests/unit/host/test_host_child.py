"""How a child ended, of real ones."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from harness.host.child import ending, signal_name, unanswered


@pytest.mark.parametrize(
    ("code", "how", "unanswering"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL", "signal 9"),
        ("import os; os.kill(os.getpid(), 40)", "was killed by signal 40", "signal 40"),
        ("import sys; sys.exit('first\\nlast')", "left with exit code 1", "code 1: last"),
        ("import os; os._exit(3)", "left with exit code 3", "code 3"),
    ],
)
def test_how_a_child_ended(code: str, how: str, unanswering: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ending(done.returncode) == how
    assert unanswered(done.returncode, done.stderr) == unanswering


def test_every_signal_has_a_name() -> None:
    assert signal_name(signal.SIGSEGV) == "SIGSEGV"
    assert {signal_name(number)[:3].lower() for number in range(1, 64)} == {"sig"}
