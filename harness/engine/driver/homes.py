"""Other environments in which a worker can run: another interpreter, or folders before all others.

The driver, and what it prepares, stay in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from harness.engine.driver.spawn import Interpreter
from harness.engine.wire.messages import PROTOCOL
from harness.errors import UsageError
from harness.spec.variants import PYTHON, Variants

_TIMEOUT_S = 120.0
_LOOK = """
import json, sys
from harness.engine.wire import messages
from harness.machine import software
versions = software(backends=[sys.argv[1]]).versions
print(json.dumps([getattr(messages, "PROTOCOL", 0), versions]))
"""


class Home(NamedTuple):
    """``path``: folders that come before all others. ``versions``: of distributions, as it says.
    ``checkout``: a working tree to run in, whose modules come first; ``commit`` is there."""

    python: str
    path: tuple[str, ...]
    versions: dict[str, str]
    checkout: str | None = None
    commit: str | None = None

    def interpreter(self) -> Interpreter:
        """A fresh process of it, for a worker."""
        return Interpreter(self.python, environment(self.path), self.checkout)


def environment(path: Sequence[str]) -> dict[str, str]:
    """This process's own variables, with ``path`` first among the folders of modules."""
    own = os.environ.get("PYTHONPATH")
    joined = os.pathsep.join(filter(None, (*path, own)))
    return {**os.environ, **({"PYTHONPATH": joined} if joined else {})}


def homes_of(asked: Variants) -> list[Home]:
    """Those of variants that are environments; none where they differ in something else.

    Raises `UsageError` as `home` does.
    """
    if asked.field != PYTHON:
        return []
    return [home(name, asked.specs[0].backend) for name in asked.names]


def home(
    python: str,
    backend: str,
    path: Sequence[str] = (),
    checkout: str | None = None,
    commit: str | None = None,
) -> Home:
    """The environment of an interpreter. Raises `UsageError` where no worker can run in it."""
    path = [*([checkout] if checkout else []), *path]
    try:
        done = subprocess.run(
            [python, "-P", "-c", _LOOK, backend],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=environment(path),
            cwd=checkout,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else "it does not answer"
        raise UsageError(
            f"python={python}: {why}", "name an interpreter: ENV/bin/python"
        ) from error
    remedy = f"in a clone of it: {python} -m pip install -e '.[onnxruntime]'"
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise UsageError(f"python={python} has no Harness of this kind ({told})", remedy)
    try:
        protocol, versions = json.loads((done.stdout.splitlines() or [""])[-1])
    except ValueError as error:
        raise UsageError(
            f"python={python} is no Python interpreter", "name one: ENV/bin/python"
        ) from error
    if protocol != PROTOCOL:
        raise UsageError(f"python={python} has a Harness whose workers speak otherwise", remedy)
    return Home(python, tuple(path), versions, checkout, commit)
