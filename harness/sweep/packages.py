"""Versions of one distribution side by side: each in a folder of its own, made by pip and kept.

    <cache>/packages/onnxruntime-1.20.1-cp311/       pip install --no-deps --target ...

A worker that has such a folder before all others on its path imports that version, and everything
else from the environment that Harness runs in: what differs is this distribution alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from harness import registry
from harness.errors import UsageError
from harness.host.cache_root import default_root

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]*")
_TIMEOUT_S = 900.0
_QUIET = ("--disable-pip-version-check", "--no-input", "--retries", "1")
_UNREACHABLE = ("connection broken", "NewConnectionError", "Temporary failure in name resolution")


def parse_range(distribution: str, text: str) -> tuple[str, str]:
    """``1.20.1..1.23.0`` as its two ends. Raises `UsageError`."""
    if not _NAME.fullmatch(distribution):
        raise UsageError(f"--package is {distribution!r}", "name a distribution, as pip does")
    low, dots, high = text.partition("..")
    if not dots or not _VERSION.fullmatch(low) or not _VERSION.fullmatch(high) or low == high:
        raise UsageError(f"{text!r} is no range of versions", "give one such as 1.20.1..1.23.0")
    return low, high


def versions_between(distribution: str, low: str, high: str) -> list[str]:
    """Those that pip can install here, from ``low`` to ``high``, in that order, which may fall.

    Raises `UsageError`.
    """
    told = _pip("index", "versions", distribution)
    line = next((one for one in told.splitlines() if one.startswith("Available versions:")), "")
    known = [one.strip() for one in line.partition(":")[2].split(",") if one.strip()][::-1]
    for version in (low, high):
        if version not in known:
            newest = ", ".join(known[-8:]) or "none"
            raise UsageError(
                f"{distribution} {version} cannot be installed here", f"the newest are {newest}"
            )
    first, last = known.index(low), known.index(high)
    found = known[min(first, last) : max(first, last) + 1]
    return found if first < last else found[::-1]


def refuse_stranger(distribution: str, backend: str) -> None:
    """Raise `UsageError` for a distribution that the workers of ``backend`` have no use for.

    Those are what the backend says it is made of, and what these require; a backend that says
    nothing may use any.
    """
    roots = registry.declared(backend).distributions
    if not roots:
        return
    known = {_plain(name) for name in roots}
    waiting = [name for name in roots if _version(name) is not None]
    while waiting:
        for text in metadata.requires(waiting.pop()) or ():
            name = re.match(r"[A-Za-z0-9._-]+", text)
            if name and "extra ==" not in text and _plain(name[0]) not in known:
                known.add(_plain(name[0]))
                waiting += [name[0]] if _version(name[0]) is not None else []
    if _plain(distribution) not in known:
        raise UsageError(
            f"--package {distribution}: the {backend} backend is made of {', '.join(roots)} and "
            "what they require, and that is no part of it",
            "name one of these, or another --backend",
        )


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def folder_of(distribution: str, version: str) -> Path:
    """Where that version lies; installed first where it is not there yet. Raises `UsageError`."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = default_root() / "packages" / f"{distribution}-{version}-{tag}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    except OSError as error:
        raise UsageError(
            f"{str(folder.parent)!r} cannot be written: {error.strerror}",
            "point HARNESS_CACHE at a folder of your own",
        ) from error
    try:
        wanted = f"{distribution}=={version}"
        _pip("install", "--no-deps", "--only-binary=:all:", "--target", str(scratch), wanted)
        try:
            scratch.rename(folder)
        except OSError:  # somebody else was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _pip(*words: str) -> str:
    """What pip prints. Raises `UsageError` with its last line."""
    command = [sys.executable, "-m", "pip", *words, *_QUIET]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"pip {words[0]} took over {_TIMEOUT_S:g} s", "try again") from error
    if done.returncode:
        lines = [one for one in done.stderr.splitlines() if one.startswith("ERROR")]
        told = (lines or done.stderr.splitlines() or ["it says nothing"])[-1]
        if any(text in done.stderr for text in _UNREACHABLE):
            raise UsageError(
                f"pip {words[0]}: the package index cannot be reached",
                "look at the network and pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS)",
            )
        if "No module named pip" in done.stderr:
            told = f"this environment has none: {sys.executable} -m ensurepip"
        raise UsageError(f"pip {' '.join(words[:2])} failed", told.removeprefix("ERROR: "))
    return done.stdout
