"""Joules out of one series of readings: counters differenced, sampled power integrated.

    counter    ──●────────●────────●────────●──      published every T, read every h
                 ┆   t0 ──┼────────┼── t1   ┆        E = E(t1) - E(t0), both interpolated

    power      ──┐▁▁▁▁▁▁┌▔▔▔▔▔▔┌▔▔▔▔▔▔┐▁▁▁▁▁▁        each reading is held over the cell around it;
                 └──────┘      └──────┘              the window is shifted by the readings' age

All times here are seconds from one origin (the window's start), values joules or watts. Every
uncertainty is one standard deviation; the formulas stand beside their code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.maybe import Maybe, Unavailable, coded

Floats: TypeAlias = NDArray[np.float64]

MIN_UPDATES = 20
MAX_GAP_PERIODS = 3.0
STUCK_S = 2.0
SEES_ALL = 0.9  # a sensor whose averaging covers this share of its period misses nothing
RESONANT_S = 0.02
PAUSE_EVERY = 10  # iterations
MIN_PHASES = 8
# A phase uniform over T at each of two edges: their difference has sd T x sqrt(2/12).
EDGE_SD = math.sqrt(2 / 12)


@dataclass(frozen=True)
class Series:
    """Readings in order of time, without missing ones. ``stamped``: times are the sensor's own."""

    t: Floats
    v: Floats
    stamped: bool = False

    @property
    def interval_s(self) -> float:
        """Typical time between readings."""
        return float(np.median(np.diff(self.t))) if self.t.size > 1 else math.inf

    @property
    def changed(self) -> NDArray[np.intp]:
        """Indexes of the readings that show something new."""
        return np.flatnonzero(np.diff(self.v) != 0) + 1


@dataclass(frozen=True)
class Sensor:
    """What is known of how readings come about, in seconds; None where nobody says.

    A power reading is the mean over ``averaging_s``, which ended ``lag_s`` before it was published.
    """

    period_s: float | None = None
    averaging_s: float | None = None
    lag_s: float = 0.0
    resolution_j: float = 0.0


@dataclass(frozen=True)
class Load:
    """How the load repeats: ``iteration_s`` apart, with pauses by `resonance_delay` if
    ``random_phase``."""

    iteration_s: float = 0.0
    random_phase: bool = False


@dataclass(frozen=True)
class Figure:
    """Energy over a window. ``reach_s`` is how far beyond its edges the readings look."""

    energy_j: float
    sd_j: float
    updates: int
    period_s: float
    reach_s: float


def update_period_s(series: Series) -> float | None:
    """Time between changes of the reading, as far as the sampling shows; None below 4 changes.

    Intervals over 1.5 times the median are repeats of equal values and left out.
    """
    if series.stamped:
        return series.interval_s if series.t.size > 3 else None
    gaps = np.diff(series.t[series.changed])
    if gaps.size < 3:
        return None
    return float(np.mean(gaps[gaps <= 1.5 * np.median(gaps)]))


def counter_period_s(series: Series, sensor: Sensor) -> float | None:
    """A counter's period: as declared, unless it plainly moves more slowly.

    Only counters are doubted: equal power readings in a row may be equal power.
    """
    seen = update_period_s(series)
    if sensor.period_s is None or seen is None:
        return sensor.period_s if seen is None else seen
    floor_s = 1.5 * max(sensor.period_s, series.interval_s)
    return seen if seen > floor_s else sensor.period_s


def power_period_s(series: Series, sensor: Sensor) -> float | None:
    """A power sensor's period: as declared, or else as seen."""
    return sensor.period_s if sensor.period_s is not None else update_period_s(series)


