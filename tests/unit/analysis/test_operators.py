"""The table of operators: rows add up, and roofs hold."""

from __future__ import annotations

import msgspec
import pytest

from harness.analysis.operators import of_launch, over_launches
from harness.analysis.roofline import place, roof_check
from harness.maybe import Unavailable
from harness.protocols import OperatorTimes, ProfiledInferences, TensorSpec
from harness.records.operators import AtRoof, Operations, Roof
from harness.records.result import NOT_REACHED
from harness.views.operators import summary, table

NO_ROOFS = Unavailable("not measured here")
A = TensorSpec("", "float32", (64, 64))
COMPUTE = Roof(name="product", bound="compute", precision="fp32", per_s=1e9, bytes=100, ms=1.0)
CACHED = Roof(name="copy small", bound="memory", precision="fp32", per_s=8e8, bytes=1000, ms=1.0)
BEYOND = Roof(name="copy large", bound="memory", precision="fp32", per_s=1e8, bytes=10**6, ms=1.0)


def product(name: str, ms: tuple[float, ...]) -> OperatorTimes:
    """2 x 64^3 = 524,288 operations, 3 x 64 x 64 x 4 = 49,152 bytes."""
    return OperatorTimes(
        name=name,
        type="MatMul",
        precision="fp32",
        ms=ms,
        inputs=(A, A),
        outputs=(A,),
        fused=(name,),
    )


def profiled(slow: float = 0.0) -> ProfiledInferences:
    """Eight inferences; the two fastest and the two slowest are left out of every row."""
    latency = (9.0, 10.0, 10.0, 10.0, 10.0, 9.5, 30.0, 40.0)
    return ProfiledInferences(
        profiler="by hand",
        operators=(
            product("a", (1.0, 5.0, 6.0, 5.0, 6.0, 1.0, 20.0, 20.0)),
            product("b", (1.0, 2.0 + slow, 2.0 + slow, 2.0 + slow, 2.0 + slow, 1.0, 5.0, 5.0)),
        ),
        latency_ms=latency,
    )


def test_rows_and_remainder_add_up_to_the_middle_half() -> None:
    found = over_launches([of_launch(profiled(), 8.0, NO_ROOFS)], 8.2)
    assert [row.ms for row in found.rows] == [5.5, 2.0]
    assert not isinstance(found.remainder, Unavailable)
    assert found.remainder.ms == 2.5
    assert sum(row.ms for row in found.rows) + found.remainder.ms == found.profiled_ms == 10.0
    assert found.slowdown == 1.25
    assert [row.share for row in found.rows] == [0.55, 0.2]
    assert found.method.endswith("blind to what differs between processes")


def test_from_five_launches_on_intervals_are_between_launches() -> None:
    launches = [of_launch(profiled(slow), 8.0, NO_ROOFS) for slow in (0.0, 0.1, 0.2, 0.3, 0.4)]
    found = over_launches(launches, 8.0)
    row = found.rows[1]
    assert row.launches_ms == pytest.approx((2.0, 2.1, 2.2, 2.3, 2.4))
    # t(4) = 2.776, sd = 0.1581
    assert row.ci95_ms == pytest.approx((2.2 - 0.19631, 2.2 + 0.19631), abs=1e-4)
    assert found.method.endswith("between launches")


def test_what_overlaps_has_no_remainder() -> None:
    both = msgspec.structs.replace(profiled(), overlapping=True)
    found = over_launches([of_launch(both, 8.0, NO_ROOFS)], NOT_REACHED)
    assert isinstance(found.remainder, Unavailable)
    assert "do not add up" in [row[-1] for row in table(found, None, 1.0, "ms")][-1]


def test_the_higher_of_two_bounds_is_the_roof() -> None:
    roofs = (COMPUTE, CACHED, BEYOND)
    # 1e6 operations take 1 ms at the roof; 400 bytes nothing to speak of
    found = place(Operations(0, 10**6), 400, "fp32", 4.0, roofs)
    assert found == AtRoof(bound="compute", ms=1.0, share=0.25, intensity=2500.0, per_s=2.5e8)
    # 1e6 bytes are beyond the small copy: at 1e8 a second they take 10 ms
    found = place(Operations(0, 10**6), 10**6, "fp32", 20.0, roofs)
    assert found == AtRoof(bound="memory", ms=10.0, share=0.5, intensity=1.0, per_s=5e7)
    assert isinstance(place(Operations(10, 0), 8, "int8", 1.0, roofs), Unavailable)


def test_nothing_may_be_faster_than_its_roof() -> None:
    low = msgspec.structs.replace(COMPUTE, per_s=1e8)
    slow, fast = (
        over_launches([of_launch(profiled(), 8.0, (roof, BEYOND))], 8.0) for roof in (COMPUTE, low)
    )
    (passed,), (failed,) = roof_check(slow), roof_check(fast)
    assert passed.verdict == "pass"
    assert failed.verdict == "fail"
    # 524,288 operations at 1e8 a second take 5.24 ms, and b took 2
    assert failed.reason.startswith("b reached 262%")
    assert roof_check(NO_ROOFS) == ()


def test_the_sums_say_what_is_covered_and_what_the_profiler_costs() -> None:
    odd = OperatorTimes(name="c", type="Softmax", precision="fp32", ms=(0.5,) * 8, inputs=(A,))
    more = msgspec.structs.replace(profiled(), operators=(*profiled().operators, odd))
    found = over_launches([of_launch(more, 8.0, (COMPUTE, BEYOND))], 8.2)
    text = "\n".join(summary(found))
    assert "3 operators 8.000 ms + remainder 2.000 ms of an inference of 10.00 ms" in text
    assert "slows it to 1.25 of 8.000 ms without; 8.200 ms in the timed window" in text
    assert "counted: 1.05 MOP floating point, 98.30 kB; 93.8% of the operators' time" in text
    cost = msgspec.structs.replace(found, profiler_ms=0.25)
    assert (
        "of operators that compute nothing it adds 250.0 µs to each: of these 750.0 µs of the"
        " 2.000 ms more" in "\n".join(summary(cost))
    )
    rows = {row[-1]: row for row in table(found, 2, 1.0, "ms")}
    assert rows["1 operator more"][:2] == ("5.0%", "0.5000 ms")
    (softmax,) = (row for row in table(found, None, 1.0, "ms") if row[-1] == "c")
    assert softmax[4] == "not counted"
