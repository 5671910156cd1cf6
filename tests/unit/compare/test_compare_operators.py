"""Operators of two profiled runs: what belongs together, what changed, and what cannot be told."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from made_runs import made

from harness.compare.comparison import compare_runs, compare_sets
from harness.compare.operators import OperatorChanges
from harness.maybe import Unavailable
from harness.records.operators import Operator, Operators, Remainder
from harness.records.result import Result
from harness.views.comparison import render_pair
from harness.views.operators_compared import headline, remarks
from harness.views.terminal import to_text

NOT_COUNTED = Unavailable("not counted here")
NO_INTERVAL = Unavailable("no interval")


def operator(
    name: str, ms: list[float], *fused: str, type: str = "Conv", precision: str = "fp32"
) -> Operator:
    return Operator(
        name=name, type=type, precision=precision, calls=1.0, ms=float(np.mean(ms)),
        ci95_ms=NO_INTERVAL, share=0.1, fused=fused or Unavailable("the runtime added it"),
        operations=NOT_COUNTED, bytes=NOT_COUNTED, launches_ms=tuple(ms),
    )  # fmt: skip


def profiled(*rows: Operator, launches: int = 5, resolution_ms: float = 0.0, **spec: str) -> Result:
    found = Operators(
        profiler="by hand", inferences=100, launches=launches, profiled_ms=10.0, plain_ms=9.0,
        slowdown=1.1, window_ms=9.0, rows=rows, model=Unavailable("not counted"),
        remainder=Remainder(ms=1.0, ci95_ms=NO_INTERVAL, share=0.1),
        resolution_ms=resolution_ms,
    )  # fmt: skip
    return msgspec.structs.replace(made(**spec), operators=found)


def changes(a: Result, b: Result) -> OperatorChanges:
    (cell,) = compare_runs(a, b).cells
    assert not isinstance(cell.operators, Unavailable)
    return cell.operators


def near(ms: float) -> list[float]:
    return [ms * s for s in (0.995, 1.005, 1.0, 0.9975, 1.0025)]


def test_operators_are_held_together_by_the_nodes_whose_work_they_do() -> None:
    fp32 = profiled(
        operator("conv1_nchwc", near(4.0), "conv1", "relu1"),
        operator("conv2", near(2.0), "conv2"),
        operator("relu2", near(1.0), "relu2", type="Relu"),
        operator("soft", near(0.5), "soft", type="Softmax"),
        operator("Softmax 9", near(0.25), type="Softmax"),
        operator("pool", near(0.3), "pool", type="MaxPool"),
    )
    int8 = profiled(
        operator("c1", near(1.0), "q", "conv1", "relu1", type="QLinearConv", precision="int8"),
        operator("c2", near(3.0), "q", "conv2", "relu2", type="QLinearConv", precision="int8"),
        operator("soft", near(0.5), "soft", type="Softmax"),
        operator("other", near(0.25), type="Softmax"),
        operator("entry", near(0.1), "q", type="QuantizeLinear", precision="convert"),
        precision="int8",
    )
    found = changes(fp32, int8)
    rows = {row.name: row for row in found.rows}
    assert rows["conv1"].verdict == "improved"
    assert rows["conv1"].ratio == pytest.approx(0.25, rel=1e-3)
    assert rows["conv1"].nodes == ("conv1", "relu1")
    # a fused operator is held against all those that it stands for
    both = rows["conv2 and 1 more"]
    assert (both.a_ms, both.b_ms) == (pytest.approx(3.0), pytest.approx(3.0))
    assert both.a == ("Conv fp32", "Relu fp32")
    assert both.verdict == "unchanged"
    assert rows["soft"].verdict == "unchanged"
    assert rows["Softmax 9"].nodes == ()
    left = [(one.side, one.type, one.count, one.ms) for one in found.unmatched]
    assert left == [
        ("A", "MaxPool", 1, pytest.approx(0.3)),
        ("B", "QuantizeLinear", 1, pytest.approx(0.1)),
    ]
    assert found.comparisons == 4
    assert [row.name for row in found.changed] == ["conv1"]
    text = "\n".join(remarks(found))
    assert "of 1 rows no node of the model is known: they are matched by type" in text
    assert "B alone: QuantizeLinear convert, 1 of them" in text


def test_below_five_launches_nothing_is_certain_and_that_is_said() -> None:
    a = profiled(operator("c", [1.0], "c"), launches=1)
    b = profiled(operator("c", [2.0], "c"), launches=1)
    found = changes(a, b)
    assert found.rows[0].verdict == "inconclusive"
    assert found.rows[0].ratio == pytest.approx(2.0)
    assert found.rows[0].reason == "1 and 1 launches; 5 a side are needed"
    assert headline(found).startswith("Operators: 0 of 1 changed (1 inconclusive)")
    (cell,) = compare_runs(a, b).cells
    text = to_text(render_pair(cell, a, b), 120)
    assert "1 operator inconclusive: 1 and 1 launches; 5 a side are needed" in text


def test_the_launches_of_several_runs_pool() -> None:
    a = [profiled(operator("c", [one], "c"), launches=1) for one in near(1.0)]
    b = [profiled(operator("c", [one], "c"), launches=1) for one in near(1.5)]
    (cell,) = compare_sets(a, b).cells
    assert not isinstance(cell.operators, Unavailable)
    (row,) = cell.operators.changed
    assert (row.verdict, row.launches) == ("regressed", (5, 5))


def test_what_the_profilers_clock_does_not_resolve_is_not_judged() -> None:
    a, b = (profiled(operator("c", near(ms), "c"), resolution_ms=1e-3) for ms in (0.004, 0.008))
    (row,) = changes(a, b).rows
    assert (row.verdict, row.reason) == ("inconclusive", "too short for the profiler's clock")


def test_an_operator_that_some_launches_lack_is_not_judged() -> None:
    a = profiled(operator("c", near(1.0), "c"))
    b = profiled(operator("c", near(1.0)[:3], "c"))
    (row,) = changes(a, b).rows
    assert (row.verdict, row.reason) == ("inconclusive", "it did not run in every launch")


def test_one_profiled_side_has_nothing_to_be_held_against() -> None:
    (cell,) = compare_runs(profiled(operator("c", near(1.0), "c")), made()).cells
    assert isinstance(cell.operators, Unavailable)
    assert cell.operators.reason.startswith("B has none: not asked for")


def test_among_many_operators_hardly_any_false_one_is_named_and_the_changed_one_is() -> None:
    """Twenty operators with 3 % of spread between launches, of which one takes a quarter longer:
    of 40 comparisons it is named in nearly all, and another one in at most 2."""
    rng = np.random.default_rng(7)
    named = others = 0
    for _ in range(40):
        sides = [
            profiled(*(
                operator(f"n{i}", list((1.0 + 0.25 * (side and i == 4)) * np.exp(
                    rng.normal(0.0, 0.03, 5))), f"n{i}")
                for i in range(20)
            ))
            for side in (0, 1)
        ]  # fmt: skip
        found = {row.name for row in changes(*sides).changed}
        named += "n4" in found
        others += bool(found - {"n4"})
    assert named >= 38
    assert others <= 2
