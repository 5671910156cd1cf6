"""What NVML's profilers read, refuse and survive, from a fake that knows pynvml's names alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pynvml
import pytest

from harness.analysis.energy.meters import SourceReadings, group
from harness.maybe import Unavailable, code_of
from harness.profiles.clocks import ClocksProfiler
from harness.profiles.nvml import power as nvml_power
from harness.profiles.nvml.device import STRIKES, Gpu
from harness.profiles.nvml.errors import MEANINGS, NvmlFailure
from harness.profiles.nvml.memory import used_bytes
from harness.profiles.nvml.power import NvmlPowerSource, timing
from harness.profiles.power.sources import PowerProfiler, sources_of
from harness.profiles.utilization import UtilizationProfiler
from harness.protocols import Available, Channel, Profiler, ProfilerContext
from harness.testing.nvml import (
    DeviceTrace,
    FakeNvml,
    NvmlTrace,
    TraceFrame,
    device_of,
    fake_gpu,
    load_trace,
    trace_names,
)

ROOT = Path(__file__).parents[3]
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
INSTANT = "field(NVML_FI_DEV_POWER_INSTANT, 0)"
AVERAGE = "field(NVML_FI_DEV_POWER_AVERAGE, 0)"
HERE = ProfilerContext(os.getpid(), "cuda:0")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def changed(name: str, answers: Mapping[str, Any], *frames: TraceFrame) -> NvmlTrace:
    """The shipped trace ``name`` with other answers, and other frames where any are given."""
    trace = load_trace(name)
    uuid, device = next(iter(trace.devices.items()))
    device = msgspec.structs.replace(device, answers={**device.answers, **answers})
    if frames or answers:
        device = msgspec.structs.replace(device, frames=frames, repeat_s=None, grows={})
    return msgspec.structs.replace(trace, devices={**trace.devices, uuid: device})


def named(profiler: Profiler) -> dict[str, float | str]:
    """Channel of the GPU -> its value now, or why it has none."""
    values = profiler.read()
    return {
        channel.name: channel.unavailable.reason if channel.unavailable else value  # type: ignore[misc]
        for channel, value in zip(profiler.channels, values, strict=True)
        if "gpu0" in channel.name
    }


def channel(profiler: Profiler, name: str) -> Channel:
    return next(c for c in profiler.channels if c.name == name)


# -- the fake is no second description of NVML ----------------------------------------------------


def test_every_error_of_pynvml_has_a_meaning() -> None:
    classes = {name for name in vars(pynvml) if name.startswith("NVMLError_")}
    assert {name.removeprefix("NVMLError_") for name in classes} == set(MEANINGS)


@pytest.mark.parametrize("kind", sorted(MEANINGS))
def test_every_error_becomes_one_line(kind: str) -> None:
    trace = changed("load", {ENERGY: {"error": kind}})
    gpu = Gpu(device_of(trace), FakeNvml(trace))
    with pytest.raises(NvmlFailure) as caught, gpu:
        gpu.ask("energy", ENERGY)
    reason = caught.value.reason
    assert code_of(reason) and reason.remedy and "{" not in reason.reason
    assert caught.value.gone == MEANINGS[kind].gone
    assert caught.value.__cause__.__class__.__name__ == f"NVMLError_{kind}"


def test_every_name_that_is_used_is_one_of_pynvmls() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "profiles" / "nvml").glob("*.py")))
    used = set(re.findall(r'"((?:nvml[A-Z]|NVML_)\w+)"', text))
    assert len(used) > 20
    assert [name for name in sorted(used) if not hasattr(pynvml, name)] == []


@pytest.mark.parametrize("name", trace_names())
def test_every_trace_answers_for_functions_that_exist(name: str) -> None:
    trace = load_trace(name)
    assert trace.provenance["kind"] in ("synthetic", "recorded") and trace.provenance["note"]
    tables = [trace.system, *(d.answers for d in trace.devices.values())]
    tables += [frame.answers for d in trace.devices.values() for frame in d.frames]
    for key in {key for table in tables for key in table} - {"*"}:
        inside = re.fullmatch(r"field\((\w+), \d\)", key)
        assert hasattr(pynvml, inside[1] if inside else key.partition("(")[0]), key


def test_the_fake_refuses_what_pynvml_lacks() -> None:
    library = FakeNvml(load_trace("load"))
    with pytest.raises(AttributeError):
        _ = library.nvmlDeviceGetJoules
    with pytest.raises(TypeError):
        library.nvmlDeviceGetPowerUsage()
    with pytest.raises(TypeError):
        library.nvmlDeviceGetClockInfo("handle", 1, 2)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        library.nvmlSystemGetDriverVersion()
    wrong = changed("load", {"nvmlDeviceGetMemoryInfo": {"usage": 1}})
    library = FakeNvml(wrong)
    library.nvmlInit()
    handle = library.nvmlDeviceGetHandleByUUID(next(iter(wrong.devices)))
    with pytest.raises(ValueError, match="has no usage"):
        library.nvmlDeviceGetMemoryInfo(handle)


def test_a_trace_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    for text in ("", "{}", '{"provenance": {}, "schema": "other/1"}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"trace\.json"):
            load_trace(path)


# -- power ----------------------------------------------------------------------------------------


def test_energy_power_and_what_they_are() -> None:
    clock = Clock()
    with fake_gpu("load", clock):
        source = NvmlPowerSource(HERE)
        answer = source.open()
        assert isinstance(answer, Available)
        first = named(source)
        clock.now_s = 10.05
        later = named(source)
        source.close()
    assert first == {
        "energy/gpu0_j": 0.0,
        "power/gpu0_w": 400.0,
        "power/gpu0-average_w": 399.95,
    }
    assert later["energy/gpu0_j"] == 4000.0  # 400 W for ten seconds, by steps of 100 ms
    assert answer.details["power"] == "NVML_FI_DEV_POWER_INSTANT of gpu-board, mean over 25 ms"
    assert "NVML_FI_DEV_POWER_AVERAGE" in answer.details["average power"]
    assert channel(source, "energy/gpu0_j").scope == "gpu-board"
    assert channel(source, "power/gpu0_w").facts == {"gain_rel": 0.05, "averaging_s": 0.025}
    assert channel(source, "power/gpu0-average_w").facts["averaging_s"] == 1.0
    assert {c.period_s for c in source.channels} == {0.1}


def test_both_power_fields_are_read_in_one_call() -> None:
    with fake_gpu("load") as library:
        source = NvmlPowerSource(HERE)
        source.open()
        before = library.calls["nvmlDeviceGetFieldValues"]
        assert len(named(source)) == 3
        source.close()
    assert library.calls["nvmlDeviceGetFieldValues"] == before + 1


def test_counter_and_instant_power_are_one_meter_and_the_average_another() -> None:
    with fake_gpu("load"):
        source = NvmlPowerSource(HERE)
        source.open()
        found = group([SourceReadings(c, [0, 1], [1.0, 2.0]) for c in source.channels], 0)
        source.close()
    meters = {meter.name: meter for meter in found}
    assert set(meters) == {"gpu0", "gpu0-average"}
    assert meters["gpu0"].counter is not None and meters["gpu0"].power is not None


@pytest.mark.parametrize(
    ("architecture", "name", "period_s", "window_s"),
    [
        (4, "Tesla P100-PCIE-16GB", 0.02, 0.01),
        (5, "Tesla V100-SXM2-32GB", 0.02, 0.01),
        (6, "NVIDIA TITAN RTX", 0.1, 0.1),
        (6, "Quadro RTX 8000", 0.1, 0.02),
        (7, "NVIDIA A100-SXM4-80GB", 0.1, 0.025),
        (7, "NVIDIA A30", 0.1, 0.025),
        (7, "NVIDIA A10", 0.1, 0.1),
        (7, "NVIDIA GeForce RTX 3090", 0.1, 0.1),
        (8, "NVIDIA GeForce RTX 4090", 0.1, 0.1),
        (9, "NVIDIA H100 PCIe", 0.1, 0.025),
        (10, "NVIDIA B200", 0.1, 0.025),
        (None, "Something New", 0.1, 0.025),
    ],
)
def test_how_often_and_over_how_long(
    architecture: int | None, name: str, period_s: float, window_s: float
) -> None:
    assert timing(architecture, name) == nvml_power.Timing(period_s, window_s)


def test_an_old_board_without_counter_and_fields() -> None:
    with fake_gpu("old", Clock()):
        source = NvmlPowerSource(HERE)
        answer = source.open()
        assert isinstance(answer, Available)
        found = named(source)
        source.close()
    assert found["power/gpu0_w"] == 120.0
    assert "does not report energy" in str(found["energy/gpu0_j"])
    assert answer.details["power"].startswith("nvmlDeviceGetPowerUsage, for the fields are absent")
    assert channel(source, "power/gpu0_w").period_s == 0.02


def test_plain_power_of_a_newer_board_may_be_either() -> None:
    """Without the fields nobody knows its window, so it is no check of the counter."""
    answers = {INSTANT: {"error": "NotSupported"}, AVERAGE: {"error": "NotSupported"}}
    with fake_gpu(changed("load", answers)):
        source = NvmlPowerSource(HERE)
        source.open()
        found = named(source)
        source.close()
    assert found == {"energy/gpu0_j": 0.0, "power/gpu0-reported_w": 400.0}
    assert "averaging_s" not in channel(source, "power/gpu0-reported_w").facts


def test_power_of_the_module_is_not_called_the_boards() -> None:
    module = {
        INSTANT: {"error": "NotSupported"},
        AVERAGE: {"error": "NotSupported"},
        INSTANT.replace(", 0)", ", 1)"): 650000,
    }
    with fake_gpu(changed("load", module)):
        source = NvmlPowerSource(HERE)
        source.open()
        found = named(source)
        source.close()
    assert found == {"energy/gpu0-module_j": 0.0, "power/gpu0-module_w": 650.0}
    assert {c.scope for c in source.channels} == {"gpu-module"}


def test_the_counter_of_a_grace_hopper_is_the_modules() -> None:
    with fake_gpu(changed("load", {"nvmlDeviceGetName": "NVIDIA GH200 480GB"})):
        source = NvmlPowerSource(HERE)
        source.open()
        source.close()
    scopes = {c.name: c.scope for c in source.channels}
    assert scopes["energy/gpu0-module_j"] == "gpu-module"
    assert scopes["power/gpu0_w"] == "gpu-board"


def test_no_watts_are_no_reading() -> None:
    frames = TraceFrame(1.0, {INSTANT: 0})
    clock = Clock()
    with fake_gpu(changed("load", {}, frames), clock):
        source = NvmlPowerSource(HERE)
        source.open()
        clock.now_s = 1.0
        at = [c.name for c in source.channels].index("power/gpu0_w")
        assert source.read()[at] is None
        source.close()


@pytest.mark.parametrize(
    ("trace", "code", "words"),
    [
        ("mig", "not_supported", "MIG slice"),
        ("vgpu", "virtualized", "virtual GPU"),
        ("forbidden", "permission_denied", "may not read energy"),
        ("no_driver", "not_present", "libnvidia-ml.so.1"),
    ],
)
def test_why_there_is_no_power(trace: str, code: str, words: str) -> None:
    with fake_gpu(trace) as library:
        answer = NvmlPowerSource(HERE).open()
        assert library.initialized == 0
    assert isinstance(answer, Unavailable) and answer.remedy
    assert code_of(answer) == code and words in answer.reason


def test_the_gpu_comes_first_where_it_is_the_device_and_nowhere_else() -> None:
    assert sources_of("auto") == ("powercap", "hwmon", "jetson")
    assert sources_of("auto", "cuda:1") == ("nvml", "powercap", "hwmon", "jetson")
    on_cpu = NvmlPowerSource(ProfilerContext(os.getpid())).open()
    assert isinstance(on_cpu, Unavailable) and "the run is on cpu" in on_cpu.reason


def test_a_gpu_without_power_keeps_its_place_among_the_meters() -> None:
    """Beside a CPU's meter its absence must not look as if nobody had asked."""
    with fake_gpu("vgpu"):
        profiler = PowerProfiler(HERE)
        profiler._sources.append(_OneMeter())
        assert isinstance(profiler.open(), Available)
        absent = channel(profiler, "energy/nvml_j")
        profiler.close()
    assert absent.scope == "gpu-board" and absent.unavailable is not None


