"""The test that each meter passes under the warm-up's load before anything is attributed to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.analysis.energy.meters import Meter
from harness.analysis.energy.series import Load, held_energy, update_period_s
from harness.maybe import Maybe, Unavailable, coded
from harness.records.result import CheckVerdict, SelfTest

BAND = 0.2
MIN_UPDATES = 5


def self_test(meter: Meter, load: tuple[float, float] | None) -> SelfTest:
    """Whether the meter moves under load, and its counter agrees with its power within 20 %.

    ``load`` is the warm-up in the time of the meter's series. Unknown where it was too short for
    five updates; a counter without a power reading beside it has nothing to agree with.
    """
    series = meter.counter if meter.counter is not None else meter.power
    if series is None or load is None:
        reason = "it was not read" if series is None else "there was no warm-up"
        return _tested("unknown", reason)
    start, end = load
    inside = (series.t >= start) & (series.t <= end)
    part = replace(series, t=series.t[inside], v=series.v[inside])
    updates = int(part.t.size if series.stamped else part.changed.size)
    period = update_period_s(part)
    if part.t.size < MIN_UPDATES:
        return _tested("unknown", f"only {part.t.size} readings of the warm-up", updates)
    if updates == 0 and end - start > 10 * (meter.sensor.period_s or 0.1):
        return _tested("fail", "it did not move under load", updates)
    ratio = _ratio(meter, start, end)
    if not isinstance(ratio, Unavailable) and abs(ratio - 1) > BAND:
        reason = f"the counter grew by {ratio:.3g} times its own integrated power"
        return _tested("fail", reason, updates, period, ratio)
    verdict: CheckVerdict = "pass" if updates >= MIN_UPDATES else "unknown"
    agrees = "" if isinstance(ratio, Unavailable) else " and agrees with its power"
    return _tested(verdict, f"it moves under load{agrees}", updates, period, ratio)


def _ratio(meter: Meter, start: float, end: float) -> Maybe[float]:
    """Counter over integral between the first and the last update within the warm-up."""
    if meter.counter is None or meter.power is None:
        return coded("not_supported", "this meter has no second reading to agree with")
    times = meter.counter.t[meter.counter.changed]
    times = times[(times >= start) & (times <= end)]
    if times.size < MIN_UPDATES:
        return coded("insufficient_samples", "too few updates of the counter")
    first, last = float(times[0]), float(times[-1])
    figure = held_energy(meter.power, first, last, meter.power_sensor, Load())
    if isinstance(figure, Unavailable):
        return figure
    if figure.energy_j <= 0:
        return coded("error", "its power adds up to nothing")
    joules = float(np.diff(np.interp([first, last], meter.counter.t, meter.counter.v))[0])
    return joules / figure.energy_j


def _tested(
    verdict: CheckVerdict,
    reason: str,
    updates: int = 0,
    period: float | None = None,
    ratio: Maybe[float] | None = None,
) -> SelfTest:
    unknown = coded("insufficient_samples", reason)
    return SelfTest(
        verdict=verdict,
        reason=reason,
        updates=updates,
        update_period_s=unknown if period is None else period,
        counter_to_integral=unknown if ratio is None else ratio,
    )
