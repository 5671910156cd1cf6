"""A duel's energy: stretches in turn, what a meter of known watts says of them, and their ratio."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from harness.analysis.sampled import Sampled
from harness.compare.paired import Design, Paired, PairedEnergy, Rounds, paired
from harness.compare.paired_energy import with_energy
from harness.engine.driver import metering
from harness.engine.driver.metering import Metering, pairs_of
from harness.engine.driver.rounds import SideFailed
from harness.engine.driver.signals import Interrupt
from harness.engine.driver.turns import TurnLaunch, within
from harness.engine.driver.watch import WindowPlan
from harness.engine.outcome.assemble import assemble
from harness.engine.outcome.evidence import (
    Evidence,
    LaunchRecord,
    Metered,
    Placement,
    TurnsTaken,
)
from harness.engine.outcome.iterations import Iterations
from harness.engine.outcome.joules import stretch_energies
from harness.maybe import Unavailable
from harness.protocols import Channel
from harness.records.result import Result
from harness.spec import RunSpec
from harness.tensorboard.duel import DuelEvents
from harness.views.duel import render_duel
from harness.views.terminal import to_text

SECOND = 1_000_000_000
IDLE_W = 10.0
LATENCY_S = {"a": 0.002, "b": 0.004}
NO_METER = Unavailable("virtualized: no counters here", "measure on bare metal")

# One launch: 6 s idle, 6 s of A, 6 s of B, 6 s idle, in seconds; half a second of guard each.
SPANS = {"a": (6.0, 12.0), "b": (12.0, 18.0)}


def joules_until(t: np.ndarray[Any, Any], watts: dict[str, float]) -> np.ndarray[Any, Any]:
    """What a counter shows: ``watts`` under each side's load, `IDLE_W` otherwise."""
    found = IDLE_W * t
    for side, (start, end) in SPANS.items():
        found += (watts[side] - IDLE_W) * (np.clip(t, start, end) - start)
    return found


def sampled(watts: dict[str, float]) -> Sampled:
    """Read 100 times a second, of a counter that moves every 10 ms."""
    times = np.arange(0.0, 24.0, 0.01)
    channel = Channel(
        "energy/package-0_j",
        "J",
        "counter",
        tag="energy/package-0_j",
        scope="cpu-package",
        source="powercap",
        period_s=0.01,
    )
    series = {channel.name: ((times * SECOND).astype(np.int64), joules_until(times, watts))}
    return Sampled((channel,), series, rate_hz=100.0)


