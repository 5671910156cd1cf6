"""From raw readings to figures of a window: gauges weighted by time, counters by difference.

                start                        end
    readings  x───┼──x─────x─────x─────x────x─┼──x
    gauge         ├──┤ each value holds until the next reading
    counter       ▲ interpolated between its neighbours ▲

Nothing is extrapolated: a window that the readings do not cover has no figure, only a reason. Times
are nanoseconds of the common clock; a reading that failed is NaN and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.maybe import Maybe, Unavailable
from harness.protocols import Channel
from harness.records.result import ChannelSummary

Times: TypeAlias = NDArray[np.int64]
Values: TypeAlias = NDArray[np.float64]
Series: TypeAlias = Mapping[str, tuple[Times, Values]]

HOLD_PERIODS = 5  # a gauge's value is stale after so many median gaps
COVERAGE_FLOOR = 0.9  # of the window
EDGE_SHARE = 0.5  # of the window: the most that the two interpolated edges may take up
RATE_TAGS = ("_per_s", "_percent")  # a counter under such a tag shows how fast it grows
_LIVE_NS = 1_000_000_000
_REMEDY = "lengthen --duration or raise --sample-rate"


def summarise(
    channel: Channel, times_ns: Times, values: Values, start_ns: int, end_ns: int
) -> Maybe[ChannelSummary]:
    """The channel over the window, or why its readings do not give that.

    A gauge's mean is weighted by time; min, max, first and last are of the values that held in the
    window. A counter's ``first`` and ``last`` are its interpolated values at the two edges;
    ``mean`` is its growth per second, ``min`` and ``max`` the same between successive readings.
    """
    if channel.unavailable is not None:
        return channel.unavailable
    times_ns, values = _known(times_ns, values)
    if channel.kind == "gauge":
        found = _gauge(times_ns, values, start_ns, end_ns)
    else:
        found = _counter(channel, times_ns, values, start_ns, end_ns)
    if isinstance(found, Unavailable):
        return found
    mean, low, high, first, last = (float(figure) for figure in found)
    return ChannelSummary(
        unit=channel.unit,
        kind=channel.kind,
        scope=channel.scope,
        source=channel.source,
        samples=int(np.count_nonzero((times_ns >= start_ns) & (times_ns <= end_ns))),
        mean=mean,
        min=low,
        max=high,
        first=first,
        last=last,
    )


def growth(
    times_ns: Times, values: Values, start_ns: int, end_ns: int, wrap: float | None = None
) -> Maybe[float]:
    """How much a counter grew in the window, in its unit. ``wrap``: see `unwrapped`."""
    edges = _edges(*_known(times_ns, values), start_ns, end_ns, wrap)
    return edges if isinstance(edges, Unavailable) else edges[1] - edges[0]


def worker_share(series: Series, start_ns: int, end_ns: int, cpus: int = 1) -> Maybe[float]:
    """The worker's CPU seconds per second, over ``cpus``: 1 is all of them busy."""
    return _share(series, "worker_cpu_s", start_ns, end_ns, cpus)


def steal_share(series: Series, start_ns: int, end_ns: int, cpus: int = 1) -> Maybe[float]:
    """The share of ``cpus`` that the hypervisor gave to other virtual machines."""
    return _share(series, "machine_steal_s", start_ns, end_ns, cpus)


def foreign_share(series: Series, start_ns: int, end_ns: int, cpus: int = 1) -> Maybe[float]:
    """The share of ``cpus`` taken by processes that are neither worker nor Harness.

    Busy time less own time. The kernel counts the machine by ticks and a process exactly, so the
    difference may fall below 0 by a few per cent of the own time; further below there is no figure.
    """
    busy = _share(series, "machine_busy_s", start_ns, end_ns, cpus)
    if isinstance(busy, Unavailable):
        return busy
    own = 0.0
    for name in ("worker_cpu_s", "harness_cpu_s"):
        part = _share(series, name, start_ns, end_ns, cpus)
        if isinstance(part, Unavailable):
            return part
        own += part
    if busy < 0.9 * own - 0.02:
        return Unavailable(
            f"the machine counts less CPU time ({busy:.3f} of {cpus} CPUs) than the own processes"
            f" ({own:.3f})",
            "measure where /proc/stat and the worker see the same CPUs",
        )
    return max(0.0, busy - own)


def live(channel: Channel, times_ns: Times, values: Values) -> float | None:
    """The newest figure of ``channel`` under its tag; None where there is none, or none any more.

    A gauge's last reading. A counter by its tag: ``_per_s`` its rate over about the last second,
    ``_percent`` a hundred times that, anything else its growth since the first reading. Nothing is
    repeated once no reading has come for a second and for five times the usual gap.
    """
    now_ns = times_ns[-1] if len(times_ns) else 0
    times_ns, values = _known(times_ns, values)
    if _stale(times_ns, now_ns):
        return None
    if channel.kind == "gauge":
        return float(values[-1]) if len(values) else None
    if len(values) < 2:
        return None
    values = unwrapped(values, wrap_of(channel))
    if not channel.tag.endswith(RATE_TAGS):
        return float(values[-1] - values[0])
    since = min(int(np.searchsorted(times_ns, times_ns[-1] - _LIVE_NS)), len(values) - 2)
    rate = _rates(times_ns[[since, -1]], values[[since, -1]])[0]
    return float(rate * 100 if channel.tag.endswith("_percent") else rate)


