"""Several launches' channel summaries as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeAlias

import msgspec

from harness.maybe import Maybe, Unavailable
from harness.records.result import ChannelSummary, Profiles, Sampler

Combine: TypeAlias = Callable[[list[float]], float]
_THROTTLE_CHANNELS = ("core_throttles", "package_throttles", "cgroup_throttles")


def merge(launches: Sequence[Profiles]) -> Profiles:
    """One summary per channel over all windows; a channel absent in one launch is absent.

    A mean is the mean over launches (their windows are of one length), ``min`` and ``max`` are
    over all, ``first`` is the first launch's and ``last`` the last one's; of a counter ``first`` is
    0 and ``last`` what it grew in all windows together, since each process counts anew.
    """
    if len(launches) == 1:
        return launches[0]
    names = dict.fromkeys(name for profiles in launches for name in profiles.channels)
    missing = Unavailable("a launch did not have this channel", "see harness doctor")
    return Profiles(
        sampler=_sampler([profiles.sampler for profiles in launches]),
        channels={
            name: _channel([profiles.channels.get(name, missing) for profiles in launches])
            for name in names
        },
        blocks=tuple(block for profiles in launches for block in profiles.blocks),
    )


def _channel(found: Sequence[Maybe[ChannelSummary]]) -> Maybe[ChannelSummary]:
    summaries: list[ChannelSummary] = []
    for one in found:
        if isinstance(one, Unavailable):
            return one
        summaries.append(one)
    first, last = summaries[0].first, summaries[-1].last
    if summaries[0].kind == "counter":
        growths = [s.last - s.first for s in summaries if _measured(s)]  # type: ignore[operator]
        first, last = 0.0, float(sum(growths))
    return msgspec.structs.replace(
        summaries[0],
        samples=sum(s.samples for s in summaries),
        mean=_over([s.mean for s in summaries], fmean),
        min=_over([s.min for s in summaries], min),
        max=_over([s.max for s in summaries], max),
        first=first,
        last=last,
    )


def _measured(summary: ChannelSummary) -> bool:
    return not isinstance(summary.first, Unavailable) and not isinstance(summary.last, Unavailable)


def _over(values: Sequence[Maybe[float]], combine: Combine) -> Maybe[float]:
    """``combine`` of all values; the first absence where there is one."""
    absent = next((value for value in values if isinstance(value, Unavailable)), None)
    return absent or combine([value for value in values if not isinstance(value, Unavailable)])


def _sampler(found: Sequence[Maybe[Sampler]]) -> Maybe[Sampler]:
    samplers: list[Sampler] = []
    for one in found:
        if isinstance(one, Unavailable):
            return one
        samplers.append(one)
    return Sampler(
        requested_rate_hz=samplers[0].requested_rate_hz,
        achieved_rate_hz=_over([s.achieved_rate_hz for s in samplers], min),
        gap_max_s=_over([s.gap_max_s for s in samplers], max),
        cpu_share=_over([s.cpu_share for s in samplers], max),
    )


def disturbed_blocks(profiles: Profiles) -> Maybe[tuple[int, int]]:
    """How many blocks were disturbed, of how many."""
    if not profiles.blocks:
        return Unavailable("the window was not cut into blocks", "lengthen --duration")
    for block in profiles.blocks:
        if isinstance(block.disturbed, Unavailable):
            return block.disturbed
    return sum(block.disturbed is True for block in profiles.blocks), len(profiles.blocks)


def throttle_events(profiles: Profiles) -> Maybe[float]:
    """Of every counter that could be read, absent where none could."""
    absent: Unavailable | None = None
    counted: list[float] = []
    for name in _THROTTLE_CHANNELS:
        channel = profiles.channels.get(name)
        if isinstance(channel, Unavailable):
            absent = absent or channel
        elif channel is not None:
            counted.append(channel.last - channel.first)  # type: ignore[operator]
    if counted:
        return float(sum(counted))
    return absent or Unavailable("this machine shows no throttle counters", "see harness doctor")
