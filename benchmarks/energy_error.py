"""How wrong is the energy of a window? Simulated meters of known truth, read by four methods.

    python benchmarks/energy_error.py [--trials 400] [--seed 0]

A load of iterations (half at 400 W, half at 100 W, idle at 60 W) runs under meters that publish,
average, lag, round and mis-scale as real ones do; a window of whole iterations is measured by

    harness     `harness.analysis.energy.attribute.attribute` on readings every 100 ms
    naive       the meter read once before and once after: counter difference, or mean power x time
    zeus        its rule for counters is the naive one; sampled power by trapezoid between the
                deduplicated samples inside the window, zero for fewer than two
    codecarbon  counter difference between start and stop; sampled power held since the last poll,
                polled every 15 s (its default) or every 1 s, and at the stop

The peers' rules are written anew here after reading their sources (zeus at 75a8b93, codecarbon at
b05965e): neither package can be fed a trace. "inside" is how often the truth lies within twice our
stated standard uncertainty, "refused" how often we say that the meter cannot answer.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.analysis.energy.attribute import PAUSE_EVERY, Window, attribute, resonance_delay
from harness.maybe import Unavailable
from harness.testing.power import PowerCurve, SimulatedMeter, square_load

Floats = NDArray[np.float64]
IDLE_W, LOW_W, HIGH_W = 60.0, 100.0, 400.0
LEAD_S = 4.0
READ_EVERY_S = 0.1


@dataclass(frozen=True)
class Scenario:
    """One kind of meter under one kind of load. Times in seconds; ``gain_sd`` is relative."""

    name: str
    kind: str  # counter | gauge
    period_s: float
    averaging_s: float
    iteration_s: float
    lag_s: float = 0.0
    tick_j: float = 1e-3
    noise_w: float = 0.5
    gain_sd: float = 0.0
    window_s: float = 6.0
    guard_s: float = 1.5
    pauses: bool = False


SCENARIOS = (
    Scenario("RAPL, 0.2 ms iterations", "counter", 0.001, 0.001, 0.0002, tick_j=61e-6),
    Scenario("RAPL, 30 ms iterations", "counter", 0.001, 0.001, 0.03, tick_j=61e-6),
    Scenario("counter every 20 ms", "counter", 0.02, 0.02, 0.005),
    Scenario("counter every 100 ms", "counter", 0.1, 0.1, 0.005),
    Scenario("counter every 100 ms, 1 J steps", "counter", 0.1, 0.1, 0.005, tick_j=1.0),
    Scenario("counter every 100 ms, 50 ms iterations", "counter", 0.1, 0.1, 0.05),
    Scenario("counter every 100 ms, gain +-5 %", "counter", 0.1, 0.1, 0.005, gain_sd=0.05),
    Scenario("counter every 100 ms, 1 s window", "counter", 0.1, 0.1, 0.005, window_s=1.0),
    Scenario("counter every 100 ms, no guard", "counter", 0.1, 0.1, 0.005, guard_s=0.0),
    Scenario("power 100 ms, sees all", "gauge", 0.1, 0.1, 0.005),
    Scenario("power 100 ms, sees all, no guard", "gauge", 0.1, 0.1, 0.005, guard_s=0.0),
    Scenario("power 100 ms, sees 25 %", "gauge", 0.1, 0.025, 0.005),
    Scenario("power 100 ms, sees 25 %, 10 ms iterations", "gauge", 0.1, 0.025, 0.01),
    Scenario("power 100 ms, sees 25 %, 50 ms iterations", "gauge", 0.1, 0.025, 0.05),
    Scenario("the same with random pauses", "gauge", 0.1, 0.025, 0.05, pauses=True),
    Scenario("power 20 ms, sees 50 %", "gauge", 0.02, 0.01, 0.002),
    Scenario("power, 1 s average, lags 0.1 s", "gauge", 0.1, 1.0, 0.005, lag_s=0.1),
    Scenario("the same, gain +-5 %", "gauge", 0.1, 1.0, 0.005, lag_s=0.1, gain_sd=0.05),
    Scenario("wall meter, 1 s, 60 s window", "gauge", 1.0, 1.0, 0.02, window_s=60, guard_s=3.0),
)


@dataclass
class Errors:
    """Relative errors of each method over the trials of a scenario."""

    by_method: dict[str, list[float]] = field(default_factory=dict)
    inside: list[bool] = field(default_factory=list)
    refused: int = 0

    def add(self, method: str, joules: float, truth_j: float) -> None:
        self.by_method.setdefault(method, []).append(joules / truth_j - 1)


@dataclass(frozen=True)
class Trial:
    """One drawn run: the true curve, its window, and the meter with a random phase and gain."""

    curve: PowerCurve
    window: Window
    meter: SimulatedMeter
    reads_s: Floats

    @property
    def edges_s(self) -> tuple[float, float]:
        return self.window.start_ns / 1e9, self.window.end_ns / 1e9

    @property
    def truth_j(self) -> float:
        start, end = self.edges_s
        return float(self.curve.energy_j(end) - self.curve.energy_j(start))


def draw(scenario: Scenario, rng: np.random.Generator) -> Trial:
    """A run of ``scenario`` with everything random that nobody controls."""
    longest = resonance_delay(scenario.iteration_s, scenario.period_s) if scenario.pauses else 0.0
    # A window never fits a meter's period by design.
    width = scenario.window_s + rng.uniform(0, 2 * scenario.period_s)
    length = width + 2 * scenario.guard_s + 0.5
    begin = LEAD_S + rng.uniform(0, 1)
    curve, starts = square_load(
        begin,
        begin + length,
        scenario.iteration_s,
        IDLE_W,
        LOW_W,
        HIGH_W,
        pauses_s=(lambda count: pauses_s(count, longest, rng)) if longest else None,
    )
    first = int(np.searchsorted(starts, begin + scenario.guard_s))
    last = int(np.searchsorted(starts, starts[first] + width))
    if scenario.guard_s == 0.0:
        last = starts.size - 1
    window = Window(
        start_ns=round(starts[first] * 1e9),
        end_ns=round(starts[last] * 1e9),
        iterations=last - first,
        guard_before_s=starts[first] - begin,
        guard_after_s=starts[-1] - starts[last],
        random_phase=scenario.pauses,
    )
    reads = np.arange(rng.uniform(0, READ_EVERY_S), starts[-1] + LEAD_S, READ_EVERY_S)
    reads = np.sort(reads + rng.normal(0, 0.002, reads.size))
    meter = SimulatedMeter(
        scenario.period_s,
        scenario.averaging_s,
        scenario.lag_s,
        gain=1 + rng.normal(0, scenario.gain_sd),
        tick_j=scenario.tick_j if scenario.kind == "counter" else 0.0,
        noise_w=scenario.noise_w,
        phase=rng.uniform(),
        seed=int(rng.integers(2**31)),
    )
    return Trial(curve, window, meter, reads)


def pauses_s(count: int, longest_s: float, rng: np.random.Generator) -> Floats:
    """A pause after each of ``count`` iterations, drawn anew every `PAUSE_EVERY`."""
    lengths: Floats = rng.uniform(0, longest_s, math.ceil(count / PAUSE_EVERY))
    return np.repeat(lengths, PAUSE_EVERY)[:count]


def naive(trial: Trial, kind: str) -> float:
    """The meter read once at each edge."""
    start, end = trial.edges_s
    edges = np.array([start, end])
    if kind == "counter":
        return float(np.diff(trial.meter.counter_at(trial.curve, edges))[0])
    return float(trial.meter.power_at(trial.curve, edges).mean() * (end - start))


def zeus(trial: Trial, kind: str) -> float:
    """Counter difference, or the trapezoid between deduplicated samples within the window."""
    if kind == "counter":
        return naive(trial, kind)
    start, end = trial.edges_s
    watts = trial.meter.power_at(trial.curve, trial.reads_s)
    fresh = np.concatenate(([True], np.diff(watts) != 0))
    keep = fresh & (trial.reads_s >= start) & (trial.reads_s <= end)
    if np.count_nonzero(keep) < 2:
        return 0.0
    means = (watts[keep][1:] + watts[keep][:-1]) / 2
    return float(means @ np.diff(trial.reads_s[keep]))


def codecarbon(trial: Trial, kind: str, every_s: float) -> float:
    """Counter difference, or the power of each poll held over the time since the poll before."""
    if kind == "counter":
        return naive(trial, kind)
    start, end = trial.edges_s
    polls = np.append(np.arange(start + every_s, end, every_s), end)
    watts = trial.meter.power_at(trial.curve, np.insert(polls, 0, start))[1:]
    return float(watts @ np.diff(np.insert(polls, 0, start)))


PEERS: dict[str, Callable[[Trial, str], float]] = {
    "naive": naive,
    "zeus": zeus,
    "codecarbon 15 s": lambda trial, kind: codecarbon(trial, kind, 15.0),
    "codecarbon 1 s": lambda trial, kind: codecarbon(trial, kind, 1.0),
}


def ours(trial: Trial, scenario: Scenario, errors: Errors) -> None:
    """Attribute, and note whether the truth lies within twice the stated uncertainty."""
    gain = scenario.gain_sd or None
    energy = attribute(
        trial.meter.readings(trial.curve, trial.reads_s, scenario.kind, gain), trial.window
    )
    assert not isinstance(energy, Unavailable)
    joules = energy.sources["sim"].energy_j
    if isinstance(joules, Unavailable):
        errors.refused += 1
        return
    stated = joules.comparative if isinstance(joules.absolute, Unavailable) else joules.absolute
    errors.add("harness", joules.value, trial.truth_j)
    errors.inside.append(abs(joules.value - trial.truth_j) <= 2 * stated)


def run(scenario: Scenario, trials: int, seed: int) -> Errors:
    """Draw ``trials`` runs of ``scenario`` and measure each by every method."""
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario)])
    errors = Errors()
    for _ in range(trials):
        trial = draw(scenario, rng)
        ours(trial, scenario, errors)
        for name, method in PEERS.items():
            errors.add(name, method(trial, scenario.kind), trial.truth_j)
    return errors


def main() -> None:
    """Print a table of the median, 95th percentile and largest absolute error, in per cent."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    methods = ["harness", *PEERS]
    print("|error| in %: median / 95th percentile / largest\n")
    print(f"| meter and load | {' | '.join(methods)} | inside | refused |")
    print(f"|---|{'---|' * (len(methods) + 2)}")
    inside: list[bool] = []
    for scenario in SCENARIOS:
        errors = run(scenario, options.trials, options.seed)
        inside += errors.inside
        cells = [_cell(errors.by_method.get(method, [])) for method in methods]
        share = f"{np.mean(errors.inside):.1%}" if errors.inside else "-"
        refused = f"{errors.refused / options.trials:.0%}"
        row = f"| {scenario.name} | {' | '.join(cells)} | {share} | {refused} |"
        print(row, flush=True)  # one takes a while
    print(f"\nours within its stated uncertainty: {np.mean(inside):.2%} of {len(inside)}")


def _cell(errors: list[float]) -> str:
    if not errors:
        return "-"
    size = 100 * np.abs(errors)
    figures = [float(np.quantile(size, q)) for q in (0.5, 0.95, 1.0)]
    return " / ".join(f"{figure:.{2 if figure < 10 else 0}f}" for figure in figures)


if __name__ == "__main__":
    main()
