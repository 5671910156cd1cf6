"""The highest rate that holds a bound: theory, and systems of a known capacity."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.analysis.capacity import (
    Answer,
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
from harness.stats.arrivals import drawn

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


Doubles = np.ndarray[tuple[int], np.dtype[np.float64]]


def server_run(
    system: System, rate: float, luck: int, services: Doubles, seconds: float = 5.0
) -> Probe:
    """What a probe would leave of a server with these service times, in turn."""
    schedule = drawn("poisson", rate, luck, 0, lead_s=0.5, duration_s=seconds)
    due = schedule.due_ns[: schedule.last] / 1e9
    takes = np.resize(services, len(due))
    times = latencies(due, takes, system.servers)[schedule.first :] * 1e3
    return Probe([held(BOUND, times)], due, takes, schedule.first)


class Simulated:
    """A server ``truth`` times as fast as its closed loop says, whose speed varies by 1 % between
    runs, and the rate at which its p99 is 10 ms."""

    def __init__(self, truth: float, seed: int) -> None:
        self._truth, self._seed = truth, seed
        self._random = np.random.default_rng([77, seed])
        self.base = System(self._services(3000), 1, "poisson", seed)
        many = System(self._services(100_000) / truth, 1, "poisson", 0)
        self.capacity = float(np.mean([many._replace(seed=s).highest(BOUND) for s in range(3)]))

    def _services(self, count: int) -> Doubles:
        return self._random.normal(0.002, 0.0004, count).clip(0.0005)

    def probe(self, rate: float, luck: int, seconds: float = 5.0) -> Probe:
        speed = self._truth * float(np.exp(self._random.normal(0, 0.01)))
        services = self._services(math.ceil(1.3 * rate * (seconds + 0.5)) + 100) / speed
        return server_run(self.base, rate, luck, services, seconds)

    def found(self) -> tuple[Answer, int]:
        probes, (best,) = search(self.base, [BOUND], lambda rate: self.probe(rate, self._seed), 8)
        return best, len(probes)

    def bisected(self, steps: int, seconds: float) -> float:
        """Plain bisection up to the saturation that the closed loop says, by each probe's p99."""
        low, high = 0.0, self.base.saturation_per_s
        for step in range(steps):
            middle = (low + high) / 2
            probe = self.probe(middle, 1000 * (self._seed + 1) + step, seconds)
            low, high = (middle, high) if probe.held[0].quantile_ms <= 10 else (low, middle)
        return (low + high) / 2


def simulated(number: int) -> list[Simulated]:
    """True scales from 0.7 to 1.2."""
    return [Simulated(0.7 + 0.5 * at / number, at) for at in range(number)]


def test_found_twice_it_agrees(trials: Callable[[int], int]) -> None:
    """Within their intervals, in at least 19 of 20 pairs."""
    pairs, agreed = trials(20), 0
    for at in range(pairs):
        truth = 0.7 + 0.5 * at / pairs
        (one, _), (two, _) = (Simulated(truth, seed).found() for seed in (2 * at, 2 * at + 1))
        assert not isinstance(one.interval, Unavailable)
        assert not isinstance(two.interval, Unavailable)
        agreed += one.interval[0] <= two.interval[1] and two.interval[0] <= one.interval[1]
    assert agreed >= pairs - 1


def test_bisection_takes_twice_as_long_and_errs_no_less(trials: Callable[[int], int]) -> None:
    """Whatever it makes of twice our seconds: few long probes or many short ones."""
    systems = simulated(trials(40))
    found = [one.found() for one in systems]
    error = rms([best.per_s / one.capacity for (best, _), one in zip(found, systems, strict=True)])
    seconds = 5.0 + 5.0 * sum(probes for _, probes in found) / len(found)  # the closed loop too
    for steps in (4, 5, 6, 7):
        rates = [one.bisected(steps, 2 * seconds / steps) for one in systems]
        pairs = zip(rates, systems, strict=True)
        assert error <= rms([rate / one.capacity for rate, one in pairs])
    covered = sum(
        _covers(best, one.capacity) for (best, _), one in zip(found, systems, strict=True)
    )
    assert covered >= 0.9 * len(systems)


def rms(ratios: list[float]) -> float:
    return float(np.sqrt(np.mean(np.log(ratios) ** 2)))


def _covers(best: Answer, truth: float) -> bool:
    assert not isinstance(best.interval, Unavailable)
    return best.interval[0] <= truth <= best.interval[1]


def test_a_server_that_is_slower_under_requests_is_found_by_its_own_service_times() -> None:
    """Half as fast as its closed loop, and each start 0.1 ms late on top."""
    system = System(np.full(1000, 0.001), 1, "constant", 0)
    due = np.arange(2000, dtype=np.float64) * 0.004
    probe = Probe([held(bound_of("p99=2.5ms"), np.full(2000, 2.1))], due, np.full(2000, 0.002))
    found = answer(system, bound_of("p99=2.5ms"), 0, [probe] * 3)
    assert found.scale == pytest.approx(0.5 * 2.0 / 2.1, rel=0.001)
    assert found.per_s == pytest.approx(1000 / 2.1, rel=0.005)  # equal gaps: until saturation


def test_the_tightest_of_several_bounds_is_the_answer() -> None:
    system = System(np.full(1000, 0.002), 1, "poisson", 0)
    bounds = [bound_of("p50=100ms"), BOUND]
    rates: list[float] = []

    def measure(rate: float) -> Probe:
        rates.append(rate)
        probe = server_run(system, rate, 0, system.services_s)
        times = latencies(probe.due_s, probe.services_s, 1)[probe.first :] * 1e3
        return probe._replace(held=[held(bound, times) for bound in bounds])

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
