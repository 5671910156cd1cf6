"""Device memory and the processes on the device, from a fake NVML and the real process table."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from harness.maybe import Unavailable, code_of
from harness.profiles.memory import MemoryProfiler
from harness.profiles.nvml import memory as nvml_memory
from harness.profiles.nvml.memory import DeviceMemoryProbe
from harness.protocols import Available, PhaseProbe, ProfilerContext
from harness.testing.contract_profiler import sleeping_child
from harness.testing.nvml import DeviceTrace, NvmlTrace, TraceFrame, fake_gpu, load_trace

COMPUTE = "nvmlDeviceGetComputeRunningProcesses"
GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses"
NOBODY = 2**22 + 1  # beyond the kernel's largest process number
MIB = 2**20


def here(pid: int | None = None, device: str = "cuda:0") -> ProfilerContext:
    return ProfilerContext(os.getpid() if pid is None else pid, device)


def with_processes(compute: list[dict[str, Any]], graphics: Any = ()) -> NvmlTrace:
    """The trace ``load`` with these processes on the device."""
    trace = load_trace("load")
    ((uuid, device),) = trace.devices.items()
    listed = {COMPUTE: compute, GRAPHICS: graphics if isinstance(graphics, dict) else [*graphics]}
    changed = msgspec.structs.replace(device, answers={**device.answers, **listed})
    return msgspec.structs.replace(trace, devices={uuid: changed})


def process(pid: int, used: int | None = 512 * MIB) -> dict[str, Any]:
    return {"pid": pid, "usedGpuMemory": used}


@pytest.fixture(params=[True, False], ids=["host", "container"])
def first_namespace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(nvml_memory, "in_first_pid_namespace", lambda: request.param)
    return bool(request.param)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml_memory, "in_first_pid_namespace", lambda: True)


@pytest.fixture
def in_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml_memory, "in_first_pid_namespace", lambda: False)


def snapshot(trace: NvmlTrace | str) -> dict[str, Any]:
    with fake_gpu(trace) as library:
        probe = DeviceMemoryProbe(here())
        found = dict(probe.snapshot())
        probe.close()
        assert library.initialized == 0
    return found


def test_the_workers_part_and_the_whole(first_namespace: bool) -> None:
    found = snapshot(with_processes([process(os.getpid())]))
    assert found == {"device_process_bytes": 512 * MIB, "device_used_bytes": 1610612736.0}


@pytest.mark.usefixtures("on_host")
def test_no_context_is_not_no_memory() -> None:
    found = snapshot(with_processes([process(1)]))
    absent = found["device_process_bytes"]
    assert isinstance(absent, Unavailable) and "has no context" in absent.reason


@pytest.mark.usefixtures("in_container")
@pytest.mark.parametrize("listed", [[], [NOBODY], [NOBODY, os.getpid()]])
def test_numbers_of_the_host_tell_nothing_in_a_container(listed: list[int]) -> None:
    """Not even where one of them happens to be a number of ours."""
    found = snapshot(with_processes([process(pid) for pid in listed]))
    absent = found["device_process_bytes"]
    assert isinstance(absent, Unavailable) and "--pid=host" in absent.remedy
    assert found["device_used_bytes"] == 1610612736.0


@pytest.mark.usefixtures("on_host")
def test_memory_that_windows_keeps_to_itself() -> None:
    absent = snapshot(with_processes([process(os.getpid(), None)]))["device_process_bytes"]
    assert isinstance(absent, Unavailable) and code_of(absent) == "not_supported"


def test_an_old_driver_counts_memory_in_the_old_way() -> None:
    assert snapshot("old")["device_used_bytes"] == 1610612736.0


@pytest.mark.parametrize(
    ("trace", "code"), [("forbidden", "permission_denied"), ("no_driver", "not_present")]
)
def test_every_absence_has_its_reason(trace: str, code: str) -> None:
    for absent in snapshot(trace).values():
        assert isinstance(absent, Unavailable) and code_of(absent) == code and absent.remedy


def test_a_slice_has_memory_of_its_own() -> None:
    assert snapshot("mig")["device_used_bytes"] == 73400320.0


def reading(trace: NvmlTrace, pid: int | None = None) -> dict[str, tuple[float | None, str]]:
    """Channel of the GPU -> its value and reason, after one reading."""
    with fake_gpu(trace):
        profiler = MemoryProfiler(here(pid))
        assert isinstance(profiler.open(), Available)
        values = profiler.read()
        channels = profiler.channels
        profiler.close()
    return {
        channel.name: (value, channel.unavailable.reason if channel.unavailable else "")
        for channel, value in zip(channels, values, strict=True)
        if channel.name.startswith("gpu0")
    }


@pytest.mark.usefixtures("on_host")
def test_others_on_the_device_are_counted_once() -> None:
    me, twice = process(os.getpid()), process(1)
    found = reading(with_processes([me, twice], [twice]))
    assert found == {
        "gpu0_used_bytes": (1610612736.0, ""),
        "gpu0_process_bytes": (512 * MIB, ""),
        "gpu0_other_processes": (1.0, ""),
    }


@pytest.mark.usefixtures("in_container")
def test_others_on_the_device_by_numbers_of_the_host() -> None:
    """Of two processes one at least is another; of one nobody knows."""
    two = reading(with_processes([process(NOBODY), process(NOBODY + 1)]))
    assert two["gpu0_other_processes"] == (1.0, "")
    value, reason = reading(with_processes([process(NOBODY)]))["gpu0_other_processes"]
    assert value is None and reason.startswith("not_supported: the driver lists processes")


@pytest.mark.usefixtures("on_host")
def test_a_device_without_graphics_lists_the_rest() -> None:
    found = reading(with_processes([process(os.getpid())], {"error": "NotSupported"}))
    assert found["gpu0_process_bytes"] == (512 * MIB, "")


@pytest.mark.usefixtures("on_host")
def test_a_context_that_comes_later_is_found() -> None:
    trace = with_processes([])
    ((uuid, device),) = trace.devices.items()
    later = TraceFrame(2.0, {COMPUTE: [process(os.getpid())]})
    late = DeviceTrace(answers=device.answers, frames=(later,))
    now_s = 0.0
    with fake_gpu(msgspec.structs.replace(trace, devices={uuid: late}), lambda: now_s):
        profiler = MemoryProfiler(here())
        profiler.open()
        at = [channel.name for channel in profiler.channels].index("gpu0_process_bytes")
        assert profiler.read()[at] is None
        why = profiler.channels[at].unavailable
        assert why is not None and "has no context" in why.reason
        now_s = 2.0
        group: Any = profiler._groups[-1]
        group._groups[1]._due_s = 0.0  # a second has passed
        assert profiler.read()[at] == 512 * MIB
        assert profiler.channels[at].unavailable is None
        profiler.close()


def test_processes_are_listed_once_a_second_and_not_more() -> None:
    with fake_gpu("load") as library:
        profiler = MemoryProfiler(here())
        profiler.open()
        before = library.calls[COMPUTE]
        for _ in range(5):
            profiler.read()
        assert library.calls[COMPUTE] == before + 1
        profiler.close()


def test_on_the_cpu_the_gpu_is_nobodys_business() -> None:
    with fake_gpu("load") as library:
        profiler = MemoryProfiler(here(device="cpu"))
        profiler.open()
        assert not any(channel.name.startswith("gpu") for channel in profiler.channels)
        assert not any(name.startswith("device") for name in profiler.snapshot())
        profiler.close()
    assert not library.calls


def test_the_memory_profiler_takes_the_devices_figures_at_phase_boundaries() -> None:
    with fake_gpu("load"), sleeping_child() as child:
        profiler = MemoryProfiler(here(child.pid))
        assert isinstance(profiler, PhaseProbe)
        found = profiler.snapshot()
        profiler.close()
    assert found["device_used_bytes"] == 1610612736.0
    assert isinstance(found["rss_bytes"], float)
