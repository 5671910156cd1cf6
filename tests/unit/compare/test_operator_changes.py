"""Which operators got slower, from two tables whose times are planted."""

from __future__ import annotations

from typing import cast

from harness.compare.operator_changes import OperatorChange, operator_changes
from harness.compare.package_search import PackageCulprit
from harness.maybe import Unavailable
from harness.records.operators import NOT_PROFILED, Operator, Operators
from harness.views.package_search import render_package
from harness.views.terminal import to_text

UNKNOWN = Unavailable("not counted")


def row(kind: str, name: str, ms: float, scatter: float | None = 0.01) -> Operator:
    interval = UNKNOWN if scatter is None else (ms - scatter, ms + scatter)
    return Operator(
        name=name, type=kind, precision="fp32", calls=1.0, ms=ms, ci95_ms=interval, share=0.1,
        fused=UNKNOWN, operations=UNKNOWN, bytes=UNKNOWN,
    )  # fmt: skip


def table(*rows: Operator) -> Operators:
    total = sum(one.ms for one in rows)
    return Operators(
        profiler="planted", inferences=100, launches=1, profiled_ms=total, plain_ms=total,
        slowdown=1.0, window_ms=total, rows=rows, remainder=UNKNOWN, model=UNKNOWN,
    )  # fmt: skip


def changes(before: Operators, after: Operators) -> tuple[OperatorChange, ...]:
    found = operator_changes(before, after)
    assert not isinstance(found, Unavailable)
    return found


def test_the_operators_that_changed_as_the_whole_did_come_first() -> None:
    before = table(row("GRU", "gru", 2.0), row("MatMul", "out", 1.0), row("Add", "sum", 0.5))
    after = table(row("GRU", "gru", 3.0), row("MatMul", "out", 1.2), row("Add", "sum", 0.4))
    found = changes(before, after)
    assert [(one.name, round(one.difference_ms, 3)) for one in found] == [
        ("gru", 1.0),
        ("out", 0.2),
    ]
    assert all(one.proven for one in found)
    faster = changes(after, before)
    assert [one.name for one in faster] == ["gru", "out"]  # and here they got faster


def test_a_change_within_its_scatter_is_not_called_proven() -> None:
    found = changes(table(row("GRU", "gru", 2.0, 0.6)), table(row("GRU", "gru", 3.0, 0.6)))
    assert [one.proven for one in found] == [False]
    unknown = changes(table(row("GRU", "gru", 2.0, None)), table(row("GRU", "gru", 3.0)))
    assert [one.proven for one in unknown] == [False]


def test_what_one_side_alone_has_is_summed_by_type() -> None:
    """A fusion that the other version does not make."""
    before = table(row("FusedConv", "conv+relu", 1.0), row("Gemm", "fc", 0.5))
    after = table(row("Conv", "conv", 1.0), row("Relu", "relu", 0.8), row("Gemm", "fc", 0.5))
    found = changes(before, after)
    told = [(one.type, one.name, one.before_ms, one.after_ms) for one in found]
    assert told == [("Conv", "", 0.0, 1.0), ("Relu", "", 0.0, 0.8)]
    assert not any(one.proven for one in found)


def test_names_that_are_not_unique_are_summed_too() -> None:
    before = table(row("MatMul", "mm", 1.0), row("MatMul", "mm", 1.0))
    after = table(row("MatMul", "mm", 2.0), row("MatMul", "mm", 1.0))
    (found,) = changes(before, after)
    assert (found.name, found.before_ms, found.after_ms) == ("", 2.0, 3.0)


def test_a_backend_that_does_not_tell_leaves_the_reason() -> None:
    one = table(row("GRU", "gru", 1.0))
    assert operator_changes(one, NOT_PROFILED) == NOT_PROFILED
    assert operator_changes(NOT_PROFILED, one) == NOT_PROFILED


def test_the_answer_shows_them() -> None:
    def shown(operators: object) -> str:
        found = PackageCulprit(
            distribution="planted", versions=("1", "2"), version="2", before="1",
            ratio=(1.5, 1.49, 1.51), error=1e-6, whole=True, steps=(),
            operators=cast("tuple[OperatorChange, ...]", operators),
        )  # fmt: skip
        return " ".join(to_text(render_package(found)).split())

    change = OperatorChange(type="GRU", name="gru", before_ms=2.0, after_ms=3.0, proven=True)
    assert "GRU gru 2.000 ms 3.000 ms yes" in shown((change,))
    assert "operators: none of them changed as the whole did" in shown(())
    assert "operators: not asked for" in shown(NOT_PROFILED)
