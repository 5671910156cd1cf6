"""From channels to meters: which counter and which power belong together, and sums over sockets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from harness.analysis.channels import unwrapped, wrap_of
from harness.analysis.energy.series import Sensor, Series, counter_period_s, power_period_s
from harness.maybe import Unavailable, coded
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
    counted_by: str = ""  # the channel of ``counter``

    @property
    def period_s(self) -> float | None:
        """Update period of what is primary here."""
        if self.counter is not None:
            return counter_period_s(self.counter, self.sensor)
        return None if self.power is None else power_period_s(self.power, self.power_sensor)


def meter_of(channel: str) -> str:
    """Of a channel that does not say it: ``energy/package-0_j`` -> ``package-0``."""
    return channel.partition("/")[2].rpartition("_")[0] or channel


def _meter(channel: Channel) -> str:
    return channel.meter or meter_of(channel.name)


def group(sources: Sequence[SourceReadings], origin_ns: int) -> list[Meter]:
    stamps = {
        (item.channel.source, _meter(item.channel)): item
        for item in sources
        if item.channel.name.startswith("time/")
    }
    meters: dict[tuple[str, str], Meter] = {}
    for item in sources:
        channel = item.channel
        if channel.unit not in ("J", "W"):
            continue
        key = (channel.source, _meter(channel))
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
    facts = item.channel.sensor
    sensor = Sensor(
        period_s=item.channel.period_s,
        averaging_s=facts.averaging_s,
        lag_s=facts.lag_s,
        resolution_j=facts.resolution_j,
    )
    # An available channel speaks for its meter, so that a broken twin does not hide it.
    if meter.channel.unavailable is not None:
        meter = replace(meter, channel=item.channel)
    if item.channel.kind == "counter":
        return replace(meter, counter=series, sensor=sensor, counted_by=item.channel.name)
    return replace(meter, power=series, power_sensor=sensor)


def _series(item: SourceReadings, stamps: SourceReadings | None, origin_ns: int) -> Series:
    values = np.array(item.values, dtype=np.float64)
    if stamps is None:
        times = (np.asarray(item.times_ns, dtype=np.int64) - origin_ns) / 1e9
    else:
        times = np.array(stamps.values, dtype=np.float64) - origin_ns / 1e9
    good = np.isfinite(values) & np.isfinite(times)
    known = unwrapped(values[good], wrap_of(item.channel))
    return Series(times[good], known, stamped=stamps is not None)


def totals_of(meters: Sequence[Meter], sockets: int = 1) -> list[Meter]:
    """The sum over the sockets, of each source that counts several or should.

    A source that sees fewer meters than the machine has ``sockets`` has a sum too, one that is
    unavailable: what it does see is a part.
    """
    sources: dict[str, list[Meter]] = {}
    for meter in meters:
        if meter.channel.scope == "cpu-package":
            sources.setdefault(meter.channel.source, []).append(meter)
    return [
        _total(source, parts, sockets)
        for source, parts in sources.items()
        if max(len(parts), sockets) > 1
    ]


def _total(source: str, parts: Sequence[Meter], sockets: int) -> Meter:
    """Readings of one source share their times; a moment at which one part is missing has no sum.

    Counters are added where every part has one, else powers: their sensors are of one kind.
    """
    total = replace(
        parts[0],
        name=f"{source}-total",
        channel=msgspec.structs.replace(parts[0].channel, unavailable=None),
        parts=tuple(meter.name for meter in parts),
        counter=None,
        power=None,
        counted_by="",
    )
    if len(parts) < sockets:
        detail = f"{source} counts {len(parts)} of {sockets} sockets: {', '.join(total.parts)}"
        return _without(total, coded("not_present", detail, "see `harness doctor`"))
    counters = [meter.counter for meter in parts if meter.counter is not None]
    if len(counters) == len(parts):
        step = math.hypot(*(meter.sensor.resolution_j for meter in parts))
        sensor = replace(parts[0].sensor, resolution_j=step)
        return replace(total, counter=_sum(counters), sensor=sensor)
    powers = [meter.power for meter in parts if meter.power is not None]
    if len(powers) == len(parts):
        return replace(total, power=_sum(powers))
    why = next((m.channel.unavailable for m in parts if m.channel.unavailable is not None), None)
    detail = "some sockets give energy and others power, which have no sum"
    return _without(total, why or coded("not_supported", detail))


def _without(total: Meter, why: Unavailable) -> Meter:
    return replace(total, channel=msgspec.structs.replace(total.channel, unavailable=why))


def _sum(parts: Sequence[Series]) -> Series:
    """At the times that all parts have."""
    common = parts[0].t
    for series in parts[1:]:
        common = np.intersect1d(common, series.t)
    values = sum(series.v[np.isin(series.t, common)] for series in parts)
    return Series(common, np.asarray(values, dtype=np.float64))
