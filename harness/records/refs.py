"""What a name on the command line stands for: one run, or many.

    20261121T0503            the run whose id begins so; also a run folder or a result file
    latest, latest~2         the newest run, the one two before it
    results/nightly          every run in a folder, at any depth; so a sweep, by folder or id
    latest@main              the newest sweep on a branch, or the newest runs outside of one
    latest~1@main            the sweep before that
    @4f9c2d1, latest@v1.2    at a commit; if it was not measured, at the nearest one before it
    tag:rig=left             every run with this tag
    baseline:release         a promoted baseline; also plain ``release``
    A,B                      all of these together

A name that stands for nothing, or for several things, is an error that says what would fit. Files
that cannot be read, and runs that must not count twice, become problems of the selection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.errors import ResultError
from harness.host import git
from harness.records import baselines
from harness.records.cell import cell_of
from harness.records.index.answers import IndexedRun
from harness.records.index.database import Index
from harness.records.index.figures import FINISHED, slot_of
from harness.records.result import Result
from harness.records.store import (
    RESULT_NAME,
    SWEEP_NAME,
    decode_result,
    owed,
    read_bytes,
    result_path,
    run_folders,
    scan,
    to_recover,
)

_FORMS = (
    "give a run folder, a result file, a run id or its beginning, latest or latest~N, a folder of "
    "runs, a sweep, latest@BRANCH, @COMMIT, tag:KEY=VALUE or a baseline"
)
_LATEST = re.compile(r"latest(~(?P<back>\d{1,6}))?(@(?P<at>.+))?")
_FAR = 100_000  # commits to walk back
_SOME = 2000  # runs to look through at first


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """``results`` are in the order of time, each with its file in ``paths``."""

    name: str
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()


class _Named(msgspec.Struct, frozen=True):
    """The result files that a name stands for."""

    paths: Sequence[Path]
    problems: tuple[str, ...] = ()
    alone: bool = False  # one run, asked for by its own name
    baseline: str = ""  # which one it is, if it is one


def resolve(ref: str, results: Path | str = "results") -> Selection:
    """The runs that ``ref`` stands for; ids are looked up in the folder ``results``.

    Raises `ResultError` where it stands for nothing that can be read, or for several things.
    """
    folder = Path(results)
    parts = [ref] if _exists(Path(ref)) else [part.strip() for part in ref.split(",")]
    named = [_named(part, folder) for part in parts]
    if len(named) == 1 and named[0].alone:
        path = named[0].paths[0]
        found = [(decode_result(read_bytes(path), path), path)]
        return _selection(ref, found, list(named[0].problems))
    problems = [problem for one in named for problem in one.problems]
    read = list(_read((path for one in named for path in one.paths), problems))
    _refuse_losses(named, {path for _, path in read}, problems)
    if not read:
        why = f": {problems[0]}" if problems else ""
        raise ResultError(f"{ref!r} holds no result that can be read{why}", _FORMS)
    return _selection(ref, _counted(read, problems), problems)


def resolve_one(ref: str, results: Path | str = "results") -> tuple[Result, Path]:
    """The one run that ``ref`` stands for, and its file. Raises `ResultError`."""
    selection = resolve(ref, results)
    result, *others = selection.results
    if others:
        few = ", ".join([result.id, others[0].id, "..."][: len(others) + 1])
        raise ResultError(f"{ref!r} stands for {len(others) + 1} runs: {few}", "give the id of one")
    return result, selection.paths[0]


def _selection(ref: str, found: Iterable[tuple[Result, Path]], problems: list[str]) -> Selection:
    inside = sorted(found, key=lambda one: (one[0].started_at, one[0].id))
    return Selection(
        name=ref,
        results=tuple(result for result, _ in inside),
        paths=tuple(path for _, path in inside),
        problems=tuple(dict.fromkeys(problems)),
    )


def _refuse_losses(named: Sequence[_Named], read: set[Path], problems: Sequence[str]) -> None:
    """A folder may hold what cannot be read; half a baseline would let a gate pass what it must
    not."""
    for one in named:
        lost = [path for path in one.paths if one.baseline and path not in read]
        if lost:
            why = next((text for text in problems if str(lost[0].parent) in text), str(lost[0]))
            raise ResultError(
                f"baseline {one.baseline!r} has lost {len(lost)} of its {len(one.paths)} runs: "
                f"{why.partition(';')[0]}",
                "restore its folder, or delete its record and promote anew",
            )


def _read(paths: Iterable[Path], problems: list[str]) -> Iterator[tuple[Result, Path]]:
    for path in dict.fromkeys(paths):
        try:
            yield decode_result(read_bytes(path), path), path
        except ResultError as error:
            problems.append(str(error))


def _counted(
    found: Sequence[tuple[Result, Path]], problems: list[str]
) -> list[tuple[Result, Path]]:
    """Copies of a run count once, and so do attempts at one launch of a sweep: the first that
    finished, or the first where none did."""
    runs: dict[str, tuple[Result, Path]] = {}
    for result, path in sorted(found, key=lambda one: str(one[1].parent)):
        if (kept := runs.setdefault(result.id, (result, path)))[1] != path:
            problems.append(f"{str(path)!r} is the same run as {str(kept[1])!r}: counted once")
    slots: dict[tuple[str, ...], Result] = {}
    order = lambda one: (one[0].status not in FINISHED, one[0].started_at, one[0].id)  # noqa: E731
    counted = []
    for result, path in sorted(runs.values(), key=order):
        slot = slot_of(result.id, cell_of(result).key, result.machine.fingerprint, result.tags)
        if (first := slots.setdefault(slot, result)) is result:
            counted.append((result, path))
        else:
            problems.append(f"{result.id} is another attempt at {first.id}: not counted")
    return counted


# --- one name ---


def _named(ref: str, results: Path) -> _Named:
    if not ref:
        raise ResultError(f"no run {ref!r} in {str(results)!r}", _FORMS)
    if latest := _LATEST.fullmatch(ref):
        if latest["at"]:
            return _latest_at(latest["at"], int(latest["back"] or 0), results)
        return _Named([result_path(ref, results)], alone=True)
    kind, colon, rest = ref.partition(":")
    if colon and kind == "baseline":
        return _baseline(rest, results)
    if colon and kind == "tag":
        return _tagged(rest, results)
    if ref.startswith("@"):
        return _at_commit(ref[1:], 0, results)
    return _by_name(ref, results)


def _by_name(ref: str, results: Path) -> _Named:
    """A path, or the name of a run, a sweep or a baseline: what bears it, else what begins so."""
    inside = _names(results)
    exact = _spelt_out(ref, results)
    exact += [one for one in inside if one.path.name == ref]
    for found in (exact, [one for one in inside if one.path.name.startswith(ref)]):
        if places := _apart(found):
            return _only(ref, places, results)
    if _exists(Path(ref)):
        raise ResultError(
            f"{ref!r} holds no {RESULT_NAME}",
            owed(ref) or "the run is still going, or was killed before its end",
        )
    raise ResultError(f"no run {ref!r} in {str(results)!r}", _FORMS)


class _Place(NamedTuple):
    """Where a name leads. ``kind``: run | file | folder | baseline."""

    kind: str
    path: Path


def _spelt_out(ref: str, results: Path) -> list[_Place]:
    """The files and folders at ``ref`` that hold results, and the baseline of that name."""
    found = [
        place
        for path in (Path(ref), results / ref)
        if _exists(path) and (place := _place(path)) is not None
    ]
    if "/" in ref:
        return found[:1]
    return found + [_Place("baseline", path) for path in [baselines.path_of(ref, results)] if path]


def _place(path: Path) -> _Place | None:
    if path.name == SWEEP_NAME:
        path = path.parent
    if not path.is_dir():
        return _Place("file", path)
    if (path / RESULT_NAME).exists():
        return _Place("run", path)
    if to_recover(path):
        return _Place("run", path)
    holds_runs = any(found.size_bytes >= 0 or found.problem for found in scan(path))
    return _Place("folder", path) if holds_runs else None


def _names(results: Path) -> list[_Place]:
    """The runs in ``results``, and the folders that they lie in."""
    runs = run_folders(results)
    folders = {path.parent for path in runs} - {results}
    return [_Place("run", path) for path in runs] + [_Place("folder", p) for p in sorted(folders)]


def _apart(found: Iterable[_Place]) -> list[_Place]:
    """Without those that lead to the same file by another path."""
    return list({one.path.resolve(): one for one in reversed(list(found))}.values())[::-1]


def _only(ref: str, places: Sequence[_Place], results: Path) -> _Named:
    names = {one.path.name for one in places}
    if len(places) > 1 and {one.kind for one in places} == {"run"}:
        if len(names) > 1:
            few = ", ".join([one.path.name for one in places[:2]] + ["..."] * (len(places) > 2))
            raise ResultError(
                f"{ref!r} begins the ids of {len(places)} runs: {few}", "give more of the id"
            )
        return _Named([one.path / RESULT_NAME for one in places])  # copies of one run
    if len(places) > 1:
        told = [f"baseline:{ref}" if p.kind == "baseline" else str(p.path) for p in places]
        few = ", ".join(told[:3] + ["..."] * (len(told) > 3))
        raise ResultError(f"{ref!r} stands for {len(places)} things: {few}", "give one of them")
    kind, path = places[0]
    if kind == "baseline":
        return _baseline(ref, results)
    if kind == "folder":
        return _below(path)
    return _Named([path / RESULT_NAME if kind == "run" else path], alone=True)


def _below(folder: Path) -> _Named:
    """Every run below ``folder``."""
    found = list(scan(folder))
    problems = [f"{one.folder!r} cannot be read: {one.problem}" for one in found if one.problem]
    killed = ((one.folder, to_recover(one.folder)) for one in found if one.size_bytes < 0)
    problems += [f"the run in {name!r} was killed; {remedy}" for name, remedy in killed if remedy]
    paths = [Path(one.folder) / RESULT_NAME for one in found if one.size_bytes >= 0]
    return _Named(sorted(paths), tuple(problems))


def _exists(path: Path) -> bool:
    try:
        return bool(path.name or path.parts) and path.exists()
    except (OSError, ValueError):  # too long, or holds a null character
        return False


def _baseline(name: str, results: Path) -> _Named:
    return _Named(baselines.result_paths(name, results), baseline=name)


# --- through the index ---


def _tagged(text: str, results: Path) -> _Named:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise ResultError(f"'tag:{text}' names no tag", "give tag:KEY=VALUE")
    with Index(results) as index:
        index.refresh()
        runs = index.runs(tag=(key, value))
    if not runs:
        raise ResultError(f"no run in {str(results)!r} has the tag {text}", _FORMS)
    return _Named(_paths(runs, results))


def _latest_at(name: str, back: int, results: Path) -> _Named:
    with Index(results) as index:
        index.refresh()
        if index.runs(branch=name, limit=1):
            return _Named(_paths(_newest(index, back, branch=name), results))
    return _at_commit(name, back, results)


def _at_commit(name: str, back: int, results: Path) -> _Named:
    """Runs at commit ``name``, or at the nearest measured one that it descends from."""
    with Index(results) as index:
        index.refresh()
        measured = [commit for commit in index.commits() if not commit.endswith("-dirty")]
        fits = [c for c in measured if re.fullmatch("[0-9a-f]{4,}", name) and c.startswith(name)]
        if len(fits) > 1:
            raise ResultError(f"{name!r} begins the commits {fits[0]} and {fits[1]}", "give more")
        commit, notes = (fits[0], ()) if fits else _walk_back(name, set(measured), index)
        return _Named(_paths(_newest(index, back, commit=commit), results), notes)


def _walk_back(name: str, measured: set[str], index: Index) -> tuple[str, tuple[str, ...]]:
    head = _told("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if not head:
        raise ResultError(
            f"no run in {str(index.results)!r} is of branch or commit {name!r}, and git knows none"
            " here",
            f"branches measured: {_few(index.branches(), 5)}; git's: {_few(_git_branches(), 5)}",
        )
    log = _told("rev-list", f"--max-count={_FAR}", head.strip())
    for distance, commit in enumerate(log.split()):
        if commit in measured:
            told = f"{name} was not measured: {commit} lies {distance} commits before it"
            return commit, (told,) if distance else ()
    changed = [c.removesuffix("-dirty")[:12] for c in index.commits() if c.endswith("-dirty")]
    beside = f"; with uncommitted changes, so at none: {_few(changed)}" if changed else ""
    raise ResultError(
        f"neither {name!r} nor a commit before it was measured",
        f"measured: {_few([commit[:12] for commit in measured])}{beside}",
    )


def _few(names: Sequence[str], most: int = 3) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more]) or "none"


def _git_branches() -> list[str]:
    """The newest first."""
    asked = ("--sort=-committerdate", "--format=%(refname:short)", "refs/heads")
    return _told("for-each-ref", *asked).split()


def _newest(index: Index, back: int, **asked: str) -> list[IndexedRun]:
    """The runs of the newest sweep, or those of the newest commit outside of sweeps. With ``back``
    of the one so many before. ``asked``: the branch or commit of `Index.runs`."""
    limit = _SOME
    while True:
        runs = _runs(index, asked, limit)
        keys = list(dict.fromkeys(_belongs_to(run) for run in runs))
        if back < len(keys) or len(runs) < limit:
            break
        limit *= 8
    if back >= len(keys):
        (name,) = asked.values()
        raise ResultError(f"{name!r} has {len(keys)} sweeps or commits measured", "go less back")
    kind, value = keys[back]
    return [run for run in _runs(index, {**asked, kind: value}) if _belongs_to(run) == keys[back]]


def _runs(index: Index, asked: Mapping[str, str], limit: int | None = None) -> list[IndexedRun]:
    return index.runs(
        id=asked.get("id"),
        sweep=asked.get("sweep"),
        commit=asked.get("commit"),
        branch=asked.get("branch"),
        limit=limit,
    )


def _belongs_to(run: IndexedRun) -> tuple[str, str]:
    if sweep := run.tags.get("sweep"):
        return "sweep", sweep
    return ("commit", run.commit) if run.commit else ("id", run.id)


def _paths(runs: Iterable[IndexedRun], results: Path) -> list[Path]:
    return [results / run.path / RESULT_NAME for run in runs]


def _told(*words: str) -> str:
    """What git answers in the current folder; nothing where it has no answer."""
    return (git.ask(*words) or b"").decode(errors="replace")
