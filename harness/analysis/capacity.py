"""The highest rate at which bounds hold: predicted from service times, then corrected by probes.

    one closed loop ── service times ──> Lindley's recursion ──> latency at every rate, predicted
    a probe: a server run near that  ├── its own service times, under that load ──> the same again
                                     └── what it saw beyond them: the factor c

Lindley (1952), for several servers Kiefer and Wolfowitz (1955): given when requests come and how
long each takes, the waits follow, exactly. What the prediction can't know (caches that cool between
requests, servers that slow each other down) is in a probe's own service times. On its own schedule
and with these, in their order, the recursion gives back what the probe saw, luck included, but for
what lies between inferences (lateness, handing over): services of s / c give the very quantile. So
each probe has an answer of its own: the highest rate of a lasting load with its services and its c.
The mean of these, in logarithms, is the answer; the interval is Student's t between probes,
whatever makes them differ, and 4 % for the luck of the lasting load. Latencies rise with the rate
for every c, so the curve is monotone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.maybe import Maybe, Unavailable
from harness.records.capacity import Held, Verdict
from harness.stats.arrivals import Schedule, drawn, gaps
from harness.stats.distributions import binomial_cdf, student_t_ppf
from harness.stats.quantiles import effective_count, quantile

Floats = NDArray[np.float64]
# requests of a prediction that luck shall not move: of one server, of several
LONG_RUN, LONG_RUN_OF_SEVERAL = 100_000, 20_000
LUCK = 0.04  # relative, 95 %, of their answer
_OTHER_LUCK = 1_000_003  # the launch number of its schedule, which no probe has
_SLOWEST, _FASTEST = 0.1, 5.0  # scales that anybody looks for
_LEAST_PROBES = 3
_LEVEL = 0.025


class Bound(NamedTuple):
    """``p99=10ms``: no more than 1 - ``q`` of the requests may take longer than ``limit_ms``."""

    text: str
    q: float
    limit_ms: float

    @property
    def allowed(self) -> float:
        return 1.0 - self.q


def bound_of(text: str) -> Bound:
    """Of what `harness.spec.parsers.parse_bounds` makes."""
    name, _, limit = text.partition("=")
    return Bound(text, float(name.removeprefix("p")) / 100, float(limit.removesuffix("ms")))


def held(bound: Bound, latencies_ms: Floats, *, stationary: bool = True) -> Held:
    """Whether ``bound`` holds, by the binomial interval of the share that was late.

    ``latencies_ms`` in the order of arrival. What is not stationary holds no bound.
    """
    late = float((latencies_ms > bound.limit_ms).mean())
    effective = effective_count(latencies_ms, bound.limit_ms, bound.q)
    count = round(late * effective)
    if not stationary or _at_least(count, effective, bound.allowed) < _LEVEL:
        verdict: Verdict = "fail"
    elif binomial_cdf(count, effective, bound.allowed) < _LEVEL:
        verdict = "pass"
    else:
        verdict = "undecided"
    return Held(
        bound=bound.text,
        late=late,
        quantile_ms=quantile_of(latencies_ms, bound.q),
        effective=effective,
        verdict=verdict,
    )


def _at_least(count: int, n: int, p: float) -> float:
    return 1.0 if count == 0 else 1.0 - binomial_cdf(count - 1, n, p)


# --- what the service times say ---------------------------------------------------------------


def latencies(due_s: Floats, services_s: Floats, servers: int) -> Floats:
    """Of each request in s, from due, first come first served by ``servers``."""
    if servers == 1:
        # wait[i+1] = max(0, wait[i] + service[i] - gap[i]), all at once
        steps = services_s[:-1] - np.diff(due_s)
        walk = np.concatenate([[0.0], np.cumsum(steps)])
        alone: Floats = walk - np.minimum.accumulate(walk) + services_s
        return alone
    free = [-math.inf] * servers
    found = np.empty(len(due_s))
    for index, (due, service) in enumerate(zip(due_s.tolist(), services_s.tolist(), strict=True)):
        end = max(due, free[0]) + service
        heapq.heapreplace(free, end)
        found[index] = end - due
    return found


@lru_cache(maxsize=8)
def _unit_times(arrivals: str, seed: int, count: int) -> Floats:
    """When requests of a rate of 1 come."""
    times: Floats = np.cumsum(gaps(arrivals, seed, _OTHER_LUCK, count))
    return times


@lru_cache(maxsize=256)
def _schedule(
    arrivals: str, rate_per_s: float, seed: int, launch: int, lead_s: float, span_s: float
) -> Schedule:
    return drawn(arrivals, rate_per_s, seed, launch, lead_s=lead_s, duration_s=span_s)


class System(NamedTuple):
    """What is served: service times in s as measured, in order; how requests come."""

    services_s: Floats
    servers: int
    arrivals: str
    seed: int

    @property
    def saturation_per_s(self) -> float:
        """At this rate all servers are busy all the time."""
        return self.servers / float(self.services_s.mean())

    def at(self, rate_per_s: float, scale: float, seconds: float | None) -> Floats:
        """Latencies in s at a rate, were it ``scale`` times as fast; ``seconds``: of a probe as
        long, with the luck that it meets; None: of a long run with another."""
        if seconds is None:
            count = LONG_RUN if self.servers == 1 else LONG_RUN_OF_SEVERAL
            due_s = _unit_times(self.arrivals, self.seed, count) / rate_per_s
            first, last = count // 10, count
        else:
            lead = max(0.1 * seconds, 0.2)  # as `harness.engine.loads.server` has it
            schedule = _schedule(self.arrivals, rate_per_s, self.seed, 0, lead, seconds)
            due_s, first, last = schedule.due_ns / 1e9, schedule.first, schedule.last
        services = np.resize(self.services_s, len(due_s)) / scale
        return latencies(due_s, services, self.servers)[first:last]

    def late(
        self, bound: Bound, rate_per_s: float, scale: float = 1.0, seconds: float | None = None
    ) -> float:
        """The share that takes longer than ``bound`` allows; all of them beyond saturation."""
        if seconds is None and rate_per_s >= scale * self.saturation_per_s:
            return 1.0
        times = self.at(rate_per_s, scale, seconds)
        return float((times * 1e3 > bound.limit_ms).mean()) if len(times) else 0.0

    def highest(self, bound: Bound, scale: float = 1.0) -> float:
        """The highest rate of a lasting load at which ``bound`` holds; 0 where it never does."""
        top = scale * self.saturation_per_s
        low, high = 0.0, top
        if float((self.services_s / scale * 1e3 > bound.limit_ms).mean()) > bound.allowed:
            return 0.0
        for _ in range(10):
            middle = (low + high) / 2
            if self.late(bound, middle, scale) > bound.allowed:
                high = middle
            else:
                low = middle
        return low


# --- what the probes say ----------------------------------------------------------------------


class Probe(NamedTuple):
    """One server run: of each bound what was seen; and the requests of its schedule in the order of
    arrival, when they were due and how long each took, in s. Those from ``first`` on were timed."""

    held: Sequence[Held]
    due_s: Floats
    services_s: Floats
    first: int = 0


class Answer(NamedTuple):
    """The highest rate of one bound. ``scale``: how much faster the probes were than predicted."""

    bound: str
    per_s: float
    interval: Maybe[tuple[float, float]]
    scale: float


def answer(system: System, bound: Bound, index: int, probes: Sequence[Probe]) -> Answer:
    """The mean over ``probes``; ``index``: which of their bounds. Without any, the prediction."""
    if not probes:
        few = Unavailable("0 probes are too few for an interval", f"--probes {_LEAST_PROBES}")
        return Answer(bound.text, system.highest(bound), few, 1.0)
    found = [_of_probe(system, bound, index, probe) for probe in probes]
    scale = math.exp(float(np.mean([math.log(faster) for _, faster in found])))
    rates = [rate for rate, _ in found]
    if min(rates) <= 0:
        none = Unavailable(f"a probe's services break {bound.text} at any rate", "raise the bound")
        return Answer(bound.text, float(np.median(rates)), none, scale)
    logs = np.log(rates)
    best = math.exp(float(logs.mean()))
    if len(logs) < _LEAST_PROBES:
        few = Unavailable(
            f"{len(logs)} probes are too few for an interval", f"--probes {_LEAST_PROBES}"
        )
        return Answer(bound.text, best, few, scale)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    half = math.hypot(student_t_ppf(1 - _LEVEL, len(logs) - 1) * error, LUCK)
    top = scale * system.saturation_per_s
    interval = (best * math.exp(-half), max(best, min(best * math.exp(half), top)))
    return Answer(bound.text, best, interval, scale)


def _of_probe(system: System, bound: Bound, index: int, probe: Probe) -> tuple[float, float]:
    """The answer of one probe, and how much faster it was than ``system``."""
    own = system._replace(services_s=probe.services_s)
    factor = _factor(own, bound, probe.held[index].quantile_ms / 1e3, probe)
    return own.highest(bound, factor), factor * own.saturation_per_s / system.saturation_per_s


def _factor(own: System, bound: Bound, seen_s: float, probe: Probe) -> float:
    """By how much shorter services give the quantile that was seen, on the probe's schedule."""
    low, high = _SLOWEST, _FASTEST
    for _ in range(14):
        middle = math.sqrt(low * high)
        times = latencies(probe.due_s, probe.services_s / middle, own.servers)[probe.first :]
        if quantile_of(times, bound.q) > seen_s:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def quantile_of(values: Floats, q: float) -> float:
    return quantile(np.sort(values), q)


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to ``values`` (pool adjacent violators)."""
    blocks: list[list[float]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, max(weight, 1e-9), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, heavy, many = blocks.pop()
            before = blocks[-1]
            together = before[1] + heavy
            before[0] = (before[0] * before[1] + mean * heavy) / together
            before[1], before[2] = together, before[2] + many
    return [mean for mean, _, many in blocks for _ in range(int(many))]


GOAL = 0.06  # relative half-width of the answer
_AROUND = (1.0, 0.94, 1.03, 1.0, 0.97, 1.02, 0.99, 1.0)  # of the answer so far


def search(
    system: System,
    bounds: Sequence[Bound],
    measure: Callable[[float], Probe | None],
    most: int,
    told: Callable[[Sequence[Answer]], Any] = lambda answers: None,
) -> tuple[list[Probe], list[Answer]]:
    """Probe near the answer until it is known well, or ``most`` probes are made.

    ``measure`` makes one at a rate; None: it was broken off, and no other is made. ``told`` hears
    the answers after each.
    """
    probes: list[Probe] = []
    answers = [answer(system, bound, i, probes) for i, bound in enumerate(bounds)]
    while len(probes) < most and not _known(answers, probes):
        tightest = min(answers, key=lambda one: one.per_s)
        rate = tightest.per_s * _AROUND[len(probes) % len(_AROUND)]
        probe = measure(rate)
        if probe is None:
            break
        probes.append(probe)
        answers = [answer(system, bound, i, probes) for i, bound in enumerate(bounds)]
        told(answers)
    return probes, answers


def _known(answers: Sequence[Answer], probes: Sequence[Probe]) -> bool:
    tightest = min(answers, key=lambda one: one.per_s)
    if isinstance(tightest.interval, Unavailable) or tightest.per_s <= 0:
        return False
    low, high = tightest.interval
    return (high - low) / 2 <= GOAL * tightest.per_s
