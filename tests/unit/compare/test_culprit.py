"""Good, bad or unclear: exact shares, and the interval that decides."""

from __future__ import annotations

import math

import pytest

from harness.compare.culprit import classify


def at(*shares: float) -> list[float]:
    """Values so far on the way from 10 to 12, in logs."""
    return [10 * (12 / 10) ** share for share in shares]


def test_the_nearer_level_decides() -> None:
    good = classify(at(-0.03, -0.02, -0.01, 0.01, 0.02, 0.03), good=10, bad=12)
    assert good.verdict == "good"
    assert good.share == pytest.approx(0, abs=1e-12)
    bad = classify(at(0.97, 0.98, 0.99, 1.01, 1.02, 1.03), good=10, bad=12)
    assert bad.verdict == "bad"
    assert bad.share == pytest.approx(1)


def test_the_interval_is_that_of_the_median() -> None:
    """Of six, least and greatest: 1 - 2 / 2^6 = 97 %; of twelve, the third from either end."""
    told = classify(at(0.3, 0.1, 0.2, 0.15, 0.25, 0.35), good=10, bad=12)
    assert told.interval == pytest.approx((0.1, 0.35))
    told = classify(at(*(share / 100 for share in range(12))), good=10, bad=12)
    assert told.interval == pytest.approx((0.02, 0.09))


def test_odd_launches_among_many_do_not_matter() -> None:
    shares = [0.0, 0.01, -0.01] * 4
    assert classify(at(*shares[:-2], 3.0, 4.0), good=10, bad=12).verdict == "good"
    assert classify(at(*shares[:5], 3.0), good=10, bad=12).verdict == "unclear"


def test_few_launches_are_unclear() -> None:
    told = classify(at(*[0.0] * 5), good=10, bad=12)
    assert told.verdict == "unclear"
    assert told.interval == (-math.inf, math.inf)


def test_where_more_is_better_bad_lies_below() -> None:
    assert classify([8.0] * 6, good=10, bad=8).verdict == "bad"
    assert classify([10.0] * 6, good=10, bad=8).verdict == "good"


def test_nothing_measured_yet_is_unclear() -> None:
    assert classify([], good=10, bad=8).verdict == "unclear"
