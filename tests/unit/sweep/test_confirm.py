"""What a second measurement makes of each regression; and the builds that it can use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import made

from harness.compare.comparison import compare_sets
from harness.compare.gate.confirm import confirmed, regressed_cells
from harness.compare.gate.judge import judge
from harness.compare.policy import Policy, parse_policy
from harness.compare.verdicts import Settings
from harness.errors import UsageError
from harness.records.result import Result, Timing
from harness.spec import RunSpec, code_named_by
from harness.sweep.confirm import SIDES, Build, ready, separately
from harness.sweep.turns import Nights, _asked, take_turns
from harness.testing.results import fake_result

POLICY = Policy(metrics=("latency_median",))


def run(name: str, medians_ms: list[float]) -> Result:
    base = fake_result()
    assert isinstance(base.timing, Timing)
    replace = msgspec.structs.replace
    launches = tuple(replace(base.timing.launches[0], median_ms=value) for value in medians_ms)
    return replace(
        base, id=name, status="complete", timing=replace(base.timing, launches=launches), tags={}
    )


def around(level: float) -> list[float]:
    return [level * factor for factor in (1.0, 1.001, 0.999, 1.002, 0.998)]


def settled(again_ms: list[float], failed: dict[str, str] | None = None) -> tuple[str, int, str]:
    report = judge([run("a", around(1.0))], [run("b", around(1.1))], POLICY)
    assert report.exit_code == 1
    again = compare_sets([run("c", around(1.0))], [run("d", again_ms)]) if again_ms else None
    empty = compare_sets([], [])
    found = confirmed(report, [again or empty], failed or {})
    case = next(case for case in found.cases if case.metric == "latency_median")
    return case.kind, found.exit_code, case.message


def test_a_regression_that_shows_again_stays_one() -> None:
    kind, code, message = settled(around(1.1))
    assert (kind, code) == ("regressed", 1)
    assert "confirmed side by side, worse by 10.0 %" in message


@pytest.mark.parametrize("level", [1.0, 0.9])
def test_one_that_does_not_was_the_night(level: float) -> None:
    kind, code, message = settled(around(level))
    assert (kind, code) == ("not confirmed", 0)
    assert message.startswith("not the software: side by side, ")


def test_one_that_is_not_decided_fails_nothing_unless_strict() -> None:
    kind, code, message = settled([0.9, 1.0, 1.1, 1.2, 1.3])
    assert (kind, code) == ("inconclusive", 0)
    assert "not decided side by side" in message


def test_one_that_cannot_be_measured_again_stays_a_regression() -> None:
    kind, code, message = settled([], {"digits/onnxruntime/cpu/int8/b1/latency": "it crashed"})
    assert (kind, code) == ("regressed", 1)
    assert "could not be confirmed: it crashed" in message


def test_only_what_fails_is_measured_again() -> None:
    report = judge([run("a", around(1.0))], [run("b", around(1.1))], POLICY)
    assert regressed_cells(report) == ["digits/onnxruntime/cpu/int8/b1/latency"]
    waived = msgspec.structs.replace(
        POLICY, quarantine=msgspec.structs.replace(POLICY.quarantine, cells=("digits/*",))
    )
    assert regressed_cells(judge([run("a", around(1.0))], [run("b", around(1.1))], waived)) == []


def test_artifacts_are_the_file_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    build = Build(("harness",), None, tmp_path)
    assert build.of(RunSpec(model="builds/tonight/net.onnx")).model == str(tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=r"holds no 'other\.onnx'"):
        build.of(RunSpec(model="other.onnx"))


@pytest.mark.parametrize(
    "confirm",
    [
        {"environments": {"baseline": "a", "candidate": "b"}},
        {"commits": {"baseline": "a", "candidate": "b"}},
        {"commits": "recorded"},
        {"artifacts": {"baseline": "a", "candidate": "b"}},
        {"baseline_command": "a b", "candidate_command": ["c"]},
    ],
)
def test_each_way_of_confirming_is_understood(confirm: dict[str, object]) -> None:
    assert parse_policy({"confirm": confirm}).confirm is not None


@pytest.mark.parametrize(
    "confirm",
    [
        {},
        {"commits": "latest"},
        {"commits": {"baseline": "a"}},
        {"environments": {"baseline": "a", "candidate": "b", "third": "c"}},
        {"commits": "recorded", "artifacts": {"baseline": "a", "candidate": "b"}},
        {"baseline_command": "a"},
        {"baseline_command": "a", "commits": "recorded"},
    ],
)
def test_half_a_way_of_confirming_is_refused(confirm: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="confirm"):
        parse_policy({"confirm": confirm})


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("harness 'x", 'baseline_command is "harness \'x": No closing quotation'),
        ("/no/such/program --flag", "'/no/such/program --flag': no such program"),
        (["/no/such", "x"], "no such program"),
        (["a\0b"], "baseline_command is"),
        ("   ", "no such program"),
    ],
)
def test_a_command_that_cannot_be_run_is_bad_usage(
    tmp_path: Path, command: str | list[str], told: str
) -> None:
    policy = parse_policy({"confirm": {"baseline_command": command, "candidate_command": "true"}})
    assert policy.confirm is not None
    with pytest.raises(UsageError) as refused, ready(policy.confirm, {}, (None, None)):
        pass
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"backend": "http.server:test"}, "http.server:test"),
        ({"model": "deploy:main"}, "deploy:main"),
        ({"options": {"custom_ops": "./lib.so"}}, "./lib.so"),
    ],
)
def test_code_that_only_a_result_names_is_not_run(
    tmp_path: Path, fields: dict[str, Any], name: str
) -> None:
    ways = {"baseline_command": "true", "candidate_command": "true"}
    asked = {"cell": RunSpec(**fields)}
    policy = parse_policy({"confirm": ways})
    assert policy.confirm is not None
    refusal = pytest.raises(UsageError, match=r"trust = \[")
    with refusal as refused, ready(policy.confirm, asked, (None, None)):
        pass
    assert repr(name) in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    trusting = parse_policy({"confirm": {**ways, "trust": [name]}})
    assert trusting.confirm is not None
    with ready(trusting.confirm, asked, (None, None)) as builds:
        _, failed = separately(builds, asked, Settings(minimum_launches=1), tmp_path)
    assert "measuring again failed" in failed["cell"]  # it was run: `true` leaves no result


def test_a_model_file_is_no_code() -> None:
    for model in ("digits", "net.onnx", "C:\\net.onnx", "a:b.PT2"):
        assert code_named_by(RunSpec(model=model)) == []


# -- which builds can take turns -------------------------------------------------------------------


def refused(build: Build | None = None, old: dict[str, Any] | None = None, **new: Any) -> str:
    """Why two such builds, of such nights, took no turns."""
    sides = dict.fromkeys(SIDES, build or Build(("harness",), python=sys.executable))
    nights = [made(1.0, **(new if old is None else {**new, **old})), made(1.0, **new)]
    with pytest.raises(UsageError) as told:
        take_turns(sides, Nights(*nights), 5, Path("/nowhere"))
    return str(told.value)


def test_builds_that_cannot_take_turns_say_why() -> None:
    assert "a command cannot take turns" in refused(Build(("harness",)))
    assert "one inference at a time" in refused(scenario="throughput", concurrency=2)
    assert "'mine:net' is code, which each build runs for itself" in refused(model="mine:net")
    assert "different files of the model (of 98304 and 5 bytes)" in _of_sizes(98_304, 5)


def _of_sizes(*sizes: int) -> str:
    sides = dict.fromkeys(SIDES, Build(("harness",), python=sys.executable))
    with pytest.raises(UsageError) as told:
        take_turns(sides, Nights(*(made(1.0, size_bytes=one) for one in sizes)), 5, Path("/none"))
    return str(told.value)


def test_a_side_of_a_duel_is_the_night_with_its_own_files_and_a_duels_window(
    tmp_path: Path,
) -> None:
    (tmp_path / "net.onnx").touch()
    build = Build(("harness",), tmp_path, None, sys.executable, "abc")
    spec = RunSpec(model="net.onnx", dataset="elsewhere.npz", iterations=500, launches=9,
                   tags={"sweep": "s"}, require=("energy",))  # fmt: skip
    asked = _asked(build, spec, tmp_path / "out", "baseline")
    assert asked.model == str(tmp_path / "net.onnx")
    assert asked.dataset == "elsewhere.npz"
    assert (asked.iterations, asked.launches, asked.require) == (None, 1, ())
    assert asked.tags == {"build": "baseline"}
