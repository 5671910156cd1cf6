"""Energy attribution: exact numbers where they can be derived, and none where there is none."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import maybe
from harness.analysis.energy.attribute import (
    PAUSE_EVERY,
    SourceReadings,
    Window,
    attribute,
    idle_floor_s,
    resonance_delay,
    window_floor_s,
)
from harness.analysis.energy.pool import pool
from harness.analysis.energy.series import (
    EDGE_SD,
    Figure,
    Load,
    Sensor,
    Series,
    counter_energy,
    held_energy,
    update_period_s,
)
from harness.maybe import Unavailable, code_of, coded
from harness.protocols import Channel, SensorFacts
from harness.records.result import Energy, EnergySource, Spread
from harness.testing.power import PowerCurve, ReplayPower, SimulatedMeter, square_load

SECOND = 1_000_000_000
# Idle at 20 W to 10 s, load at 100 W to 22 s, idle again; read every 100 ms to 32 s.
CURVE = PowerCurve(np.array([0.0, 10.0, 22.0]), np.array([20.0, 100.0, 20.0]))
READS = np.arange(0, 320) / 10
WINDOW = Window(
    start_ns=12 * SECOND,
    end_ns=20 * SECOND,
    iterations=800,
    guard_before_s=2.0,
    guard_after_s=2.0,
    idle_before=(2 * SECOND, 9 * SECOND),
    idle_after=(24 * SECOND, 31 * SECOND),
    load=(10 * SECOND, 12 * SECOND),
)
METER = SimulatedMeter(period_s=0.1, averaging_s=0.1, noise_w=0.01, phase=0.5)


def channel(name: str, *, period_s: float | None = 0.001, **changes: Any) -> Channel:
    unit = {"j": "J", "w": "W", "s": "s"}[name[-1]]
    kind = "counter" if unit == "J" else "gauge"
    base = Channel(
        name=name,
        unit=unit,
        kind="counter" if kind == "counter" else "gauge",
        tag=name,
        scope="cpu-package",
        source="test",
        period_s=period_s,
    )
    return msgspec.structs.replace(base, **changes)


def counter(name: str = "energy/package-0_j", scale: float = 1.0, **changes: Any) -> SourceReadings:
    """A counter of 1 ms that follows `CURVE`, exactly."""
    values = scale * (CURVE.energy_j(READS) - CURVE.energy_j(0.0))
    return SourceReadings(channel(name, **changes), _ns(READS), list(values))


def _ns(times: np.ndarray[Any, np.dtype[np.float64]]) -> list[int]:
    return [round(t * 1e9) for t in times]


def energy_of(*sources: SourceReadings, window: Window = WINDOW, **options: Any) -> Energy:
    found = attribute(sources, window, **options)
    assert not isinstance(found, Unavailable), found
    return found


def source_of(*sources: SourceReadings, window: Window = WINDOW, **options: Any) -> EnergySource:
    return next(iter(energy_of(*sources, window=window, **options).sources.values()))


def spread(value: maybe.Maybe[Spread]) -> Spread:
    assert not isinstance(value, Unavailable), value
    return value


def code(value: object) -> str | None:
    assert isinstance(value, Unavailable), value
    return code_of(value)


# --- channels ---------------------------------------------------------------------------------


def test_a_counter_that_wraps_is_the_counter_that_does_not() -> None:
    whole = counter(facts={"resolution_j": 0.25})
    assert max(value or 0 for value in whole.values) > 5 * 200  # it wraps five times and more
    wrapped = [None if value is None else value % 200.0 for value in whole.values]
    facts = {"resolution_j": 0.25, "wrap_range_j": 199.75}
    bare = replace(whole, channel=channel("energy/package-0_j", facts=facts), values=wrapped)
    assert source_of(bare).energy_j == source_of(whole).energy_j
    assert code(source_of(replace(whole, values=wrapped)).energy_j) == "counter_reset"


def test_a_meter_is_what_its_channels_say_whatever_they_are_called() -> None:
    joules = replace(counter(), channel=channel("joules_of_the_rig_j", meter="rig"))
    seen = list(METER.power_at(CURVE, READS))
    watts = SourceReadings(channel("level_w", meter="rig", period_s=0.1), _ns(READS), seen)
    assert list(energy_of(joules, watts).sources) == ["rig"]
    lamp = channel("level_w", meter="lamp", scope="dram")
    other = replace(watts, channel=lamp)
    assert list(energy_of(joules, other).sources) == ["rig", "lamp"]


def test_every_fact_that_is_used_is_written_by_a_profiler() -> None:
    folder = Path(__file__).parents[3]
    sources = [*(folder / "profiles").rglob("*.py"), folder / "harness/testing/power.py"]
    text = "".join(path.read_text("utf-8") for path in sources)
    lacking = [name for name in SensorFacts.__struct_fields__ if f'"{name}"' not in text]
    assert lacking == []


# --- numbers ----------------------------------------------------------------------------------


def test_a_counter_over_eight_seconds_at_100_w() -> None:
    found = source_of(counter())
    energy = spread(found.energy_j)
    assert energy.value == pytest.approx(800.0)
    # 0.41 x 100 W x (1 ms published, 10 ms iterations)
    assert energy.comparative == pytest.approx(EDGE_SD * math.hypot(0.1, 1.0))
    assert code(energy.absolute) == "not_supported"
    assert found.method == "counter"
    assert found.average_power_w == pytest.approx(100.0)
    assert spread(found.gross_j_per_inference).value == pytest.approx(1.0)
    assert spread(found.net_j_per_inference).value == pytest.approx(0.8)
    assert found.idle_before_w == pytest.approx(20.0)
    assert found.energy_delay_product_js == pytest.approx(1.0 * 0.01)
    assert found.status == "ok"
    assert found.updates == 80
    assert code(found.integral_j) == "not_supported"


def test_batches_and_streams_count_inferences_and_latency() -> None:
    window = replace(WINDOW, batch_size=4, concurrency=2)
    found = energy_of(counter(), window=window)
    assert found.inferences == 3200
    assert spread(found.joules_per_inference).value == pytest.approx(0.25)
    # 0.25 J x 20 ms: two streams make each iteration last twice its share of the window
    assert found.sources["package-0"].energy_delay_product_js == pytest.approx(0.005)


def test_pauses_are_no_latency() -> None:
    source = source_of(counter(), window=replace(WINDOW, latency_s=0.004))
    assert source.energy_delay_product_js == pytest.approx(1.0 * 0.004)


def test_edges_between_two_readings_are_interpolated() -> None:
    window = replace(WINDOW, start_ns=12_034_000_000, end_ns=19_987_000_000)
    assert spread(source_of(counter(), window=window).energy_j).value == pytest.approx(795.3)


def test_a_coarse_counter_adds_its_step_and_a_gain_its_share() -> None:
    found = source_of(counter(facts={"resolution_j": 1.0, "gain_rel": 0.05}))
    energy = spread(found.energy_j)
    assert energy.comparative == pytest.approx(EDGE_SD * math.hypot(0.1, 1.0, 1.0))
    assert energy.absolute == pytest.approx(math.hypot(energy.comparative, 0.05 * 800))


def test_sampled_power_alone_is_integrated() -> None:
    found = source_of(*METER.readings(CURVE, READS, "gauge"))
    assert found.method == "integral"
    assert spread(found.energy_j).value == pytest.approx(800.0, rel=1e-3)
    assert found.idle_after_w == pytest.approx(20.0, rel=1e-3)
    assert code(found.counter_j) == "not_supported"


def test_counter_and_power_together_keep_both_figures() -> None:
    found = source_of(*METER.readings(CURVE, READS, "both"))
    assert found.method == "counter"
    assert found.counter_j == pytest.approx(800.0)
    assert found.integral_j == pytest.approx(800.0, rel=1e-3)
    assert not isinstance(found.self_test, Unavailable)
    assert found.self_test.verdict == "pass"


def test_lag_and_a_long_average_shift_the_window() -> None:
    """A 1 s average that arrives 0.1 s late still gives the window's energy, guards willing."""
    meter = SimulatedMeter(0.1, 1.0, lag_s=0.1, noise_w=0.01)
    found = source_of(*meter.readings(CURVE, READS, "gauge"))
    assert spread(found.energy_j).value == pytest.approx(800.0, rel=1e-3)
    bare = replace(WINDOW, start_ns=10 * SECOND, end_ns=22 * SECOND, guard_before_s=0.0)
    smeared = source_of(
        *meter.readings(CURVE, READS, "gauge"), window=replace(bare, guard_after_s=0.0)
    )
    energy = spread(smeared.energy_j)
    assert energy.comparative > 0.02 * energy.value
    assert abs(energy.value - 1200.0) < 2 * energy.comparative
    assert any("did not run on" in note for note in smeared.notes)


