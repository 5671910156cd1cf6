"""Has the device come to rest in clock and temperature? Asked while latencies already are steady.

A GPU that has just begun to work raises its clock within milliseconds, then lowers it as it warms
and meets its power limit. A short window taken meanwhile is steady in itself, and repeats badly.

    readings of the last 4 s      |---- first half ----|---- second half ----| now
                                     median a               median b

A clock has settled where |a - b| <= 2 %; a temperature where b - a <= 1 C, the step of its sensor.
Fewer than four readings, or less than 3 s of them, are too few to tell, and the warm-up goes on. A
channel that cannot be read, or whose readings fail, is left out: it holds nothing up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.protocols import Channel

SPAN_S, LEAST_S, LEAST_READINGS = 4.0, 3.0, 4
CLOCK_TOLERANCE = 0.02
RISE_LIMIT_C = 1.0
_CLOCK, _TEMPERATURE = re.compile(r"clocks/gpu\d*_sm_mhz"), re.compile(r"temperature/gpu\d*_c")

Series = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]


def unsettled(channels: Sequence[Channel], series: Series, now_ns: int, since_ns: int = 0) -> str:
    """The first clock or temperature of a GPU that still moves, in words; empty if none does.

    ``since_ns``: when the work began. Readings from before it are of a device at rest, which keeps
    its clocks up while a program holds it, and tell nothing.
    """
    for channel in channels:
        limits = (_CLOCK, _moves), (_TEMPERATURE, _rises)
        judge = next((judge for tag, judge in limits if tag.fullmatch(channel.tag)), None)
        if judge is None or channel.unavailable is not None or channel.name not in series:
            continue
        recent = _recent(*series[channel.name], now_ns, since_ns)
        if recent is None:
            continue
        if found := judge(channel, recent):
            return found
    return ""


def _recent(
    times_ns: NDArray[np.int64], values: NDArray[np.float64], now_ns: int, since_ns: int
) -> Any:
    """(seconds before now, value) of the last readings; None where the sensor gives none."""
    inside = times_ns >= max(now_ns - round(SPAN_S * 1e9), since_ns)
    ages, kept = (now_ns - times_ns[inside]) / 1e9, values[inside]
    if len(kept) and not np.isfinite(kept).any():
        return None
    good = np.isfinite(kept)
    return ages[good], kept[good]


def _halves(recent: tuple[NDArray[np.float64], NDArray[np.float64]]) -> tuple[float, float] | None:
    """The medians of the older and the newer half; None where there is too little to tell."""
    ages, values = recent
    if len(values) < LEAST_READINGS or ages[0] - ages[-1] < LEAST_S:
        return None
    middle = (ages[0] + ages[-1]) / 2
    return float(np.median(values[ages > middle])), float(np.median(values[ages <= middle]))


def _moves(channel: Channel, recent: tuple[NDArray[np.float64], NDArray[np.float64]]) -> str:
    halves = _halves(recent)
    if halves is None:
        return f"{channel.tag} has too few readings yet"
    before, after = halves
    if abs(before - after) <= CLOCK_TOLERANCE * max(before, after):
        return ""
    return f"the SM clock went from {before:.0f} to {after:.0f} MHz in {SPAN_S / 2:g} s"


def _rises(channel: Channel, recent: tuple[NDArray[np.float64], NDArray[np.float64]]) -> str:
    halves = _halves(recent)
    if halves is None:
        return f"{channel.tag} has too few readings yet"
    before, after = halves
    if after - before <= RISE_LIMIT_C:
        return ""
    return f"the temperature rose from {before:.0f} to {after:.0f} C in {SPAN_S / 2:g} s"
