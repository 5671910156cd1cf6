"""The checks of a run on a GPU, with evidence at and beyond each limit, and from real readings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from test_analysis_validity import GOOD

from harness.analysis.blocks import blocks
from harness.analysis.sampled import Sampled
from harness.analysis.sensor_facts import cpu_clock_drift, gpu_facts
from harness.analysis.validity import HELD_BACK, GpuFacts, checks, worst
from harness.maybe import Unavailable, coded
from harness.protocols import Channel
from harness.records.result import Check

LOST = coded("error", "the GPU fell off the bus", "reset it")
SOUND = GpuFacts(
    held_back={"power_cap": (0.0, True), "sw_thermal": (0.0, True)},
    clock_drift=0.0,
    other_processes=0.0,
    silenced={},
)
NAMES = ("GPU throttled", "GPU clocks", "GPU shared", "GPU sensors")


def gpu_check(name: str, **changes: Any) -> Check:
    facts = msgspec.structs.replace(GOOD, gpu=msgspec.structs.replace(SOUND, **changes))
    (found,) = [c for c in checks(facts) if c.name == name]
    return found


def test_a_sound_gpu_passes_and_a_cpu_has_no_such_checks() -> None:
    found = checks(msgspec.structs.replace(GOOD, gpu=SOUND))
    assert tuple(c.name for c in found)[-4:] == NAMES
    assert worst(found) == "pass"
    assert not any(c.name.startswith("GPU") for c in checks(GOOD))


@pytest.mark.parametrize(
    ("reason", "share", "counted", "verdict"),
    [
        ("sw_thermal", 0.01, True, "pass"),
        ("sw_thermal", 0.011, True, "warn"),
        ("hw_thermal", 1.0, True, "warn"),
        ("power_brake", 0.5, True, "warn"),
        ("sync_boost", 0.5, True, "warn"),
        ("hw_slowdown", 0.05, False, "pass"),
        ("hw_slowdown", 0.06, False, "warn"),
        ("power_cap", 1.0, True, "pass"),
    ],
)
def test_heat_and_brakes_are_warned_of_and_the_power_limit_is_told(
    reason: str, share: float, counted: bool, verdict: str
) -> None:
    found = gpu_check("GPU throttled", held_back={reason: (share, counted)})
    assert found.verdict == verdict
    if verdict == "warn":
        assert f"{share:.1%} of the window {HELD_BACK[reason]}" in found.reason
    assert ("power limit was reached 100%" in found.reason) == (reason == "power_cap")


@pytest.mark.parametrize(
    ("name", "changes", "verdict", "words"),
    [
        ("GPU clocks", {"clock_drift": 0.03}, "pass", "3.0%"),
        ("GPU clocks", {"clock_drift": 0.031}, "warn", "fix its clocks"),
        ("GPU shared", {"other_processes": 1.0}, "warn", "1 other processes"),
        ("GPU sensors", {"silenced": {"energy/gpu0_j": LOST}}, "warn", "fell off the bus"),
    ],
)
def test_at_and_beyond_each_limit(
    name: str, changes: dict[str, Any], verdict: str, words: str
) -> None:
    found = gpu_check(name, **changes)
    assert (found.verdict, words in found.reason) == (verdict, True)


@pytest.mark.parametrize(
    ("name", "field"),
    [*zip(NAMES, ("held_back", "clock_drift", "other_processes", "silenced"), strict=True)],
)
def test_not_seeing_is_not_knowing(name: str, field: str) -> None:
    found = gpu_check(name, **{field: coded("not_supported", "MIG", "measure a whole GPU")})
    assert (found.verdict, found.reason) == ("unknown", "MIG; measure a whole GPU")


def sampled(gone: dict[str, Unavailable] | None = None, **series: list[float]) -> Sampled:
    """What a sampler read once a second, from second 0 on."""
    return Sampled(
        channels=tuple(Channel(name, "", "gauge", name, "gpu", "nvml") for name in series),
        series={
            name: (np.arange(len(values), dtype=np.int64) * 1_000_000_000, np.array(values))
            for name, values in series.items()
        },
        reasons=gone or {},
    )


def facts(*launches: Sampled, device: str = "cuda:0") -> GpuFacts:
    found = gpu_facts(device, [(one, 1_000_000_000, 10_000_000_000) for one in launches])
    assert found is not None
    return found


def test_counted_time_is_a_share_of_the_window() -> None:
    """From second 1 to second 10: 4.5 s of 9 s."""
    found = facts(sampled(gpu0_sw_thermal_s=[0.5 * t for t in range(12)]))
    assert found.held_back == {"sw_thermal": (0.5, True)}


def test_samples_stand_in_where_nothing_is_counted() -> None:
    flags = [1.0, *[0.0] * 5, *[1.0] * 5, 1.0]
    found = facts(sampled(gpu0_sw_thermal=flags))
    assert found.held_back == {"sw_thermal": (0.5, False)}


def test_the_worst_launch_counts() -> None:
    mild, bad = (sampled(gpu1_other_processes=[n] * 12) for n in (0.0, 2.0))
    assert facts(mild, bad, device="cuda:1").other_processes == 2.0


def test_a_clock_that_jumps_about_has_not_drifted() -> None:
    steady = facts(sampled(gpu0_sm_mhz=[1980.0, 1890.0] * 6)).clock_drift
    assert isinstance(steady, float) and steady < 0.02
    falling = facts(sampled(gpu0_sm_mhz=[1980.0] * 6 + [1782.0] * 6)).clock_drift
    assert falling == pytest.approx(0.1)


def test_the_busiest_processors_clock_drifts_by_the_same_rule() -> None:
    """Thirds of nine seconds: means of 3000 and 2700. Idle cores and a GPU have no say."""
    falling, steady = [3000.0] * 6 + [2700.0] * 6, [3000.0, 2900.0] * 6
    window = 1_000_000_000, 10_000_000_000
    quiet = sampled(cpu_max_mhz=steady, cpu_mean_mhz=falling, gpu0_sm_mhz=falling)
    found = cpu_clock_drift([(quiet, *window)])
    assert isinstance(found, float) and found < 0.02
    assert cpu_clock_drift([(quiet, *window), (sampled(cpu_max_mhz=falling), *window)]) == (
        pytest.approx(0.1)
    )
    blind = cpu_clock_drift([(sampled({"cpu_max_mhz": LOST}, cpu_max_mhz=[]), *window)])
    assert blind == LOST
    assert isinstance(cpu_clock_drift([]), Unavailable)


def test_a_channel_that_fell_silent_is_told_and_one_that_never_spoke_is_not() -> None:
    gone = {"gpu0_sm_mhz": LOST, "gpu0_percent": LOST}
    found = facts(
        sampled(gone, gpu0_sm_mhz=[1980.0] * 4 + [np.nan] * 8, gpu0_percent=[np.nan] * 12)
    )
    assert found.silenced == {"gpu0_sm_mhz": LOST}
    assert found.clock_drift == LOST


def test_without_a_sampler_nothing_is_known() -> None:
    found = facts()
    assert all(isinstance(getattr(found, f), Unavailable) for f in GpuFacts.__struct_fields__)
    assert gpu_facts("cpu", []) is None


def test_the_document_has_every_check() -> None:
    text = (Path(__file__).parents[3] / "docs/gpu.md").read_text()
    assert [row for row in re.findall(r"^\| (GPU \w+) \|", text, re.M) if row in NAMES] == [*NAMES]


def test_a_block_shows_the_clock_and_heat_of_what_computes() -> None:
    names = {"cpu_max_mhz": 3000.0, "cpu0_temperature_c": 90.0, "gpu1_sm_mhz": 1980.0,
             "gpu1_temperature_c": 54.0, "gpu1_memory_temperature_c": 95.0}  # fmt: skip
    read = sampled(**{name: [value] * 12 for name, value in names.items()})
    times = np.arange(1, 10, dtype=np.int64) * 1_000_000_000
    found = blocks(0, times, times + 500_000_000, read.series, read.channels)
    assert {(block.clock_mhz, block.temperature_c) for block in found} == {(1980.0, 54.0)}
