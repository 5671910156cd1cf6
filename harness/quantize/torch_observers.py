"""How calibration turns the values seen at one place into the range that its 8 bits cover.

minmax      the whole range
percentile  all but the outermost 0.001 % of values, half of it on each side
entropy     the clipping that changes the distribution least: smallest Kullback-Leibler divergence
            between the values and their 256 levels (Migacz, "8-bit inference with TensorRT", 2017)

torch's own `HistogramObserver` is none of these: it searches the smallest squared error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization.observer import HistogramObserver, MinMaxObserver

LEVELS = 256
PERCENTILE = 99.999
# clipping candidates are this many of the observer's 2,048 bins apart
STEP = 16


class PercentileObserver(HistogramObserver):  # type: ignore[misc]
    """Cuts `PERCENTILE`'s complement off, half on each side."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        return percentile_range(self.histogram, self.min_val, self.max_val, PERCENTILE)


class EntropyObserver(HistogramObserver):  # type: ignore[misc]
    """Clips where the Kullback-Leibler divergence is smallest."""

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        return entropy_range(self.histogram, self.min_val, self.max_val)


OBSERVERS: Mapping[str, Any] = {
    "minmax": MinMaxObserver,
    "percentile": PercentileObserver,
    "entropy": EntropyObserver,
}


def percentile_range(
    histogram: Tensor, low: Tensor, high: Tensor, percentile: float
) -> tuple[Tensor, Tensor]:
    """The narrowest run of bins that leaves at most half of the rest out on each side."""
    share = histogram.double().cumsum(0) / histogram.double().sum()
    cut = (100 - percentile) / 200
    first = int((share <= cut).sum())
    last = int((share < 1 - cut).sum())
    width = (high - low) / len(histogram)
    return low + first * width, low + (last + 1) * width


def entropy_range(histogram: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The range, cut at one magnitude on both sides, whose 256 levels tell the most.

    Zero has a level of its own whatever the range, so a heap of exact zeros (half of what leaves a
    ReLU) says nothing about the range: its bin counts like its neighbour.
    """
    counts = histogram.double()
    width = (high - low) / len(counts)
    zero = int(-low / width) if low <= 0 < high else len(counts)
    if zero < len(counts):
        counts[zero] = counts[zero + 1 if zero + 1 < len(counts) else zero - 1]
    centres = low + (torch.arange(len(counts)) + 0.5) * width
    order = centres.abs().sort().values
    best, smallest = (low, high), float("inf")
    for kept in range(LEVELS, len(counts) + 1, STEP):
        inside = (centres.abs() <= order[kept - 1]).nonzero()
        first, last = int(inside[0]), int(inside[-1]) + 1
        divergence = _divergence(counts, first, last)
        if divergence <= smallest:
            best, smallest = (low + first * width, low + last * width), divergence
    return best


def _divergence(counts: Tensor, first: int, last: int) -> float:
    """KL(values, with those outside moved to the edges || values inside at 256 levels), in nats."""
    inside = counts[first:last]
    values = inside.clone()
    values[0] += counts[:first].sum()
    values[-1] += counts[last:].sum()
    level = torch.arange(len(inside)) * LEVELS // len(inside)
    occupied = (values > 0).double()
    mass = torch.zeros(LEVELS, dtype=torch.double).index_add_(0, level, inside)
    share = torch.zeros(LEVELS, dtype=torch.double).index_add_(0, level, occupied).clamp(min=1)
    quantized = (mass / share)[level] * occupied
    if quantized.sum() == 0:
        return float("inf")
    p, q = values / values.sum(), (quantized / quantized.sum()).clamp(min=1e-12)
    return float((p[p > 0] * (p[p > 0] / q[p > 0]).log()).sum())
