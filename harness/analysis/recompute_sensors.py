"""What the sensors said, once more: every channel, and the energy that counters counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.channels import summarise
from harness.analysis.energy.meters import meter_of
from harness.analysis.energy.series import Load, Sensor, Series, counter_energy
from harness.analysis.held import Figure, held, sane, unknown
from harness.analysis.profiles import merge
from harness.maybe import Maybe, Unavailable, explain
from harness.protocols import Channel
from harness.records.result import IN_TURNS, EnergySource, Profiles, Result

Span = tuple[int, int]  # the window of a launch, in ns
# one launch's readings: channel -> times in ns, values
Readings = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
_OF_STRETCHES = Unavailable("it is of stretches beside the window, whose bounds are not kept")
_SURE = 3.0  # standard deviations
_CHANNEL = ("mean", "min", "max", "first", "last")


def channels(
    result: Result,
    windows: Maybe[Mapping[int, Span]],
    readings: Sequence[Maybe[Readings]],
) -> Iterator[Figure]:
    profiles = result.profiles
    if isinstance(profiles, Unavailable):
        return
    present = {n: c for n, c in profiles.channels.items() if not isinstance(c, Unavailable)}
    whole = _whole(windows, readings)
    if isinstance(whole, Unavailable):
        yield from (unknown(f"profiles.channels.{n}", "present", explain(whole)) for n in present)
        return
    for name, channel in present.items():
        again: Maybe[Any] = sane(partial(_summary, name, channel, whole))
        for field in _CHANNEL:
            path = f"profiles.channels.{name}.{field}"
            recorded = getattr(channel, field)
            if isinstance(again, Unavailable):
                yield unknown(path, recorded, explain(again))
            else:
                yield held(path, recorded, getattr(again, field))


_Launch = tuple[Span, Readings]


def _whole(
    windows: Maybe[Mapping[int, Span]], readings: Sequence[Maybe[Readings]]
) -> Maybe[list[_Launch]]:
    """Window and readings of each launch that has a window, or what is missing."""
    if isinstance(windows, Unavailable):
        return windows
    found: list[_Launch] = []
    for launch, span in windows.items():
        if launch >= len(readings):
            return Unavailable(f"launch {launch} has no file of readings")
        one = readings[launch]
        if isinstance(one, Unavailable):
            return one
        found.append((span, one))
    return found or Unavailable("no launch timed anything")


def _summary(name: str, recorded: Any, launches: Sequence[_Launch]) -> Maybe[Any]:
    channel = Channel(name, recorded.unit, recorded.kind, name, recorded.scope, recorded.source)
    made = []
    for (start, end), readings in launches:
        if name not in readings:
            return Unavailable("its readings are not kept")
        made.append(Profiles(
            sampler=Unavailable("not asked"),
            channels={name: summarise(channel, *readings[name], start, end)},
        ))  # fmt: skip
    return merge(made).channels[name]


def energy(
    result: Result,
    windows: Maybe[Mapping[int, Span]],
    readings: Sequence[Maybe[Readings]],
) -> Iterator[Figure]:
    energy = result.energy
    if isinstance(energy, Unavailable):
        return
    whole: Maybe[list[_Launch]] = _OF_STRETCHES
    if result.throughput != IN_TURNS:
        whole = _whole(windows, readings)
    for name, source in energy.sources.items():
        recorded = source.energy_j
        if isinstance(recorded, Unavailable):
            continue
        path = f"energy.sources.{name}.energy_j.value"
        named = [(part, energy.sources.get(part)) for part in source.parts] or [(name, source)]
        parts = [(part, found, _counter(result, part, found)) for part, found in named]
        joules = whole if isinstance(whole, Unavailable) else sane(partial(_joules, parts, whole))
        if isinstance(joules, Unavailable):
            yield unknown(path, recorded.value, explain(joules))
            continue
        yield held(path, recorded.value, joules, _SURE * recorded.comparative)
        net = source.net_j_per_inference
        if not isinstance(net, Unavailable):
            why = "where the idle stretches lay is not kept"
            yield unknown(f"energy.sources.{name}.net_j_per_inference.value", net.value, why)
    primary = energy.sources.get(energy.primary)
    headline = energy.joules_per_inference
    if primary is not None and not isinstance(headline, Unavailable):
        total = primary.energy_j
        again = None
        if not isinstance(total, Unavailable) and energy.inferences > 0:
            again = total.value / energy.inferences
        yield held("energy.joules_per_inference.value", headline.value, again)


def _counter(result: Result, meter: str, source: EnergySource | None) -> str:
    """The channel that counted it. Results of before say the meter alone, which its name tells."""
    if source is None or source.counted_by:
        return source.counted_by if source else ""
    profiles = result.profiles
    channels = {} if isinstance(profiles, Unavailable) else profiles.channels
    counters = [
        name
        for name, channel in channels.items()
        if not isinstance(channel, Unavailable)
        and (channel.unit, channel.kind, channel.source) == ("J", "counter", source.source)
    ]
    ours = (meter, meter.removeprefix(f"{source.source}-"))
    return next((name for name in counters if meter_of(name) in ours), "")


def _joules(
    parts: Sequence[tuple[str, EnergySource | None, str]], launches: Sequence[_Launch]
) -> Maybe[float]:
    """What the counters of these meters grew by in all windows."""
    total = 0.0
    for name, source, counter in parts:
        if source is None or source.method != "counter":
            return Unavailable("what its power readings average over is not kept")
        if source.scope == "wall":
            return Unavailable("its readings carry times of their own")
        for (start, end), readings in launches:
            times, values = readings.get(counter, (np.empty(0), np.empty(0)))
            if not len(times):
                return Unavailable(f"the readings of {name} are not kept")
            known = np.isfinite(values)
            series = Series((times[known] - start) / 1e9, values[known])
            period = source.update_period_s
            sensor = Sensor(None if isinstance(period, Unavailable) else period)
            figure = counter_energy(series, 0.0, (end - start) / 1e9, sensor, Load())
            if isinstance(figure, Unavailable):
                return figure
            total += figure.energy_j
    return total
