"""A project under git whose backend lies in the repository: every commit is a build."""

from __future__ import annotations

import subprocess
from pathlib import Path

BACKEND = '''
import time
from pathlib import Path
from harness.testing.fake_backend import FakeBackend

class Ours(FakeBackend):
    """As slow as this build, in a night that is as slow as a file beside it says."""
    def artifact_format(self, precision, options):
        return "onnx"
    def prepare(self, artifact, inputs, options):
        session = super().prepare(artifact, inputs, options)
        night = Path(NIGHT)
        seconds = SECONDS * (float(night.read_text()) if night.exists() else 1)
        waits = [seconds]
        session.enqueue = lambda: time.sleep(waits[0])
        bind = session.bind
        def verified(inputs):  # the samples after the window, of which no time is told
            waits[0] = 0
            bind(inputs)
        session.bind = verified
        return session
'''
# of `harness run`
QUICK = ("--duration", "0.1", "--warmup", "0", "--max-warmup", "0.2", "--sample-rate", "0",
         "--launches", "3", "--no-tensorboard", "--json")  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    ran = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


def write(folder: Path, seconds: float, night: Path | None = None) -> None:
    """Make ``folder`` hold the backend ``ours:Ours`` that takes ``seconds``."""
    text = BACKEND.replace("SECONDS", str(seconds))
    (folder / "ours.py").write_text(text.replace("NIGHT", repr(str(night or "no such file"))))


def commit(folder: Path, message: str) -> str:
    """Commit all of it; the commit's name."""
    git(folder, "add", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")
