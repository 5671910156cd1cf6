"""When is warm-up over? Asked several times a second about the warm-up so far, so it must be cheap.

    |start-up|<--------------- settled time = T ---------------->|
     first      |                    |   window A  |  window B   |
     calls      |                    |    T / 4    |    T / 4    | now

Start-up is the leading run of iterations slower than twice the present median (first calls, lazy
compilation): left out, or a first call of one second would have to be outweighed. Steady means all
of: T has reached its floor; the medians of A and B agree within 2 %; and, over A and B together, no
trend that is both significant (Spearman, p < 0.05, on block medians) and above 2 % from end to end
(Theil-Sen). Since the windows grow with T, an exponential decay passes only when at most about
0.4 % of the latency is left of it: after 4 time constants if it began at 20 %, after 7 at 100 %. A
step within the last T / 8 looks like a disturbance and passes; the timed window's drift shows it.

Iterations longer than T / 8 get windows of two iterations each, however long these take.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.stats.trend import block_medians, spearman, theil_sen_slope

TOLERANCE = 0.02
MIN_ITERATIONS = 5
_START_UP_FACTOR = 2.0
_SIGNIFICANT = 0.05
_BLOCKS, _MIN_BLOCKS = 10, 6
_MAX_POINTS = 4000

Samples = NDArray[Any]


def is_steady(start_ns: Samples, end_ns: Samples, floor_s: float) -> bool:
    """Whether latency has settled, from each iteration's start and end so far.

    Looks at about 15,000 iterations at most, of however many. ``floor_s`` counts from the end of
    start-up. Never true below 5 iterations.
    """
    n = len(end_ns)
    if n < MIN_ITERATIONS:
        return False
    settled = _start_up(start_ns, end_ns)
    if n - settled < MIN_ITERATIONS - 1:
        return False
    began, now = start_ns[settled], end_ns[-1]
    if now - began < floor_s * 1e9:
        return False
    quarter = (now - began) / 4.0
    second = _clipped(np.searchsorted(start_ns, now - quarter), settled + 2, n - 2)
    first = _clipped(np.searchsorted(start_ns, now - 2 * quarter), settled, second - 2)
    earlier = _thinned(start_ns, end_ns, first, second)
    later = _thinned(start_ns, end_ns, second, n)
    return _agree(earlier, later) and not _drifts(_thinned(start_ns, end_ns, first, n))


def _clipped(index: np.intp, low: int, high: int) -> int:
    return max(low, min(int(index), high))


def _start_up(start_ns: Samples, end_ns: Samples) -> int:
    """How many leading iterations took more than twice the median of the later half."""
    n = len(end_ns)
    limit = _START_UP_FACTOR * float(np.median(_thinned(start_ns, end_ns, n // 2, n)))
    for low in range(0, n, _MAX_POINTS):
        high = min(low + _MAX_POINTS, n)
        fast = np.flatnonzero(end_ns[low:high] - start_ns[low:high] <= limit)
        if len(fast):
            return low + int(fast[0])
    return n


def _thinned(start_ns: Samples, end_ns: Samples, low: int, high: int) -> Samples:
    """Latencies of iterations ``low`` to ``high``, at most `_MAX_POINTS` of them, evenly spaced."""
    step = -(-(high - low) // _MAX_POINTS)
    latencies: Samples = end_ns[low:high:step] - start_ns[low:high:step]
    return latencies


def _agree(earlier: Samples, later: Samples) -> bool:
    a, b = float(np.median(earlier)), float(np.median(later))
    return abs(a - b) <= TOLERANCE * max(a, b)


def _drifts(latencies: Samples) -> bool:
    """A trend that is both significant and large enough to matter."""
    medians = block_medians(latencies, _BLOCKS)
    if len(medians) < _MIN_BLOCKS or spearman(medians).p_value >= _SIGNIFICANT:
        return False
    change = theil_sen_slope(medians) * (len(medians) - 1)
    return abs(change) > TOLERANCE * float(np.median(medians))
