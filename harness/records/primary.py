"""Which meter answers for a run: one and the same in every launch, and never a part of a sum.

launch 1   total ──── wall      the best scope that has a figure in every launch, be it another
launch 2   (n/a) ──── wall      one than each launch would choose; where no scope has, the best
launch 3   total ──── wall      one, so that what lacks a part is absent there with the reason
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.maybe import Maybe, Unavailable, coded
from harness.records.result import Energy, EnergySource, Spread

# Which scope answers "what does an inference cost?", best first.
PRIMARY_SCOPES = {
    "cpu": ("cpu-package", "soc", "wall", "psys"),
    "cuda": ("gpu-board", "gpu-module", "soc", "wall", "psys"),
}
Sources = dict[str, EnergySource]


def primary_of(launches: Sequence[Sources], device: str) -> str:
    """The meter that answers for ``device`` in all ``launches``; empty where none covers it."""
    scopes = PRIMARY_SCOPES.get(device.partition(":")[0], PRIMARY_SCOPES["cpu"])
    parts = {part for sources in launches for one in sources.values() for part in one.parts}
    named = {name: one.scope for sources in launches for name, one in sources.items()}
    ranked = [
        (any(_lacks(sources, name) for sources in launches), scopes.index(scope), position, name)
        for position, (name, scope) in enumerate(named.items())
        if scope in scopes and name not in parts
    ]
    return min(ranked)[-1] if ranked else ""


def headline(sources: Sources, primary: str, device: str) -> Maybe[Spread]:
    """Joules per inference by ``primary``, or why there are none."""
    if not primary:
        scopes = ", ".join(sorted({source.scope for source in sources.values()}))
        return coded("not_present", f"no meter covers {device}, only {scopes}")
    if primary not in sources:
        return coded("not_present", f"{primary} was not read in this launch")
    return sources[primary].gross_j_per_inference


def settled(launches: Sequence[Maybe[Energy]], device: str) -> list[Maybe[Energy]]:
    """The launches with one meter for all: no launch falls back to what another does not mean."""
    known = [one.sources for one in launches if not isinstance(one, Unavailable)]
    primary = primary_of(known, device)
    return [one if isinstance(one, Unavailable) else _by(one, primary, device) for one in launches]


def average_power_w(energy: Energy) -> Maybe[float]:
    """Of the meter that answers for the run."""
    source = energy.sources.get(energy.primary)
    if source is not None:
        return source.average_power_w
    why = energy.joules_per_inference
    return why if isinstance(why, Unavailable) else coded("not_present", "no meter gives it")


def _lacks(sources: Sources, name: str) -> bool:
    return name not in sources or isinstance(sources[name].energy_j, Unavailable)


def _by(energy: Energy, primary: str, device: str) -> Energy:
    return msgspec.structs.replace(
        energy, primary=primary, joules_per_inference=headline(energy.sources, primary, device)
    )
