"""Where processor time and latency point in opposite directions, the latency's row says so."""

from __future__ import annotations

import pytest

from harness.compare.second_opinion import disagreement, with_second_opinion
from harness.compare.verdicts import MetricVerdict
from harness.maybe import Unavailable


def row(metric: str, ratio: float, half: float, doubt: str = "") -> MetricVerdict:
    return MetricVerdict(
        metric=metric, unit="ms", better="lower", verdict="regressed", reason="", a=1.0, b=ratio,
        ratio=ratio, interval=(ratio - half, ratio + half), doubt=doubt,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("latency", "cpu", "said"),
    [(1.2, 0.8, "less processor time an inference (0.8 of A's)"),
     (0.8, 1.2, "more processor time an inference (1.2 of A's)"),
     (1.2, 1.1, ""), (0.9, 0.8, ""), (1.05, 0.8, ""), (1.2, 0.95, "")],
)  # fmt: skip
def test_both_have_to_be_certain(latency: float, cpu: float, said: str) -> None:
    """To within 0.06: what lies nearer to 1 is not certain."""
    rows = [row("cpu_per_inference", cpu, 0.06), row("latency_median", latency, 0.06, "A is shaky")]
    found = with_second_opinion(rows)
    assert found[0] is rows[0]
    assert (said in found[1].doubt) if said else (found[1].doubt == "A is shaky")
    assert found[1].doubt.startswith("A is shaky; it takes " if said else "A is shaky")


def test_an_interval_that_touches_1_is_not_certain() -> None:
    assert disagreement((0.9, 1.0), 1.2, (1.1, 1.3)) == ""
    assert disagreement((1.0, 1.1), 0.8, (0.7, 0.9)) == ""
    assert disagreement((1.1, 1.2), 0.9, (0.8, 1.0)) == ""
    assert disagreement((0.8, 0.9), 1.1, (1.0, 1.2)) == ""


def test_an_opinion_that_there_is_not_is_none() -> None:
    gone = Unavailable("none")
    assert disagreement((1.1, 1.2), gone, gone) == ""
    alone = [row("latency_median", 1.2, 0.01)]
    assert with_second_opinion(alone) == alone
