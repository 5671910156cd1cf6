"""Ratios of variants that took turns: exact numbers first, then the coverage, simulated."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import NothingComparable
from harness.stats.paired import (
    LaunchRatio,
    PairedRatio,
    after_looks,
    of_launch,
    over_launches,
)

Floats = NDArray[np.float64]


def test_a_constant_ratio_is_found_exactly_whatever_the_machine_does() -> None:
    machine = np.array([1.0, 3.0, 0.5, 7.0, 1.0, 1.0, 2.0, 9.0])
    found = of_launch(machine, 1.25 * machine)
    assert found.log_ratio == pytest.approx(math.log(1.25), abs=1e-12)
    assert found.error == pytest.approx(0.0, abs=1e-12)
    assert (found.dof, found.rounds) == (1, 8)


def test_the_middle_half_of_the_rounds_decides() -> None:
    """Log ratios 0 to 7 with the last one hit: trimmed of 2 at either end, (2 + 3 + 4 + 5) / 4."""
    b = np.exp([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0])
    assert of_launch(np.ones(8), b).log_ratio == pytest.approx(3.5)


def test_the_error_is_that_of_batch_means_of_winsorized_rounds() -> None:
    """0 to 7 drawn in to 2 .. 5, times 2: 2 batches, means -2.5 and 2.5 around the centre."""
    found = of_launch(np.ones(8), np.exp(np.arange(8.0)))
    drawn_in = np.array([2, 2, 2, 3, 4, 5, 5, 5.0])
    means = (3.5 + 2 * (drawn_in - 3.5)).reshape(2, 4).mean(axis=1)
    assert found.error == pytest.approx(means.std(ddof=1) / math.sqrt(2))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_turn_without_a_latency_has_no_ratio(bad: float) -> None:
    with pytest.raises(NothingComparable):
        of_launch(np.ones(8), [1.0] * 7 + [bad])


def test_too_few_rounds_say_how_many_are_needed() -> None:
    with pytest.raises(NothingComparable, match="7 rounds are too few"):
        of_launch(np.ones(7), np.ones(7))
    with pytest.raises(NothingComparable, match="no launch"):
        over_launches([])


def launches(*ratios: float, error: float) -> list[LaunchRatio]:
    return [LaunchRatio(ratio, error, 9, 40) for ratio in ratios]


def test_what_lies_between_launches_is_in_the_interval() -> None:
    found = over_launches(launches(0.01, 0.02, 0.03, error=0.001))
    assert found.log_ratio == pytest.approx(0.02)
    assert found.error == pytest.approx(0.01 / math.sqrt(3))
    assert found.dof == 2
    assert found.between == pytest.approx(math.sqrt(0.01**2 - 0.001**2))
    assert found.half_width == pytest.approx(4.302653 * found.error, rel=1e-6)


def test_launches_that_agree_by_luck_are_no_better_known_than_their_rounds() -> None:
    found = over_launches(launches(0.02, 0.02, 0.02, error=0.006))
    assert found.error == pytest.approx(0.006 / math.sqrt(3))
    assert found.between == 0.0


def test_one_launch_has_the_interval_of_its_rounds() -> None:
    found = over_launches(launches(0.02, error=0.006))
    assert (found.error, found.dof, found.between) == (0.006, 9.0, 0.0)


# -- coverage -------------------------------------------------------------------------------------


def still(rng: np.random.Generator, turns: int) -> Floats:
    return np.zeros(turns)


def drift(rng: np.random.Generator, turns: int) -> Floats:
    return np.cumsum(rng.normal(0.0, 0.01, turns))


def steps(rng: np.random.Generator, turns: int) -> Floats:
    return np.cumsum((rng.random(turns) < 0.02) * rng.normal(0.0, 0.2, turns))


def periodic(rng: np.random.Generator, turns: int) -> Floats:
    return 0.3 * ((np.arange(turns) // 7) % 2)


def correlated(rng: np.random.Generator, turns: int) -> Floats:
    found = np.zeros(turns)
    for turn, shock in enumerate(rng.normal(0.0, 0.03, turns - 1), start=1):
        found[turn] = 0.9 * found[turn - 1] + shock
    return found


Machine = Callable[[np.random.Generator, int], Floats]


def duel(
    rng: np.random.Generator,
    machine: Machine,
    heavy: bool,
    unequal: bool,
    count: int,
    log_ratio: float,
) -> PairedRatio:
    """``count`` launches; between them, ratios differ with a standard deviation of 0.3 %."""
    found = []
    for _ in range(count):
        rounds = int(rng.integers(10, 60)) if unequal else 40
        level = machine(rng, 2 * rounds)
        noise = rng.standard_t(2, (2, rounds)) if heavy else rng.standard_normal((2, rounds))
        noise *= 0.02 * (rng.uniform(1.0, 3.0) if unequal else 1.0)
        first = rng.integers(0, 2, rounds)  # which of the two turns is A's
        at = 2 * np.arange(rounds)
        a, b = level[at + first] + noise[0], level[at + 1 - first] + noise[1]
        found.append(of_launch(np.exp(a), np.exp(b + log_ratio + rng.normal(0.0, 0.003))))
    return over_launches(found)


@pytest.mark.parametrize("machine", [still, drift, steps, periodic, correlated])
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal launches"])
def test_the_interval_covers_the_ratio(machine: Machine, heavy: bool, unequal: bool) -> None:
    """At least 95 %, but for what 100 trials can tell (a 1 % quantile of the binomial: 89)."""
    rng = np.random.default_rng([len(machine.__name__), heavy, unequal])
    found = [duel(rng, machine, heavy, unequal, 5, 0.02) for _ in range(100)]
    covered = sum(abs(one.log_ratio - 0.02) <= one.half_width for one in found)
    assert covered >= 89


def _until_narrow(rng: np.random.Generator, goal: float, most: int) -> tuple[PairedRatio, bool]:
    """A duel of nothing, which ends when it is known to ``goal``; and whether the plain interval
    covered as well where that would have ended."""
    found: list[LaunchRatio] = []
    plain = None
    while len(found) < most:
        found.append(LaunchRatio(float(rng.normal(0.0, 0.016)), 0.001, 2, 12))
        whole = over_launches(found)
        if plain is None and len(found) >= 5 and whole.half_width <= goal:
            plain = abs(whole.log_ratio) <= whole.half_width
        if len(found) >= 5 and after_looks(whole).half_width <= goal:
            break
    return after_looks(over_launches(found)), plain is not False


def test_looking_after_each_launch_costs_no_coverage() -> None:
    rng = np.random.default_rng(5)
    ended = [_until_narrow(rng, 0.01, 20) for _ in range(600)]
    covered = sum(abs(one.log_ratio) <= one.half_width for one, _ in ended)
    assert covered >= 0.935 * 600  # 95 %, less what 600 trials can tell
    assert covered > sum(plain for _, plain in ended)  # which is too few


def test_one_launch_was_not_looked_at() -> None:
    one = over_launches([LaunchRatio(0.1, 0.01, 3, 16)])
    assert after_looks(one) == one
    two = over_launches([LaunchRatio(0.1, 0.01, 3, 16), LaunchRatio(0.2, 0.01, 3, 16)])
    assert after_looks(two).error == pytest.approx(1.2 * two.error)