def test_sockets_are_summed_by_name_and_never_with_other_scopes() -> None:
    found = energy_of(
        counter(),
        counter("energy/package-1_j", scale=0.5),
        counter("energy/package-0-dram_j", scale=0.1, scope="dram"),
        counter("energy/psys_j", scale=3.0, scope="psys"),
    )
    total = found.sources["test-total"]
    assert found.primary == "test-total"
    assert total.parts == ("package-0", "package-1")
    assert spread(total.energy_j).value == pytest.approx(1200.0)
    assert spread(found.sources["psys"].energy_j).value == pytest.approx(2400.0)


def test_two_sources_that_count_the_same_sockets_are_not_added() -> None:
    both = [
        counter(f"energy/{source}{socket}_j", source=source)
        for source in ("powercap", "hwmon")
        for socket in (0, 1)
    ]
    found = energy_of(*both)
    assert found.primary == "powercap-total"
    assert set(found.sources) == {
        *("powercap-total", "hwmon-total"),
        *("powercap0", "powercap1", "hwmon0", "hwmon1"),
    }
    assert spread(found.joules_per_inference).value == pytest.approx(2.0)


def test_a_total_without_one_of_its_parts_is_none() -> None:
    broken = counter("energy/package-1_j", unavailable=coded("error", "broken"))
    found = energy_of(counter(), broken)
    assert code(found.sources["test-total"].energy_j) == "error"
    assert spread(found.sources["package-0"].energy_j).value == pytest.approx(800.0)


