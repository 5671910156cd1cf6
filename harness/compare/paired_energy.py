"""The ratio of joules per inference, from stretches that variants had in turn for the meter.

    launch 1   A ─ B      log of B's joules over A's, pair by pair
    launch 2   B ─ A      launches are averaged as those of rounds are (`harness.stats.paired`)

What the machine draws beside the model is in both stretches of a pair: in gross, and not in net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec

from harness.compare.paired import Paired, PairedEnergy, Variant, interval_of
from harness.maybe import Maybe, Unavailable
from harness.records.primary import settled
from harness.records.result import Energy, Result, Spread
from harness.stats.paired import LaunchRatio, PairedRatio, of_stretches, over_launches

Stretches = Sequence[Sequence[Maybe[Energy]]]  # of one variant: of each launch, one a stretch
Ratio = tuple[Maybe[float], Maybe[tuple[float, float]]]


def with_energy(found: Paired, sides: Sequence[Stretches], results: Sequence[Result]) -> Paired:
    """``found`` with what the stretches of its ``sides`` say, in their order, or why not."""
    device = results[0].spec.device
    flat = [one for side in sides for launch in side for one in launch]
    by_one_meter = iter(settled(flat, device))  # all sides by the same
    sides = [[[next(by_one_meter) for _ in launch] for launch in side] for side in sides]
    pairs = zip(found.verdicts, sides[1:], results[1:], strict=True)
    return msgspec.structs.replace(
        found,
        variants=tuple(map(_variant, found.variants, results)),
        verdicts=tuple(
            msgspec.structs.replace(verdict, energy=_paired(sides[0], side, results[0], result))
            for verdict, side, result in pairs
        ),
    )


def _variant(variant: Variant, result: Result) -> Variant:
    energy = result.energy
    if isinstance(energy, Unavailable):
        return msgspec.structs.replace(variant, gross_j=energy, net_j=energy)
    return msgspec.structs.replace(
        variant,
        gross_j=_value(energy.joules_per_inference),
        net_j=_value(_net(energy)),
    )


def _value(found: Maybe[Spread]) -> Maybe[float]:
    return found if isinstance(found, Unavailable) else found.value


def _gross(energy: Energy) -> Maybe[Spread]:
    return energy.joules_per_inference


def _net(energy: Energy) -> Maybe[Spread]:
    source = energy.sources.get(energy.primary)
    return energy.joules_per_inference if source is None else source.net_j_per_inference


def _paired(a: Stretches, b: Stretches, of_a: Result, of_b: Result) -> Maybe[PairedEnergy]:
    for result in (of_a, of_b):
        if isinstance(result.energy, Unavailable):
            return result.energy
    launches = [
        [
            (one, other)
            for one, other in zip(*pair, strict=False)
            if not isinstance(one, Unavailable) and not isinstance(other, Unavailable)
        ]
        for pair in zip(a, b, strict=False)
    ]
    launches = [launch for launch in launches if launch]
    stretches = [one for launch in launches for pair in launch for one in pair]
    if not stretches:
        return Unavailable("no stretch was metered on both sides")
    gross, net = _ratio(launches, _gross), _ratio(launches, _net)
    return PairedEnergy(
        meter=stretches[0].primary,
        pairs=len(stretches) // 2,
        launches=len(launches),
        stretch_s=fmean(one.window_s for one in stretches),
        gross_ratio=gross[0], gross_interval=gross[1], net_ratio=net[0], net_interval=net[1],
        shared=any(one.shared is True for one in stretches),
    )  # fmt: skip


def _ratio(
    launches: Sequence[Sequence[tuple[Energy, Energy]]], read: Callable[[Energy], Maybe[Spread]]
) -> Ratio:
    found: list[LaunchRatio] = []
    for launch in launches:
        pairs: list[tuple[float, float]] = []
        for a, b in ((read(one), read(other)) for one, other in launch):
            if isinstance(a, Unavailable) or isinstance(b, Unavailable):
                why = a if isinstance(a, Unavailable) else b
                assert isinstance(why, Unavailable)
                return why, why  # a mean over the pairs that happen to have one would be another
            if a.value <= 0 or b.value <= 0:
                why = Unavailable("a stretch without positive joules has no ratio")
                return why, why
            error = math.hypot(a.comparative / a.value, b.comparative / b.value)
            pairs.append((math.log(b.value / a.value), error))
        found.append(of_stretches(pairs))
    whole = over_launches(found)
    return math.exp(whole.log_ratio), _interval(whole)


def _interval(found: PairedRatio) -> Maybe[tuple[float, float]]:
    if found.dof < 1:
        return Unavailable("one pair of stretches has no interval", "leave out --launches")
    return interval_of(found)