def counter_energy(
    series: Series, start: float, end: float, sensor: Sensor, load: Load
) -> Maybe[Figure]:
    """Difference of the counter, interpolated at both edges.

    A new value was published between the last reading and this one, and no more than a period ago,
    so it belongs in the middle of that stretch, less the counter's lag; one that carries its own
    time belongs there. sd^2 is the sum of

        (0.41 min(T, h) P)^2             when each of the two values was published, if not known
        (0.41 min(iteration, h') P)^2    load that is not even between two updates h' = max(T, h)
        (0.41 q)^2                       counting in steps of q
    """
    if series.v.size and np.any(np.diff(series.v) < 0):
        return coded("counter_reset", "the counter went backwards", "measure again")
    period = counter_period_s(series, sensor)
    if period is None:
        return coded("insufficient_samples", "the counter did not move", "see `harness doctor`")
    fresh = np.arange(series.t.size) if series.stamped else series.changed
    since_s = np.minimum(series.t[fresh] - series.t[fresh - 1], period)
    times = series.t[fresh] - sensor.lag_s - (0.0 if series.stamped else since_s / 2)
    spacing = max(period, series.interval_s)
    lacking = _lacking(times, start, end, spacing)
    if lacking is not None:
        return lacking
    at_start, at_end = np.interp([start, end], times, series.v[fresh])
    energy = float(at_end - at_start)
    power = energy / (end - start)
    sd = EDGE_SD * math.hypot(
        0.0 if series.stamped else min(period, series.interval_s) * power,
        min(load.iteration_s, spacing) * power,
        sensor.resolution_j,
    )
    return Figure(energy, sd, _inside(times, start, end), period, spacing)


def held_energy(
    series: Series, start: float, end: float, sensor: Sensor, load: Load
) -> Maybe[Figure]:
    """Integral of sampled power, each reading held over its cell.

    A reading tells about the middle of its averaging time, which lies ``lag + averaging / 2`` back,
    and it was already up to a period old (half of one on average) when it was read, unless it
    carries its own time. The window is shifted by that age. sd^2 is the sum of

        (w s / sqrt(n))^2                spread s of n readings, n lessened by their autocorrelation
                                         and no more than there were random phases
        (0.41 min(iteration, h') P)^2    the cells at the edges
        (0.29 w P (1 - f) iteration / W)^2   a sensor that sees a share f of the time, through a
                                         window W that cuts iterations always at the same place
    """
    period = power_period_s(series, sensor)
    if period is None:
        return coded("insufficient_samples", "the power reading did not change")
    averaging = sensor.averaging_s if sensor.averaging_s is not None else period
    age = sensor.lag_s + averaging / 2 + (0.0 if series.stamped else period / 2)
    first, last = start + age, end + age
    spacing = max(period, series.interval_s)
    seen = min(1.0, averaging / spacing)
    phases = _phases(load, end - start) if seen < SEES_ALL else math.inf
    if phases < MIN_PHASES:
        detail = (
            f"the sensor sees {seen:.0%} of the time, and iterations of "
            f"{load.iteration_s * 1e3:.0f} ms can keep step with it: {phases:.0f} random pauses"
        )
        return coded(
            "insufficient_samples", detail, "pause at random between iterations, for longer"
        )
    refusal = _lacking(series.t, first, last, spacing, cells=True)
    if refusal is None:
        refusal = _stuck(series, first, last, period)
    if refusal is not None:
        return refusal
    energy = _integral(series, first, last)
    width = end - start
    power = energy / width
    phase = 0.29 * (1 - seen) * load.iteration_s / averaging if math.isinf(phases) else 0.0
    sd = math.hypot(
        width * _mean_sd(series, first, last, period, phases),
        EDGE_SD * min(load.iteration_s, spacing) * power,
        min(phase, 1.0) * width * power,
    )
    count = min(_inside(series.t, first, last), round(width / period))
    return Figure(energy, sd, count, period, (averaging + period + series.interval_s) / 2)


def resonance_delay(iteration_s: float, period_s: float) -> float:
    """Longest pause to make after every iteration, in seconds; 0 for none.

    Draw the pause uniformly from 0 to this, and anew every `PAUSE_EVERY` iterations.

    Iterations of 20 ms and more can keep step with a sensor that looks only part of the time. Over
    `PAUSE_EVERY` equal pauses the two drift apart by up to a whole iteration, each time by another
    part of it. (Pauses drawn for each iteration average out: they merely shift the period that
    keeps step.) The window grows by 5 % on average.
    """
    return min(period_s, iteration_s) / PAUSE_EVERY if iteration_s >= RESONANT_S else 0.0


