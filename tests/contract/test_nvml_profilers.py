"""Every profiler that reads NVML against the one contract, on every kind of GPU that is faked."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from harness import registry
from harness.profiles.nvml.power import NvmlPowerSource
from harness.protocols import Profiler, ProfilerContext
from harness.testing.contract_profiler import Make, ProfilerContract
from harness.testing.nvml import fake_gpu, trace_names

_SUBJECTS = ("nvml", "memory", "utilization", "clocks", "power")


@pytest.mark.parametrize("trace", trace_names(), scope="class")
@pytest.mark.parametrize("name", _SUBJECTS, scope="class")
class TestNvmlProfilers(ProfilerContract):
    @pytest.fixture
    def make(self, name: str, trace: str) -> Iterator[Make]:
        def make(context: ProfilerContext) -> Profiler:
            on_gpu = msgspec.structs.replace(context, device="cuda:0")
            if name == "nvml":
                return NvmlPowerSource(on_gpu)
            profiler = registry.find_profiler(name, on_gpu)
            assert not isinstance(profiler, registry.Broken), profiler.cause
            return profiler

        with fake_gpu(trace) as library:
            yield make
            assert library.initialized == 0, "NVML was not shut down"
