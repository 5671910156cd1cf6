"""What a policy asks of the candidate itself: absolute limits, accuracy floors, expected cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from harness.compare.policy import DEFAULT_FLOOR, Policy, near
from harness.compare.sides import Group, Side, hardware_name
from harness.maybe import Unavailable, explain
from harness.records.cell import (
    cell_name,
    cell_of,
    fits,
    long_name,
    model_path,
    shared_names,
    spec_cell,
    told_name,
)
from harness.records.figures import value as value_of
from harness.records.metric import METRICS
from harness.records.result import Accuracy, Result

Check = Literal["maximum", "minimum", "floor"]
State = Literal["broken", "kept", "unknown"]


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """One limit, and whether it was kept. ``check``: maximum, minimum or floor."""

    cell: str
    fingerprint: str
    hardware: str
    metric: str
    check: Check
    state: State
    message: str


def absolute_limits(candidate: Group, policy: Policy) -> Iterator[Breach]:
    """Every maximum and minimum of every cell that was measured."""
    metrics = dict.fromkeys(limit.metric for limit in policy.limit)
    for side in candidate.values():
        for metric in metrics if side.finished else ():
            cell = cell_of(side.first).name
            high, low = policy.maximum(cell, metric), policy.minimum(cell, metric)
            if high is not None:
                yield _held(side, metric, "maximum", high)
            if low is not None:
                yield _held(side, metric, "minimum", low)


def accuracy_floors(baseline: Group, candidate: Group, policy: Policy) -> Iterator[Breach]:
    """Accuracy against FP32's: of the candidate where it has an FP32 run, else of the baseline.

    A cell without any accuracy is held to nothing, and neither is one without an FP32 reference
    unless the policy names its floor.
    """
    before, now = _references(baseline), _references(candidate)
    for side in candidate.values():
        ours = _accuracy(side)
        if ours is None:
            continue
        asked = policy.floor_of_fp32(cell_of(side.first).name)
        reduced = side.first.spec.precision != "fp32"
        key = _without_precision(side.first), ours.dataset_sha256
        reference = (now.get(key) if reduced else None) or before.get(key)
        if reference is not None:
            floor = DEFAULT_FLOOR if asked is None else asked
            told = f"{ours.top1:.2%}, FP32 {reference.top1:.2%}, floor {floor:g} of it"
            broken = ours.top1 < floor * reference.top1
            yield _breach(side, "top1", "floor", "broken" if broken else "kept", told)
        elif reduced and asked is not None:
            yield _breach(side, "top1", "floor", "unknown", "no FP32 run to hold it against")


def missing_cells(
    baseline: Group, candidate: Group, policy: Policy, planned: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(cell or glob, what is wrong) for whatever was expected and is not there.

    ``planned``: the cells that the candidate's sweeps set out to measure, each with what happened.
    """
    there, before = _names(candidate, baseline), _names(baseline, candidate)
    known_by = there | {cell_name(one.first.spec) for one in candidate.values()}
    known_by |= {long_name(one.first.spec) for one in candidate.values()}
    found = {name: f"planned, and not measured{why}" for name, why in planned.items()
             if name not in known_by}  # fmt: skip
    for glob in policy.expect.cells:
        if not any(fits(name, glob) for name in there | before):
            known = near(glob, sorted(there | before))
            found[glob] = f"expected, and not measured on either side; {known}".rstrip("; ")
        for name in sorted(before - there):
            if fits(name, glob):
                found.setdefault(name, f"expected (by {glob!r}), and not measured")
    return list(found.items())


def _names(sides: Group, others: Group) -> set[str]:
    """Of the cells of ``sides``: long ones where models of different folders share a name."""
    ours = [side.first.spec for side in sides.values()]
    theirs = [side.first.spec for side in others.values()]
    shared = shared_names(model_path(spec.model) for spec in (*ours, *theirs))
    return {told_name(cell_name(spec), model_path(spec.model), shared) for spec in ours}


def _held(side: Side, metric: str, check: Check, limit: float) -> Breach:
    unit, value = METRICS[metric].unit, value_of(side.finished, metric)
    if isinstance(value, Unavailable):
        why = f"no figure to hold against the {check} of {limit:g} {unit}: {explain(value)}"
        return _breach(side, metric, check, "unknown", why)
    broken = value > limit if check == "maximum" else value < limit
    told = f"{value:.6g} {unit}, {check} {limit:g} {unit}"
    return _breach(side, metric, check, "broken" if broken else "kept", told)


def _breach(side: Side, metric: str, check: Check, state: State, message: str) -> Breach:
    return Breach(
        cell=cell_of(side.first).name,
        fingerprint=side.first.machine.fingerprint,
        hardware=hardware_name(side.first),
        metric=metric,
        check=check,
        state=state,
        message=message,
    )


def _accuracy(side: Side) -> Accuracy | None:
    found = [one.accuracy for one in side.finished]
    known = [one for one in found if not isinstance(one, Unavailable)]
    return known[-1] if known else None


def _references(sides: Group) -> dict[tuple[str, str], Accuracy]:
    """FP32's accuracies, on whatever machine, by all else that defines a cell and by dataset."""
    found: dict[tuple[str, str], Accuracy] = {}
    for side in sides.values():
        accuracy = _accuracy(side)
        if accuracy is not None and side.first.spec.precision == "fp32":
            found[_without_precision(side.first), accuracy.dataset_sha256] = accuracy
    return found


def _without_precision(run: Result) -> str:
    spec = msgspec.structs.replace(
        run.spec,
        precision="fp32",
        calibration=None,
        calibration_method="minmax",
        quantization="static",
    )
    return spec_cell(spec).key
