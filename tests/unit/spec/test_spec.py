"""The spec parser: whatever it is given, a spec or one line that names the flag."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.run import command
from harness.errors import UsageError
from harness.spec import (
    DEFAULT_CAP_S,
    DEFAULT_FLOOR_S,
    DEFAULT_GOAL,
    FIELDS,
    RunSpec,
    arguments,
    flag,
    parse,
    unparse,
)

LISTS = [field.name for field in FIELDS if field.many]
SWITCHES = [field.name for field in FIELDS if field.parse is None]
SCALARS = sorted(set(RunSpec.__struct_fields__) - {*LISTS, *SWITCHES})

# Any code point, surrogates included: a command line holds bytes that are no UTF-8.
_ANYTHING = st.text(st.characters(), max_size=20)
_ALMOST = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"\A[-+0-9.e_%x,= ]{0,12}\Z"),
    st.from_regex(r"\A\w{1,4}=\w{0,4}\Z"),
    st.sampled_from(["int8", "cpu", "cuda:0", "throughput", "dynamic", "a=1x2", "a=scalar", "50%"]),
)
_TEXT = st.one_of(_ANYTHING, _ALMOST)


def check_refusal(error: UsageError, *flags: str) -> None:
    text = str(error)
    assert len(text.splitlines()) == 1
    assert any(name in text for name in flags)
    assert error.remedy
    text.encode()


@pytest.mark.parametrize("field", SCALARS)
@given(text=_TEXT)
def test_any_text_is_a_spec_or_a_line(field: str, text: str) -> None:
    try:
        spec = parse({field: text})
    except UsageError as error:
        check_refusal(error, flag(field))
    else:
        assert msgspec.json.decode(msgspec.json.encode(spec), type=RunSpec) == spec


@pytest.mark.parametrize("field", LISTS)
@given(texts=st.lists(_TEXT, max_size=3))
def test_any_texts_are_a_spec_or_a_line(field: str, texts: list[str]) -> None:
    try:
        spec = parse({field: texts})
    except UsageError as error:
        check_refusal(error, flag(field))
    else:
        assert msgspec.json.decode(msgspec.json.encode(spec), type=RunSpec) == spec
        assert len(getattr(spec, field) or ()) == len(texts) or field == "require"


_SECONDS = st.floats(0.01, 86_400).map(str)
_NAMES = st.text(st.characters(min_codepoint=32, codec="utf-8"), min_size=1).filter(
    lambda name: "=" not in name and name.strip() == name != ""
)
VALID: dict[str, st.SearchStrategy[Any]] = {
    "model": _NAMES,
    "device": st.sampled_from(["cpu", "cuda", "cuda:3"]),
    "precision": st.sampled_from(["fp32", "int8", "fp16", "bf16"]),
    "batch_size": st.integers(1, 1_000_000).map(str),
    "input_shapes": st.dictionaries(_NAMES, st.sampled_from(["scalar", "1", "1x3,5"])).map(
        lambda shapes: [f"{name}={shape}" for name, shape in shapes.items()]
    ),
    "duration_s": _SECONDS,
    "iterations": st.integers(1, 1_000_000_000).map(str),
    "precision_goal": st.floats(0.0001, 1.0).map(str),
    "max_duration_s": _SECONDS,
    "cpus": st.lists(st.integers(0, 4095), min_size=1).map(lambda ids: ",".join(map(str, ids))),
    "require": st.lists(st.sampled_from(["energy", "accuracy", "memory", "interval"])),
    "tags": st.dictionaries(_NAMES, _NAMES).map(
        lambda tags: [f"{key}={value}" for key, value in tags.items()]
    ),
}


@given(values=st.fixed_dictionaries({}, optional=VALID))
def test_valid_texts_together_survive_json(values: dict[str, Any]) -> None:
    try:
        spec = parse(values)
    except UsageError as error:  # each is valid alone
        check_refusal(error, "--max-duration")
        return
    assert msgspec.json.decode(msgspec.json.encode(spec), type=RunSpec) == spec
    assert 0 < spec.floor_s <= spec.cap_s
    assert spec.goal is None or 0 < spec.goal <= 1


def test_every_field_is_a_flag_of_run_and_back() -> None:
    options = {name: option.name for option in command.params for name in option.opts}
    flags = {flag(field): field for field in RunSpec.__struct_fields__}
    assert flags.items() <= options.items()
    others = {"--json", "--quiet", "--verbose", "-v", "--no-tensorboard", "--progress-fd"}
    assert options.keys() - flags == {*others, "--out"}  # an earlier name of --results


def test_defaults_are_those_of_the_record() -> None:
    assert parse({}) == RunSpec()
    assert parse({"duration_s": None, "tags": ()}) == RunSpec()


@pytest.mark.parametrize(
    ("values", "goal", "floor_s", "cap_s"),
    [
        ({}, DEFAULT_GOAL, DEFAULT_FLOOR_S, DEFAULT_CAP_S),
        # an exact duration has no goal
        ({"duration_s": "5"}, None, 5, 5),
        ({"duration_s": "60"}, None, 60, 60),
        # a goal or a cap makes it a floor
        ({"duration_s": "5", "precision_goal": "2%"}, 0.02, 5, 30),
        ({"duration_s": "60", "precision_goal": "2%"}, 0.02, 60, 60),
        ({"duration_s": "5", "max_duration_s": "10"}, DEFAULT_GOAL, 5, 10),
        ({"max_duration_s": "100"}, DEFAULT_GOAL, 3, 100),
        # the default floor gives way to a low cap
        ({"max_duration_s": "0.5"}, DEFAULT_GOAL, 0.5, 0.5),
        ({"precision_goal": "0.5"}, 0.5, 3, 30),
        # an exact count has no goal, and no cap but one that is given
        ({"iterations": "50"}, None, 3, math.inf),
        ({"iterations": "50", "max_duration_s": "2"}, None, 2, 2),
        ({"iterations": "50", "precision_goal": "1%"}, 0.01, 3, math.inf),
    ],
)
def test_goal_floor_and_cap(
    values: dict[str, str], goal: float | None, floor_s: float, cap_s: float
) -> None:
    spec = parse(values)
    assert (spec.goal, spec.floor_s, spec.cap_s) == (goal, floor_s, cap_s)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("precision_goal", "1%", 0.01),
        ("precision_goal", " 0.5 % ", 0.005),
        ("device", "cuda", "cuda:0"),
        ("cpus", "0-3,8", (0, 1, 2, 3, 8)),
        ("cpus", "3,1,3", (1, 3)),
        ("input_shapes", ["a=1x3", "b=scalar"], {"a": (1, 3), "b": ()}),
        ("input_shapes", ["a=b=1x0", "in:0/x=4"], {"a=b": (1, 0), "in:0/x": (4,)}),
        ("tags", ["note=a=b", "empty="], {"note": "a=b", "empty": ""}),
        ("require", ["energy", "memory", "energy"], ("energy", "memory")),
    ],
)
def test_texts_that_mean_more_than_they_say(field: str, text: Any, value: Any) -> None:
    assert getattr(parse({field: text}), field) == value


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"cpus": "5-2"}, "--cpus is '5-2'; give processors such as 0-3,8"),
        ({"cpus": "0,5-"}, "--cpus is '0,5-'; give processors such as 0-3,8"),
        ({"cpus": "0-9999"}, "--cpus is '0-9999'; give processors such as 0-3,8"),
        ({"input_shapes": ["1x3"]}, "--input-shape is '1x3'; give input=1x3x224x224"),
        ({"tags": ["a=1", "a=2"]}, "--tag names 'a' twice; give each key once"),
        ({"model": "a\nb"}, r"--model is 'a\nb'; give a name or a path"),
        ({"out": "\udcff"}, r"--results is '\udcff'; give text in UTF-8"),
        (
            {"duration_s": "5", "max_duration_s": "1"},
            "--max-duration 1 is below --duration 5; raise the cap",
        ),
        ({"warmup_s": "20"}, "--max-warmup 10 is below --warmup 20; raise the cap"),
        (
            {"concurrency": "4"},
            "--concurrency 4 in the latency scenario, which runs one at a time; "
            "add --scenario throughput",
        ),
        ({"colour": "red"}, "'colour' is no field of a run; see harness run --help"),
    ],
)
def test_refusals_name_the_value_and_the_way_out(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(values)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("values", "concurrency"),
    [
        ({"device": "cuda", "scenario": "throughput"}, 2),
        ({"backend": "tensorrt", "scenario": "throughput"}, 2),
        ({"device": "cuda", "scenario": "throughput", "concurrency": "1"}, 1),
        ({"device": "cuda"}, 1),
        ({"scenario": "throughput"}, 1),
    ],
)
def test_throughput_on_a_gpu_keeps_two_in_flight(values: dict[str, str], concurrency: int) -> None:
    assert parse(values).concurrency == concurrency


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from(["digits", "a/b.onnx", "m:f"]),
            "backend": st.sampled_from(["onnxruntime", "tensorrt"]),
            "device": st.sampled_from(["cpu", "cuda", "cuda:3"]),
            "precision": st.sampled_from(["fp32", "int8"]),
            "batch_size": st.integers(1, 64).map(str),
            "duration_s": st.floats(0.01, 10).map(repr),
            "precision_goal": st.sampled_from(["1%", "0.5%"]),
            "cpus": st.sampled_from(["0-3,8", "1"]),
            "input_shapes": st.sampled_from([["a=1x3", "b=scalar"], ["a=4"]]),
            "options": st.sampled_from([["k=v", "empty="], []]),
            "tags": st.sampled_from([["a=b=c"]]),
            "require": st.sampled_from([["energy", "memory"]]),
            "overhead_check": st.booleans(),
            "allow_infinite": st.booleans(),
        },
    )
)
def test_a_spec_can_be_asked_for_again(values: dict[str, object]) -> None:
    spec = parse(values)
    assert parse(unparse(spec)) == spec


def test_arguments_are_what_the_command_takes() -> None:
    spec = parse({"input_shapes": ["a=1x3"], "cpus": "0-1", "overhead_check": True, "seed": "4"})
    assert sorted(arguments(unparse(spec))) == [
        "--cpus=0,1", "--input-shape=a=1x3", "--overhead-check", "--seed=4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "cap_s"),
    [({"device": "cuda"}, 30), ({"device": "cuda", "max_warmup_s": "5"}, 5), ({}, 10)],
)
def test_clocks_are_given_longer_to_settle(values: dict[str, str], cap_s: float) -> None:
    assert parse(values).max_warmup_s == cap_s


def test_builders_of_engines_are_given_longer_without_a_word() -> None:
    assert parse({"device": "cuda"}).timeout_s == 600
    assert parse({"backend": "tensorrt"}).timeout_s == 600
    assert parse({}).timeout_s == 120


@pytest.mark.parametrize(
    "values",
    [
        {"device": "cuda", "max_warmup_s": "10"},
        {"device": "cuda", "scenario": "throughput", "concurrency": "1"},
        {"backend": "tensorrt", "timeout_s": "120"},
        {"backend": "tensorrt", "device": "cuda:1", "scenario": "throughput"},
        {"device": "cuda"},
    ],
)
def test_a_default_of_the_cpu_given_for_a_gpu_is_kept(values: dict[str, str]) -> None:
    spec = parse(values)
    assert parse(unparse(spec)) == spec


def test_the_defaults_of_a_gpu_go_without_saying() -> None:
    assert unparse(parse({"device": "cuda"})) == {"device": "cuda:0"}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("calibration", "x.npz"), ("calibration_method", "entropy"), ("quantization", "dynamic")],
)
def test_what_would_be_ignored_is_refused(precision: str, field: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"with --precision {precision}, which quantizes nothing"):
        parse({"precision": precision, field: value})
    assert getattr(parse({"precision": "int8", field: value}), field) == value


def test_repeatable_flags_that_were_not_given_are_the_default() -> None:
    """As the command line hands them on: empty tuples."""
    nothing = {field.name: () for field in FIELDS if field.many}
    assert parse(nothing) == RunSpec()
