"""`latency_stats`: from raw iteration times of one or more launches to `LatencyStats`.

The standard error within one process misses what differs between processes (memory layout, thread
placement, autotuning), commonly 8 to 80 times as much. So, from five launches on, the launch is the
unit, and mean, median and tail quantiles are those of a typical launch:

    K >= 5    mean of the launches' own values +- t(K - 1) x their sd / sqrt(K)
    K <  5    all iterations pooled; order statistics within the launches, labelled as blind to
              the spread between launches

A pooled p99 of five launches would chiefly be the slowest launch's, with no honest interval: in
simulation its nominal 95 % covered 57 % where launches differ by more than iterations do.
``min``, ``max``, ``std``, ``iqr`` and ``mad`` always describe all iterations together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementFailed
from harness.maybe import Maybe, Unavailable
from harness.records.result import LatencyStats
from harness.stats.distributions import student_t_ppf
from harness.stats.quantiles import (
    BATCHED_FROM,
    Interval,
    Samples,
    batch_means,
    label,
    minimum_count,
    quantile,
    quantile_interval,
    too_few,
)
from harness.stats.two_samples import MIN_LAUNCHES

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_NS_PER_MS = 1e6
_UPPER = 0.975

Launches = Sequence[NDArray[Any]]
Estimate = tuple[Maybe[float], Maybe[Interval]]


def latency_stats(launches: Launches) -> LatencyStats:
    """Statistics in milliseconds of iteration times in nanoseconds.

    ``launches`` holds one 1-D array per fresh process, in time order; empty ones are left out.
    ``std`` divides by n - 1 (0 for a single iteration); ``mad`` is the median absolute deviation,
    not scaled to a standard deviation. Raises `MeasurementFailed` without a single iteration.
    """
    ms = in_ms(launches)
    between = _between(ms) if len(ms) >= MIN_LAUNCHES else None
    samples = ms[0] if len(ms) == 1 else np.concatenate(ms)
    del ms  # memory: an iteration takes 8 bytes for each array that lives on
    ordered = np.sort(samples)
    estimates = between or _within(samples, ordered)
    values: dict[str, Any] = {name: value for name, (value, _) in estimates.items()}
    return LatencyStats(
        **values,
        std=float(samples.std(ddof=1)) if len(samples) > 1 else 0.0,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        iqr=quantile(ordered, 0.75) - quantile(ordered, 0.25),
        mad=_mad(ordered),
        ci95={name: interval for name, (_, interval) in estimates.items()},
    )


def in_order(
    streams: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> NDArray[np.int64]:
    """Latencies in ns over all ``streams`` (starts, ends), in the order in which they ended."""
    if len(streams) == 1:
        ((starts, ends),) = streams
        return ends - starts
    order = np.argsort(np.concatenate([ends for _, ends in streams]), kind="stable")
    return np.concatenate([ends - starts for starts, ends in streams])[order]


def half_width(stats: LatencyStats) -> Maybe[float]:
    """Of the median's interval, relative to the median."""
    interval = stats.ci95["median"]
    if isinstance(interval, Unavailable):
        return interval
    return (interval[1] - interval[0]) / 2 / stats.median if stats.median else 0.0


def interval_methods(launches: int) -> dict[str, str]:
    """For each entry of ``ci95``, one sentence: how so many launches made its interval."""
    if launches >= MIN_LAUNCHES:
        sentence = (
            f"between launches: Student's t with {launches - 1} degrees of freedom "
            f"on the {launches} launches' own values, whose mean is the estimate"
        )
        return dict.fromkeys([*map(label, QUANTILES), "mean"], sentence)
    scope = "within one launch" if launches == 1 else f"within {launches} launches"
    blind = f"; blind to the spread between launches, which takes {MIN_LAUNCHES} or more"
    ranks = (
        f"{scope}: order statistics, effective count from batch means of the quantile's indicator "
        f"(independence assumed below {BATCHED_FROM} iterations)"
    )
    mean = f"{scope}: Student's t on the means of contiguous batches"
    return {**{label(q): ranks + blind for q in QUANTILES}, "mean": mean + blind}


def in_ms(launches: Launches) -> list[NDArray[np.float64]]:
    """Each launch that has iterations, in milliseconds. Raises `MeasurementFailed` without any."""
    timed = [np.asarray(launch, dtype=np.float64) / _NS_PER_MS for launch in launches]
    timed = [launch for launch in timed if len(launch)]
    if not timed:
        raise MeasurementFailed("no iteration was timed", "measure longer")
    return timed


def launch_estimate(values: Sequence[float]) -> tuple[float, Interval]:
    """Mean of the launches' own ``values`` (two or more) and its 95 % t interval, at least 0."""
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = student_t_ppf(_UPPER, len(values) - 1) * error
    return mean, (max(0.0, mean - half), mean + half)


def _mad(ordered: Samples) -> float:
    deviations = ordered - quantile(ordered, 0.5)
    np.abs(deviations, out=deviations)
    return float(np.median(deviations, overwrite_input=True))


def _between(launches: Launches) -> dict[str, Estimate]:
    found = [_quantiles(launch) for launch in launches]
    shortest = min(map(len, launches))
    estimates = {
        label(q): _between_quantile(values, q, shortest)
        for q, values in zip(QUANTILES, zip(*found, strict=True), strict=True)
    }
    return {**estimates, "mean": launch_estimate([float(launch.mean()) for launch in launches])}


def _quantiles(launch: Samples) -> list[float]:
    ordered = np.sort(launch)
    return [quantile(ordered, q) for q in QUANTILES]


def _between_quantile(values: Sequence[float], q: float, shortest: int) -> Estimate:
    # A launch's median is one at any length; its p99 is not.
    if q != 0.5 and shortest < minimum_count(q):
        absent = Unavailable(
            f"the shortest launch has {shortest} iterations; "
            f"{label(q)} of a launch needs at least {minimum_count(q)}",
            f"measure at least {minimum_count(q)} iterations a launch",
        )
        return absent, absent
    return launch_estimate(values)


def _within(samples: Samples, ordered: Samples) -> dict[str, Estimate]:
    estimates = {label(q): _within_quantile(samples, ordered, q) for q in QUANTILES}
    return {**estimates, "mean": (float(samples.mean()), _mean_interval(samples))}


def _within_quantile(samples: Samples, ordered: Samples, q: float) -> Estimate:
    n = len(ordered)
    enough = q == 0.5 or n >= minimum_count(q)
    value = quantile(ordered, q) if enough else too_few(n, q)
    return value, quantile_interval(samples, ordered, q)


def _mean_interval(samples: Samples) -> Maybe[Interval]:
    if len(samples) < BATCHED_FROM:
        return Unavailable(
            f"{len(samples)} iterations; an interval of the mean needs at least {BATCHED_FROM}",
            f"measure at least {BATCHED_FROM} iterations",
        )
    means = batch_means(samples)
    # Batches can come out too alike by chance; independence is the least that must be assumed.
    error = max(
        float(means.std(ddof=1)) / math.sqrt(len(means)),
        float(samples.std(ddof=1)) / math.sqrt(len(samples)),
    )
    half = student_t_ppf(_UPPER, len(means) - 1) * error
    mean = float(samples.mean())
    return max(0.0, mean - half), mean + half
