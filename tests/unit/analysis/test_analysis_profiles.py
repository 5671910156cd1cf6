"""Several launches' summaries as one: what is averaged, what is added, what is absent."""

from __future__ import annotations

from typing import Any

from harness.analysis.profiles import merge
from harness.maybe import Maybe, Unavailable
from harness.records.result import ChannelSummary, Profiles, Sampler

GONE = Unavailable("no sensor", "fit one")


def summary(kind: str = "gauge", **figures: Any) -> ChannelSummary:
    values = {"mean": 2.0, "min": 1.0, "max": 3.0, "first": 1.5, "last": 2.5, "samples": 10}
    fixed = {"unit": "W", "kind": kind, "scope": "wall", "source": "x"}
    return ChannelSummary(**{**fixed, **values, **figures})


def profiles(sampler: Maybe[Sampler] = GONE, **channels: Maybe[ChannelSummary]) -> Profiles:
    return Profiles(sampler=sampler, channels=channels)


def test_one_launch_is_itself() -> None:
    only = profiles(a=summary(), b=GONE)
    assert merge([only]) is only


def test_gauges() -> None:
    first = summary(mean=10.0, min=4.0, max=12.0, first=5.0, last=11.0, samples=7)
    second = summary(mean=20.0, min=6.0, max=30.0, first=6.0, last=29.0, samples=9)
    merged = merge([profiles(a=first), profiles(a=second)])
    assert merged.channels["a"] == summary(
        mean=15.0, min=4.0, max=30.0, first=5.0, last=29.0, samples=16
    )


def test_counters_add_their_growth_for_each_process_counts_anew() -> None:
    first = summary("counter", first=100.0, last=107.0, mean=7.0, min=6.0, max=8.0)
    second = summary("counter", first=3.0, last=5.0, mean=2.0, min=1.0, max=3.0)
    merged = merge([profiles(a=first), profiles(a=second)]).channels["a"]
    assert isinstance(merged, ChannelSummary)
    assert (merged.first, merged.last) == (0.0, 9.0)
    assert (merged.mean, merged.min, merged.max) == (4.5, 1.0, 8.0)


def test_a_channel_absent_in_one_launch_is_absent_with_its_reason() -> None:
    merged = merge([profiles(a=summary(), b=summary()), profiles(a=GONE)])
    assert merged.channels == {
        "a": GONE,
        "b": Unavailable("a launch did not have this channel", "see harness doctor"),
    }


def test_a_figure_absent_in_one_launch_is_absent_alone() -> None:
    merged = merge([profiles(a=summary(mean=GONE)), profiles(a=summary(mean=4.0, max=9.0))])
    found = merged.channels["a"]
    assert isinstance(found, ChannelSummary)
    assert found.mean == GONE
    assert (found.min, found.max) == (1.0, 9.0)


def test_a_channel_keeps_its_place_and_appears_once() -> None:
    merged = merge([profiles(b=summary(), a=summary()), profiles(a=summary(), c=summary())])
    assert list(merged.channels) == ["b", "a", "c"]


def test_the_sampler_is_as_good_as_in_its_worst_launch() -> None:
    one = Sampler(requested_rate_hz=10, achieved_rate_hz=9.5, gap_max_s=0.3, cpu_share=0.01)
    two = Sampler(requested_rate_hz=10, achieved_rate_hz=9.9, gap_max_s=0.1, cpu_share=0.03)
    merged = merge([profiles(one), profiles(two)])
    assert merged.sampler == Sampler(
        requested_rate_hz=10, achieved_rate_hz=9.5, gap_max_s=0.3, cpu_share=0.03
    )
    assert merge([profiles(one), profiles(GONE)]).sampler == GONE
