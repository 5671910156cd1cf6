"""Change points against an independent implementation, and histories whose answer is plain."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compare.history import history
from harness.errors import NothingComparable
from harness.maybe import Unavailable
from harness.stats.changepoints import MIN_NIGHTS, change_points, clipped, segments

WOBBLE = [1.0, 1.01, 0.99, 1.005, 0.995]  # a fixed noise of half a percent


def wobbling(level: float, nights: int) -> list[float]:
    return [level * WOBBLE[night % 5] for night in range(nights)]


@given(
    st.lists(st.floats(-100, 100), min_size=6, max_size=60),
    st.floats(0.01, 1000),
    st.integers(2, 5),
)
def test_levels_cost_what_an_exhaustive_search_says(
    values: list[float], penalty: float, shortest: int
) -> None:
    """ruptures' dynamic programme finds the cheapest split for each number of changes."""
    import ruptures  # a peer, for tests alone

    signal = np.asarray(values)

    def cost(changes: tuple[int, ...]) -> float:
        bounds = [0, *changes, len(signal)]
        parts = [signal[a:b] for a, b in itertools.pairwise(bounds)]
        return sum(float(((p - p.mean()) ** 2).sum()) for p in parts) + penalty * len(changes)

    search = ruptures.Dynp(model="l2", min_size=shortest, jump=1).fit(signal)
    most = min(len(signal) // shortest - 1, 6)
    cheapest = min(cost(tuple(search.predict(k)[:-1])) for k in range(1, most + 1)) if most else 0
    ours = segments(signal, penalty, shortest)
    assert all(b - a >= shortest for a, b in zip((0, *ours), (*ours, len(signal)), strict=True))
    if len(ours) <= most:
        whole = cost(())
        assert cost(ours) == pytest.approx(min(whole, cheapest or whole), rel=1e-6, abs=1e-6)


def test_a_step_is_found_on_its_night() -> None:
    values = wobbling(10, 20) + wobbling(10.6, 10)
    assert change_points(values) == (20,)
    told = history(values, "lower", 0.02)
    assert told.incident is not None
    assert (told.incident.index, told.incident.last_good) == (20, 19)
    assert told.incident.ratio == pytest.approx(1.06)
    assert told.incident.before == pytest.approx(10)
    assert told.level == pytest.approx(10.6)
    assert told.baseline == pytest.approx(10)  # a baseline does not learn a regression
    assert told.good == (0, 20)


def test_an_acknowledged_change_is_no_incident_and_its_level_is_in_force() -> None:
    values = wobbling(10, 20) + wobbling(10.6, 10)
    for night in (18, 20, 22):  # dated a little differently on the day of acknowledging
        told = history(values, "lower", 0.02, acknowledged=[night])
        assert told.incident is None
        assert told.baseline == pytest.approx(10.6)
        assert told.good == (20, 29)
    assert history(values, "lower", 0.02, acknowledged=[10]).incident is not None


@pytest.mark.parametrize(
    ("newest", "verdict", "nights"),
    [
        ([10.0], "fine", 0),
        ([10.15], "fine", 0),
        ([10.5], "suspicious", 1),
        ([10.5, 10.5], "regressed", 2),
        ([10.5, 10.0], "fine", 0),
        ([10.5, 10.0, 10.5], "suspicious", 1),
        ([9.5], "improved", 0),
    ],
)
def test_tonight_against_the_good_nights(newest: list[float], verdict: str, nights: int) -> None:
    told = history(wobbling(10, 25) + newest, "lower", 0.02).tonight
    assert not isinstance(told, Unavailable)
    assert (told.verdict, told.nights) == (verdict, nights)
    assert told.ratio == pytest.approx(newest[-1] / 10)
    assert told.limit == pytest.approx(0.02)
    if verdict in ("suspicious", "improved"):  # the same figures where more is better
        other = history(wobbling(10, 25) + newest, "higher", 0.02).tonight
        assert not isinstance(other, Unavailable)
        assert other.verdict == {"suspicious": "improved", "improved": "suspicious"}[verdict]


def test_the_trigger_is_wider_where_nights_differ() -> None:
    rng = np.random.default_rng(5)
    told = history(np.exp(rng.normal(0, 0.03, 60)), "lower", 0.02)
    assert not isinstance(told.tonight, Unavailable)
    assert not isinstance(told.night_sd, Unavailable)
    assert told.tonight.limit == pytest.approx(math.expm1(1.5 * told.night_sd))
    assert told.tonight.limit > 0.035


def test_direction_of_better_decides_what_a_step_is() -> None:
    values = wobbling(10, 20) + wobbling(10.6, 10)
    assert history(values, "higher", 0.02).incident is None
    assert history(values, "higher", 0.02).changes[0].verdict == "improved"
    assert history(values, "lower", 0.10).changes[0].verdict == "unchanged"


def test_a_recovery_ends_the_incident() -> None:
    values = wobbling(10, 20) + wobbling(11, 10) + wobbling(10, 10)
    told = history(values, "lower", 0.02)
    assert [change.index for change in told.changes] == [20, 30]
    assert told.incident is None


@pytest.mark.parametrize("odd", [[15], [15, 16], [3, 15, 29]])
def test_odd_nights_are_no_change(odd: list[int]) -> None:
    values = wobbling(10, 30)
    for night in odd:
        values[night] *= 1.4
    assert change_points(values) == ()


def test_two_slow_nights_are_not_yet_a_level_and_three_are() -> None:
    assert change_points(wobbling(10, 30) + wobbling(12, 2)) == ()
    assert change_points(wobbling(10, 30) + wobbling(12, 3)) == (30,)


def test_a_series_without_noise() -> None:
    assert change_points([5.0] * 30) == ()
    assert change_points([5.0] * 10 + [6.0] * 10) == (10,)
    told = history([5.0] * 30, "lower", 0.02)
    assert told.night_sd == pytest.approx(0, abs=1e-12)
    assert told.drift is None


def test_clipping_leaves_levels_alone() -> None:
    values = wobbling(10, 10) + wobbling(12, 10)
    assert np.exp(clipped(values)) == pytest.approx(values, rel=0.03)


def test_the_spread_of_nights_leaves_steps_and_odd_nights_out() -> None:
    rng = np.random.default_rng(3)
    logs = rng.normal(0, 0.015, 200)
    logs[100:] += 0.2
    logs[50] += 1.0
    told = history(np.exp(logs), "lower", 0.02)
    assert told.night_sd == pytest.approx(0.015, rel=0.15)


def test_few_nights_say_little() -> None:
    told = history([1.0, 2.0], "lower", 0.02)
    assert told.changes == ()
    assert isinstance(told.night_sd, Unavailable)
    assert told.level == 1.5
    assert isinstance(told.baseline, Unavailable)
    assert isinstance(told.tonight, Unavailable)
    assert change_points([1.0] * (2 * MIN_NIGHTS - 1)) == ()


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, math.nan], [1.0, -1.0], [math.inf]])
def test_values_without_a_ratio_are_refused(values: list[float]) -> None:
    with pytest.raises(NothingComparable):
        history(values, "lower", 0.02)