@pytest.mark.parametrize(
    ("device", "scopes", "primary"),
    [
        ("cpu", ("wall", "cpu-package"), "cpu-package"),
        ("cpu", ("wall", "dram"), "wall"),
        ("cuda:0", ("cpu-package", "gpu-board"), "gpu-board"),
        ("cuda:0", ("cpu-package", "dram"), ""),
    ],
)
def test_the_primary_meter_measures_the_device(
    device: str, scopes: tuple[str, ...], primary: str
) -> None:
    sources = [counter(f"energy/{scope}_j", scope=scope) for scope in scopes]
    found = energy_of(*sources, device=device)
    assert found.primary == primary
    assert isinstance(found.joules_per_inference, Unavailable) == (not primary)


@pytest.mark.parametrize(("share", "status"), [(0.04, "ok"), (0.06, "shared")])
def test_a_shared_machine_is_marked(share: float, status: str) -> None:
    found = energy_of(counter(), foreign_cpu_share=share)
    assert found.shared is (status == "shared")
    assert found.sources["package-0"].status == status
    board = energy_of(counter(scope="gpu-board"), foreign_cpu_share=share, device="cuda:0")
    assert next(iter(board.sources.values())).status == "ok"


def test_nobody_watching_others_is_not_being_alone() -> None:
    assert isinstance(energy_of(counter()).shared, Unavailable)


