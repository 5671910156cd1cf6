"""When requests come: a schedule drawn beforehand, for a rate and a seed.

    poisson      independent exponential gaps
    constant     equal gaps
    gamma:CV     independent gamma gaps of that coefficient of variation: 1 is poisson, 2 bursts
    file:PATH    the times in a CSV file

Gaps are drawn for a rate of 1 and divided by the rate, from a generator that depends on seed and
launch alone. So two rates, or two models, meet the same luck: common random numbers.
"""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.spec.spec import MOST_REQUESTS

LONGEST_S = 86_400.0
_PIECE = 1 << 14  # gaps drawn at once; it changes no draw
Times = NDArray[np.int64]


class Schedule(NamedTuple):
    """``due_ns`` since the beginning, ascending. Those from ``first`` to before ``last`` are timed:
    due from ``from_ns`` to before ``until_ns``."""

    due_ns: Times
    first: int
    last: int
    from_ns: int
    until_ns: int


def gaps(arrivals: str, seed: int, launch: int, count: int) -> NDArray[np.float64]:
    """``count`` gaps of mean 1. ``arrivals``: anything but a file."""
    kind, _, parameter = arrivals.partition(":")
    if kind == "constant":
        return np.ones(count)
    random = np.random.default_rng([seed, launch])
    if kind == "poisson":
        return random.standard_exponential(count)
    shape = 1.0 / float(parameter) ** 2
    return random.standard_gamma(shape, count) / shape


def drawn(
    arrivals: str,
    rate_per_s: float,
    seed: int,
    launch: int,
    *,
    lead_s: float,
    duration_s: float,
    count: int | None = None,
    tail_s: float = 0.0,
) -> Schedule:
    """Requests of ``lead_s`` that are not timed, of ``duration_s`` (or ``count`` of them) that are,
    and of ``tail_s`` for a guard band."""
    span = duration_s if count is None else 1.2 * count / rate_per_s
    need = math.ceil((lead_s + span + tail_s) * rate_per_s * 1.1) + 64 + (count or 0)
    times = np.cumsum(gaps(arrivals, seed, launch, need)) / rate_per_s
    while times[-1] < lead_s + span + tail_s or (
        count is not None and np.searchsorted(times, lead_s) + count >= len(times)
    ):
        need *= 2
        times = np.cumsum(gaps(arrivals, seed, launch, need)) / rate_per_s
    first = int(np.searchsorted(times, lead_s))
    if count is None:
        until_s = lead_s + duration_s
        last = int(np.searchsorted(times, until_s))
    else:
        last = first + count
        until_s = float(times[last])
    used = times[: max(last, int(np.searchsorted(times, until_s + tail_s)))]
    return Schedule(_ns(used), first, last, round(lead_s * 1e9), round(until_s * 1e9))


def of_trace(path: str, duration_s: float | None, count: int | None) -> Schedule:
    """The requests of a file, as far as ``duration_s`` or ``count`` goes. Raises `DataError`."""
    times = read_trace(path)
    mean_gap_s = float(times[-1]) / max(len(times) - 1, 1) or 1.0
    until_s = float(times[-1]) + mean_gap_s if duration_s is None else duration_s
    last = int(np.searchsorted(times, until_s))
    if count is not None and count < last:
        last, until_s = count, float(times[count])
    return Schedule(_ns(times), 0, last, 0, round(until_s * 1e9))


def read_trace(path: str) -> NDArray[np.float64]:
    """The times in a CSV file's first column, in seconds since the first. Raises `DataError`."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = list(islice(file, MOST_REQUESTS + 2))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataError(
            f"the trace {path!r} cannot be read: {why}", "give a CSV file with a time a row"
        ) from error
    texts: list[str] = []
    if len(lines) <= MOST_REQUESTS + 1:
        texts = [cell for line in lines if (cell := line.partition(",")[0].strip())]
    if texts and _number(texts[0]) is None:
        del texts[0]  # a heading
    if len(lines) > MOST_REQUESTS + 1 or len(texts) > MOST_REQUESTS:
        raise DataError(
            f"the trace {path!r} has more than {MOST_REQUESTS:,} requests", "give a part of it"
        )
    if not texts:
        raise DataError(f"the trace {path!r} holds no time", "give a CSV file with a time a row")
    times: list[float] = []
    for number, text in enumerate(texts, 1):
        value = _number(text)
        if value is None:
            raise DataError(
                f"request {number} of the trace {path!r} is due at {text[:40]!r}",
                "give seconds in the first column",
            )
        if times and value < times[-1]:
            raise DataError(
                f"request {number} of the trace {path!r} is due at {text[:40]}, before the one "
                f"above it",
                "sort the file by time",
            )
        times.append(value)
    since = np.array(times) - times[0]
    if since[-1] > LONGEST_S:
        raise DataError(
            f"the trace {path!r} spans {since[-1]:,.0f} s; a window has {LONGEST_S:,.0f} s at most",
            "give times in seconds, or a part of it",
        )
    return since


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _ns(times_s: NDArray[np.float64]) -> Times:
    return np.round(times_s * 1e9).astype(np.int64)
