"""What came between the last good run and the first bad one, and whether a third is good or bad."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from harness.errors import NothingComparable
from harness.maybe import Unavailable
from harness.records.cell import cell_of, long_name
from harness.records.figures import value
from harness.records.metric import Metric, Quantity
from harness.records.result import Result
from harness.spec import RunSpec
from harness.stats.quantiles import bounding_ranks

_ALWAYS_DIFFERENT = (
    "load_average", "engine", "engine_build_s", "engine_built_at", "layers", "layer_times",
)  # fmt: skip


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One side. ``level`` is in the unit of the metric."""

    name: str
    run: str
    started_at: str
    commit: str | None
    level: float
    fingerprint: str
    spec: RunSpec


class Suspects(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs between the last good run and the first bad one."""

    cell: str
    metric: Quantity
    good: Known
    bad: Known
    ratio: float
    differences: dict[str, tuple[str, str]]


class Classified(msgspec.Struct, frozen=True, kw_only=True):
    """``share`` of the way from the good level (0) to the bad one (1), with its 95 % interval.

    ``median`` is that of the launches, in the unit of the metric; NaN where there was none.
    """

    verdict: Literal["good", "bad", "unclear"]
    median: float
    share: float
    interval: tuple[float, float]


def suspects(
    cell: str, metric: Metric, good: Sequence[Result], bad: Sequence[Result], names: tuple[str, str]
) -> Suspects:
    """The same for runs that were named: those of ``cell`` among them.

    Raises `NothingComparable` where a side has no such run, or bad is no worse than good.
    """
    sides = []
    for name, given in zip(names, (good, bad), strict=True):
        runs = _of_cell(cell, given)
        level = value(runs, metric.name) if runs else Unavailable(f"it holds no run of {cell!r}")
        if isinstance(level, Unavailable):
            raise NothingComparable(
                f"{name!r} has no {metric.name}: {level.reason}", "name other runs"
            )
        sides.append((runs[0], level))
    (first, level), (last, worse) = sides
    ratio = worse / level
    if (ratio > 1) != (metric.better == "lower"):
        raise NothingComparable(
            f"{names[1]!r} is no worse than {names[0]!r} in {metric.name}: {ratio:.3f} times",
            "name a good and a bad one",
        )
    return Suspects(
        cell=cell,
        metric=metric.quantity,
        good=known(names[0], first, level),
        bad=known(names[1], last, worse),
        ratio=ratio,
        differences=differences(first, last),
    )


def _of_cell(cell: str, given: Sequence[Result]) -> list[Result]:
    """The runs of the cell called so. Raises `NothingComparable` where several are."""
    runs = [
        run for run in given if cell in (cell_of(run).key, cell_of(run).name, long_name(run.spec))
    ]
    names = {cell_of(run).key: long_name(run.spec) for run in runs}
    if len(set(names.values())) > 1:
        named = ", ".join(names.values())
        raise NothingComparable(f"{cell!r} is {len(names)} cells: {named}", "name one of them")
    return runs


def known(name: str, run: Result, level: float) -> Known:
    """One side, by one of its runs."""
    return Known(
        name=name,
        run=run.id,
        started_at=run.started_at,
        commit=run.software.commit,
        level=level,
        fingerprint=run.machine.fingerprint,
        spec=run.spec,
    )


def differences(good: Result, bad: Result) -> dict[str, tuple[str, str]]:
    """What differs between two runs of one cell, outcomes left out: name -> (good, bad)."""
    sides = []
    for run in (good, bad):
        facts = {"commit": run.software.commit or "", "model": getattr(run.model, "sha256", "")}
        facts |= run.software.versions
        facts |= _lasting(run.software.runtime, "runtime ")
        facts |= run.software.environment
        facts |= _lasting(run.machine.context)
        facts |= run.machine.factors
        sides.append(facts)
    ours, theirs = sides
    return {
        name: (ours.get(name, "absent"), theirs.get(name, "absent"))
        for name in {**ours, **theirs}
        if ours.get(name, "absent") != theirs.get(name, "absent")
    }


def _lasting(facts: Mapping[str, str], prefix: str = "") -> dict[str, str]:
    """Without those that no two runs have alike."""
    return {f"{prefix}{name}": facts[name] for name in facts if name not in _ALWAYS_DIFFERENT}


def classify(values: Sequence[float], good: float, bad: float) -> Classified:
    """Is the build that gave ``values`` (one per launch, positive) good or bad?

    It is the nearer of the two levels, if the interval of its median is wholly on that side of the
    middle between them. Order statistics give the interval, so an odd launch or two do not matter;
    fewer than six launches have none, and are never clear.
    """
    span = math.log(bad / good)
    shares = sorted(math.log(value / good) / span for value in values)
    ranks = bounding_ranks(len(shares), len(shares), 0.5)
    low, high = (shares[rank - 1] for rank in ranks) if ranks else (-math.inf, math.inf)
    verdict: Literal["good", "bad", "unclear"] = (
        "good" if high < 0.5 else "bad" if low > 0.5 else "unclear"
    )
    median, share = map(statistics.median, (values, shares)) if shares else (math.nan, math.nan)
    return Classified(verdict=verdict, median=median, share=share, interval=(low, high))