@pytest.mark.parametrize(
    ("period_s", "iteration_s", "floor_s"),
    [(None, 0.0, 5.0), (0.001, 0.001, 5.0), (0.2, 0.0, 10.0), (0.1, 0.5, 16.0), (1.0, 0.01, 50.0)],
)
def test_window_floor(period_s: float | None, iteration_s: float, floor_s: float) -> None:
    assert window_floor_s(period_s, iteration_s) == floor_s


def test_idle_floor() -> None:
    assert idle_floor_s(0.1) == 5.0
    assert idle_floor_s(1.0) == 24.0


def test_random_pauses_from_20_ms_on() -> None:
    assert resonance_delay(0.0199, 0.1) == 0.0
    assert resonance_delay(0.05, 0.1) == pytest.approx(0.005)
    assert resonance_delay(5.0, 0.1) == pytest.approx(0.01)


@pytest.mark.parametrize(("every_s", "seen_s"), [(0.01, 0.1), (0.1, 0.1), (0.25, 0.25)])
def test_the_period_is_measured_as_far_as_sampling_shows_it(every_s: float, seen_s: float) -> None:
    reads = np.arange(0, 20, every_s)
    values = SimulatedMeter(0.1, 0.1, phase=0.31).counter_at(CURVE, reads)
    assert update_period_s(Series(reads, values)) == pytest.approx(seen_s, rel=0.02)


def test_an_undeclared_period_is_measured() -> None:
    reads = np.arange(0, 32, 0.02)
    values = SimulatedMeter(0.1, 0.1).counter_at(CURVE, reads)
    readings = SourceReadings(channel("energy/x_j", period_s=None), _ns(reads), list(values))
    found = source_of(readings)
    assert found.update_period_s == pytest.approx(0.1, rel=0.01)
    assert spread(found.energy_j).value == pytest.approx(800.0, rel=2e-3)


def test_readings_with_their_own_times_are_put_there() -> None:
    """A wall meter's rows reach us up to a second late, and that does not matter."""
    stamps = np.arange(0, 32, 0.25)
    watts = CURVE.mean_w(stamps, 0.25)
    late = _ns(stamps + 0.7)
    found = source_of(
        SourceReadings(channel("power/wall_w", period_s=0.25, scope="wall"), late, list(watts)),
        SourceReadings(channel("time/wall_s", scope="wall"), late, list(stamps)),
        window=replace(WINDOW, end_ns=25 * SECOND, iterations=1300, idle_after=None),
    )
    assert found.scope == "wall"
    assert spread(found.energy_j).value == pytest.approx(10 * 100 + 3 * 20)


def test_an_energy_column_with_its_own_times_needs_no_guard() -> None:
    """Rows at both edges of the step say it all, however late they reach us."""
    stamps = np.arange(0, 32, 0.2)
    late = _ns(stamps + 0.7)
    window = replace(WINDOW, start_ns=10 * SECOND, end_ns=22 * SECOND, guard_after_s=0.0)
    found = source_of(
        SourceReadings(
            channel("energy/wall_j", period_s=0.2, scope="wall"),
            late,
            list(CURVE.energy_j(stamps)),
        ),
        SourceReadings(channel("time/wall_s", scope="wall"), late, list(stamps)),
        window=replace(window, iterations=1200),
    )
    assert spread(found.energy_j).value == pytest.approx(1200.0)
    assert found.method == "counter"


# --- reasons ----------------------------------------------------------------------------------


