"""The formulas of the training logs, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import DataError
from harness.training.measures import (
    attention,
    bins,
    calibration,
    effective_rank,
    representation,
)


def test_calibration_error_of_two_bins() -> None:
    # confidences 0.9 0.9 (one right), 0.6 0.6 (both right): gaps 0.4 and 0.4, each half of the data
    rows = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]
    found = calibration(np.array(rows), np.array([0, 1, 1, 1]), bins=10)
    assert found.error == pytest.approx(0.4)
    assert found.gap == pytest.approx(0.75 - 0.75)
    assert (found.counts[5], found.counts[8], sum(found.counts)) == (2, 2, 4)
    assert (found.accuracy[5], found.accuracy[8]) == (1.0, 0.5)
    assert math.isnan(found.accuracy[0])


def test_one_column_is_the_probability_of_class_1() -> None:
    both = calibration(np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0, 0]))
    one = calibration(np.array([0.2, 0.7]), np.array([0, 0]))
    assert (one.error, one.counts) == (both.error, both.counts)
    assert both.gap == pytest.approx(0.75 - 0.5)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_and_1_to_the_last() -> None:
    found = calibration(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), bins=2)
    assert found.counts == (1, 1)


@pytest.mark.parametrize(
    ("probabilities", "labels", "why"),
    [
        ([[0.5, 0.5]], [0, 1], "do not fit"),
        ([[2.0, -1.0]], [0], "the least is -1"),
        ([[0.2, 0.2]], [0], "sum is 0.6 off 1"),
        ([[math.nan, 1.0]], [0], "1 of 2 probabilities are not finite"),
        ([], [], "do not fit"),
    ],
)
def test_what_are_no_probabilities_is_refused(probabilities, labels, why) -> None:
    with pytest.raises(DataError, match=why):
        calibration(np.array(probabilities), np.array(labels))


def test_attention_entropy_is_in_nats_per_head() -> None:
    even, single = np.full((3, 4), 0.25), np.eye(3, 4)
    found = attention(np.stack([even, single])[None])
    assert found.entropy_nats == pytest.approx((math.log(4), 0.0))
    assert found.concentration == (0.25, 1.0)


def test_padding_is_left_out_and_rows_are_normalised() -> None:
    weights = np.zeros((1, 2, 2, 2))
    weights[0, 0, 0] = 0.2  # even, though dropout took 0.6 of it; the second row is padding
    found = attention(weights)
    assert found.entropy_nats[0] == pytest.approx(math.log(2))
    assert math.isnan(found.entropy_nats[1])


def test_attention_of_one_head_and_of_none() -> None:
    assert attention(np.full((5, 2), 0.5)).entropy_nats == pytest.approx((math.log(2),))
    for bad in (np.ones(3), np.full((2, 2), -1.0)):
        with pytest.raises(DataError):
            attention(bad)


def test_effective_rank() -> None:
    assert effective_rank(np.eye(4)) == pytest.approx(4)
    assert effective_rank(np.outer(np.arange(1, 5), np.arange(1, 4))) == pytest.approx(1)
    assert effective_rank(np.zeros((3, 3))) == 0.0
    # shares 3/4 and 1/4
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(expected)


def test_embeddings_that_are_all_the_same_have_collapsed() -> None:
    found = representation(np.tile([3.0, 4.0], (10, 1)))
    assert (found.std, found.norm_mean) == ((0.0, 0.0), 5.0)
    assert (found.spread, found.effective_rank, found.rank_share) == (0.0, 0.0, 0.0)


def test_embeddings_on_a_line_fill_one_dimension_of_two() -> None:
    found = representation(np.outer([-1.0, 1.0, -1.0, 1.0], [1.0, 1.0]))
    assert found.std == (1.0, 1.0)
    assert found.spread == pytest.approx(1.0)
    assert (found.effective_rank, found.rank_share) == pytest.approx((1.0, 0.5))


def test_few_embeddings_are_not_held_against_many_dimensions() -> None:
    # three points span two dimensions at most
    found = representation(np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))
    assert found.rank_share == pytest.approx(1.0)


def test_representation_refuses_one_embedding() -> None:
    with pytest.raises(DataError, match="1 embeddings say nothing"):
        representation(np.ones((1, 4)))


def test_bins_hold_every_finite_value() -> None:
    found = bins(np.array([0.0, 1.0, 2.0, 3.0, math.nan, math.inf]), number=3)
    assert found is not None
    told = [found[name] for name in ("min", "max", "sum", "sum_squares")]
    assert told == [0.0, 3.0, 6.0, 14.0]
    assert found["bucket_limits"] == [0.0, 1.0, 2.0, 3.0]
    assert found["bucket_counts"] == [0, 1, 1, 2]


def test_bins_of_a_constant_and_of_nothing() -> None:
    found = bins(np.full(7, 2.0))
    assert found is not None
    assert sum(found["bucket_counts"]) == 7
    assert bins(np.array([math.nan])) is None
