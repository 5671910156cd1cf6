"""Let the two builds of a cell take turns: a duel of the good one and tonight's.

    environments    workers of the two interpreters        commits    workers in the two checkouts
    artifacts       one environment, two model files       commands   no: they start anew each time

The driver makes what the workers load, so a duel says nothing of how each build *makes* a model:
where the nights ran files of different sources or sizes, or code makes it, separate launches do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.compare.comparison import Comparison
from harness.compare.duel import by_policy
from harness.compare.paired import Paired
from harness.compare.verdicts import Settings
from harness.engine.driver.duel import MOST_LAUNCHES, DuelOutcome, duel, rules_of
from harness.engine.driver.homes import Home, home
from harness.errors import HarnessError, MeasurementFailed, UsageError
from harness.maybe import Unavailable
from harness.records.cell import key_by_stem
from harness.records.result import Result
from harness.spec import MODEL_SUFFIXES, RunSpec
from harness.spec.variants import WARMUP
from harness.sweep.again import make_folder
from harness.sweep.confirm import SIDES, Build, SideName

_FILES = ("model", "reference", "inputs", "dataset", "calibration")


class Nights(NamedTuple):
    """What the two nights measured of a cell, the newest run of each."""

    baseline: Result
    candidate: Result


class Turned(NamedTuple):
    """A duel of the two builds, and its runs."""

    paired: Paired
    baseline: Result
    candidate: Result


def in_turns(
    builds: Mapping[SideName, Build],
    specs: Mapping[str, RunSpec],
    nights: tuple[Sequence[Result], Sequence[Result]],
    settings: Settings,
    out: Path,
    tell: Callable[[str], None],
) -> Comparison:
    """The duels of those cells of ``specs`` whose builds can take turns, judged as ``settings``
    ask; of the others ``tell`` is told why not. ``nights``: the results of both.

    Raises `ResultError` where ``out`` cannot be made, and KeyboardInterrupt.
    """
    make_folder(out)
    found: dict[str, tuple[Paired, Result, Result]] = {}
    for cell, spec in specs.items():
        before, tonight = (_newest(side, spec) for side in nights)
        if before is None or tonight is None:  # of another name on one side
            continue
        try:
            found[cell] = take_turns(
                builds, Nights(before, tonight), settings.minimum_launches, out
            )
        except HarnessError as error:
            tell(f"{cell}: no duel, so separate launches: {error}")
    return by_policy(found, settings)


def _newest(night: Sequence[Result], spec: RunSpec) -> Result | None:
    alike = [run for run in night if key_by_stem(run.spec) == key_by_stem(spec)]
    return alike[-1] if alike else None


def take_turns(
    builds: Mapping[SideName, Build], nights: Nights, launches: int, out: Path
) -> Turned:
    """A duel of both builds of one cell, in a folder of its own in ``out``.

    Raises `HarnessError` where they cannot take turns, saying why, and KeyboardInterrupt.
    """
    spec = nights.candidate.spec
    _refuse(builds, spec, nights)
    specs = [_asked(builds[side], spec, out, side) for side in SIDES]
    homes = [_home(builds[side], spec) for side in SIDES]
    rules = rules_of(specs[0], None)
    rules = msgspec.structs.replace(
        rules, least_launches=launches, most_launches=max(launches, MOST_LAUNCHES)
    )
    outcome = duel(specs, SIDES, rules, homes=homes)
    if outcome.paired.ended == "interrupted":
        raise KeyboardInterrupt
    if outcome.exit_code:
        raise MeasurementFailed(
            outcome.paired.problem or "the duel failed", f"see {outcome.folder}"
        )
    return _checked(outcome, nights)


def _refuse(builds: Mapping[SideName, Build], spec: RunSpec, nights: Nights) -> None:
    """Raises `UsageError` for what cannot take turns, or would not be what the nights measured."""
    if any(builds[side].python is None for side in SIDES):
        raise UsageError("a command cannot take turns", "name environments, commits or artifacts")
    if spec.scheduled or spec.concurrency > 1:
        raise UsageError("in a duel one inference at a time runs")
    if builds["baseline"].artifacts is None:
        if ":" in spec.model and not spec.model.lower().endswith(MODEL_SUFFIXES):
            raise UsageError(f"{spec.model!r} is code, which each build runs for itself")
        if told := _other_file(nights.baseline, nights.candidate):
            raise UsageError(f"the two nights ran different files of the model ({told})")


def _asked(build: Build, spec: RunSpec, out: Path, side: SideName) -> RunSpec:
    """``spec`` as one side of a duel: its own files, and a window as duels have it."""
    inside = {}
    for name in _FILES:
        path = getattr(spec, name)
        for folder in filter(None, (build.folder, Path.cwd())):  # a worker may have another
            if path and (folder / path).is_file():
                inside[name] = str(folder / path)
                break
    return msgspec.structs.replace(
        build.of(msgspec.structs.replace(spec, **inside)),
        out=str(out), launches=1, tags={"build": side},
        duration_s=None, max_duration_s=None, iterations=None, precision_goal=None,
        warmup_s=min(float(WARMUP), spec.max_warmup_s), overhead_check=False, operators=False,
        require=(), idle_s=None, power_source="none",
    )  # fmt: skip


def _home(build: Build, spec: RunSpec) -> Home | None:
    if build.artifacts is not None or build.python is None:
        return None
    checkout = str(build.folder) if build.folder else None
    return home(build.python, spec.backend, (), checkout, build.commit)


def _checked(outcome: DuelOutcome, nights: Nights) -> Turned:
    """The duel, if what took turns is what the nights had measured. Raises `MeasurementFailed`."""
    runs = [run.result for run in outcome.runs]
    for side, night, run in zip(SIDES, nights, runs, strict=True):
        if told := _other_file(night, run):
            raise MeasurementFailed(
                f"here {side}'s file of the model is another than in its night ({told})"
            )
    return Turned(outcome.paired, *runs)


def _other_file(a: Result, b: Result) -> str:
    """What tells the files that two runs have loaded apart; empty as far as nothing does."""
    if isinstance(a.model, Unavailable) or isinstance(b.model, Unavailable):
        return ""
    if a.model.sha256 != b.model.sha256:
        return f"sources {a.model.sha256[:8]} and {b.model.sha256[:8]}"
    sizes = [
        None if isinstance(one.precision, Unavailable) else one.precision.file_size_bytes
        for one in (a, b)
    ]
    if sizes[0] != sizes[1] and None not in sizes:
        return f"of {sizes[0]} and {sizes[1]} bytes"
    return ""
