"""Is there a trend? Block medians against time: Spearman's test and the Theil-Sen slope."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.stats.distributions import student_t_cdf

Samples = NDArray[Any]


class Correlation(NamedTuple):
    rho: float
    p_value: float  # two-sided


def spearman(values: Samples) -> Correlation:
    """Spearman's rank correlation of ``values`` with their order (Spearman, 1904).

    The p value comes from t = rho sqrt((n - 2) / (1 - rho^2)) with n - 2 degrees of freedom
    (Kendall, 1948). Fewer than 3 values, or equal ones, give rho 0 and p 1.
    """
    n = len(values)
    if n < 3 or np.all(values == values[0]):
        return Correlation(0.0, 1.0)
    rho = float(np.corrcoef(_midranks(values), np.arange(n))[0, 1])
    if abs(rho) > 1.0 - 1e-12:
        return Correlation(math.copysign(1.0, rho), 0.0)
    t = abs(rho) * math.sqrt((n - 2) / (1.0 - rho * rho))
    return Correlation(rho, 2.0 * student_t_cdf(-t, n - 2))


def theil_sen_slope(values: Samples) -> float:
    """Median of all pairwise slopes per step (Theil, 1950; Sen, 1968). Needs two values."""
    first, second = np.triu_indices(len(values), k=1)
    return float(np.median((values[second] - values[first]) / (second - first)))


def block_medians(samples: Samples, blocks: int) -> NDArray[np.float64]:
    """Medians of ``blocks`` contiguous blocks (fewer for fewer samples), of nearly equal size."""
    pieces = np.array_split(samples, min(blocks, len(samples)))
    return np.array([np.median(piece) for piece in pieces], dtype=np.float64)


def _midranks(values: Samples) -> NDArray[np.float64]:
    """Ranks from 0, ties sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: NDArray[np.float64] = (last - (counts + 1) / 2.0)[inverse]
    return middle
