"""The version that made a change, by a search whose duels are planted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from harness.compare.package_search import search
from harness.stats.distributions import student_t_cdf
from harness.stats.paired import PairedRatio
from harness.views.package_search import _sentence

VERSIONS = [f"1.{minor}" for minor in range(9)]


class Planted:
    """What each version takes, as a logarithm; every ratio is known to ``error``."""

    def __init__(self, levels: dict[str, float], error: float = 0.001) -> None:
        self.levels, self.error = levels, error
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, versions: Sequence[str]) -> Sequence[PairedRatio]:
        self.asked.append(tuple(versions))
        first = self.levels[versions[0]]
        return [
            PairedRatio(self.levels[one] - first, self.error, 4.0, 0.0, ()) for one in versions[1:]
        ]


def step(at: int, log_ratio: float) -> dict[str, float]:
    return {version: log_ratio * (index >= at) for index, version in enumerate(VERSIONS)}


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("log_ratio", [0.2, -0.2], ids=["slower", "faster"])
def test_the_version_of_a_step_is_found_wherever_it_is(at: int, log_ratio: float) -> None:
    duel = Planted(step(at, log_ratio))
    found = search("lib", VERSIONS, duel)
    assert (found.before, found.version) == (f"1.{at - 1}", f"1.{at}")
    assert found.ratio is not None
    assert found.ratio[0] == pytest.approx(math.exp(log_ratio))
    assert found.whole
    assert len(duel.asked) == 5  # the ends, three halvings of nine, the neighbours
    assert found.error < 1e-4


def test_the_error_rate_is_the_sum_of_those_of_the_steps() -> None:
    """Ends and neighbours 20 errors from 0; the middle 10 from half the way, whose own is half."""
    found = search("lib", ["1", "2", "3"], Planted({"1": 0.0, "2": 0.0, "3": 0.2}, 0.01))
    middle = student_t_cdf(-0.1 / math.hypot(0.01, 0.005), 4.0)
    assert [step.error for step in found.steps] == [
        pytest.approx(one) for one in (student_t_cdf(-20, 4.0), middle, student_t_cdf(-20, 4.0))
    ]
    assert found.error == pytest.approx(sum(step.error for step in found.steps))


@pytest.mark.parametrize(("level", "error"), [(0.005, 1e-4), (0.2, 0.1)])
def test_without_a_change_that_is_proven_nothing_is_named(level: float, error: float) -> None:
    """Below 1 %, or not beyond chance."""
    duel = Planted(step(4, level), error)
    found = search("lib", VERSIONS, duel)
    assert (found.version, found.ratio) == ("", None)
    assert len(duel.asked) == 1
    assert _sentence(found) == "lib: no change of 1 % is proven between 1.0 and 1.8"


def test_a_change_in_many_steps_is_told_from_one() -> None:
    found = search("lib", VERSIONS, Planted({one: 0.05 * i for i, one in enumerate(VERSIONS)}))
    assert not found.whole
    assert _sentence(found).endswith("it is not the only version that changed something")


def test_neighbours_need_one_duel() -> None:
    duel = Planted({"1": 0.0, "2": 0.1})
    found = search("lib", ["1", "2"], duel)
    assert duel.asked == [("1", "2")]
    assert (found.before, found.version, found.whole) == ("1", "2", True)
