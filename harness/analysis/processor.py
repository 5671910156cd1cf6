"""What an inference took of the processor, and whether the machine kept its speed meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from harness.maybe import Maybe, Unavailable

_UNSAID = Unavailable("the worker ended before it could say", "see `error`")
_NS_PER_MS = 1e6
Spent = tuple[int, int]  # processor time in ns, and how many iterations it was spent on
Yardstick = tuple[int, int]  # ns before the window and after it; 0 where it was not timed


def cpu_ms(spent: Sequence[Spent | None]) -> Maybe[float]:
    """Processor time per iteration over all launches that state it, in ms."""
    known = [one for one in spent if one is not None and one[1] > 0]
    if not known:
        return _UNSAID
    return sum(ns for ns, _ in known) / sum(count for _, count in known) / _NS_PER_MS


def busy_cpus(windows: Sequence[tuple[Spent | None, tuple[int, int] | None]]) -> Maybe[float]:
    """How many processors the worker kept busy in its windows, on average."""
    known = [
        (spent[0], window[1] - window[0])
        for spent, window in windows
        if spent is not None and window is not None and window[1] > window[0]
    ]
    if not known:
        return _UNSAID
    return sum(ns for ns, _ in known) / sum(length for _, length in known)


def yardstick_ms(yardstick: Yardstick) -> Maybe[tuple[float, float]]:
    """(before, after), in ms."""
    before, after = yardstick
    return (before / _NS_PER_MS, after / _NS_PER_MS) if before > 0 and after > 0 else _UNSAID


def speed_change(yardsticks: Sequence[Maybe[tuple[float, float]]]) -> Maybe[float]:
    """The largest relative change of a yardstick over a window; 0.1: it took 10 % more or less."""
    known = [one for one in yardsticks if not isinstance(one, Unavailable)]
    if not known:
        return next((one for one in yardsticks if isinstance(one, Unavailable)), _UNSAID)
    return max(abs(after / before - 1) for before, after in known)
