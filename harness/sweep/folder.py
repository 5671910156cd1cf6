"""The folder of one sweep: what it asks for, what it ran on, and what is done.

    results/nightly-2026-11-21-4f9c2d1/
        sweep.json        the plan and the state of machine and software that it began on
        attempts.jsonl    every launch that was tried, one line each, failed ones with the cause
        logs/             what the runs printed
        <run id>/...      the runs

The results are the truth: a launch is done when its ``result.json`` says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from harness import machine, maybe
from harness.errors import ResultError, UsageError
from harness.host import git, lock
from harness.host.files import opened_to_append, refuse_links, write_atomically
from harness.records.cell import Cell, cell_of
from harness.records.store import iter_results, read_bytes
from harness.sweep.plan import FILES, Plan

SCHEMA = "harness.sweep/1"
MANIFEST = "sweep.json"
ATTEMPTS = "attempts.jsonl"
LOGS = "logs"
DONE = ("complete", "degraded")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Written once, before the first launch."""

    schema: str = SCHEMA
    id: str
    name: str
    label: str
    plan_sha256: str
    launches: int
    created_at: str
    cells: tuple[Cell, ...]
    # what must be the same for launches to be repetitions of each other
    state: dict[str, str]
    paired: str = ""  # the field in which cells that take turns differ


class _Version(msgspec.Struct, frozen=True):
    """Of a manifest of any version, which may share no other field with ours."""

    schema: str = ""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One launch that was tried."""

    cell: str
    launch: int
    status: str  # of the result, or refused | timeout | crashed | interrupted
    started_at: str
    seconds: float
    run: str = ""  # the run's id, where it left one
    duel: str = ""  # the folder of the duel in which it took turns
    reason: str = ""


class SweepFolder:
    """Created or continued by `open_sweep`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def done(self) -> set[tuple[str, int]]:
        """(cell key, launch) of every launch that has a finished result."""
        found = set()
        for result in iter_results(self.path):
            if isinstance(result, ResultError) or result.status not in DONE:
                continue
            launch = result.tags.get("launch", "")
            if result.tags.get("sweep") == self.manifest.id and launch.isdecimal():
                found.add((cell_of(result).key, int(launch)))
        return found

    def record(self, attempt: Attempt) -> None:
        """Append one attempt. Raises `ResultError`."""
        line = msgspec.json.encode(attempt) + b"\n"
        try:
            with opened_to_append(self.path / ATTEMPTS) as file:
                lock.wait(file.fileno())  # another shard may write here too
                file.write(line)
        except OSError as error:
            raise ResultError(
                f"{str(self.path)!r} cannot be written: {error.strerror}", "free some space"
            ) from error


def open_sweep(plan: Plan, out: Path, label: str | None, new: bool) -> SweepFolder:
    """The folder of this plan under this label, continued where it was begun before.

    Without a label it is the date and the commit. Raises `UsageError` where what is there was begun
    from another file, machine or software, and `ResultError` where it cannot be written.
    """
    state = {**_state(plan), "model and data files": _files_sha256(plan)}
    label = label or default_label(state.get("commit", ""))
    path = out / f"{plan.name}-{label}"
    if new:
        path = next_free(path)
    refuse_links(path / MANIFEST, path / ATTEMPTS, path / LOGS)
    manifest = _read(path)
    if manifest is not None:
        _same(manifest, plan, state)
    _make_logs(path)  # also where a sweep goes on whose logs somebody has tidied away
    if manifest is None:
        manifest = _create(path, plan, label, state)
    return SweepFolder(path, manifest)


def _make_logs(path: Path) -> None:
    try:
        (path / LOGS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(
            f"sweep folder {str(path)!r} cannot be made: {error.strerror}",
            "name a writable folder with --results",
        ) from error


def _create(path: Path, plan: Plan, label: str, state: dict[str, str]) -> Manifest:
    manifest = Manifest(
        id=path.name,
        name=plan.name,
        label=label,
        plan_sha256=plan.sha256,
        launches=plan.launches,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        cells=tuple(one.cell for one in plan.cells),
        state=state,
        paired=plan.paired,
    )
    write_atomically(path / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    return manifest


def _read(path: Path) -> Manifest | None:
    try:
        if not (path / MANIFEST).exists():
            return None
        data = read_bytes(path / MANIFEST)
        version = maybe.decode(data, _Version).schema
        if version in ("", SCHEMA):
            return maybe.decode(data, Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ResultError(
            f"{str(path / MANIFEST)!r} cannot be read: {why}", "restore it, or give --new"
        ) from error
    raise ResultError(
        f"{str(path / MANIFEST)!r} has schema {version!r:.60}, not {SCHEMA}",
        "upgrade with pip install -U hw-harness, or give --new",
    )


def _same(manifest: Manifest, plan: Plan, state: Mapping[str, str]) -> None:
    """Launches of one sweep repeat each other, so nothing may have changed since it began."""
    changed = [
        f"{name} ({manifest.state.get(name, 'absent')} then, {state.get(name, 'absent')} now)"
        for name in sorted({*manifest.state, *state})
        if manifest.state.get(name) != state.get(name)
    ]
    if manifest.plan_sha256 != plan.sha256:
        changed.insert(0, "the sweep file")
    if changed:
        raise UsageError(
            f"sweep {manifest.id} was begun before this changed: {', '.join(changed)}",
            "give --new to begin another, or --label NAME",
        )


def next_free(path: Path) -> Path:
    """``path``, or with the first number after it that is free."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate


def default_label(commit: str) -> str:
    """The date, and the beginning of the commit, of a night that nobody named."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{date}-{commit[:7]}" if commit else date


def _state(plan: Plan) -> dict[str, str]:
    software = machine.software(backends=sorted({one.spec.backend for one in plan.cells}))
    state = dict(software.versions)
    for device in sorted({one.spec.device for one in plan.cells}):
        state[f"machine with {device}"] = machine.fingerprint(device=device).fingerprint
    if software.commit:
        state["commit"] = software.commit
        state["uncommitted changes"] = _diff_sha256()
    return state


def _files_sha256(plan: Plan) -> str:
    """Of the contents of all files that cells name."""
    texts = {str(one.fields.get(field)) for one in plan.cells for field in FILES}
    total = hashlib.sha256()
    for path in sorted(Path(text) for text in texts):
        with contextlib.suppress(OSError), path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:12]


def _diff_sha256() -> str:
    """Of what differs from the commit: two dirty trees of one commit are two builds."""
    found = list(_diffs(Path.cwd()))
    if None in found:
        return f"unknown, pid {os.getpid()}"  # what cannot be compared is not the same
    whole = b"".join(filter(None, found))
    return hashlib.sha256(whole).hexdigest()[:12] if whole else "none"


def _diffs(folder: Path) -> Iterator[bytes | None]:
    """Of ``folder`` and of the submodules in it; None where git cannot tell."""
    asked = ("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--binary", git.NOT_INSIDE)
    yield git.ask(*asked, folder=folder)
    for inside in git.submodules(folder):
        yield from _diffs(inside)


def summary(attempts: list[Attempt], folder: SweepFolder) -> dict[str, Any]:
    """What ``harness sweep --json`` prints."""
    return {
        "schema": SCHEMA,
        "id": folder.manifest.id,
        "folder": str(folder.path),
        "cells": len(folder.manifest.cells),
        "launches": folder.manifest.launches,
        "done": len(folder.done()),
        "attempts": attempts,
    }