@pytest.mark.parametrize(("device", "scope"), [("cuda:0", "other-gpu-board"), ("cpu", "gpu-board")])
def test_another_gpu_is_not_taken_for_the_one_under_test(device: str, scope: str) -> None:
    """An integrated AMD GPU, say, beside an NVIDIA one without power readings."""
    with fake_gpu("vgpu"):
        profiler = PowerProfiler(ProfilerContext(os.getpid(), device, power_source="nvml"))
        profiler._sources.append(_OneMeter("gpu-board"))
        profiler.open()
        found = channel(profiler, "power/one_w")
        profiler.close()
    assert found.scope == scope


class _OneMeter:
    name = "one"

    def __init__(self, scope: str = "cpu-package") -> None:
        self.channels = (Channel("power/one_w", "W", "gauge", "power/one_w", scope, "one"),)

    def open(self) -> Available:
        return Available()

    def read(self) -> list[float]:
        return [1.0]

    def close(self) -> None:
        pass


# -- activity -------------------------------------------------------------------------------------


def opened(kind: Any, trace: NvmlTrace | str) -> dict[str, float | str]:
    with fake_gpu(trace, Clock()):
        profiler = kind(HERE)
        profiler.open()
        found = named(profiler)
        profiler.close()
    return found


def test_busy_clocks_and_heat() -> None:
    assert opened(UtilizationProfiler, "load") == {
        "gpu0_percent": 97.0,
        "gpu0_memory_percent": 41.0,
    }
    found = opened(ClocksProfiler, "load")
    plain = {k: found[k] for k in list(found)[:4]}
    assert plain == {
        "gpu0_sm_mhz": 1980.0,
        "gpu0_memory_mhz": 3201.0,
        "gpu0_temperature_c": 54.0,
        "gpu0_memory_temperature_c": 62.0,
    }
    assert found["gpu0_power_cap_s"] == 5.0
    assert not any(found[f"gpu0_{reason}"] for reason in ("power_cap", "hw_slowdown"))


