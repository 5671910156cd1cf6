"""What the benchmark scripts share: interleaved rounds, and ratios with honest intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence


def in_turn(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """One figure a round from each candidate; each round starts with another one."""
    figures: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            figures[name].append(candidates[name]())
    return figures


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % for the median: the order statistics that a fair coin leaves outside in 5 %."""
    ordered = sorted(values)
    rank = max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
    return ordered[rank], ordered[-1 - rank]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """``1.002 [0.999, 1.005]``: the median over rounds of ours / theirs, and its interval."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.4f} [{low:.4f}, {high:.4f}]"
