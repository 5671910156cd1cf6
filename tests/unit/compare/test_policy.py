"""The policy file: what it says is done, and what would have no effect is refused."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compare.policy import (
    Confirm,
    Expect,
    Limit,
    Policy,
    Quarantine,
    Waiver,
    check_globs,
    parse_policy,
    read_policy,
)
from harness.errors import UsageError
from harness.records.metric import METRICS

FULL = """
alpha = 0.005
minimum_launches = 7
strict = true
metrics = ["latency_median", "memory_peak"]

[[limit]]
metric = "latency_median"
minimum_effect = 0.03

[[limit]]
cell = "resnet50/*/int8/*"
metric = "latency_median"
minimum_effect = 0.05
maximum = 12

[[limit]]
metric = "top1"
floor_of_fp32 = 0.98

[[waiver]]
cell = "bert/*"
metric = "memory_peak"
ceiling = 2.5e9
expires = 2027-01-31
issue = "https://example.org/1"
reason = "fixed by the next release"

[quarantine]
cells = ["mobilenet/*"]
propose_above_cv = 0.2

[expect]
cells = ["digits/*"]

[confirm]
baseline_command = ["old/bin/harness"]
candidate_command = "new/bin/harness"
"""


def test_everything_that_a_policy_can_say() -> None:
    policy = parse_policy(tomllib.loads(FULL))
    assert (policy.alpha, policy.minimum_launches, policy.strict) == (0.005, 7, True)
    cell = "resnet50/onnxruntime/cpu/int8/b1/latency"
    assert policy.minimum_effect("digits/x", "latency_median") == 0.03
    assert policy.minimum_effect(cell, "latency_median") == 0.05  # the later one
    assert policy.minimum_effect(cell, "throughput") is None
    assert (policy.maximum(cell, "latency_median"), policy.minimum(cell, "throughput")) == (
        12,
        None,
    )
    assert policy.floor_of_fp32(cell) == 0.98
    assert policy.judged() == ("latency_median", "memory_peak", "top1")
    assert policy.waiver[0].expires == date(2027, 1, 31)
    assert policy.quarantined("mobilenet/a/b") and not policy.quarantined(cell)
    assert policy.confirm is not None
    assert policy.confirm.baseline_command == ("old/bin/harness",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alhpa = 0.1", "unknown key alhpa; did you mean alpha?"),
        ("zzz = 1", "unknown key zzz; known are alpha, minimum_launches"),
        ("[[limit]]\nmetric = 'top1'\nmaximun = 1", "unknown key limit[0].maximun; did you mean"),
        ("[quarantine]\ncell = []", "unknown key quarantine.cell; did you mean cells?"),
        ("[confirm]\nbaseline = 'x'", "unknown key confirm.baseline"),
        ("alpha = 'x'", "Expected float, got str - at $.alpha"),
        ("alpha = 0", "alpha is 0; give a number from 1e-06 to 0.2"),
        ("alpha = nan", "alpha is nan"),
        ("minimum_launches = 1", "minimum_launches is 1; give a number from 2 to 1000"),
        ("minimum_launches = true", "at $.minimum_launches, which is True"),
        ("strict = 1", "Expected bool, got int - at $.strict"),
        ("metrics = []", "metrics is empty"),
        ("metrics = ['latency']", "metrics is 'latency', which is no metric"),
        ("[[limit]]\nmetric = 'latency_medain'\nmaximum = 1", "did you mean latency_median?"),
        ("[[limit]]\nmaximum = 1", "missing required field metric - at $.limit[0]"),
        ("[[limit]]\nmetric = 'top1'", "limit[0] limits nothing"),
        ("[[limit]]\nmetric = 'load'\nmaximum = inf", "limit[0].maximum is inf"),
        (
            "[[limit]]\nmetric = 'load'\nmaximum = 1\nminimum = 2",
            "limit[0].minimum of 2 is more than its maximum of 1; no value lies between them",
        ),
        ("[[limit]]\nmetric = 'load'\nfloor_of_fp32 = 0.9", "is for top1 alone, not load"),
        ("[[limit]]\nmetric = 'top1'\nfloor_of_fp32 = 99", "limit[0].floor_of_fp32 is 99"),
        ("limit = 1", "at $.limit"),
        ("[limit]\nmetric = 'load'", "at $.limit"),
        ("[[waiver]]\ncell = '*'", "missing required field"),
        ("[confirm]\nbaseline_command = 'x'", "[confirm] needs either baseline_command"),
        ("[confirm]\nenvironments = {baseline = 'x'}", "[confirm] needs"),
        ("[confirm.environments]\nbaseline = 'x'\ncandidate = 1", "at $.confirm.environments"),
        ("[quarantine]\npropose_above_cv = -1", "quarantine.propose_above_cv is -1"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_policy(tomllib.loads(text))
    assert message in str(refused.value)
    assert refused.value.exit_code == 2


WAIVER = {"cell": "*", "metric": "load", "ceiling": 1, "expires": date(2027, 1, 1), "issue": "#1",
          "reason": "known"}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reason": " "}, "waiver[0].reason is empty"),
        ({"issue": ""}, "waiver[0].issue is empty"),
        ({"expires": "soon"}, "at $.waiver[0].expires, which is 'soon'"),
        ({"expires": 5}, "at $.waiver[0].expires"),
        ({"ceiling": float("nan")}, "waiver[0].ceiling is nan"),
        ({"metric": "lod"}, "waiver[0].metric is 'lod', which is no metric; did you mean load?"),
    ],
)
def test_a_waiver_says_until_when_and_why(change: dict[str, Any], message: str) -> None:
    assert parse_policy({"waiver": [WAIVER]}).waiver[0].reason == "known"
    with pytest.raises(UsageError) as refused:
        parse_policy({"waiver": [{**WAIVER, **change}]})
    assert message in str(refused.value)


def test_globs_that_match_nothing_are_refused_with_the_nearest_cell() -> None:
    cells = ["digits/onnxruntime/cpu/fp32/b1/latency", "resnet18/onnxruntime/cpu/int8/b1/latency"]
    for text, where in (
        ("[[limit]]\ncell = 'digit/*'\nmetric = 'load'\nmaximum = 1", "limit[0].cell = 'digit/*'"),
        ("[quarantine]\ncells = ['*/fp32/*', 'digit/*']", "quarantine.cells = 'digit/*'"),
    ):
        with pytest.raises(UsageError) as refused:
            check_globs(parse_policy(tomllib.loads(text)), cells)
        assert str(refused.value).startswith(f"{where} matches no cell; the nearest is 'digits/onn")
    with pytest.raises(UsageError, match=r"waiver\[0\].cell = 'x' matches no cell"):
        check_globs(parse_policy({"waiver": [{**WAIVER, "cell": "x"}]}), cells)
    check_globs(parse_policy(tomllib.loads("[expect]\ncells = ['nowhere']")), cells)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"alpha = ", "is no TOML: "),
        (b"\xff", "is no UTF-8 text"),
        (b"x = " + b"[" * 100_000, "is no TOML: "),
        (b"alhpa = 1", "policy.toml': unknown key alhpa; did you mean alpha?"),
        (b"alpha = 1" + b"0" * 5000, "policy.toml'"),
    ],
)
def test_files_that_are_no_policy(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError) as refused:
        read_policy(path)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_policy(path)


toml_values = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(), st.dates()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
keys = st.sampled_from([*Policy.__struct_fields__, "other"])


@given(st.dictionaries(keys, toml_values))
def test_any_document_is_a_policy_or_one_line(raw: dict[str, Any]) -> None:
    try:
        policy = parse_policy(raw)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(policy, Policy)


def test_the_documents_example_is_a_policy_and_names_every_key() -> None:
    text = (Path(__file__).parents[3] / "docs/policy.md").read_text()
    example = text.split("```toml\n")[1].split("```")[0]
    policy = parse_policy(tomllib.loads(example))
    assert set(tomllib.loads(example)) == set(Policy.__struct_fields__)
    assert policy.minimum_launches == Policy().minimum_launches
    assert policy.quarantine.propose_above_cv == Policy().quarantine.propose_above_cv
    for kind in (Limit, Waiver, Quarantine, Expect, Confirm):
        for key in kind.__struct_fields__:
            assert key in text


def test_the_documents_table_has_every_metric_and_its_minimum() -> None:
    text = (Path(__file__).parents[3] / "docs/compare.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for name, metric in METRICS.items():
        if name != "latency_p99_9":  # launches are too short for it
            (row,) = [row for row in rows if f"`{name}`" in row]
            assert row.rstrip(" |").endswith(f"{100 * metric.minimum_effect:g} %")