def _stale(times_ns: Times, now_ns: int) -> bool:
    if not len(times_ns):
        return True
    usual_ns = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else 0.0
    return bool(now_ns - times_ns[-1] > max(_LIVE_NS, HOLD_PERIODS * usual_ns))


def _share(series: Series, name: str, start_ns: int, end_ns: int, cpus: int) -> Maybe[float]:
    if name not in series:
        return Unavailable(f"{name} was not sampled", "run with the utilization profiler")
    grown = growth(*series[name], start_ns, end_ns)
    if isinstance(grown, Unavailable):
        return Unavailable(f"{name}: {grown.reason}", grown.remedy)
    return grown / ((end_ns - start_ns) / 1e9 * cpus)


def _known(times_ns: Times, values: Values) -> tuple[Times, Values]:
    known = np.isfinite(values)
    return times_ns[known], values[known]


def wrap_of(channel: Channel) -> float | None:
    """How much a counter lost where it fell; None where it may not fall."""
    facts = channel.sensor
    return None if facts.wrap_range_j is None else facts.wrap_range_j + facts.resolution_j


def unwrapped(values: Values, wrap: float | None) -> Values:
    """Readings of a counter, none of them missing, with what it lost (``wrap``) at each fall."""
    if wrap is None:
        return values
    wraps = np.concatenate(([0], np.cumsum(np.diff(values) < 0)))
    return values + wraps * wrap


def _rates(times_ns: Times, values: Values) -> Values:
    """Growth per second between successive readings."""
    rates: Values = np.diff(values) / (np.diff(times_ns) / 1e9)
    return rates


def _gauge(
    times_ns: Times, values: Values, start_ns: int, end_ns: int
) -> Maybe[tuple[float, float, float, float, float]]:
    if len(values) < 2 or end_ns <= start_ns:
        return Unavailable(f"it has {len(values)} readings", _REMEDY)
    stale_ns = HOLD_PERIODS * float(np.median(np.diff(times_ns)))
    until = np.minimum(np.append(times_ns[1:], end_ns), times_ns + stale_ns)
    held_ns = np.minimum(until, end_ns) - np.maximum(times_ns, start_ns)
    used = held_ns > 0
    coverage = held_ns[used].sum() / (end_ns - start_ns)
    if coverage < COVERAGE_FLOOR:
        return Unavailable(f"its readings cover {coverage:.0%} of the window", _REMEDY)
    held = values[used]
    mean = np.average(held, weights=held_ns[used])
    return float(mean), float(held.min()), float(held.max()), float(held[0]), float(held[-1])


def _counter(
    channel: Channel, times_ns: Times, values: Values, start_ns: int, end_ns: int
) -> Maybe[tuple[float, float, float, float, float]]:
    wrap = wrap_of(channel)
    edges = _edges(times_ns, values, start_ns, end_ns, wrap)
    if isinstance(edges, Unavailable):
        return edges
    inside = (times_ns >= start_ns) & (times_ns <= end_ns)
    rates = _rates(times_ns[inside], unwrapped(values, wrap)[inside])
    mean = (edges[1] - edges[0]) / ((end_ns - start_ns) / 1e9)
    return mean, float(rates.min()), float(rates.max()), *edges


def _edges(
    times_ns: Times, values: Values, start_ns: int, end_ns: int, wrap: float | None
) -> Maybe[tuple[float, float]]:
    """The counter at the window's two edges."""
    if len(values) < 2 or times_ns[0] > start_ns or times_ns[-1] < end_ns or end_ns <= start_ns:
        return Unavailable("its readings do not reach over the window's edges", _REMEDY)
    values = unwrapped(values, wrap)
    if np.any(np.diff(values) < 0):
        return Unavailable("the counter went backwards", "report it with the samples file")
    gaps_ns = sum(_bracket_ns(times_ns, edge_ns) for edge_ns in (start_ns, end_ns))
    if gaps_ns > EDGE_SHARE * (end_ns - start_ns):
        return Unavailable(
            f"the readings around the window's edges are {gaps_ns / 1e6:.0f} ms apart, too far for"
            f" a window of {(end_ns - start_ns) / 1e6:.0f} ms",
            _REMEDY,
        )
    # relative to the first reading, so that nanoseconds stay exact in floating point
    at = np.interp([start_ns - times_ns[0], end_ns - times_ns[0]], times_ns - times_ns[0], values)
    return float(at[0]), float(at[1])


def _bracket_ns(times_ns: Times, edge_ns: int) -> int:
    """The distance between the readings on either side; 0 where one lies on the edge."""
    after = int(np.searchsorted(times_ns, edge_ns))
    return 0 if times_ns[after] == edge_ns else int(times_ns[after] - times_ns[after - 1])
