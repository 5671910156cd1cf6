"""A duel's parts: turns on trial, rounds with planted latencies, the record and its words."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.analysis.turns import SHORTEST_NS, block_ns, cold_iterations
from harness.cli.main import main
from harness.compare.paired import Design, Paired, Rounds, paired
from harness.engine.driver.duel import rules_of
from harness.engine.driver.homes import home
from harness.engine.driver.rounds import Rules, SideFailed, Taking, Turned, orders
from harness.engine.driver.signals import Interrupt
from harness.engine.driver.turns import Taken, TurnLaunch
from harness.engine.outcome.evidence import TurnsTaken
from harness.engine.outcome.iterations import Iterations
from harness.errors import UsageError
from harness.maybe import Unavailable
from harness.records.samples import Stretch, pack, read_rounds, read_samples
from harness.spec import RunSpec, parse
from harness.spec.variants import twins, variants
from harness.views.duel import live_line, sentence

DESIGN = Design(block_ms=20.0, left_out=2, seed=0, goal=0.01, cpus=(0, 1))
FIXED = Rules(goal=None, floor_s=0.0, cap_s=0.0, least_launches=1, most_launches=1)


# -- turns on trial --------------------------------------------------------------------------------


def test_iterations_that_a_rest_has_made_slow_are_found() -> None:
    turn = np.array([3000, 1500, 1100] + [1000] * 17)
    assert cold_iterations([turn] * 10) == 3
    assert cold_iterations([np.array([1000] * 20)] * 10) == 1  # the first is never timed
    assert cold_iterations([np.array([2000, 1000])] * 10) == 1


def test_most_iterations_of_a_turn_count() -> None:
    assert block_ns(100_000, 3) == SHORTEST_NS
    assert block_ns(10_000_000, 3) == 15 * 10_000_000
    assert block_ns(5_000_000_000, 1) == 400_000_000  # the turn still has one that counts


def test_no_side_is_first_more_often() -> None:
    for sides in (2, 3):
        places = np.array(list(itertools.islice(orders(sides, seed=7), 400)))
        assert sorted(places[0]) == list(range(sides))
        for side in range(sides):
            assert np.where(places == side)[1].mean() == (sides - 1) / 2
    assert next(orders(4, 1)) == next(orders(4, 1))


# -- rounds ----------------------------------------------------------------------------------------


class Planted:
    """A side whose turns take what is planted, times what the machine does in that round."""

    def __init__(self, latency_ns: int, weather: Callable[[], float], dies_in: int = -1) -> None:
        self.record = SimpleNamespace(turns=None)
        self._latency_ns, self._weather, self._dies_in = latency_ns, weather, dies_in
        self.asked: list[tuple[int, int, int]] = []

    def begin(self, length_ns: int, left_out: int) -> None:
        self.record.turns = TurnsTaken(length_ns, left_out, rested_ns=1000, rest_cpu_ns=3)

    def turn(self, length_ns: int, at_least: int, number: int) -> Taken:
        self.asked.append((length_ns, at_least, number))
        each = round(self._latency_ns * self._weather())
        return Taken(np.array([9 * each, each, each, each]), float(2 * each))

    def attempt(self, step: Callable[[], None]) -> bool:
        if self._dies_in == len(self.asked):
            return False
        step()
        return True


def _taking(*sides: Planted) -> Taking:
    return Taking(cast("list[TurnLaunch]", list(sides)), orders(2, 0), Interrupt(), lambda _: None)


def test_what_drifts_leaves_the_ratio_alone() -> None:
    steps = itertools.count()

    def weather() -> float:
        return 1 + next(steps) // 2  # every round slower than the one before

    a, b = Planted(100_000, weather), Planted(125_000, weather)
    taking = _taking(a, b)

    assert taking.run(Turned(20_000_000, 1), FIXED) == "duration"

    rounds = taking.recorded.frozen(cast("Any", [a, b]))
    assert len(rounds.latency[0]) == 8  # the fewest that have an interval
    assert rounds.latency[0] == tuple(100_000.0 * (1 + i) for i in range(8))
    assert rounds.cold[0][0] == 900_000
    assert rounds.resting == (0.003, 0.003)
    assert a.asked == [(20_000_000, 2, i) for i in range(8)]
    found = paired(("a", "b"), ("run a", "run b"), DESIGN, [rounds] * 5, "launches")
    (verdict,) = found.verdicts
    assert verdict.ratio == pytest.approx(1.25)
    assert verdict.cpu_ratio == pytest.approx(1.25)
    assert verdict.verdict == "regressed"
    assert [variant.run for variant in found.variants] == ["run a", "run b"]
    assert found.rounds == 40


def test_a_side_that_fails_ends_the_rounds_and_leaves_whole_ones() -> None:
    a, b = Planted(100, lambda: 1.0), Planted(100, lambda: 1.0, dies_in=3)
    taking = _taking(a, b)
    with pytest.raises(SideFailed) as failed:
        taking.run(Turned(20_000_000, 1), FIXED)
    assert failed.value.side is cast("Any", b)
    assert taking.recorded.count == 3


def test_rounds_end_when_the_ratio_is_known() -> None:
    a, b = Planted(100_000, lambda: 1.0), Planted(110_000, lambda: 1.0)
    rules = Rules(goal=0.01, floor_s=0.0, cap_s=60.0, least_launches=1, most_launches=1)
    assert _taking(a, b).run(Turned(20_000_000, 1), rules) == "interval"


# -- what is left of them --------------------------------------------------------------------------


def test_iterations_after_a_rest_are_kept_and_not_timed(tmp_path: Path) -> None:
    found = Iterations()
    found.add(np.arange(12) * 10, np.arange(12) * 10 + 5)
    found.add_turn(2, 6, left_out=1, number=0)
    found.add_turn(6, 10, left_out=1, number=1)
    found.window_start, found.window_end = 2, 10

    assert (found.window()[0] // 10).tolist() == [3, 4, 5, 7, 8, 9]
    assert len(found.warm_up()[0]) == 3
    pack(tmp_path, [Stretch(0, 0, *part) for part in found.stretches()])
    samples, rounds = read_samples(tmp_path), read_rounds(tmp_path)
    assert samples.timed.tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0]
    assert rounds is not None
    assert rounds.tolist() == [-1, -1, 0, 0, 0, 0, 1, 1, 1, 1, -1, -1]


def test_runs_without_turns_have_no_rounds(tmp_path: Path) -> None:
    times = np.arange(3)
    pack(tmp_path, [Stretch(0, 0, True, times, times + 1)])
    assert read_rounds(tmp_path) is None


def _flat(a: float, b: float, cpu_b: float) -> Rounds:
    count = 12
    return Rounds(
        latency=((a,) * count, (b,) * count),
        cold=((a,) * count, (b,) * count),
        cpu=((a,) * count, (cpu_b,) * count),
        resting=(0.0, 0.0),
    )


def _launches(b: float, cpu_b: float, spread: float = 0.001) -> Paired:
    factors = (1 - spread, 1 - spread / 2, 1.0, 1 + spread / 2, 1 + spread)
    launches = [_flat(1e6, b * f, cpu_b * f) for f in factors]
    return paired(("fp32", "int8"), ("a", "b"), DESIGN, launches, "interval")


def test_the_verdict_is_in_words() -> None:
    (verdict,) = _launches(0.61e6, 0.61e6).verdicts
    assert sentence(verdict) == "INT8 takes 0.6100 of FP32's time, ± 0.12 %"
    assert verdict.verdict == "improved"
    assert not verdict.doubt


def test_processor_time_that_says_the_opposite_is_a_doubt() -> None:
    (verdict,) = _launches(0.9e6, 1.5e6).verdicts
    assert verdict.verdict == "improved"
    assert "more processor time" in verdict.doubt
    (alike,) = _launches(1.001e6, 1.5e6).verdicts
    assert alike.verdict == "unchanged"
    assert not alike.doubt


def test_too_few_launches_are_inconclusive_and_none_is_no_ratio() -> None:
    few = paired(("a", "b"), ("a", "b"), DESIGN, [_flat(1.0, 2.0, 2.0)] * 2, "launches")
    assert few.verdicts[0].verdict == "inconclusive"
    assert "5 a side are needed" in few.verdicts[0].reason
    none = paired(("a", "b"), ("a", "b"), DESIGN, [], "failed", "b: it died")
    assert none.verdicts[0].verdict == "not comparable"
    assert isinstance(none.verdicts[0].ratio, Unavailable)
    assert none.problem == "b: it died"


def test_every_variant_is_held_against_the_first() -> None:
    count, values = 12, (1.0, 2.0, 4.0)
    rows = tuple((value,) * count for value in values)
    rounds = Rounds(latency=rows, cold=rows, cpu=rows, resting=(0.0,) * 3)
    found = paired(("1", "2", "4"), ("x", "y", "z"), DESIGN, [rounds] * 5, "launches")
    assert [(v.a, v.b, v.ratio) for v in found.verdicts] == [
        ("1", "2", pytest.approx(2.0)),
        ("1", "4", pytest.approx(4.0)),
    ]


def test_the_live_line_shows_the_interval() -> None:
    line = live_line("taking turns", 1, 5, "fp32", {"int8": (0.612, 0.607, 0.617)})
    assert line == "launch 2/5, taking turns: INT8 / FP32 0.612 ± 0.82 %"


# -- what is asked ---------------------------------------------------------------------------------


def test_variants_differ_in_any_field_that_defines_a_cell() -> None:
    found = variants({"model": "digits"}, "precision=fp32,int8")
    assert found.names == ("fp32", "int8")
    assert [spec.precision for spec in found.specs] == ["fp32", "int8"]
    assert [s.threads for s in variants({}, "threads=1,2,4").specs] == [1, 2, 4]
    assert [s.batch_size for s in variants({}, "--batch-size=1, 8").specs] == [1, 8]
    options = variants({"options": ["arena=on"]}, "option=allow_spinning=on,allow_spinning=off")
    assert [spec.options["allow_spinning"] for spec in options.specs] == ["on", "off"]
    assert all(spec.options["arena"] == "on" for spec in options.specs)


def test_what_belongs_to_int8_is_left_out_of_the_others() -> None:
    given = {"calibration": "c.npz", "calibration_method": "entropy"}
    fp32, int8 = variants(given, "precision=fp32,int8").specs
    assert fp32.calibration is None
    assert int8.calibration == "c.npz"


@pytest.mark.parametrize(
    "across",
    [
        "precision", "precision=fp32", "duration_s=1,2", "nonsense=1,2", "threads=1,1", "=",
        "scenario=latency,throughput", "concurrency=1,2", "python=a", "python=a,a",
    ],
)  # fmt: skip
def test_an_across_that_makes_no_sense_is_refused(across: str) -> None:
    with pytest.raises(UsageError, match="--across is"):
        variants({}, across)


def test_a_field_is_given_once() -> None:
    with pytest.raises(UsageError, match="--precision int8 beside --across precision=fp32,int8"):
        variants({"precision": "int8"}, "precision=fp32,int8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "a duel of what with what?"),
        (
            ("--across", "threads=1,2", "--across", "precision=fp32,int8"),
            "and here are 2: --across",
        ),
        (("--across", "threads=1,2", "--against-itself"), "threads=1,2 and --against-itself"),
        (("--against-itself", "--operators"), "what is profiled is no turn"),
        (("--across", "python=/bin/true,/bin/echo"), "python=/bin/true is no Python interpreter"),
        (("--across", "python=/no/such,/bin/echo"), "python=/no/such: No such file or directory"),
    ],
)
def test_what_makes_no_duel_is_one_line(
    arguments: Sequence[str], told: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["duel", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert list(tmp_path.iterdir()) == []


def test_an_interpreter_whose_harness_is_older_is_told_what_to_install(tmp_path: Path) -> None:
    package = tmp_path / "harness"
    for folder in (package, package / "engine", package / "engine" / "wire"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "engine" / "wire" / "messages.py").touch()  # one without a PROTOCOL
    software = "class S:\n    versions = {}\ndef software(backends): return S\n"
    (package / "machine.py").write_text(software)
    with pytest.raises(UsageError, match="workers speak otherwise") as refused:
        home(sys.executable, "onnxruntime", [str(tmp_path)])
    assert f"{sys.executable} -m pip install" in str(refused.value)
    (package / "engine" / "wire" / "messages.py").unlink()
    with pytest.raises(UsageError, match="has no Harness of this kind"):
        home(sys.executable, "onnxruntime", [str(tmp_path)])


def test_help_says_what_the_flags_of_a_window_mean_in_a_duel(capsys: Any) -> None:
    assert main(["duel", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--launches K Exactly K launches, each of fresh processes of all variants." in text
    assert "--duration SECONDS How long the variants of a launch take turns, all together" in text
    assert "--rate" not in text


def test_a_twin_is_the_same_run() -> None:
    found = twins({"model": "digits"})
    assert found.specs[0] == found.specs[1]
    assert len(set(found.names)) == 2


def test_the_window_flags_are_of_a_launchs_turns() -> None:
    assert rules_of(RunSpec(), None) == Rules(
        goal=0.01, floor_s=0.5, cap_s=8.0, least_launches=5, most_launches=20
    )
    fixed = rules_of(parse({"duration_s": "3"}), None)
    assert (fixed.goal, fixed.floor_s, fixed.cap_s, fixed.most_launches) == (None, 3.0, 3.0, 5)
    capped = rules_of(parse({"max_duration_s": "1", "precision_goal": "2%"}), 7)
    assert (capped.goal, capped.floor_s, capped.cap_s) == (0.02, 0.5, 1.0)
    assert (capped.least_launches, capped.most_launches) == (7, 7)
    with pytest.raises(UsageError, match="counts rounds"):
        rules_of(parse({"iterations": "5"}), None)