def test_what_holds_the_clocks_back_by_name() -> None:
    found = opened(ClocksProfiler, "throttling")
    names = ("power_cap", "sw_thermal", "hw_thermal", "power_brake", "sync_boost", "hw_slowdown")
    assert [found[f"gpu0_{name}"] for name in names] == [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]


def test_time_held_back_counts_in_seconds() -> None:
    clock = Clock()
    with fake_gpu("throttling", clock):
        profiler = ClocksProfiler(HERE)
        profiler.open()
        before = named(profiler)
        clock.now_s = 3.0
        after = named(profiler)
        profiler.close()
    grown = {
        name: float(after[f"gpu0_{name}_s"]) - float(before[f"gpu0_{name}_s"])
        for name in ("sw_thermal", "hw_thermal", "power_cap", "power_brake")
    }
    assert grown == pytest.approx(
        {"sw_thermal": 3.0, "hw_thermal": 1.5, "power_cap": 0.6, "power_brake": 0.0}
    )


def test_an_old_driver_is_asked_in_its_own_words() -> None:
    found = opened(ClocksProfiler, "old")
    assert found["gpu0_temperature_c"] == 55.0
    assert (found["gpu0_power_cap"], found["gpu0_sw_thermal"]) == (1.0, 0.0)
    assert "does not report" in str(found["gpu0_sw_thermal_s"])


