"""Measure two builds side by side: the one that was good and tonight's.

    A B | B A | A B | B A | A B        one launch each, in turn, on this machine, tonight

(`harness.sweep.turns` has the same with short turns, a duel, which tells smaller changes.)

What the night, the heat or a driver did falls on both alike, so what is left between A and B is
what changed in the software. A build is one of

    a command        ``baseline_command``, instead of ``harness``
    an environment   a folder with ``bin/python`` in which Harness is installed
    a commit         of this repository, checked out beside it; its code comes first on the path
    artifacts        a folder of model files; each cell takes the file of its own name from it
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from harness.compare.comparison import Comparison, compare_sets
from harness.compare.policy import Confirm
from harness.compare.verdicts import Settings
from harness.errors import MeasurementFailed, UsageError
from harness.host import git
from harness.records.cell import spec_cell
from harness.records.result import Result
from harness.spec import RunSpec
from harness.sweep.again import refuse_untrusted, run_again
from harness.sweep.locks import held, needs
from harness.sweep.process import HARNESS

SideName = Literal["baseline", "candidate"]
SIDES: tuple[SideName, SideName] = ("baseline", "candidate")
_GIT_TIMEOUT_S = 600.0
_WAIT_S = 6 * 3600.0


class Build(msgspec.Struct, frozen=True):
    """How to run one side. ``folder``: where, and whose code comes first. ``python``: the
    interpreter of its workers in a duel; None for a command, which cannot take turns."""

    command: tuple[str, ...]
    folder: Path | None = None
    artifacts: Path | None = None
    python: str | None = None
    commit: str | None = None

    def of(self, spec: RunSpec) -> RunSpec:
        """``spec`` with this build's model file. Raises `UsageError` where it has none."""
        if self.artifacts is None:
            return spec
        path = self.artifacts / Path(spec.model).name
        if not path.is_file():
            raise UsageError(
                f"[confirm] artifacts: {str(self.artifacts)!r} holds no {path.name!r}",
                "keep the model file of each build there",
            )
        return msgspec.structs.replace(spec, model=str(path.absolute()))


@contextlib.contextmanager
def ready(
    confirm: Confirm, specs: Mapping[str, RunSpec], commits: tuple[str | None, str | None]
) -> Iterator[dict[SideName, Build]]:
    """Both builds, with what ``specs`` (cell -> spec) need of this machine held for them.

    ``commits``: those that baseline and candidate were measured at, for ``commits = "recorded"``.
    Raises `UsageError` for builds that are not there, and for code that only a result names.
    """
    for spec in specs.values():
        refuse_untrusted(spec, confirm.trust, "name it in the policy, [confirm] trust = [...],")
    with _builds(confirm, commits) as builds, held(needs(list(specs.values())), _WAIT_S):
        yield builds


def separately(
    builds: Mapping[SideName, Build], specs: Mapping[str, RunSpec], settings: Settings, out: Path
) -> tuple[Comparison, dict[str, str]]:
    """Every cell of ``specs`` by both builds, launch by launch, compared under the names of
    ``specs``; and why cells were not measured."""
    found: dict[SideName, list[Result]] = {"baseline": [], "candidate": []}
    failed: dict[str, str] = {}
    for launch in range(settings.minimum_launches):
        order = SIDES if launch % 2 == 0 else SIDES[::-1]
        for name, spec in specs.items():
            if name in failed:
                continue
            try:
                for side in order:
                    found[side].append(_launch(builds[side], spec, out / side))
            except MeasurementFailed as error:
                failed[name] = str(error)
    again = compare_sets(found["baseline"], found["candidate"], settings)
    # what took turns in its night is now by itself, which is another cell
    asked = {spec_cell(msgspec.structs.replace(s, tags={})).name: name for name, s in specs.items()}
    cells = tuple(
        msgspec.structs.replace(cell, cell=asked.get(cell.cell, cell.cell)) for cell in again.cells
    )
    return msgspec.structs.replace(again, cells=cells), failed


def _launch(build: Build, spec: RunSpec, out: Path) -> Result:
    return run_again(build.of(spec), 1, out, harness=build.command, code=build.folder)


@contextlib.contextmanager
def _builds(
    confirm: Confirm, commits: tuple[str | None, str | None]
) -> Iterator[dict[SideName, Build]]:
    if confirm.environments is not None:
        yield {side: _environment(confirm.environments[side]) for side in SIDES}
    elif confirm.artifacts is not None:
        folders = {side: Path(confirm.artifacts[side]) for side in SIDES}
        yield {side: Build(HARNESS, None, folders[side], sys.executable) for side in SIDES}
    elif confirm.commits is not None:
        recorded = dict(zip(SIDES, commits, strict=True))
        named = recorded if confirm.commits == "recorded" else confirm.commits
        with tempfile.TemporaryDirectory(prefix="harness-confirm-") as scratch:
            folders = {side: Path(scratch) / side for side in SIDES}
            with _worktrees({folders[side]: named[side] for side in SIDES}):
                yield {
                    side: Build(HARNESS, folders[side], None, sys.executable, named[side])
                    for side in SIDES
                }
    else:
        texts = {"baseline": confirm.baseline_command, "candidate": confirm.candidate_command}
        yield {side: Build(_words(f"{side}_command", texts[side])) for side in SIDES}


def _words(key: str, command: str | tuple[str, ...] | None) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command) if isinstance(command, str) else command or ())
        program = shutil.which(words[0]) if words else None
    except ValueError as error:  # a quotation without an end, a null character
        raise UsageError(f"[confirm] {key} is {command!r}: {error}", "mend it") from error
    if program is None:
        raise UsageError(f"[confirm] {key} is {command!r}: no such program", "mend the path")
    return words


def _environment(folder: str) -> Build:
    python = Path(folder).absolute() / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UsageError(
            f"[confirm] environments: {folder!r} holds no bin/python", "name a virtual environment"
        )
    return Build((str(python), "-P", "-m", "harness"), python=str(python))


@contextlib.contextmanager
def _worktrees(wanted: Mapping[Path, str | None]) -> Iterator[None]:
    """Check commits out into folders, and take them away again."""
    made: list[Path] = []
    try:
        for folder, commit in wanted.items():
            if not commit or commit.endswith("-dirty"):
                raise UsageError(
                    f"[confirm] commits: {commit or 'nothing'} cannot be checked out",
                    "measure committed work, or confirm by environments",
                )
            _git("worktree", "add", "--detach", str(folder), commit)
            made.append(folder)
        yield
    finally:
        for folder in made:
            _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> None:
    try:
        done = git.run(*words, timeout_s=_GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"[confirm] commits: git does not answer: {error}") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()
        raise UsageError(f"[confirm] commits: {told}", "name commits of this repository")
