"""Blocks of a window: made-up counters whose growth in each second is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_analysis_validity import GOOD, check

from harness.analysis.blocks import blocks
from harness.analysis.validity import checks
from harness.maybe import Unavailable
from harness.protocols import Channel

S = 1_000_000_000
TIMES = np.arange(-10, 60, dtype=np.int64) * S // 10  # at 10 Hz, beyond both edges


def iterations(per_s: int = 10, seconds: int = 4) -> tuple[Any, Any]:
    """Back to back; in second k each iteration takes (k + 1) ms less than its slot."""
    starts = np.arange(per_s * seconds, dtype=np.int64) * (S // per_s)
    ends = starts + S // per_s - 1
    return starts, ends


def series(busy: list[float], steal: list[float] | None = None) -> dict[str, Any]:
    """Counters: the machine is busy ``busy[k]`` seconds in second k, of which the worker 0.5."""

    def counter(growth: list[float]) -> Any:
        seconds = np.clip(TIMES[:-1] // S, 0, len(growth) - 1)
        return TIMES, np.concatenate([[0.0], np.cumsum(np.array(growth)[seconds] / 10)])

    found = {
        "machine_busy_s": counter(busy),
        "worker_cpu_s": counter([0.5] * len(busy)),
        "harness_cpu_s": counter([0.0] * len(busy)),
        "pressure_cpu_s": counter([0.25] * len(busy)),
    }
    if steal is not None:
        found["machine_steal_s"] = counter(steal)
    return found


def test_a_burst_disturbs_its_block_alone() -> None:
    starts, ends = iterations()
    cut = blocks(0, starts, ends, series([0.5, 0.5, 0.9, 0.5], [0.0] * 4), [])

    assert [block.iterations for block in cut] == [10, 10, 10, 10]
    assert [block.disturbed for block in cut] == [False, False, True, False]
    assert [block.foreign_share for block in cut] == pytest.approx([0, 0, 0.4, 0], abs=1e-6)
    assert [block.pressure_share for block in cut] == pytest.approx([0.25] * 4, abs=1e-6)
    assert [block.median_ms for block in cut] == pytest.approx([100.0] * 4, abs=1e-3)
    assert [block.start_s for block in cut] == pytest.approx([0, 1, 2, 3], abs=1e-6)


def test_one_tick_of_steal_is_not_a_disturbance_and_three_are() -> None:
    starts, ends = iterations()
    cut = blocks(0, starts, ends, series([0.5] * 4, [0.01, 0.03, 0.0, 0.0]), [])
    assert [block.disturbed for block in cut] == [False, True, False, False]


def test_what_is_half_known_is_disturbed_or_unknown_but_never_quiet() -> None:
    starts, ends = iterations()
    cut = blocks(0, starts, ends, series([0.5, 0.9, 0.5, 0.5]), [])
    assert cut[1].disturbed is True
    assert isinstance(cut[0].disturbed, Unavailable)
    assert isinstance(cut[0].clock_mhz, Unavailable)
    assert isinstance(cut[0].temperature_c, Unavailable)


def test_gauges_are_averaged_in_each_block() -> None:
    starts, ends = iterations()
    clock = Channel("cpu_max_mhz", "MHz", "gauge", "clocks/cpu_max_mhz", "machine")
    hot = Channel("cpu0_temperature_c", "C", "gauge", "temperature/cpu0_c", "core")
    readings = series([0.5] * 4, [0.0] * 4)
    readings["cpu_max_mhz"] = (TIMES, np.where(TIMES >= 2 * S, 2000.0, 3000.0))
    readings["cpu0_temperature_c"] = (TIMES, np.full(len(TIMES), 71.0))
    cut = blocks(0, starts, ends, readings, [clock, hot])
    assert [block.clock_mhz for block in cut] == pytest.approx([3000, 3000, 2000, 2000])
    assert [block.temperature_c for block in cut] == [71.0] * 4


def test_a_window_of_half_a_second_has_no_blocks() -> None:
    starts, ends = iterations(seconds=1)
    assert blocks(0, starts[:5], ends[:5], series([0.5] * 4), []) == ()


def test_one_in_five_disturbed_blocks_pass_and_more_warn() -> None:
    assert check("disturbed blocks", disturbed_blocks=(2, 10)).verdict == "pass"
    assert check("disturbed blocks", disturbed_blocks=(3, 10)).verdict == "warn"
    unknown = Unavailable("not sampled")
    assert check("disturbed blocks", disturbed_blocks=unknown).verdict == "unknown"
    assert "disturbed blocks" in [c.name for c in checks(GOOD)]