def _phases(load: Load, width: float) -> float:
    """How many phases between load and sensor the window holds; infinite for short iterations."""
    if load.iteration_s < RESONANT_S:
        return math.inf
    return width / load.iteration_s / PAUSE_EVERY if load.random_phase else 0.0


def _integral(series: Series, first: float, last: float) -> float:
    middles = (series.t[1:] + series.t[:-1]) / 2
    half = series.interval_s / 2
    edges = np.concatenate(([series.t[0] - half], middles, [series.t[-1] + half]))
    return float(np.diff(np.clip(edges, first, last)) @ series.v)


def _mean_sd(series: Series, first: float, last: float, period: float, at_most: float) -> float:
    """Standard deviation of the mean of the readings in the window, in watts.

    n / tau of n readings count as independent, tau = 1 + 2 x (their autocorrelations, in pairs
    while a pair's sum is positive: Geyer's initial sequence).
    """
    step = max(1, round(period / series.interval_s))
    values = series.v[(series.t >= first) & (series.t <= last)][::step]
    centred = values - values.mean()
    variance = float(centred @ centred) / values.size
    if variance == 0.0:
        return 0.0
    size = values.size
    rho = np.correlate(centred, centred, "full")[size - 1 :] / (size * variance)
    pairs = rho[1 : 2 * ((size - 1) // 2) + 1].reshape(-1, 2).sum(axis=1)
    positive = pairs[: np.argmax(pairs <= 0)] if np.any(pairs <= 0) else pairs
    tau = 1 + 2 * float(positive.sum())
    return math.sqrt(variance / min((size - 1) / max(tau, 1.0), at_most))


def _inside(times: Floats, start: float, end: float) -> int:
    return int(np.count_nonzero((times >= start) & (times <= end)))


def _lacking(
    times: Floats, start: float, end: float, spacing: float, cells: bool = False
) -> Unavailable | None:
    """Why these times do not cover the window: too few, a gap, or an edge without a reading.

    ``cells``: a reading stands for the time around it, so that an edge may lie beyond the last one.
    """
    count = _inside(times, start, end)
    if count < MIN_UPDATES:
        detail = f"{count} updates in {end - start:.3g} s where {MIN_UPDATES} are needed"
        return coded("insufficient_samples", detail, "measure for longer, or sample faster")
    slack = spacing / 2 if cells else 0.0
    if times[0] - slack > start or times[-1] + slack < end:
        detail = "the readings begin after or end before the window"
        fix = "keep sampling beyond both edges, and faster than a logger writes"
        return coded("insufficient_samples", detail, fix)
    nearest = max(float(np.min(np.abs(times - edge))) for edge in (start, end))
    if nearest > spacing:
        detail = f"{nearest:.3g} s lie between an edge of the window and the nearest reading"
        return coded("insufficient_samples", detail, "measure on a less busy machine")
    low = max(int(np.searchsorted(times, start, "right")) - 1, 0)
    high = int(np.searchsorted(times, end, "left")) + 1
    gap = float(np.max(np.diff(times[low:high])))
    if gap > MAX_GAP_PERIODS * spacing:
        detail = f"a gap of {gap:.3g} s between updates that come every {spacing:.3g} s"
        return coded("insufficient_samples", detail, "measure on a less busy machine")
    return None


def _stuck(series: Series, first: float, last: float, period: float) -> Unavailable | None:
    """A reading that no longer changes may be steady power or a dead sensor: after a while, dead.

    A reading with a time of its own shows by that time that it is alive.
    """
    if series.stamped:
        return None
    changes = series.t[series.changed]
    inside = changes[(changes > first) & (changes < last)]
    longest = float(np.max(np.diff(np.concatenate(([first], inside, [last])))))
    limit = max(STUCK_S, 10 * period)
    if longest <= limit:
        return None
    detail = f"the power reading stayed the same for {longest:.3g} s"
    return coded("insufficient_samples", detail, "see `harness doctor`")
