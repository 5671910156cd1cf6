"""What the history says of series whose truth is known: seeded noise models of nightly runs.

Nights differ by 2 %, 3 % of them are odd by 8 to 30 %, and from night 60 on the series is 5 %
slower. Every night from the 21st on is judged with what is known by then, as a lab would.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.compare.history import history

NIGHTS, STEP_AT, FIRST = 76, 60, 21
Trials = Callable[[int], int]
Noise = Callable[[np.random.Generator], NDArray[np.float64]]


def independent(sd: float) -> Noise:
    return lambda rng: rng.normal(0, sd, NIGHTS)


def wandering(rng: np.random.Generator) -> NDArray[np.float64]:
    """Each night remembers half of the one before; 2 % in all."""
    noise = rng.normal(0, 0.02, NIGHTS)
    for night in range(1, NIGHTS):
        noise[night] = 0.5 * noise[night - 1] + math.sqrt(0.75) * noise[night]
    return noise


def series(rng: np.random.Generator, noise: Noise, step: float) -> NDArray[np.float64]:
    odd = rng.random(NIGHTS) < 0.03
    logs = noise(rng) + odd * np.log1p(rng.uniform(0.08, 0.30, NIGHTS))
    logs[STEP_AT:] += math.log1p(step)
    return 5.0 * np.exp(logs)


def incidents(values: NDArray[np.float64], until: int = NIGHTS) -> list[tuple[int, int]]:
    """(night of the alarm, night that it names); one that names the same change counts once."""
    found: list[tuple[int, int]] = []
    for night in range(FIRST, until):
        told = history(values[: night + 1], "lower", 0.02).incident
        if told and all(abs(told.index - named) > 5 for _, named in found):
            found.append((night, told.index))
    return found


def outcome(noise: Noise, step: float, count: int, seed: int) -> tuple[int, int, float]:
    """False incidents, the nights before the step, and the share of steps found in 14 nights."""
    rng = np.random.default_rng(seed)
    false, found = 0, 0
    for _ in range(count):
        alarms = incidents(series(rng, noise, step))
        false += sum(night < STEP_AT for night, _ in alarms)
        found += any(
            STEP_AT <= night < STEP_AT + 14 and abs(named - STEP_AT) <= 5 for night, named in alarms
        )
    return false, count * (STEP_AT - FIRST), found / count


def at_most(rate: float, nights: int) -> int:
    """Incidents that ``rate`` allows; no simulation, however short, can show less than one."""
    return math.ceil(rate * nights)


def test_two_percent_of_noise(trials: Trials) -> None:
    false, nights, found = outcome(independent(0.02), 0.05, trials(150), seed=7)
    assert false <= at_most(0.0015, nights)
    assert found >= 0.92


def test_one_percent_of_noise_shows_three_percent(trials: Trials) -> None:
    false, nights, found = outcome(independent(0.01), 0.03, trials(150), seed=8)
    assert false <= at_most(0.0015, nights)
    assert found >= 0.92


def test_a_series_that_wanders_alarms_seldom_and_large_steps_are_found(trials: Trials) -> None:
    false, nights, found = outcome(wandering, 0.10, trials(60), seed=9)
    assert false <= at_most(0.01, nights)
    assert found >= 0.95


@pytest.mark.parametrize("total", [0.06, -0.06])
def test_a_creeping_series_is_a_drift_and_no_incident(total: float) -> None:
    rng = np.random.default_rng(10)
    told = []
    for _ in range(40):
        logs = rng.normal(0, 0.01, 60) + np.linspace(0, math.log1p(total), 60)
        told.append(history(np.exp(logs), "lower", 0.02))
    drifts = [one.drift for one in told if one.drift]
    assert len(drifts) >= 36
    assert {drift.verdict for drift in drifts} == {"worse" if total > 0 else "better"}
    assert np.median([drift.change for drift in drifts]) == pytest.approx(total, abs=0.01)
    assert sum(one.incident is not None for one in told) <= 4


def test_steps_are_no_drift() -> None:
    rng = np.random.default_rng(11)
    told = [history(series(rng, independent(0.01), 0.05)[20:], "lower", 0.02) for _ in range(40)]
    assert sum(one.drift is not None for one in told) <= 2