def test_counter_and_power_apart_are_a_status_with_both_numbers() -> None:
    """The counter of a board that counts a tenth too much: neither figure is passed on."""
    first, second = METER.readings(CURVE, READS, "both")
    scaled = SourceReadings(first.channel, first.times_ns, [1.1 * (v or 0.0) for v in first.values])
    found = source_of(scaled, second)
    assert found.status == "disagreement"
    assert found.counter_j == pytest.approx(880.0)
    assert found.integral_j == pytest.approx(800.0, rel=1e-3)
    for value in (found.energy_j, found.gross_j_per_inference, found.average_power_w):
        assert code(value) == "disagreement"


def test_a_counter_of_another_unit_fails_its_self_test() -> None:
    first, second = METER.readings(CURVE, READS, "both")
    millis = SourceReadings(first.channel, first.times_ns, [1e3 * (v or 0.0) for v in first.values])
    window = replace(WINDOW, load=(10 * SECOND, 14 * SECOND))
    found = source_of(millis, second, window=window)
    assert code(found.energy_j) == "error"
    assert not isinstance(found.self_test, Unavailable)
    assert found.self_test.verdict == "fail"
    assert found.self_test.counter_to_integral == pytest.approx(1000, rel=0.01)


def test_a_sound_meter_passes_its_self_test() -> None:
    window = replace(WINDOW, load=(10_500_000_000, 14 * SECOND))
    test = source_of(*METER.readings(CURVE, READS, "both"), window=window).self_test
    assert not isinstance(test, Unavailable)
    assert test.verdict == "pass"
    assert test.counter_to_integral == pytest.approx(1.0, abs=0.01)
    assert test.update_period_s == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(
    ("after_w", "reason"), [(20.9, None), (22.0, "20 W before and 22 W after")]
)
def test_baselines_that_differ_leave_no_net(after_w: float, reason: str | None) -> None:
    curve = PowerCurve(np.array([0.0, 10.0, 22.0]), np.array([20.0, 100.0, after_w]))
    values = list(curve.energy_j(READS) - curve.energy_j(0.0))
    found = source_of(SourceReadings(channel("energy/x_j"), _ns(READS), values))
    assert spread(found.gross_j_per_inference).value == pytest.approx(1.0)
    if reason is None:
        net = spread(found.net_j_per_inference)
        assert net.value == pytest.approx((800 - 20.45 * 8) / 800)
        # among others, half the distance of the baselines, as a uniform error, times the window
        assert net.comparative > 0.45 / math.sqrt(3) * 8 / 800
    else:
        assert code(found.net_j_per_inference) == "not_resolvable"
        assert reason in str(found.net_j_per_inference)


@pytest.mark.parametrize("load_w", [19.9, 20.005])
def test_net_energy_within_its_uncertainty_is_not_resolvable(load_w: float) -> None:
    """Below idle as well: it is neither negative nor zero."""
    curve = PowerCurve(np.array([0.0, 10.0, 22.0]), np.array([20.0, load_w, 20.0]))
    values = list(curve.energy_j(READS) - curve.energy_j(0.0))
    found = source_of(SourceReadings(channel("energy/x_j"), _ns(READS), values))
    assert spread(found.gross_j_per_inference).value == pytest.approx(load_w / 100)
    assert code(found.net_j_per_inference) == "not_resolvable"


@pytest.mark.parametrize(
    ("idle", "reason"),
    [(None, "not_present"), ((2 * SECOND, 5 * SECOND), "window_too_short")],
)
def test_net_needs_both_idle_stretches(idle: tuple[int, int] | None, reason: str) -> None:
    found = source_of(counter(), window=replace(WINDOW, idle_before=idle))
    assert code(found.idle_before_w) == reason
    assert code(found.net_j_per_inference) == reason
    assert found.idle_after_w == pytest.approx(20.0)