def record(side: str) -> LaunchRecord:
    start, end = (round(edge * SECOND) for edge in SPANS[side])
    guard, latency_ns = SECOND // 2, LATENCY_S[side] * SECOND
    turn = Iterations()
    turn.add(np.arange(10) * 100, np.arange(10) * 100 + 90)
    turn.add_turn(0, 10, left_out=1, number=0)
    count = round((end - start - 2 * guard) / latency_ns)
    stretch = Metered(start, start + guard, end - guard, end, count, latency_ns)
    return LaunchRecord(
        warmup_end="steady",
        stop_reason="duration",
        window_ns=(100, 990),
        recorders=[turn],
        idle={"before": (SECOND // 2, 6 * SECOND), "after": (18 * SECOND, 23 * SECOND)},
        turns=TurnsTaken(20_000_000, 1),
        metered=(stretch,),
    )


def evidence(side: str, launches: list[dict[str, float]]) -> Evidence:
    return Evidence(
        spec=RunSpec(),
        id=side,
        started_at="2026-01-01T00:00:00.000+00:00",
        began_ns=0,
        placement=Placement(threads=1, cpus=None, rest=None, usable=2),
        launches=[record(side) for _ in launches],
        samplers=[sampled(watts) for watts in launches],
    )


def duelled(sides: list[Evidence]) -> tuple[Paired, list[Result]]:
    rows = ((1.0,) * 12,) * 2
    rounds = Rounds(latency=rows, cold=rows, cpu=rows, resting=(0.0, 0.0))
    design = Design(block_ms=20.0, left_out=1, seed=0, goal=None, cpus=())
    launches = [rounds] * len(sides[0].launches)
    found = paired(("a", "b"), ("a", "b"), design, launches, "launches")
    results = [assemble(side) for side in sides]
    return with_energy(found, [stretch_energies(side) for side in sides], results), results


def metered(launches: list[dict[str, float]]) -> tuple[Paired, PairedEnergy, list[Result]]:
    found, results = duelled([evidence(side, launches) for side in "ab"])
    energy = found.verdicts[0].energy
    assert not isinstance(energy, Unavailable)
    return found, energy, results


def test_joules_per_inference_of_each_side_and_their_ratio() -> None:
    found, energy, results = metered([{"a": 30.0, "b": 25.0}] * 2)

    gross = [30.0 * 0.002, 25.0 * 0.004]
    net = [(30.0 - IDLE_W) * 0.002, (25.0 - IDLE_W) * 0.004]
    for variant, result, of_gross, of_net in zip(found.variants, results, gross, net, strict=True):
        assert variant.gross_j == pytest.approx(of_gross, rel=1e-3)
        assert variant.net_j == pytest.approx(of_net, rel=1e-3)
        assert result.energy.joules_per_inference.value == variant.gross_j  # type: ignore[union-attr]
    assert energy.gross_ratio == pytest.approx(gross[1] / gross[0], rel=1e-3)
    assert energy.net_ratio == pytest.approx(net[1] / net[0], rel=1e-3)
    assert (energy.meter, energy.pairs, energy.launches) == ("package-0", 2, 2)
    assert energy.stretch_s == pytest.approx(5.0)
    assert not energy.shared


def test_the_interval_is_of_the_launches_spread() -> None:
    factors = (0.98, 0.99, 1.0, 1.01, 1.02)
    _, energy, _ = metered([{"a": 30.0, "b": 30.0 * factor} for factor in factors])

    logs = np.log(2.0 * np.array(factors))
    half = 2.7764 * logs.std(ddof=1) / math.sqrt(5)  # t of 4 degrees of freedom
    assert energy.gross_ratio == pytest.approx(math.exp(logs.mean()), rel=1e-4)
    low, high = cast("tuple[float, float]", energy.gross_interval)
    assert math.log(high / low) / 2 == pytest.approx(half, rel=0.01)
    assert low < 2.0 < high


def test_one_pair_has_a_ratio_and_no_interval() -> None:
    _, energy, _ = metered([{"a": 30.0, "b": 25.0}])
    assert energy.gross_ratio == pytest.approx(5 / 3, rel=1e-3)
    assert isinstance(energy.gross_interval, Unavailable)


def test_net_that_drowns_is_absent_and_gross_stays() -> None:
    _, energy, _ = metered([{"a": IDLE_W, "b": 25.0}] * 2)
    assert energy.gross_ratio == pytest.approx(5.0, rel=1e-3)
    assert isinstance(energy.net_ratio, Unavailable)
    assert "not_resolvable" in energy.net_ratio.reason


def test_without_a_meter_energy_is_absent_with_its_reason() -> None:
    sides = [evidence(side, [{"a": 30.0, "b": 25.0}] * 2) for side in "ab"]
    for side in sides:
        side.samplers = [None, None]
        for launch in side.launches:
            launch.metered, launch.unmetered = (), NO_METER

    found, results = duelled(sides)

    assert found.verdicts[0].energy == NO_METER
    assert found.variants[0].gross_j == NO_METER
    assert results[0].energy == NO_METER
    text = to_text(render_duel(found, results))
    assert "energy: no counters here; measure on bare metal" in " ".join(text.split())


def test_launches_beyond_the_metered_ones_change_nothing() -> None:
    sides = [evidence(side, [{"a": 30.0, "b": 25.0}] * 3) for side in "ab"]
    for side in sides:
        side.launches[2].metered, side.samplers[2] = (), None
    found, results = duelled(sides)
    energy = found.verdicts[0].energy
    assert not isinstance(energy, Unavailable)
    assert energy.launches == 2
    assert results[0].energy.inferences == 2 * 2500  # type: ignore[union-attr]


def test_it_is_told_in_words_and_tags(tmp_path: Path) -> None:
    found, energy, results = metered([{"a": 30.0, "b": 30.3}, {"a": 30.0, "b": 29.7}])
    text = " ".join(to_text(render_duel(found, results)).split())
    assert "joules per inference: gross 2.00" in text
    assert "(package-0, 2 pairs of 5" in text

    events = DuelEvents(tmp_path)
    interval = cast("tuple[float, float]", energy.gross_interval)
    events.energy(24, "energy_ratio", {"b": (cast("float", energy.gross_ratio), *interval)})
    events.close()
    (file,) = tmp_path.glob("events.*")
    for tag in ("energy_ratio/b", "energy_ratio_ci_low/b", "energy_ratio_ci_high/b"):
        assert f"duel/{tag}".encode() in file.read_bytes()


# -- the stretches ---------------------------------------------------------------------------------


def test_whole_iterations_between_the_guards() -> None:
    starts = np.arange(100) * 10
    stretch = within(starts, starts + 9, 500, 200)
    assert (stretch.start_ns, stretch.end_ns, stretch.iterations) == (200, 799, 60)
    assert (stretch.began_ns, stretch.ended_ns, stretch.latency_ns) == (0, 999, 9.0)
    late = within(starts, starts + 9, 899, 200)  # a short one keeps its length, and less guard
    assert late.end_ns - late.start_ns == 899
    assert within(starts[:2], starts[:2] + 9, 500, 200).iterations == 2


class Side:
    """Notes what it is asked for."""

    def __init__(self, name: str, log: list[str], plan: WindowPlan | None, dies: bool = False):
        self.name, self.idle_s = name, 0.05
        self._log, self._plan, self._dies = log, plan, dies

    def listen(self) -> WindowPlan | None:
        return self._plan

    def idle_for(self, seconds: float) -> None:
        return None

    def idled(self, which: str, since_ns: int, until_ns: int) -> None:
        assert until_ns - since_ns >= 0.05 * SECOND
        self._log.append(which)

    def stretch(self, length_ns: int, guard_ns: int, pause_s: float) -> None:
        assert (length_ns, guard_ns, pause_s) == (round(5.1 * SECOND), SECOND, 0.01)
        self._log.append(self.name)

    def attempt(self, step: Callable[[], None]) -> bool:
        if self._dies:
            return False
        step()
        return True


PLAN = WindowPlan(floor_s=5.0, guard_s=1.5, pause_s=0.01, settle_s=0.5)
SHORTER = WindowPlan(floor_s=4.0, guard_s=1.5, pause_s=0.0, settle_s=0.1)


def _metering(*sides: Side) -> Metering:
    order = itertools.cycle([(0, 1), (1, 0)])
    return Metering(cast("list[TurnLaunch]", list(sides)), order, Interrupt())


def test_stretches_alternate_between_idling_and_suit_every_meter() -> None:
    log: list[str] = []
    _metering(Side("a", log, PLAN), Side("b", log, SHORTER)).run(2, lambda: log.append("begin"))
    assert log == ["begin", "before", "before", "a", "b", "b", "a", "after", "after"]


def test_without_a_meter_nothing_waits() -> None:
    log: list[str] = []
    _metering(Side("a", log, None), Side("b", log, None)).run(2, lambda: log.append("begin"))
    assert log == []


def test_a_side_that_dies_under_the_meter_ends_it() -> None:
    side = Side("b", [], PLAN, dies=True)
    with pytest.raises(SideFailed) as failed:
        _metering(Side("a", [], PLAN), side).run(1, lambda: None)
    assert failed.value.side is cast("Any", side)


def test_few_launches_have_several_pairs_each() -> None:
    assert [pairs_of(launches) for launches in (1, 2, 5, 15)] == [5, 3, 1, 1]
    assert metering.PAIRS == 5
