"""What the benchmark scripts share: interleaved rounds, and ratios with honest intervals."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence


def counted(rounds: int, what: str) -> Iterator[int]:
    """``range(rounds)``; says on stderr between them which one goes, and for how long it may.

    On a terminal in one line that is taken away at the end, else about ten times in all.
    """
    began_s, redraws = time.monotonic(), sys.stderr.isatty()
    for number in range(rounds):
        left_s = (time.monotonic() - began_s) / number * (rounds - number) if number else None
        left = "" if left_s is None else f", about {left_s:.0f} s left"
        text = f"{what}: round {number + 1} of {rounds}{left}"
        if redraws:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        elif number % max(1, rounds // 10) == 0:
            print(text, file=sys.stderr, flush=True)
        yield number
    if redraws:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def in_turn(
    candidates: Mapping[str, Callable[[], float]], rounds: int, what: str = ""
) -> dict[str, list[float]]:
    """One figure a round from each candidate; each round starts with another one."""
    figures: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in counted(rounds, what or " and ".join(names)):
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
