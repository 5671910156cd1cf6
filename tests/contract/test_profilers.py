"""Every registered profiler against the one contract."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness import registry
from harness.protocols import Profiler, ProfilerContext
from harness.testing.contract_profiler import Make, ProfilerContract

_FILES: dict[str, Sequence[str]] = {
    "memory": (
        "proc/{pid}/statm",
        "proc/{pid}/status",
        "proc/{pid}/smaps_rollup",
        "proc/meminfo",
    ),
    "utilization": (
        "proc/{pid}/stat",
        "proc/{pid}/task/1/status",
        "proc/stat",
        "proc/pressure/cpu",
        "proc/pressure/io",
        "proc/pressure/memory",
    ),
    "clocks": (
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
        "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count",
        "sys/class/hwmon/hwmon0/temp1_input",
        "sys/class/thermal/thermal_zone0/temp",
    ),
}


@pytest.mark.parametrize("name", registry.profiler_names(), scope="class")
class TestProfilers(ProfilerContract):
    @pytest.fixture
    def make(self, name: str) -> Make:
        self.files = _FILES.get(name, ())

        def make(context: ProfilerContext) -> Profiler:
            profiler = registry.find_profiler(name, context)
            assert not isinstance(profiler, registry.Broken), profiler.cause
            return profiler

        return make
