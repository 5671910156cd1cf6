"""The one way to git, which runs nothing that a repository names.

A repository's own configuration may name programs: hooks, a file system monitor, filters, textconv
and diff programs, pagers, helpers of transports. Who measures in a folder that came from elsewhere
has agreed to none of them. So all are switched off, in submodules by not looking into them: those
are asked one by one, as repositories of their own. Filters of the user's own configuration
(Git LFS, say) stay: without them every file of theirs would look changed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

TIMEOUT_S = 10.0
_OFF = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.alternateRefsCommand=",
    "diff.external=",
    "log.showSignature=false",
    "submodule.recurse=false",
)
_DRIVERS = r"^(filter\..*\.(clean|smudge|process)|diff\..*\.(command|textconv))$"
_OF_REPOSITORY = ("local", "worktree")
_READ_NO_FILES = (
    "rev-parse",
    "rev-list",
    "show",
    "ls-files",
)  # of the work tree: no filter is asked
NOT_INSIDE = "--ignore-submodules=dirty"  # for status and diff, which would ask git in there


def run(
    *words: str, folder: Path | None = None, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[bytes]:
    """``git WORDS`` in ``folder``. Raises `OSError` and `subprocess.TimeoutExpired`."""
    reads_files = words[0] not in _READ_NO_FILES
    settings = _without(_drivers(folder, timeout_s)) if reads_files else {}
    return _run(words, folder, timeout_s, settings)


def ask(*words: str, folder: Path | None = None, timeout_s: float = TIMEOUT_S) -> bytes | None:
    """What git answers; None where it has no answer."""
    try:
        done = run(*words, folder=folder, timeout_s=timeout_s)
    except (OSError, ValueError, subprocess.TimeoutExpired):  # no git, or a tree too large to ask
        return None
    return None if done.returncode else done.stdout


def submodules(folder: Path) -> Iterator[Path]:
    """The folders of the submodules of ``folder`` that are checked out, theirs not included."""
    whole = (folder, *folder.absolute().parents)
    root = next((above for above in whole if (above / ".git").exists()), None)
    if root is None or not (root / ".gitmodules").is_file():
        return
    for line in (ask("ls-files", "--stage", "-z", folder=root) or b"").split(b"\0"):
        kind, _, path = line.partition(b"\t")
        if kind.startswith(b"160000 ") and (root / os.fsdecode(path) / ".git").exists():
            yield root / os.fsdecode(path)


def _run(
    words: tuple[str, ...], folder: Path | None, timeout_s: float, settings: dict[str, str]
) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "--no-pager", "--no-optional-locks"]
    for setting in _OFF:
        command += ["-c", setting]
    return subprocess.run(
        [*command, *words],
        cwd=folder,
        env=_environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


def _drivers(folder: Path | None, timeout_s: float) -> list[str]:
    """The settings by which the repository names programs of filters and diffs."""
    words = ("config", "--show-scope", "--null", "--name-only", "--get-regexp", _DRIVERS)
    told = _run(words, folder, timeout_s, {}).stdout.split(b"\0")
    pairs = zip(told[::2], told[1::2], strict=False)
    return [os.fsdecode(name) for scope, name in pairs if scope.decode() in _OF_REPOSITORY]


def _without(names: list[str]) -> dict[str, str]:
    """What sets them to nothing. A filter that is required and does nothing would be an error."""
    required = {f"{name.rpartition('.')[0]}.required" for name in names if name[0] == "f"}
    return {**dict.fromkeys(names, ""), **dict.fromkeys(required, "false")}


def _environment(settings: dict[str, str]) -> dict[str, str]:
    """Settings go here, since the name of one may hold what ends it on a command line."""
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(count) if count.isdecimal() else 0
    added = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (name, value) in enumerate(settings.items(), first):
        added[f"GIT_CONFIG_KEY_{number}"] = name
        added[f"GIT_CONFIG_VALUE_{number}"] = value
    # objects that are missing are not fetched, by no helper
    closed = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    return {**os.environ, **closed, **added}
