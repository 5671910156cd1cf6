"""What a result says of the memory of host and device, from what a launch was seen to hold."""

from __future__ import annotations

import numpy as np

from harness.analysis.memory import Seen, device_memory, device_peak_bytes, memory
from harness.analysis.sampled import Sampled
from harness.maybe import Maybe, Unavailable
from harness.records.result import NOT_REACHED

NO_NVML = Unavailable("not_supported: a vGPU", "none")


def test_memory_has_the_drivers_figures_and_the_allocators() -> None:
    seen = Seen(
        phases={
            "imported": {"device_process_bytes": NO_NVML, "device_used_bytes": 100.0},
            "window": {"device_process_bytes": 700.0, "device_used_bytes": 800.0, "rss_bytes": 1.0},
        },
        allocated={
            "loaded": {"allocator_peak_bytes": 300},
            "window": {"allocator_peak_bytes": 600},
        },
        window_ns=None,
        sampled=None,
    )
    assert device_memory(seen, "cuda:0") == {
        "baseline_process_bytes": NO_NVML,
        "baseline_device_used_bytes": 100,
        "loaded_allocator_peak_bytes": 300,
        "process_bytes": 700,
        "device_used_bytes": 800,
        "allocator_peak_bytes": 600,
    }
    assert device_peak_bytes(seen, "cuda:0") == 600


def test_without_an_allocator_the_process_is_the_peak() -> None:
    window = {"device_process_bytes": 700.0, "device_used_bytes": 800.0}
    own: dict[str, Maybe[int]] = {"allocator_peak_bytes": Unavailable("an arena", "")}

    def seen(phase: dict[str, Maybe[float]]) -> Seen:
        return Seen({"window": phase}, {"window": own}, None, None)

    assert device_peak_bytes(seen({**window}), "cuda:0") == 700
    assert device_peak_bytes(seen({**window, "device_process_bytes": NO_NVML}), "cuda:0") == NO_NVML
    nothing = Seen({}, {}, None, None)
    assert isinstance(device_peak_bytes(nothing, "cuda:0"), Unavailable)
    assert isinstance(device_memory(nothing, "cpu"), Unavailable)
    assert isinstance(memory(nothing, "cpu"), Unavailable)


def test_where_the_kernel_has_no_peak_the_sampler_saw_a_lower_bound() -> None:
    no_peak = {"rss_bytes": 10.0, "peak_bytes": Unavailable("no VmHWM", "")}
    times_ns = np.array([0, 5, 10, 15, 20])
    rss = np.array([7.0, 9.0, 30.0, np.nan, 40.0])
    sampled = Sampled(series={"rss_bytes": (times_ns, rss)})
    found = memory(Seen({"warm-up": no_peak, "window": no_peak}, {}, (10, 15), sampled), "cpu")
    assert not isinstance(found, Unavailable)
    assert found.kind == "host_rss_sampled"
    assert (found.warmup_peak_bytes, found.window_peak_bytes) == (9, 30)
    assert found.baseline_bytes == NOT_REACHED
