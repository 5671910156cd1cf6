"""Diagnosis of a latency series: correlation, drift, outliers, and what launches do not share.

Every quantity is taken within launches and then combined, so that a difference between processes
never looks like drift or autocorrelation. Nothing is removed: outliers are counted and stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.analysis.latency import Launches, in_ms
from harness.maybe import Maybe, Unavailable
from harness.stats.trend import Correlation, block_medians, spearman

OUTLIER_RULE = (
    "slower than the launch's median + 5 x 1.4826 MAD "
    "(5 x 1.2533 mean absolute deviation where the MAD is 0)"
)
# 5 standard deviations, in ten thousandths of either deviation. What turns these into a standard
# deviation for normal data: 1.4826 = 1 / ppf(3/4), 1.2533 = sqrt(pi / 2).
_LIMIT_MADS, _LIMIT_MEAN_DEVIATIONS = 5 * 14826, 5 * 12533
_TREND_BLOCKS = 20
_MIN_FOR_DRIFT = 9
_MIN_FOR_CORRELATION = 10
# The correlation time is short against this; longer series are cut, to bound the transform.
_SEGMENT = 2**17
# What a Fourier transform's rounding leaves of a covariance that is 0.
_ROUNDING = 1e-10

Samples = NDArray[Any]


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Of one or more launches; the first fields are named as in `harness.records.result.Timing`."""

    autocorrelation: Maybe[float]  # lag 1, within launches
    effective_samples: Maybe[float]  # independent samples that know the mean as well
    outliers: int
    outlier_rule: str
    drift: Maybe[float]  # last third's median / first third's - 1; median over launches
    between_launch_cv: Maybe[float]  # of the launches' medians
    trend_rho: Maybe[float]  # block medians against time; the launch with the strongest trend
    trend_p: Maybe[float]  # of that launch, times the number of launches (Bonferroni)


def diagnose(launches: Launches) -> Diagnosis:
    """Diagnosis of iteration times in nanoseconds, one array in time order per fresh process.

    Ranks and limits are decided on whole nanoseconds: in milliseconds, rounding breaks ties as the
    unit has it. Raises `MeasurementFailed` without a single iteration.
    """
    ms = in_ms(launches)
    ns = [_whole(launch) for launch in launches if len(launch)]
    trend = _trend(ns)
    return Diagnosis(
        autocorrelation=autocorrelation(ms),
        effective_samples=effective_samples(ms),
        outliers=sum(outliers(launch) for launch in ns),
        outlier_rule=OUTLIER_RULE,
        drift=drift(ms),
        between_launch_cv=between_launch_cv([float(np.median(launch)) for launch in ms]),
        trend_rho=trend if isinstance(trend, Unavailable) else trend.rho,
        trend_p=trend if isinstance(trend, Unavailable) else trend.p_value,
    )


def _whole(launch: Samples) -> Samples:
    integers = np.issubdtype(launch.dtype, np.integer)
    return launch if integers else np.rint(launch).astype(np.int64)


def autocorrelation(launches: Launches) -> Maybe[float]:
    """Lag-1 autocorrelation: lagged products over squares, each launch around its own mean."""
    absent = _uncorrelatable(launches)
    if absent is not None:
        return absent
    centred = [launch - launch.mean() for launch in launches]
    products = sum(float(launch[1:] @ launch[:-1]) for launch in centred)
    return products / sum(float(launch @ launch) for launch in centred)


def effective_samples(launches: Launches) -> Maybe[float]:
    """How many independent samples would know the mean as well: the sum of n / tau over launches.

    ``tau`` is the integrated autocorrelation time, see `autocorrelation_time`.
    """
    absent = _uncorrelatable(launches)
    if absent is not None:
        return absent
    return sum(len(launch) / autocorrelation_time(launch) for launch in launches)


