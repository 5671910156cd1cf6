"""Ratios and the AURORA score by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compression.apart import told_apart
from harness.compression.model import Entry, Figure
from harness.compression.ratios import (
    AURORA_TOLERANCE,
    AURORA_WEIGHTS,
    RATIOS,
    aurora,
    ratios,
    with_energy,
    with_ratios,
)
from harness.errors import UsageError


def entry(precision: str = "int8", model: str = "net", **figures: float) -> Entry:
    found = {name: Figure(value) for name, value in figures.items()}
    return Entry(model=model, precision=precision, run="r", figures=found)


def on(base: Entry, run: str, **info: str) -> Entry:
    return msgspec.structs.replace(base, run=run, info=info)


FP32 = entry("fp32", accuracy=0.8, latency_ms=10.0, model_size_mb=40.0, memory_mb=200.0,
             energy_j=0.5)  # fmt: skip
INT8 = entry(accuracy=0.796, latency_ms=2.5, model_size_mb=10.0, memory_mb=150.0, energy_j=0.125)


def test_ratios_by_hand() -> None:
    found = ratios(FP32, INT8)
    assert tuple(found) == RATIOS
    assert found == pytest.approx(
        {
            "size_ratio": 4.0, "size_reduction_pct": 75.0, "speedup": 4.0,
            "memory_reduction_mb": 50.0, "accuracy_drop": 0.004, "accuracy_retention_pct": 99.5,
            "energy_ratio": 4.0, "energy_reduction": 0.375, "energy_saving_share": 0.75,
        }
    )  # fmt: skip


def test_a_slower_and_larger_model_has_the_other_signs() -> None:
    found = ratios(INT8, FP32)
    assert found["speedup"] == 0.25 and found["size_reduction_pct"] == -300.0
    assert found["energy_saving_share"] == -3.0 and found["memory_reduction_mb"] == -50.0
    assert found["accuracy_drop"] == pytest.approx(-0.004)


@pytest.mark.parametrize("metric", ["latency_ms", "model_size_mb", "energy_j"])
@pytest.mark.parametrize("zero", ["reference", "entry"])
def test_zero_gives_no_ratio(metric: str, zero: str) -> None:
    one, none = (
        msgspec.structs.replace(INT8, figures={metric: Figure(value)}) for value in (1.0, 0.0)
    )
    sides = {"reference": one, "entry": one, zero: none}
    assert ratios(sides["reference"], sides["entry"]) == {}


def test_an_accuracy_of_zero_in_the_reference_leaves_the_drop_alone() -> None:
    assert ratios(entry("fp32", accuracy=0.0), entry(accuracy=0.5)) == {"accuracy_drop": -0.5}


def test_power_is_not_energy() -> None:
    assert ratios(entry("fp32", power_mw=9.0), entry(power_mw=3.0)) == {}


def test_joules_are_derived_from_power_and_mean_latency() -> None:
    found = with_energy(entry(power_mw=500.0, latency_ms=4.0))  # 0.5 W for 4 ms
    assert found.figures["energy_j"].value == pytest.approx(0.002)
    assert found.derived == {"energy_j": "average power x latency"}
    batch = with_energy(on(entry(power_mw=500.0, latency_ms=4.0), "r", batch_size="8"))
    assert batch.figures["energy_j"].value == pytest.approx(0.00025)
    two = with_ratios([entry("fp32", power_mw=500.0, latency_ms=8.0),
                       entry(power_mw=500.0, latency_ms=4.0)])  # fmt: skip
    assert two[1].ratios == pytest.approx(
        {"speedup": 2, "energy_ratio": 2, "energy_reduction": 0.002, "energy_saving_share": 0.5}
    )


@pytest.mark.parametrize(
    "info",
    [{"latency_statistic": "median"}, {"concurrency": "4"}, {"batch_size": "0"},
     {"batch_size": "x"}],
)  # fmt: skip
def test_joules_are_not_derived_where_the_product_is_none(info: dict[str, str]) -> None:
    base = on(entry(power_mw=500.0, latency_ms=4.0), "r", **info)
    assert with_energy(base) == base


def test_measured_joules_stay_and_no_power_is_no_energy() -> None:
    for base in (INT8, entry(power_mw=0.0, latency_ms=4.0), entry(power_mw=5.0)):
        assert with_energy(base) == base


def test_a_ratio_that_overflows_is_none() -> None:
    assert ratios(entry("fp32", latency_ms=1e308), entry(latency_ms=1e-300)) == {}


def test_aurora_by_hand() -> None:
    found = aurora(ratios(FP32, INT8))
    assert found is not None
    # 0.995^0.4 x (4 x 4 x 4)^0.2
    assert found.score == pytest.approx(100 * 0.995**0.4 * 64**0.2)
    assert found.components == pytest.approx(
        {"accuracy_retention": 0.995, "speedup": 4, "size_ratio": 4, "energy_ratio": 4}
    )
    assert (found.missing, found.penalty) == ((), 1.0)
    assert found.weights == pytest.approx(AURORA_WEIGHTS)


def test_the_reference_itself_would_score_100() -> None:
    found = aurora(ratios(FP32, FP32))
    assert found is not None and found.score == pytest.approx(100)


def test_missing_components_are_named_and_their_weight_shared_out() -> None:
    found = aurora({"accuracy_retention_pct": 100.0, "speedup": 8.0})
    assert found is not None
    assert found.missing == ("size_ratio", "energy_ratio")
    assert found.weights == pytest.approx({"accuracy_retention": 2 / 3, "speedup": 1 / 3})
    assert found.score == pytest.approx(200)


@pytest.mark.parametrize(
    ("lost", "penalty"), [(0.0, 1.0), (1.0, 1.0), (2.0, 0.5), (3.0, 0.2), (4.0, 0.1), (-1.0, 1.0)]
)
def test_beyond_the_tolerance_the_score_falls_off(lost: float, penalty: float) -> None:
    retention = 1 - lost * AURORA_TOLERANCE
    found = aurora({"accuracy_retention_pct": 100 * retention, "size_ratio": 1.0})
    assert found is not None and found.penalty == pytest.approx(penalty)
    assert found.score == pytest.approx(100 * penalty * retention ** (0.4 / 0.6))


def test_no_score_without_accuracy_or_without_a_gain() -> None:
    assert aurora({"speedup": 4.0, "size_ratio": 4.0}) is None
    assert aurora({"accuracy_retention_pct": 100.0}) is None
    assert aurora({"accuracy_retention_pct": 100.0, "memory_reduction_mb": 9.0}) is None


def test_a_model_that_is_always_wrong_scores_nothing() -> None:
    found = aurora({"accuracy_retention_pct": 0.0, "speedup": 1000.0})
    assert found is not None and found.score == 0.0


positive = st.floats(1e-3, 1e3)


@given(st.floats(0, 150), positive, positive, positive, positive)
def test_the_score_rises_with_every_component(
    retention: float, speedup: float, size: float, energy: float, factor: float
) -> None:
    base = {"accuracy_retention_pct": retention, "speedup": speedup, "size_ratio": size,
            "energy_ratio": energy}  # fmt: skip
    first = aurora(base)
    assert first is not None and math.isfinite(first.score)
    for name in base:
        more = aurora({**base, name: base[name] * (1 + factor)})
        assert more is not None and more.score >= first.score * (1 - 1e-12)


@pytest.mark.parametrize(
    ("weights", "tolerance", "says"),
    [({"speed": 1.0}, 0.01, "'speed' is no component"), ({"speedup": 0.0}, 0.01, "speedup of AUR"),
     ({"speedup": math.nan}, 0.01, "is nan"), (AURORA_WEIGHTS, 0.0, "tolerance of AURORA is 0")],
)  # fmt: skip
def test_weights_and_tolerances_that_make_no_sense(weights, tolerance, says) -> None:
    with pytest.raises(UsageError, match=says):
        aurora({}, weights, tolerance)


def test_an_entry_may_name_its_own_reference() -> None:
    int4 = msgspec.structs.replace(entry("int4", latency_ms=1.0), reference="fp16")
    found = with_ratios([FP32, entry("fp16", latency_ms=4.0), int4])
    assert found[1].ratios["speedup"] == 2.5 and found[2].ratios == {"speedup": 4.0}
    assert with_ratios(found)[2] == found[2]


def test_the_reference_may_be_written_in_capitals() -> None:
    found = with_ratios([entry("FP32", latency_ms=4.0), entry("INT8", latency_ms=2.0)])
    assert found[1].ratios == {"speedup": 2.0} and found[1].reference == "FP32"


def test_entries_are_paired_by_model() -> None:
    other = entry("fp32", "other", latency_ms=100.0)
    found = with_ratios([INT8, FP32, other, entry("fp16", "net", latency_ms=5.0)])
    assert [e.reference for e in found] == ["fp32", None, None, "fp32"]
    assert found[0].ratios == ratios(FP32, INT8) and found[0].aurora == aurora(found[0].ratios)
    assert found[1] == FP32 and found[2] == other  # references have no ratios
    assert found[3].ratios == {"speedup": 2.0} and found[3].aurora is None
    assert "accuracy" in found[3].missing["aurora"]


def test_any_two_precisions_compare() -> None:
    found = with_ratios([entry("fp16", latency_ms=4.0), entry("int4", latency_ms=1.0)], "fp16")
    assert found[1].ratios == {"speedup": 4.0} and found[1].reference == "fp16"


def test_only_like_is_compared_with_like() -> None:
    slow = entry("fp32", latency_ms=20.0)
    cpu, gpu = on(slow, "a", device="cpu"), on(FP32, "b", device="cuda:0")
    for int8, speedup in ((on(INT8, "c", device="cuda:0"), 4.0), (on(INT8, "d", device="cpu"), 8)):
        assert with_ratios([cpu, gpu, int8])[2].ratios["speedup"] == speedup
    tpu = on(INT8, "e", device="tpu")
    alone = with_ratios([cpu, gpu, tpu])[2]
    assert (alone.ratios, alone.aurora, alone.reference) == ({}, None, None)
    assert alone.missing == {"aurora": "its device is tpu, that of fp32 is cuda:0"}
    assert with_ratios([cpu, on(INT8, "e")])[1].ratios["speedup"] == 8  # nothing contradicts


def test_the_partner_of_the_same_run_comes_before_the_last() -> None:
    first, last = on(entry("fp32", latency_ms=5.0), "a"), on(FP32, "b")
    assert with_ratios([first, last, on(INT8, "a")])[2].ratios["speedup"] == 2
    assert with_ratios([first, last, on(INT8, "c")])[2].ratios["speedup"] == 4


def test_the_document_says_what_the_function_does() -> None:
    text = (Path(__file__).parents[3] / "docs" / "aurora.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", text, re.MULTILINE))
    assert {name: float(weight) for name, weight in rows.items()} == AURORA_WEIGHTS
    assert f"- {AURORA_TOLERANCE:g})" in text
    gains = {"speedup": 4.0, "size_ratio": 4.0, "energy_ratio": 4.0}
    for retention, score in ((99.5, "= 229.3"), (97.0, "score is 45.4")):
        found = aurora({**gains, "accuracy_retention_pct": retention})
        assert found is not None and f"{found.score:.1f}" in score and score in text
    (lost,) = re.findall(r"^\| of the accuracy lost \| 0 to 1 % \| (.*) \|$", text, re.MULTILINE)
    (stated,) = re.findall(r"^\| penalty \| 1 \| (.*) \|$", text, re.MULTILINE)
    for percent, penalty in zip(lost.split(" | "), stated.split(" | "), strict=True):
        kept = 100 - float(percent.removesuffix(" %"))
        found = aurora({**gains, "accuracy_retention_pct": kept})
        assert found is not None and found.penalty == pytest.approx(float(penalty), rel=0.02)


def test_a_pair_is_made_of_one_content() -> None:
    """The INT8 run knows the hash of its FP32 source; a name is no proof."""
    fp32, int8 = entry("fp32", latency_ms=2.0), entry("int8", latency_ms=1.0)
    same = with_ratios([on(fp32, "a", model_sha256="1"), on(int8, "b", model_sha256="1")])
    assert same[1].ratios["speedup"] == 2.0
    other = with_ratios([on(fp32, "a", model_sha256="1"), on(int8, "b", model_sha256="2")])
    assert other[1].ratios == {}
    assert "made from another content (2) than this model's fp32 (1)" in other[1].missing["aurora"]
    two = [on(fp32, "a", model_sha256="1"), on(fp32, "c", model_sha256="2")]
    third = with_ratios([*two, on(int8, "b", model_sha256="1")])[2]
    assert third.reference_run == "a"


def file(run: str, path: str, content: str = "", precision: str = "fp32") -> Entry:
    info = {"model_path": path} | ({"model_sha256": content} if content else {})
    return on(entry(precision, path.rpartition("/")[2]), run, **info)


def test_files_of_one_name_are_told_apart_as_shortly_as_can_be() -> None:
    one = [file("a", "x/net", "11111111ff"), file("b", "y/net", "11111111ff", "int8")]
    assert [e.model for e in told_apart(one)] == ["net", "net"]  # copies of one model
    two = [*one, file("c", "z/net", "22222222ff"), file("d", "z/net")]  # the last still runs
    assert [e.model for e in told_apart(two)] == ["x/net", "x/net", "z/net", "z/net"]
    anew = [file("a", "x/net", "11111111ff"), file("b", "x/net", "22222222ff")]
    assert [e.model for e in told_apart(anew)] == ["x/net@11111111", "x/net@22222222"]
    assert [e.model for e in told_apart([entry("fp32"), entry("int8")])] == ["net", "net"]
