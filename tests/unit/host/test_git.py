"""Nothing that a repository names is run by asking git about it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.host import git
from harness.machine import revision
from harness.sweep.folder import _diff_sha256

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
_OURS = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")


def raw(folder: Path, *words: str) -> str:
    ran = subprocess.run(
        ["git", *_OURS, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


def a_repository(folder: Path) -> Path:
    folder.mkdir()
    raw(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text("one\n")
    raw(folder, "add", ".")
    raw(folder, "commit", "-q", "-m", "first")
    return folder


def make_hostile(folder: Path, ran: Path) -> None:
    """Whatever a repository can name leaves a file in ``ran`` once it runs."""
    ran.mkdir(exist_ok=True)

    def program(name: str) -> str:
        path = ran.parent / f"{name}.sh"
        path.write_text(f"#!/bin/sh\ntouch {ran}/{name}\ncat\n")
        path.chmod(0o755)
        return str(path)

    settings = {
        "core.fsmonitor": "fsmonitor",
        "core.pager": "pager",
        "pager.status": "pager",
        "core.sshCommand": "ssh",
        "gpg.program": "gpg",
        "diff.external": "external",
        "diff.odd.textconv": "textconv",
        "diff.odd.command": "command",
        "filter.odd.clean": "clean",
        "filter.odd.smudge": "smudge",
        "filter.a=b.process": "process",
        "filter.a=b.clean": "other",
    }
    for key, name in settings.items():
        raw(folder, "config", key, program(name))
    for key in ("filter.odd.required", "filter.a=b.required", "log.showSignature"):
        raw(folder, "config", key, "true")
    hooks = Path(raw(folder, "rev-parse", "--absolute-git-dir")) / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-index-change", "fsmonitor-watchman"):
        shutil.copy(program(name), hooks / name)
    info = hooks.parent / "info"
    info.mkdir(exist_ok=True)
    (info / "attributes").write_text("file filter=odd diff=odd\nother filter=a=b\n")


def touched(folder: Path) -> None:
    """Its content is as it was, and git has to read it to know."""
    os.utime(folder / "file", (1, 1))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_programs_would_run_otherwise(tmp_path: Path) -> None:
    """Otherwise the tests below would pass on nothing."""
    folder, ran = a_repository(tmp_path / "project"), tmp_path / "ran"
    make_hostile(folder, ran)
    touched(folder)
    raw(folder, "status")
    raw(folder, "diff", "HEAD")
    raw(folder, "worktree", "add", "-q", "--detach", str(tmp_path / "elsewhere"))
    assert {"clean", "fsmonitor", "post-checkout", "smudge"} <= set(names_in(ran))


def test_nothing_that_a_repository_names_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ran = a_repository(tmp_path / "project"), tmp_path / "ran"
    head = raw(folder, "rev-parse", "HEAD")
    make_hostile(folder, ran)
    shutil.rmtree(ran)
    ran.mkdir()
    monkeypatch.chdir(folder)
    touched(folder)
    found = revision(folder)
    assert (found.commit, found.branch, found.dirty) == (head, "main", False)
    assert _diff_sha256() == "none"
    (folder / "file").write_text("two\n")
    assert revision(folder).commit == f"{head}-dirty"
    assert len(_diff_sha256()) == 12
    added = git.run("worktree", "add", "--detach", str(tmp_path / "elsewhere"), head)
    assert (added.returncode, (tmp_path / "elsewhere" / "file").read_text()) == (0, "one\n")
    assert git.run("worktree", "remove", "--force", str(tmp_path / "elsewhere")).returncode == 0
    assert git.ask("rev-parse", "--verify", "HEAD^{commit}") == f"{head}\n".encode()
    assert names_in(ran) == []


def test_submodules_are_asked_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, folder, ran = tmp_path / "inner", tmp_path / "project", tmp_path / "ran"
    a_repository(inner)
    a_repository(folder)
    raw(folder, "submodule", "--quiet", "add", str(inner), "part")
    raw(folder, "commit", "-q", "-m", "with a part")
    make_hostile(folder / "part", ran)
    shutil.rmtree(ran)
    ran.mkdir()
    monkeypatch.chdir(folder)
    touched(folder / "part")
    assert revision(folder).dirty is False
    assert _diff_sha256() == "none"
    (folder / "part" / "file").write_text("two\n")
    assert revision(folder).dirty is True
    one = _diff_sha256()
    (folder / "part" / "file").write_text("three\n")
    assert len({one, _diff_sha256(), "none"}) == 3
    assert names_in(ran) == []


def test_filters_of_the_user_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Git LFS, say, every file of its would look changed."""
    folder = a_repository(tmp_path / "project")
    (folder / ".gitattributes").write_text("upper filter=upper\n")
    (tmp_path / "gitconfig").write_text('[filter "upper"]\nclean = tr a-z A-Z\nsmudge = cat\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (folder / "upper").write_text("text\n")
    raw(folder, "add", ".")
    raw(folder, "commit", "-q", "-m", "second")
    os.utime(folder / "upper", (1, 1))
    assert raw(folder, "show", "HEAD:upper") == "TEXT"
    assert revision(folder).dirty is False


def test_missing_objects_are_not_fetched(tmp_path: Path) -> None:
    """A transport may be a program, and a repository may allow itself any."""
    folder, ran = a_repository(tmp_path / "project"), tmp_path / "ran"
    head = raw(folder, "rev-parse", "HEAD")
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": f"ext::touch {ran}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
    }.items():
        raw(folder, "config", key, value)
    (folder / ".git" / "objects" / head[:2] / head[2:]).unlink()
    assert revision(folder).dirty is None or revision(folder).commit_time is None
    assert git.ask("show", "--no-patch", head, folder=folder) is None
    assert not ran.exists()
    subprocess.run(
        ["git", "show", "--no-patch", head], cwd=folder, capture_output=True, check=False
    )
    assert ran.exists()  # as it is without


def test_settings_of_the_environment_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_repository(tmp_path / "project")
    for key, value in {"COUNT": "1", "KEY_0": "user.name", "VALUE_0": "ada"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{key}", value)
    raw(folder, "config", "filter.odd.clean", "false")
    assert git.run("config", "user.name", folder=folder).stdout == b"ada\n"
    assert git.run("config", "filter.odd.clean", folder=folder).stdout == b"\n"


def test_no_git_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.ask("rev-parse", "HEAD", folder=tmp_path) is None
