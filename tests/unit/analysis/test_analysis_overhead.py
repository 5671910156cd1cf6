"""The cost of being watched, on rounds whose ratios are known."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.overhead import MIN_ROUNDS, Round, overhead
from harness.maybe import Unavailable

NONE = np.empty(0, np.int64)


def times(ns: int, count: int = 400) -> np.ndarray:
    return np.full(count, ns, dtype=np.int64)


def rounds(*ratios: float, count: int = 400) -> list[Round]:
    return [Round(times(round(1000 * ratio), count), times(1000, count)) for ratio in ratios]


def test_equal_rounds_give_their_ratio_without_spread() -> None:
    found = overhead(rounds(*[1.5] * 6), block_s=1.0)
    assert not isinstance(found, Unavailable)
    assert (found.median, found.median_ci95) == (1.5, (1.5, 1.5))
    assert (found.p99, found.p99_ci95) == (1.5, (1.5, 1.5))
    assert (found.rounds, found.block_s) == (6, 1.0)


def test_the_interval_is_made_of_order_statistics() -> None:
    """Of 12 independent ratios, 2 or fewer lie on one side of the true median in 1.9 % of cases."""
    ratios = [1.0, 1.25, 0.75, 0.5, 2.0, 1.5, 1.75, 2.25, 2.5, 0.25, 2.75, 3.0]
    found = overhead(rounds(*ratios), block_s=1.0)
    assert not isinstance(found, Unavailable)
    ordered = sorted(ratios)
    assert found.median == (ordered[5] + ordered[6]) / 2
    assert found.median_ci95 == (ordered[2], ordered[9])


def test_a_disturbed_round_does_not_decide() -> None:
    ratios = [1.01, 1.0, 1.02, 1.0, 1.01, 1.01, 1.02, 1.0, 1.01, 1.02, 1.01]
    calm = overhead(rounds(*ratios, 1.02), block_s=1.0)
    disturbed = overhead(rounds(*ratios, 8.0), block_s=1.0)
    assert not isinstance(calm, Unavailable)
    assert not isinstance(disturbed, Unavailable)
    assert disturbed.median == calm.median == 1.01
    assert disturbed.median_ci95 == calm.median_ci95 == (1.0, 1.02)


def test_the_tail_is_a_ratio_of_its_own() -> None:
    slow_tail = times(1000)
    slow_tail[-8:] = 3000  # 2 % of 400
    found = overhead([Round(slow_tail, times(1000))] * 6, block_s=1.0)
    assert not isinstance(found, Unavailable)
    assert found.median == pytest.approx(1.0)
    assert found.p99 == pytest.approx(3.0)


@pytest.mark.parametrize(("count", "known"), [(368, True), (367, False)])
def test_a_tail_needs_enough_iterations_in_every_block(count: int, known: bool) -> None:
    some = [*rounds(*[1.1] * 5), Round(times(1100), times(1000, count))]
    found = overhead(some, block_s=1.0)
    assert not isinstance(found, Unavailable)
    assert found.median == pytest.approx(1.1)
    assert isinstance(found.p99, Unavailable) is not known
    assert isinstance(found.p99_ci95, Unavailable) is not known
    if isinstance(found.p99, Unavailable):
        assert "a block had 367 iterations; p99 needs 368" in found.p99.reason


def test_unfinished_rounds_do_not_count() -> None:
    halves = [Round(times(1000), NONE), Round(NONE, times(1000))]
    enough = overhead([*rounds(*[1.2] * 6), *halves], block_s=1.0)
    assert not isinstance(enough, Unavailable)
    assert enough.rounds == MIN_ROUNDS == 6
    few = overhead([*rounds(*[1.2] * 5), *halves], block_s=1.0)
    assert few == Unavailable("5 rounds were finished, and 6 are needed", "do not interrupt")
    assert isinstance(overhead([], block_s=1.0), Unavailable)
