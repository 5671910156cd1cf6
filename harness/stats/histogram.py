"""Latencies counted in bins that suit them: 1 % wide, from the fastest to the slowest.

tensorboardX's default bins are 10 % wide, which shows a steady latency as one bar. Bin b covers
[g^b, g^(b+1)) with g = 1.01, the same in every run, so that histograms of many moments add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

BIN_GROWTH = 1.01
CUT_MEDIANS = 3.0  # slower iterations than this share the last bin
# Slower iterations than the cut share the last bin; but never more than one in twenty of them.
_CUT_QUANTILE = 0.95
_TAIL_QUANTILE = 0.999


def histogram_of(values_ms: Sequence[float]) -> dict[str, Any]:
    """`histogram_fields` of at least one latency, cut at `CUT_MEDIANS` of their own."""
    import numpy as np

    return histogram_fields(values_ms, CUT_MEDIANS * float(np.median(values_ms)))


def histogram_fields(values_ms: Sequence[float], cut_ms: float) -> dict[str, Any]:
    """The fields of a histogram event.

    The last bin holds everything beyond ``cut_ms``: TensorBoard draws thirty equal bins from least
    to greatest, in which one preempted iteration would squeeze all others into the first. ``sum``
    and ``num`` are of the true values, and so are all scalars.
    """
    import numpy as np

    true = np.asarray(values_ms, dtype=np.float64)
    values = np.minimum(true, max(cut_ms, float(np.quantile(true, _CUT_QUANTILE, method="higher"))))
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "num": len(values),
        "sum": float(true.sum()),
        "sum_squares": float(np.square(true).sum()),
        **_buckets(_counted(values)),
    }


def equal_bins(values: Sequence[float], number: int = 30) -> dict[str, Any] | None:
    """The fields of a histogram of any finite numbers, in bins of equal width, thirty of which
    TensorBoard draws; None without a value."""
    import numpy as np

    if not len(values):
        return None
    flat = np.asarray(values, dtype=np.float64)
    low, high = float(flat.min()), float(flat.max())
    if high - low <= abs(low) * 1e-12:  # too narrow to divide
        limits, counts = [low, high + max(abs(high), 1.0) * 1e-6], [0, len(flat)]
    else:
        found, edges = np.histogram(flat, bins=number, range=(low, high))
        limits, counts = edges.tolist(), [0, *found.tolist()]
    with np.errstate(over="ignore"):
        total, squares = float(flat.sum()), float(np.square(flat).sum())
    return {"min": low, "max": high, "num": len(flat), "sum": total, "sum_squares": squares,
            "bucket_limits": limits, "bucket_counts": counts}  # fmt: skip


class Distribution:
    """All latencies of a run, counted as they come."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._min_ms, self._max_ms = float("inf"), 0.0
        self._sum, self._squares = 0.0, 0.0

    def add(self, values_ms: Sequence[float]) -> None:
        """Count ``values_ms``, which may be empty."""
        import numpy as np

        if not len(values_ms):
            return
        values = np.asarray(values_ms, dtype=np.float64)
        self._bins.update(_counted(values))
        self._min_ms = min(self._min_ms, float(values.min()))
        self._max_ms = max(self._max_ms, float(values.max()))
        self._sum += float(values.sum())
        self._squares += float(np.square(values).sum())

    def fields(self) -> dict[str, Any] | None:
        """The fields of a histogram event; None where nothing was counted.

        The last bin holds everything beyond the 99.9th percentile: TensorBoard's thirty equal bins
        would show nothing else. ``sum`` and ``num`` are of the true values.
        """
        if not self._bins:
            return None
        last = self._bin_of(_TAIL_QUANTILE)
        bins = Counter({b: n for b, n in self._bins.items() if b <= last})
        cut = self._bins.total() - bins.total()
        bins[last] += cut
        return {
            "min": self._min_ms,
            "max": BIN_GROWTH ** (last + 1) if cut else self._max_ms,
            "num": self._bins.total(),
            "sum": self._sum,
            "sum_squares": self._squares,
            **_buckets(bins),
        }

    def _bin_of(self, quantile: float) -> int:
        """The first bin by which that share is counted."""
        seen, wanted = 0, quantile * self._bins.total()
        for place in sorted(self._bins):
            seen += self._bins[place]
            if seen >= wanted:
                return place
        return max(self._bins)


def _counted(values: Any) -> dict[int, int]:
    """bin -> how many of ``values`` lie in it."""
    import numpy as np

    floor = np.finfo(np.float64).tiny  # a latency of zero has no logarithm
    bins = np.floor(np.log(np.maximum(values, floor)) / np.log(BIN_GROWTH)).astype(np.int64)
    filled, counts = np.unique(bins, return_counts=True)
    return dict(zip(filled.tolist(), counts.tolist(), strict=True))


def _buckets(bins: Mapping[int, int]) -> dict[str, list[float]]:
    """Upper limits and counts. A stretch without data becomes one empty bin."""
    limits = sorted({edge for filled in bins for edge in (filled, filled + 1)})
    return {
        "bucket_limits": [BIN_GROWTH**limit for limit in limits],
        "bucket_counts": [bins.get(limit - 1, 0) for limit in limits],
    }
