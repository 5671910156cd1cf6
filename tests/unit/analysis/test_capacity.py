"""The highest rate that holds a bound: theory, and systems of a known capacity."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.analysis.capacity import (
    Bound,
    Probe,
    System,
    answer,
    bound_of,
    held,
    isotonic,
    latencies,
    search,
)
from harness.errors import UsageError
from harness.maybe import Unavailable
from harness.spec import parse

BOUND = bound_of("p99=10ms")


def test_lindley_by_hand() -> None:
    """Due at 0, 1, 2, 10; service 3 each: starts at 0, 3, 6, 10."""
    due, service = np.array([0.0, 1, 2, 10]), np.full(4, 3.0)
    assert latencies(due, service, 1).tolist() == [3, 5, 7, 3]
    assert latencies(due, service, 2).tolist() == [3, 3, 4, 3]  # starts at 0, 1, 3, 10


def test_one_server_is_several_servers_of_one() -> None:
    random = np.random.default_rng(1)
    due, service = np.cumsum(random.exponential(1, 500)), random.exponential(0.8, 500)
    free, slow = [0.0], []
    for at, takes in zip(due, service, strict=True):
        end = max(at, free[0]) + takes
        heapq.heapreplace(free, end)
        slow.append(end - at)
    assert np.allclose(latencies(due, service, 1), slow)


def test_the_capacity_of_m_m_1_is_its_theory() -> None:
    """p99 of the time in the system is ln(100) / (mu - lambda): solved for lambda."""
    services = np.random.default_rng(2).exponential(0.001, 50_000)
    found = System(services, 1, "poisson", 0).highest(BOUND)
    assert found == pytest.approx(1 / 0.001 - math.log(100) / 0.010, rel=0.05)


def test_a_bound_below_the_service_time_holds_at_no_rate() -> None:
    assert System(np.full(100, 0.011), 1, "poisson", 0).highest(BOUND) == 0


def test_a_bound_that_nothing_reaches_ends_at_saturation() -> None:
    found = System(np.full(100, 0.001), 1, "constant", 0).highest(BOUND)
    assert found == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize(
    ("late", "verdict"), [(0, "pass"), (8, "undecided"), (12, "undecided"), (40, "fail")]
)
def test_a_window_passes_fails_or_cannot_tell(late: int, verdict: str) -> None:
    """Of 1000 independent ones 10 may be late: up to 3 pass, from 18 on it fails."""
    times = np.full(1000, 5.0)
    times[np.random.default_rng(0).permutation(1000)[:late]] = 20.0
    assert held(BOUND, times).verdict == verdict


def test_what_is_not_stationary_fails() -> None:
    assert held(BOUND, np.full(1000, 5.0), stationary=False).verdict == "fail"


def test_isotonic_pools_what_falls() -> None:
    assert isotonic([1, 3, 2, 4], [1, 1, 1, 1]) == [1, 2.5, 2.5, 4]
    assert isotonic([3, 1], [3, 1]) == [2.5, 2.5]


def test_without_probes_it_is_the_prediction_and_has_no_interval() -> None:
    system = System(np.full(100, 0.002), 1, "poisson", 0)
    found = answer(system, BOUND, 0, [])
    assert found.per_s == system.highest(BOUND) and isinstance(found.interval, Unavailable)


def found_of(truth: float, seed: int) -> tuple[float, tuple[float, float], int]:
    """A system ``truth`` times as fast as its closed loop said; probes vary by 1 %."""
    random = np.random.default_rng(seed)

    def services() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return random.normal(0.002, 0.0004, 3000).clip(0.0005)

    base = System(services(), 1, "poisson", seed)

    def measure(rate: float) -> Probe:
        real = System(services() / truth, 1, "poisson", seed)
        times = real.at(rate, float(np.exp(random.normal(0, 0.01))), 5.0)
        return Probe(rate, 5.0, [held(BOUND, times * 1e3)])

    probes, (best,) = search(base, [BOUND], measure, 6)
    assert not isinstance(best.interval, Unavailable)
    return best.per_s, best.interval, len(probes)


def test_found_twice_it_agrees(trials: Callable[[int], int]) -> None:
    """Within their intervals, in at least 19 of 20 pairs; the true scales lie from 0.7 to 1.2."""
    pairs, agreed = trials(20), 0
    for number in range(pairs):
        truth = 0.7 + 0.5 * number / pairs
        (_, one, _), (_, two, _) = found_of(truth, 2 * number), found_of(truth, 2 * number + 1)
        agreed += one[0] <= two[1] and two[0] <= one[1]
    assert agreed >= pairs - 1


def test_the_tightest_of_several_bounds_is_the_answer() -> None:
    system = System(np.full(1000, 0.002), 1, "poisson", 0)
    bounds = [bound_of("p50=100ms"), BOUND]
    rates: list[float] = []

    def measure(rate: float) -> Probe:
        rates.append(rate)
        times = system.at(rate, 1.0, 5.0) * 1e3
        return Probe(rate, 5.0, [held(bound, times) for bound in bounds])

    _, answers = search(system, bounds, measure, 4)
    assert min(answers, key=lambda one: one.per_s).bound == "p99=10ms"
    assert rates[0] == pytest.approx(system.highest(BOUND))


def test_a_probe_that_breaks_off_ends_the_search() -> None:
    system = System(np.full(1000, 0.002), 1, "poisson", 0)
    probes, answers = search(system, [BOUND], lambda rate: None, 4)
    assert probes == [] and answers[0].per_s > 0


def test_bounds_have_a_plain_form() -> None:
    asked = {"scenario": "server", "rate": "1", "latency_bound": ["p99.0 = 0.01s", "p50=900us"]}
    assert parse(asked).latency_bound == ("p99=10ms", "p50=0.9ms")
    assert bound_of("p99.9=10ms") == Bound("p99.9=10ms", 0.9990000000000001, 10.0)


@pytest.mark.parametrize("text", ["p99", "p0=1ms", "p100=1ms", "99=1ms", "p99=1", "p99=0ms", ""])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="latency-bound"):
        parse({"scenario": "server", "rate": "1", "latency_bound": [text]})
