"""The power profiler's sources against the contract of all profilers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from harness.profiles.power.sources import PowerProfiler
from harness.protocols import Profiler, ProfilerContext
from harness.testing.contract_profiler import Make, ProfilerContract


class _Source(ProfilerContract):
    power_source = ""

    @pytest.fixture
    def make(self) -> Make:
        def make(context: ProfilerContext) -> Profiler:
            return PowerProfiler(msgspec.structs.replace(context, power_source=self.power_source))

        return make


class TestPowercap(_Source):
    power_source = "powercap"
    files = (
        "sys/class/powercap/intel-rapl:0/name",
        "sys/class/powercap/intel-rapl:0/energy_uj",
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
    )


class TestHwmon(_Source):
    power_source = "hwmon"
    files = ("sys/class/hwmon/hwmon0/power1_input", "sys/class/hwmon/hwmon0/energy1_input")


class TestJetson(_Source):
    power_source = "jetson"
    files = (
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_input",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input",
    )


class TestPyRapl(_Source):
    power_source = "pyrapl"


class TestExternal(_Source):
    power_source = "external:no-such-meter.csv"


class TestExternalThatIsThere(ProfilerContract):
    """A log without rows: it opens, and has channels without a value."""

    @pytest.fixture
    def make(self, tmp_path_factory: pytest.TempPathFactory) -> Make:
        path: Path = tmp_path_factory.mktemp("meter") / "meter.csv"
        path.write_text("time_s,power_w,energy_j\n")
        return lambda context: PowerProfiler(
            msgspec.structs.replace(context, power_source=f"external:{path}")
        )

    # What the machine shows does not matter to a file of the user's.
    test_an_empty_machine_gives_reasons_and_no_number = None
    test_unreadable_files_give_reasons_and_no_number = None
    test_garbage_gives_reasons_and_no_number = None
