"""Which output holds the class scores, and what is said where that cannot be known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.analysis.accuracy import Scores, accuracy, find_scores
from harness.maybe import Unavailable

LOGITS = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
COLUMN = np.array([[0.5], [0.51]], np.float32)


def outputs(**arrays: Any) -> dict[str, Any]:
    return arrays


@pytest.mark.parametrize(
    ("found", "named", "reading"),
    [
        (outputs(y=LOGITS), None, "y, the only output of class scores"),
        (outputs(y=LOGITS, ids=LOGITS.astype(np.int64)), None, "y, the only output of class"),
        (outputs(p=COLUMN, y=LOGITS, maps=LOGITS[None]), None, "y, the only output of class"),
        (outputs(features=-LOGITS, y=LOGITS), "y", "y (--scores)"),
    ],
)
def test_the_scores_and_why_those(found: Any, named: str | None, reading: str) -> None:
    scores = find_scores(found, named)
    assert isinstance(scores, Scores)
    assert scores.array is found["y"] and scores.reading.startswith(reading)


@pytest.mark.parametrize("column", [COLUMN, COLUMN[:, 0]])
def test_one_probability_a_sample_is_taken_where_it_is_named(column: Any) -> None:
    scores = find_scores({"p": column}, "p")
    assert isinstance(scores, Scores) and scores.reading == "p > 0.5 (--scores)"
    assert accuracy(scores.array, np.array([0, 1])).correct == "11"


@pytest.mark.parametrize(
    ("found", "named", "reason", "remedy"),
    [
        (outputs(a=LOGITS, b=LOGITS), None, "2 outputs could hold the class scores: a, b",
         "name one: --scores b"),
        (outputs(p=COLUMN), None, "p has one number a sample, which may be a probability",
         "--scores p takes it for the probability of class 1"),
        (outputs(n=np.ones((2, 3), int)), None, "no output looks like class scores", ""),
        ({}, None, "no output looks like class scores", ""),
        (outputs(a=LOGITS), "b", "--scores names 'b'", "choose one of a"),
        (outputs(a=LOGITS[None]), "a", "a is float32 of shape (1, 2, 2), no class", "name a"),
        (outputs(n=np.ones((2, 3), int)), "n", "n is int64 of shape (2, 3), no class", "name a"),
        (outputs(p=COLUMN * 2), "p", "p has one number a sample, and not all lie in 0 to 1",
         "put a Sigmoid behind them"),
        (outputs(p=COLUMN * np.nan), "p", "p has one number a sample, and not all", "put"),
    ],
)  # fmt: skip
def test_no_accuracy_without_knowing_of_what(
    found: Any, named: str | None, reason: str, remedy: str
) -> None:
    absent = find_scores(found, named)
    assert isinstance(absent, Unavailable)
    assert absent.reason.startswith(reason) and absent.remedy.startswith(remedy)