def test_iterations_in_step_with_a_part_time_sensor_need_random_pauses() -> None:
    meter = SimulatedMeter(0.1, 0.025)
    curve, _ = square_load(10.0, 22.0, 0.05, 20.0, 50.0, 150.0)
    rng = np.random.default_rng(0)
    pauses = np.repeat(rng.uniform(0, resonance_delay(0.05, 0.1), 24), PAUSE_EVERY)
    shaken, _ = square_load(10.0, 22.0, 0.05, 20.0, 50.0, 150.0, pauses_s=lambda n: pauses[:n])
    window = replace(WINDOW, iterations=160)
    found = source_of(*meter.readings(curve, READS, "gauge"), window=window)
    assert code(found.energy_j) == "insufficient_samples"
    assert "pause at random" in str(found.energy_j)
    window = replace(window, random_phase=True)
    energy = spread(source_of(*meter.readings(shaken, READS, "gauge"), window=window).energy_j)
    truth = float(shaken.energy_j(20.0) - shaken.energy_j(12.0))
    assert abs(energy.value - truth) < 2 * energy.comparative


# --- for every way a source can fail, no number -----------------------------------------------

COUNTS = {"window_s", "inferences", "updates", "update_period_s"}


def numbers(value: object, key: str = "") -> Iterator[str]:
    """The keys under which numbers stand."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key


def spoilt(change: Callable[[list[float | None]], None], **changes: Any) -> list[SourceReadings]:
    readings = counter(**changes)
    values = list(readings.values)
    change(values)
    return [replace(readings, values=values)]


def _fill(low: int, high: int, value: float | None) -> Callable[[list[float | None]], None]:
    def change(values: list[float | None]) -> None:
        values[low:high] = [value] * (high - low)

    return change


def _restart(values: list[float | None]) -> None:
    values[150:] = [(value or 0.0) - 400.0 for value in values[150:]]


def _thin(values: list[float | None]) -> None:
    values[:] = [value if index % 10 == 0 else None for index, value in enumerate(values)]


def _gauge(
    change: Callable[[list[float | None]], None], keep: slice = slice(None)
) -> list[SourceReadings]:
    readings = METER.readings(CURVE, READS, "gauge")[0]
    values = list(readings.values)
    change(values)
    return [SourceReadings(readings.channel, readings.times_ns[keep], values[keep])]


FAILURES: dict[str, Callable[[], list[SourceReadings]]] = {
    "no source": list,
    "no reading": lambda: [SourceReadings(channel("energy/x_j"), [], [])],
    "one reading": lambda: [SourceReadings(channel("energy/x_j"), [13 * SECOND], [5.0])],
    "only None": lambda: spoilt(_fill(0, 320, None)),
    "only NaN": lambda: spoilt(_fill(0, 320, math.nan)),
    "infinite": lambda: spoilt(_fill(0, 320, math.inf)),
    "never moves": lambda: spoilt(_fill(0, 320, 7.0)),
    "always zero": lambda: spoilt(_fill(0, 320, 0.0)),
    "stops moving": lambda: spoilt(_fill(140, 320, 600.0)),
    "stops answering": lambda: spoilt(_fill(150, 320, None)),
    "starts late": lambda: spoilt(_fill(0, 125, None)),
    "a gap": lambda: spoilt(_fill(150, 154, None)),
    "a gap at the edge": lambda: spoilt(_fill(199, 205, None)),
    "goes backwards": lambda: spoilt(_restart),
    "too few": lambda: spoilt(_thin),
    "too slow for the window": lambda: spoilt(_fill(0, 0, None), period_s=0.2),
    **{
        f"refused: {word}": lambda word=word: spoilt(  # type: ignore[misc]
            _fill(0, 320, None), unavailable=coded(word, "so it is")
        )
        for word in ("not_present", "permission_denied", "not_supported", "virtualized", "error")
    },
    "refused yet reading": lambda: spoilt(
        _fill(0, 0, None), unavailable=coded("counter_reset", "a restart")
    ),
    "power: none": lambda: _gauge(_fill(0, 320, None)),
    "power: stuck": lambda: _gauge(_fill(140, 320, 99.0)),
    "power: stuck at zero": lambda: _gauge(_fill(0, 320, 0.0)),
    "power: stops": lambda: _gauge(_fill(0, 0, None), slice(0, 190)),
    "power: a gap": lambda: _gauge(_fill(150, 154, None)),
    "power: thin": lambda: _gauge(_thin),
}
SHORT = replace(WINDOW, end_ns=WINDOW.start_ns + 4 * SECOND)


@pytest.mark.parametrize("failure", FAILURES)
def test_no_number_appears_where_a_source_fails(failure: str) -> None:
    window = SHORT if failure == "too slow for the window" else WINDOW
    _assert_no_number(attribute(FAILURES[failure](), window))


@pytest.mark.parametrize("width_s", [0.0, 0.5, 4.9, -1.0])
def test_no_number_appears_for_a_short_window(width_s: float) -> None:
    end_ns = WINDOW.start_ns + round(width_s * SECOND)
    _assert_no_number(attribute([counter()], replace(WINDOW, end_ns=end_ns)))


def test_no_number_appears_without_iterations() -> None:
    _assert_no_number(attribute([counter()], replace(WINDOW, iterations=0)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 319), min_size=0, max_size=12),
    st.sampled_from([None, math.nan]),
    st.integers(1, 60),
)
def test_a_figure_is_right_or_absent(starts: list[int], hole: float | None, width: int) -> None:
    """Whatever is missing: the 800 J within their uncertainty, or no number at all."""

    def holes(values: list[float | None]) -> None:
        for start in starts:
            values[start : start + width] = [hole] * len(values[start : start + width])

    found = attribute(spoilt(holes), WINDOW)
    assert not isinstance(found, Unavailable)
    energy = found.sources["package-0"].energy_j
    if isinstance(energy, Unavailable):
        _assert_no_number(found)
    else:
        assert abs(energy.value - 800.0) <= 2 * energy.comparative


def _assert_no_number(energy: maybe.Maybe[Energy]) -> None:
    text = msgspec.json.encode(energy)
    assert set(numbers(json.loads(text))) <= COUNTS
    if isinstance(energy, Unavailable):
        assert code_of(energy)
        return
    assert maybe.decode(text, Energy) == energy
    assert isinstance(energy.joules_per_inference, Unavailable)
    for found in energy.sources.values():
        assert found.status == "unavailable"
        assert code_of(found.energy_j) if isinstance(found.energy_j, Unavailable) else False


def test_a_replayed_source_goes_through_the_same_path() -> None:
    """The fake that stands in for NVML: a counter and a power reading of one board."""
    sources = METER.readings(CURVE, READS, "both")
    rows = list(zip(*(item.values for item in sources), strict=True))
    fake = ReplayPower([item.channel for item in sources], rows)
    fake.open()
    read = [fake.read() for _ in READS]
    assert list(fake.read()) == [None, None]
    replayed = [
        SourceReadings(item, _ns(READS), [row[index] for row in read])
        for index, item in enumerate(fake.channels)
    ]
    assert attribute(replayed, WINDOW) == attribute(sources, WINDOW)
    refused = ReplayPower(fake.channels, [], coded("not_supported", "MIG has no power"))
    assert code(refused.open()) == "not_supported"


# --- laws -------------------------------------------------------------------------------------

POWERS = st.lists(st.floats(1.0, 500.0), min_size=60, max_size=60)


def _trace(powers: list[float]) -> tuple[Series, Series]:
    """Mean powers of successive 0.1 s, as a meter publishes them, and their sum."""
    times = np.arange(61) / 10
    joules = np.concatenate(([0.0], np.cumsum(powers) / 10))
    return Series(times, joules), Series(times[1:], np.array(powers), stamped=True)


@settings(max_examples=50, deadline=None)
@given(POWERS, st.integers(3, 10), st.integers(35, 50))
def test_held_means_add_up_to_the_counter_at_every_update(
    powers: list[float], first: int, last: int
) -> None:
    _, held = _trace(powers)
    figure = held_energy(held, first / 10, last / 10, Sensor(0.1, 0.1), Load())
    assert isinstance(figure, Figure)
    assert figure.energy_j == pytest.approx(sum(powers[first:last]) / 10)


@settings(max_examples=50, deadline=None)
@given(POWERS, st.floats(0.3, 0.5), st.floats(2.8, 3.0), st.floats(5.4, 5.6), st.floats(0.1, 10))
def test_energies_of_neighbouring_windows_add_up_and_scale(
    powers: list[float], start: float, middle: float, end: float, factor: float
) -> None:
    series, _ = _trace(powers)
    sensor = Sensor(0.1, resolution_j=0.0)

    def energy(first: float, last: float, scale: float = 1.0) -> float:
        scaled = Series(series.t, scale * series.v)
        figure = counter_energy(scaled, first, last, sensor, Load())
        assert isinstance(figure, Figure)
        return figure.energy_j

    whole = energy(start, end)
    assert energy(start, middle) + energy(middle, end) == pytest.approx(whole)
    assert energy(start, end, factor) == pytest.approx(factor * whole)


# --- launches ---------------------------------------------------------------------------------


def test_launches_are_pooled_with_their_spread() -> None:
    one = energy_of(counter(facts={"gain_rel": 0.05}), foreign_cpu_share=0.0)
    two = energy_of(counter(scale=1.1, facts={"gain_rel": 0.05}), foreign_cpu_share=0.2)
    both = pool([one, two])
    assert isinstance(both, Energy)
    found = both.sources["package-0"]
    energy, gross = spread(found.energy_j), spread(both.joules_per_inference)
    assert energy.value == pytest.approx(800 + 880)
    assert both.inferences == 1600
    assert both.window_s == pytest.approx(16.0)
    assert gross.value == pytest.approx(1.05)
    # standard error of 1.0 and 1.1: 0.0707 / sqrt(2) = 0.05; each launch's own 0.41 J joins in
    assert gross.comparative == pytest.approx(math.hypot(0.05, energy.comparative / 1600))
    assert gross.absolute == pytest.approx(math.hypot(gross.comparative, 0.05 * 1.05))
    assert found.energy_delay_product_js == pytest.approx(1.05 * 0.01)
    assert found.average_power_w == pytest.approx(105.0)
    assert found.status == "shared"
    assert both.shared is True


def test_one_launch_is_itself_and_a_missing_one_leaves_no_number() -> None:
    one = energy_of(counter())
    assert pool([one]) is one
    assert code(pool([])) == "not_present"
    assert code(pool([one, coded("error", "the sampler died")])) == "error"
    silent = energy_of(*spoilt(_fill(0, 320, None)))
    both = pool([one, silent])
    assert isinstance(both, Energy)
    _assert_no_number(both)


# --- the benchmark, in short ------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark_module() -> Iterator[ModuleType]:
    path = Path(__file__).parents[3] / "benchmarks/energy_error.py"
    spec = importlib.util.spec_from_file_location("energy_error", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["energy_error"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["energy_error"]


def test_simulated_truth_lies_within_the_stated_uncertainty(benchmark_module: ModuleType) -> None:
    inside: list[bool] = []
    for scenario in benchmark_module.SCENARIOS:
        errors = benchmark_module.run(scenario, trials=30, seed=1)
        assert errors.refused in (0, 30), scenario.name
        inside += errors.inside
    assert len(inside) >= 400
    assert np.mean(inside) >= 0.95


def test_naive_reads_of_a_slow_counter_err_more(benchmark_module: ModuleType) -> None:
    slow = next(s for s in benchmark_module.SCENARIOS if s.name == "counter every 100 ms")
    errors = benchmark_module.run(slow, trials=60, seed=2).by_method
    rms = {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in errors.items()}
    assert rms["harness"] < rms["naive"] / 2