def test_what_a_slice_cannot_know_is_absent_and_not_zero() -> None:
    assert "MIG" in str(opened(UtilizationProfiler, "mig")["gpu0_percent"])
    assert opened(ClocksProfiler, "mig")["gpu0_sm_mhz"] == 1980.0


def test_a_memory_without_a_thermometer() -> None:
    trace = changed("load", {"field(NVML_FI_DEV_MEMORY_TEMP, 0)": 0})
    assert "not_supported" in str(opened(ClocksProfiler, trace)["gpu0_memory_temperature_c"])


def test_a_mixed_answer_costs_no_further_question() -> None:
    """One field of five is not supported: that is not looked into at every reading."""
    field = "field(NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST, 0)"
    with fake_gpu(changed("load", {field: {"error": "NotSupported"}})) as library:
        profiler = ClocksProfiler(HERE)
        profiler.open()
        found = named(profiler)
        before = library.calls["nvmlDeviceGetVirtualizationMode"]
        profiler.read()
        profiler.close()
    assert "not_supported" in str(found["gpu0_sync_boost_s"])
    assert found["gpu0_sw_thermal_s"] == 0.0
    assert library.calls["nvmlDeviceGetVirtualizationMode"] == before == 1


def test_nothing_blocks_for_pcie_traffic() -> None:
    with fake_gpu("load") as library:
        for kind in (ClocksProfiler, UtilizationProfiler, PowerProfiler):
            profiler = kind(HERE)
            profiler.open()
            profiler.read()
            profiler.close()
    assert "nvmlDeviceGetPcieThroughput" not in library.calls


