"""Several launches as one measurement: joules and inferences added, their spread an uncertainty."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from statistics import stdev
from typing import Any, TypeVar

import msgspec

from harness.maybe import Maybe, Unavailable, coded
from harness.records.result import Energy, EnergySource, Spread

T = TypeVar("T")


def pool(launches: Sequence[Maybe[Energy]]) -> Maybe[Energy]:
    """The energy of all launches together.

    Absent where one launch has none: the others are not the run that was asked for.
    """
    if not launches:
        return coded("not_present", "no launch was measured")
    energies: list[Energy] = []
    for energy in launches:
        if isinstance(energy, Unavailable):
            return energy
        energies.append(energy)
    if len(energies) == 1:
        return energies[0]
    names = [name for name in energies[0].sources if all(name in e.sources for e in energies)]
    sources = {name: _pooled(name, energies) for name in names}
    primary = energies[0].primary
    return Energy(
        primary=primary,
        joules_per_inference=_headline(sources, energies),
        window_s=sum(energy.window_s for energy in energies),
        inferences=sum(energy.inferences for energy in energies),
        shared=_any([energy.shared for energy in energies]),
        sources=sources,
    )


def _pooled(name: str, energies: Sequence[Energy]) -> EnergySource:
    """One meter over all launches; each quantity is absent where one launch lacks it."""
    parts = [energy.sources[name] for energy in energies]
    counts = [energy.inferences for energy in energies]
    seconds = [energy.window_s for energy in energies]
    gross = [part.gross_j_per_inference for part in parts]
    net = [part.net_j_per_inference for part in parts]
    quantities: dict[str, Any] = {
        "energy_j": _sum([part.energy_j for part in parts]),
        "counter_j": _join([part.counter_j for part in parts], sum),
        "integral_j": _join([part.integral_j for part in parts], sum),
        "average_power_w": _mean([part.average_power_w for part in parts], seconds),
        "idle_before_w": _mean([part.idle_before_w for part in parts], seconds),
        "idle_after_w": _mean([part.idle_after_w for part in parts], seconds),
        "gross_j_per_inference": _per_inference(gross, counts),
        "net_j_per_inference": _per_inference(net, counts),
        "energy_delay_product_js": _delay_product(parts, counts),
        "update_period_s": _join([part.update_period_s for part in parts], max),
    }
    worst = {"ok": 0, "shared": 1, "disagreement": 2, "unavailable": 3}
    methods = {part.method for part in parts}
    return msgspec.structs.replace(
        parts[0],
        **quantities,
        method=methods.pop() if len(methods) == 1 else "mixed",
        updates=sum(part.updates for part in parts),
        status=max((part.status for part in parts), key=lambda status: worst[status]),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _headline(sources: dict[str, EnergySource], energies: Sequence[Energy]) -> Maybe[Spread]:
    primary, first = energies[0].primary, energies[0].joules_per_inference
    if primary in sources:
        return sources[primary].gross_j_per_inference
    if isinstance(first, Unavailable):
        return first
    return coded("not_present", f"{primary} was not read in every launch")


def _values(items: Sequence[Maybe[T]]) -> Maybe[list[T]]:
    """All of them, or the first reason."""
    values: list[T] = []
    for item in items:
        if isinstance(item, Unavailable):
            return item
        values.append(item)
    return values


def _join(items: Sequence[Maybe[float]], how: Callable[[list[float]], float]) -> Maybe[float]:
    values = _values(items)
    if isinstance(values, Unavailable):
        return values
    return how(values)


def _mean(items: Sequence[Maybe[float]], weights: Sequence[float]) -> Maybe[float]:
    total = sum(weights)
    return _join(items, lambda values: sum(map(operator.mul, values, weights)) / total)


def _sum(items: Sequence[Maybe[Spread]]) -> Maybe[Spread]:
    """The sum: errors of the launches are independent, the instrument's gain is common to all."""
    spreads = _values(items)
    if isinstance(spreads, Unavailable):
        return spreads
    value = sum(spread.value for spread in spreads)
    comparative = math.hypot(*(spread.comparative for spread in spreads))
    absolute = _join(
        [_gain(spread) for spread in spreads], lambda gains: math.hypot(comparative, sum(gains))
    )
    return Spread(value=value, comparative=comparative, absolute=absolute)


def _gain(spread: Spread) -> Maybe[float]:
    """The part of the absolute uncertainty that comes from the instrument."""
    if isinstance(spread.absolute, Unavailable):
        return spread.absolute
    return math.sqrt(max(spread.absolute**2 - spread.comparative**2, 0.0))


def _per_inference(items: Sequence[Maybe[Spread]], counts: Sequence[int]) -> Maybe[Spread]:
    """The mean over all inferences, with the standard error of the launches' spread joined in."""
    spreads = _values(items)
    if isinstance(spreads, Unavailable):
        return spreads
    total = sum(counts)
    shares = [count / total for count in counts]
    mean = _sum([_scaled(spread, share) for spread, share in zip(spreads, shares, strict=True)])
    assert not isinstance(mean, Unavailable)
    between = stdev(spread.value for spread in spreads) / math.sqrt(len(spreads))
    absolute = mean.absolute
    return Spread(
        value=mean.value,
        comparative=math.hypot(mean.comparative, between),
        absolute=absolute if isinstance(absolute, Unavailable) else math.hypot(absolute, between),
    )


def _scaled(spread: Spread, factor: float) -> Spread:
    absolute = spread.absolute
    return Spread(
        value=spread.value * factor,
        comparative=spread.comparative * factor,
        absolute=absolute if isinstance(absolute, Unavailable) else absolute * factor,
    )


def _delay_product(parts: Sequence[EnergySource], counts: Sequence[int]) -> Maybe[float]:
    """Joules per inference over all launches x their mean latency."""
    gross = _values([part.gross_j_per_inference for part in parts])
    products = _values([part.energy_delay_product_js for part in parts])
    if isinstance(gross, Unavailable):
        return gross
    if isinstance(products, Unavailable):
        return products
    joules = sum(g.value * count for g, count in zip(gross, counts, strict=True))
    if not all(g.value for g in gross):
        return 0.0
    seconds = sum(
        product / g.value * count for product, g, count in zip(products, gross, counts, strict=True)
    )
    return joules * seconds / sum(counts) ** 2


def _any(flags: Sequence[Maybe[bool]]) -> Maybe[bool]:
    if any(flag is True for flag in flags):
        return True
    return next((flag for flag in flags if isinstance(flag, Unavailable)), False)
