"""Whole comparisons simulated: how often they cry wolf, and what they find.

    a launch's figure = level of the build x exp(N(0, launch noise))      5 launches a side

200,000 single comparisons without sets gave the rates in `harness.stats.two_samples`; here whole
sets of cells and metrics go through the adjustment for their number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from harness.stats.two_samples import Question, Shift, adjust, estimate, judge

ALPHA = 0.01
Trials = Callable[[int], int]


def compared(a: NDArray[np.float64], b: NDArray[np.float64]) -> list[Shift]:
    """One set: a row per cell, a column per launch."""
    estimates = [estimate(Question(a=x, b=y)) for x, y in zip(a, b, strict=True)]
    adjusted = adjust([one.p_values for one in estimates if one.p_values], ALPHA)
    return [judge(one, p, ALPHA) for one, p in zip(estimates, adjusted, strict=True)]


def sets(seed: int, trials: int, cells: int, noise: float, step: float = 1.0) -> list[list[Shift]]:
    """``trials`` sets; in each the first cell's build is slower by ``step``."""
    rng = np.random.default_rng(seed)
    levels = np.exp(noise * rng.standard_normal((2, trials, cells, 5)))
    levels[1, :, 0] *= step
    return [compared(a, b) for a, b in zip(*levels, strict=True)]


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.03])
@pytest.mark.parametrize("cells", [1, 10])
def test_at_most_one_set_in_a_hundred_cries_wolf(noise: float, cells: int, trials: Trials) -> None:
    count = trials(1000 if cells == 1 else 150)
    found = sets(1, count, cells, noise)
    false = sum(any(one.verdict == "regressed" for one in each) for each in found)
    assert stats.binomtest(false, count, ALPHA, alternative="greater").pvalue > 0.05


@pytest.mark.parametrize(("cells", "at_least"), [(1, 0.97), (3, 0.93)])
def test_steps_of_five_percent_are_found(cells: int, at_least: float, trials: Trials) -> None:
    """At 1 % launch noise and 5 launches."""
    count = trials(400)
    found = sets(2, count, cells, 0.01, 1.05)
    hits = sum(each[0].verdict == "regressed" for each in found)
    assert hits / count >= at_least
    assert sum(one.verdict == "regressed" for each in found for one in each[1:]) <= 0.01 * count


@pytest.mark.parametrize("cells", [1, 10])
def test_the_stated_limit_is_what_can_be_seen(cells: int, trials: Trials) -> None:
    """The more is compared at once, the larger a lone change has to be: the report says how large.

    A step of the median stated size is found in about three of four (73 % of 400 single
    comparisons), and one half as large again in 90 %.
    """
    count = trials(400 if cells == 1 else 150)
    stated = [each[0].detectable for each in sets(3, count, cells, 0.01)]
    size = float(np.median([one for one in stated if isinstance(one, float)]))
    assert size == pytest.approx(0.025 if cells == 1 else 0.035, rel=0.15)
    for factor, share in ((1.0, 0.70), (1.5, 0.90)):
        found = sets(4, count, cells, 0.01, 1 + factor * size)
        hits = sum(each[0].verdict == "regressed" for each in found)
        assert stats.binomtest(hits, count, share, alternative="less").pvalue > 0.05


def test_a_change_of_many_cells_is_easier_to_see_than_a_lone_one(trials: Trials) -> None:
    rng = np.random.default_rng(5)
    count = trials(100)
    levels = np.exp(0.01 * rng.standard_normal((2, count, 20, 5)))
    levels[1] *= 1.05
    found = [compared(a, b) for a, b in zip(*levels, strict=True)]
    hits = sum(one.verdict == "regressed" for each in found for one in each)
    assert hits / (20 * count) >= 0.97