# -- failing while it runs ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GpuIsLost", "ResetRequired", "GpuNotFound"])
def test_a_gpu_that_is_gone_falls_silent_and_is_left_alone(kind: str) -> None:
    clock = Clock()
    frames = TraceFrame(8.0, {"*": {"error": kind}})
    with fake_gpu(changed("load", {}, frames), clock) as library:
        profiler = NvmlPowerSource(HERE)
        profiler.open()
        assert None not in profiler.read()
        clock.now_s = 8.0
        assert set(profiler.read()) == {None}
        asked = dict(library.calls)
        for _ in range(STRIKES):
            assert set(profiler.read()) == {None}
        assert library.calls == asked
        reasons = [c.unavailable for c in profiler.channels if c.source == "nvml"]
        profiler.close()
    assert library.initialized == 0
    assert len(reasons) == 3
    for reason in reasons:
        assert reason is not None and reason.remedy
        assert reason.reason.startswith((f"{MEANINGS[kind].code}: ", "error: "))


@pytest.mark.parametrize("kind", ["Timeout", "Unknown", "InUse"])
def test_a_moments_failure_is_a_gap_and_a_lasting_one_a_reason(kind: str) -> None:
    frames = (TraceFrame(1.0, {ENERGY: {"error": kind}}), TraceFrame(2.0, {ENERGY: 1_400_000}))
    clock = Clock()
    with fake_gpu(changed("load", {}, *frames), clock):
        source = NvmlPowerSource(HERE)
        source.open()
        clock.now_s = 1.0
        for strike in range(1, STRIKES + 1):
            energy, power, _ = source.read()
            assert (energy, power) == (None, 400.0)
            reason = channel(source, "energy/gpu0_j").unavailable
            assert (reason is not None) == (strike >= STRIKES)
        clock.now_s = 2.0
        assert source.read()[0] == 400.0
        assert channel(source, "energy/gpu0_j").unavailable is None
        source.close()


def test_a_slice_whose_gpu_is_not_shown_still_has_its_memory() -> None:
    trace = load_trace("mig")
    part = next(iter(trace.devices))
    hidden = {"nvmlDeviceGetDeviceHandleFromMigDeviceHandle": {"error": "NoPermission"}}
    answers = {**trace.devices[part].answers, **hidden}
    alone = msgspec.structs.replace(trace, devices={part: DeviceTrace(answers=answers)})
    with Gpu(device_of(trace), FakeNvml(alone)) as gpu:
        assert used_bytes(gpu) == 73400320.0
        with pytest.raises(NvmlFailure, match="may not read the GPU of MIG-0a0a0a0a"):
            gpu.ask("its clock", "nvmlDeviceGetClockInfo", 1)


@pytest.mark.parametrize(
    ("number", "member", "value"),
    [(0, "dVal", 2.5), (1, "uiVal", 7), (3, "ullVal", 2**40), (4, "sllVal", -9), (5, "siVal", -3)],
)
def test_a_field_value_is_taken_from_the_member_that_it_names(
    number: int, member: str, value: float
) -> None:
    made = pynvml.c_nvmlFieldValue_t()
    made.valueType = number
    setattr(made.value, member, value)
    gpu = Gpu(device_of(load_trace("load")), FakeNvml(load_trace("load")))
    assert gpu._field("something", made) == value
    gpu.close()


def test_real_nvml_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed pynvml itself, on a path where there is no library to be found."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", _no_library)
    with pytest.raises(NvmlFailure) as caught:
        Gpu(device_of(load_trace("load")))
    assert code_of(caught.value.reason) == "not_present"


def _no_library(name: str) -> None:
    raise OSError(name)


def test_another_library_can_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_NVML_LIBRARY", "no.such.module:thing")
    with pytest.raises(NvmlFailure, match="cannot be loaded"):
        Gpu(device_of(load_trace("load")))
