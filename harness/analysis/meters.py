"""From channels to meters: which counter and which power belong together, and sums over sockets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.analysis.power_series import Sensor, Series, counter_period_s, power_period_s
from harness.protocols import Channel


@dataclass(frozen=True)
class SourceReadings:
    """One channel's readings: monotonic times [ns], values in its unit, NaN or None if missing."""

    channel: Channel
    times_ns: Sequence[int]
    values: Sequence[float | None]


@dataclass(frozen=True)
class Meter:
    """The counter and the power of one physical quantity, either of which may be missing."""

    name: str
    channel: Channel
    counter: Series | None = None
    power: Series | None = None
    sensor: Sensor = field(default_factory=Sensor)
    power_sensor: Sensor = field(default_factory=Sensor)
    parts: tuple[str, ...] = ()

    @property
    def period_s(self) -> float | None:
        """Update period of what is primary here."""
        if self.counter is not None:
            return counter_period_s(self.counter, self.sensor)
        return None if self.power is None else power_period_s(self.power, self.power_sensor)


def _stem(channel: Channel) -> str:
    """``energy/package-0_j`` -> ``package-0``."""
    return channel.name.partition("/")[2].rpartition("_")[0] or channel.name


def group(sources: Sequence[SourceReadings], origin_ns: int) -> list[Meter]:
    stamps = {
        (item.channel.source, _stem(item.channel)): item
        for item in sources
        if item.channel.name.startswith("time/")
    }
    meters: dict[tuple[str, str], Meter] = {}
    for item in sources:
        channel = item.channel
        if channel.unit not in ("J", "W"):
            continue
        key = (channel.source, _stem(channel))
        meter = meters.get(key, Meter(key[1], channel))
        if channel.unavailable is None:
            meter = _joined(meter, item, _series(item, stamps.get(key), origin_ns))
        meters[key] = meter
    names = [name for _, name in meters]
    # Two sources may use one name for their meters.
    return [
        replace(meter, name=f"{source}-{name}") if names.count(name) > 1 else meter
        for (source, name), meter in meters.items()
    ]


def _joined(meter: Meter, item: SourceReadings, series: Series) -> Meter:
    facts = item.channel.facts
    sensor = Sensor(
        period_s=item.channel.period_s,
        averaging_s=facts.get("averaging_s"),
        lag_s=facts.get("lag_s", 0.0),
        resolution_j=facts.get("resolution_j", 0.0),
    )
    # An available channel speaks for its meter, so that a broken twin does not hide it.
    if meter.channel.unavailable is not None:
        meter = replace(meter, channel=item.channel)
    if item.channel.kind == "counter":
        return replace(meter, counter=series, sensor=sensor)
    return replace(meter, power=series, power_sensor=sensor)


def _series(item: SourceReadings, stamps: SourceReadings | None, origin_ns: int) -> Series:
    values = np.array(item.values, dtype=np.float64)
    if stamps is None:
        times = (np.asarray(item.times_ns, dtype=np.int64) - origin_ns) / 1e9
    else:
        times = np.array(stamps.values, dtype=np.float64) - origin_ns / 1e9
    good = np.isfinite(values) & np.isfinite(times)
    return Series(times[good], values[good], stamped=stamps is not None)


def with_totals(meters: list[Meter]) -> list[Meter]:
    """The meters, and before them the sum over the sockets of each source that counts several.

    Readings of one source share their times; a moment at which one socket is missing has no sum.
    """
    sockets: dict[str, list[Meter]] = {}
    for meter in meters:
        if meter.channel.scope == "cpu-package":
            sockets.setdefault(meter.channel.source, []).append(meter)
    totals = [_total(source, parts) for source, parts in sockets.items() if len(parts) > 1]
    return [*(total for total in totals if total is not None), *meters]


def _total(source: str, sockets: list[Meter]) -> Meter | None:
    total = replace(
        sockets[0],
        name=f"{source}-total",
        parts=tuple(meter.name for meter in sockets),
        counter=None,
        power=None,
    )
    for meter in sockets:
        if meter.channel.unavailable is not None:
            return replace(total, channel=meter.channel)
    counters = [meter.counter for meter in sockets if meter.counter is not None]
    if len(counters) < len(sockets):
        return None
    common = counters[0].t
    for series in counters[1:]:
        common = np.intersect1d(common, series.t)
    values = sum(series.v[np.isin(series.t, common)] for series in counters)
    step = math.hypot(*(meter.sensor.resolution_j for meter in sockets))
    return replace(
        total,
        counter=Series(common, np.asarray(values, dtype=np.float64)),
        sensor=replace(sockets[0].sensor, resolution_j=step),
    )