def autocorrelation_time(samples: Samples) -> float:
    """1 + 2 x the sum of autocorrelations, by Geyer's initial positive sequence (1992); at least 1.

    Sums of neighbouring autocovariances are positive in theory; the first one that is not marks
    where noise takes over, and the sum ends there. Equal samples give 1. Series longer than 131,072
    are cut into such segments and their autocovariances averaged.
    """
    segments = np.array_split(samples, -(-len(samples) // _SEGMENT))
    shortest = min(map(len, segments))
    covariance = sum(_autocovariance(segment)[:shortest] for segment in segments)
    if not isinstance(covariance, np.ndarray) or covariance[0] <= 0.0:
        return 1.0
    pairs = covariance[: shortest // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= _ROUNDING * covariance[0])
    end = int(negative[0]) if len(negative) else len(pairs)
    return max(1.0, float(2.0 * pairs[:end].sum() / covariance[0]) - 1.0)


def outliers(samples: Samples) -> int:
    """How many integers lie above median + 5 standard deviations, these taken from the MAD.

    Where over half of the samples are equal the MAD is 0, and the mean absolute deviation replaces
    it (Iglewicz and Hoaglin, *How to Detect and Handle Outliers*, 1993). Exact: medians of integers
    are halves, so everything is held in halves, and the limits are quotients of integers.
    """
    above = 2 * samples.astype(np.int64, copy=False)
    above -= int(np.median(above))
    deviations = np.abs(above)
    total = int(deviations.sum())
    mad = int(2 * np.median(deviations, overwrite_input=True))  # in quarters
    if mad:
        limit = _LIMIT_MADS * mad // 20_000
    else:
        limit = _LIMIT_MEAN_DEVIATIONS * total // (10_000 * len(samples))
    return int(np.count_nonzero(above > limit))


def drift(launches: Launches) -> Maybe[float]:
    """Median of the last third over median of the first, minus 1; its median over the launches."""
    ratios = []
    for launch in launches:
        third = len(launch) // 3
        if len(launch) >= _MIN_FOR_DRIFT and np.median(launch[:third]) > 0:
            ratios.append(float(np.median(launch[-third:]) / np.median(launch[:third])) - 1.0)
    if not ratios:
        return _too_short(launches, "drift", _MIN_FOR_DRIFT)
    return float(np.median(ratios))


def between_launch_cv(medians: Sequence[float]) -> Maybe[float]:
    """Standard deviation of the launches' medians over their mean."""
    if len(medians) < 2:
        return Unavailable("one launch has no spread between launches", "--launches 5")
    mean = float(np.mean(medians))
    if mean == 0.0:
        return Unavailable("every launch's median is 0", "use a finer clock")
    return float(np.std(medians, ddof=1)) / mean


def _trend(launches: Launches) -> Maybe[Correlation]:
    found = [
        spearman(block_medians(launch, _TREND_BLOCKS))
        for launch in launches
        if len(launch) >= _MIN_FOR_CORRELATION
    ]
    if not found:
        return _too_short(launches, "a trend", _MIN_FOR_CORRELATION)
    strongest = min(found, key=lambda one: (one.p_value, -abs(one.rho)))
    return Correlation(strongest.rho, min(1.0, strongest.p_value * len(found)))


def _uncorrelatable(launches: Launches) -> Unavailable | None:
    if max(map(len, launches)) < _MIN_FOR_CORRELATION:
        return _too_short(launches, "autocorrelation", _MIN_FOR_CORRELATION)
    if all(np.all(launch == launch[0]) for launch in launches):
        return Unavailable("every iteration took the same time", "use a finer clock")
    return None


def _too_short(launches: Launches, what: str, needed: int) -> Unavailable:
    return Unavailable(
        f"the longest launch has {max(map(len, launches))} iterations; {what} needs {needed}",
        f"measure at least {needed} iterations",
    )


def _autocovariance(samples: Samples) -> NDArray[np.float64]:
    """All lags at once through the power spectrum, padded so that the ends do not meet."""
    n = len(samples)
    spectrum = np.fft.rfft(samples - samples.mean(), 2 * n)
    covariance: NDArray[np.float64] = np.fft.irfft(spectrum * spectrum.conj(), 2 * n)[:n] / n
    return covariance
