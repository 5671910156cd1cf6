"""The real pynvml, calling a library of NVML that the C compiler made: layouts, versions, strings.

The fake in `harness.testing.nvml` stands in for pynvml. Here pynvml is the real one, so that what
is handed to it and what it hands back is right down to the bytes. The structures are declared as in
NVIDIA's nvml.h. A function that the stub lacks is one that an old driver lacks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.testing.cuda import FakeCuda, fake_uuid, has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C compiler to build the stub with")

STUB = r"""
#include <string.h>
#include <unistd.h>
typedef struct { unsigned fieldId, scopeId; long long timestamp, latencyUsec; int valueType, ret;
    union { double d; unsigned ui; unsigned long ul; unsigned long long ull; } value; } Field;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { unsigned version; int sensor, celsius; } Temperature;
typedef struct { unsigned gpu, memory; } Utilization;
static int device;
static unsigned calls;
#define LOST (getenv_lost() && calls++ > 40 ? 15 : 0)
extern char *getenv(const char *);
static int getenv_lost(void) { return getenv("STUB_LOST") != 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "an error"; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
    *out = &device;
    return strcmp(uuid, "%(uuid)s") ? 6 : 0;
}
int nvmlSystemGetDriverVersion(char *out, unsigned size) { strcpy(out, "580.95.05"); return 0; }
int nvmlDeviceGetArchitecture(void *d, unsigned *out) { *out = 9; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *out) {
    static unsigned long long mj = 5000000000000ull;  /* more than 32 bits hold */
    *out = mj; mj += 2500; return LOST;
}
int nvmlDeviceGetFieldValues(void *d, int count, Field *f) {
    for (int i = 0; i < count; i++) {
        f[i].ret = f[i].scopeId ? 3 : 0; f[i].valueType = 1;
        switch (f[i].fieldId) {
            case 186: f[i].value.ui = 412345; break;
            case 185: f[i].value.ui = 400000; break;
            case 82: f[i].value.ui = 61; break;
            case 74: case 269: f[i].valueType = 3; f[i].value.ull = 7500000000ull; break;
            default: f[i].ret = 3;
        }
    }
    return LOST;
}
int nvmlDeviceGetUtilizationRates(void *d, Utilization *out) {
    out->gpu = 97; out->memory = 41; return LOST;
}
int nvmlDeviceGetClockInfo(void *d, int kind, unsigned *out) {
    *out = kind == 1 ? 1980 : kind == 2 ? 3201 : 0; return LOST;
}
int nvmlDeviceGetTemperatureV(void *d, Temperature *t) {
    if (t->version != 0x100000C || t->sensor) return 25;
    t->celsius = 54; return LOST;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *d, unsigned long long *out) {
    *out = 0x4; return LOST;
}
int nvmlDeviceGetMemoryInfo_v2(void *d, Memory *m) {
    if (m->version != 0x02000028) return 25;
    m->total = 150754820096; m->reserved = 650117120; m->used = 1610612736; return LOST;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, Process *out) {
    if (!out) { *count = 1; return 7; }
    *count = 1; out[0].pid = getpid(); out[0].used = 536870912; return LOST;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned *count, Process *out) {
    *count = 0; return LOST;
}
int nvmlDeviceGetEccMode(void *d, int *now, int *pending) { *now = 1; *pending = 0; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *out) { *out = 700000; return 0; }
int nvmlDeviceGetSerial(void *d, char *out, unsigned size) { strcpy(out, "165"); return 0; }
"""
READ = """
import json, os, sys
from harness.profiles.nvml import memory as nvml_memory
from harness.profiles.clocks import ClocksProfiler
from harness.profiles.memory import MemoryProfiler
from harness.profiles.nvml.facts import device_facts
from harness.profiles.nvml.power import NvmlPowerSource
from harness.profiles.utilization import UtilizationProfiler
from harness.protocols import ProfilerContext
nvml_memory.in_first_pid_namespace = lambda: True
context = ProfilerContext(os.getpid(), "cuda:0")
found = {}
for kind in (NvmlPowerSource, ClocksProfiler, UtilizationProfiler, MemoryProfiler):
    profiler = kind(context)
    profiler.open()
    for _ in range(int(sys.argv[1])):
        values = profiler.read()
    for channel, value in zip(profiler.channels, values):
        if channel.source == "nvml":
            why = channel.unavailable
            found[channel.name] = why.reason if why else value
    if kind is MemoryProfiler:
        found.update((k, v) for k, v in profiler.snapshot().items() if k.startswith("device"))
    profiler.close()
facts = device_facts("cuda:0")
print(json.dumps([found, facts.factors, facts.context], default=str))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("nvml")
    FakeCuda(made)
    (made / "nvml.c").write_text(STUB % {"uuid": fake_uuid(0)})
    library = str(made / "libnvidia-ml.so.1")
    command = ["cc", "-shared", "-fPIC", "-w", "-o", library, str(made / "nvml.c")]
    subprocess.run(command, check=True)
    return made


def read(folder: Path, times: int = 1, **variables: str) -> list[dict[str, Any]]:
    """Channels, factors and context, in a process that finds the stub."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(times)],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_figures_arrive_as_the_library_gave_them(folder: Path) -> None:
    found, factors, context = read(folder)
    expected = {
        "energy/gpu0_j": 2.5,
        "power/gpu0_w": 412.345,
        "power/gpu0-average_w": 400.0,
        "gpu0_sm_mhz": 1980.0,
        "gpu0_memory_mhz": 3201.0,
        "gpu0_temperature_c": 54.0,
        "gpu0_memory_temperature_c": 61.0,
        "gpu0_power_cap_s": 7.5,
        "gpu0_sw_thermal_s": 7.5,
        "gpu0_power_cap": 1.0,
        "gpu0_hw_slowdown": 0.0,
        "gpu0_percent": 97.0,
        "gpu0_memory_percent": 41.0,
        "gpu0_used_bytes": 1610612736.0,
        "gpu0_process_bytes": 536870912.0,
        "gpu0_other_processes": 0.0,
        "device_used_bytes": 1610612736.0,
        "device_process_bytes": 536870912.0,
    }
    assert {name: found[name] for name in expected} == expected
    assert "does not report how long" in found["gpu0_sync_boost_s"]
    assert (factors["gpu_ecc"], factors["gpu_power_limit_w"]) == ("on", "700")
    assert (factors["gpu_driver_major"], context["gpu_serial"]) == ("580", "165")
    assert context["gpu_vbios"] == "not shown by this system"  # the stub lacks the function


def test_a_library_that_loses_its_gpu(folder: Path) -> None:
    found, _, _ = read(folder, 60, STUB_LOST="1")
    gone = [name for name, value in found.items() if "fell off the bus" in str(value)]
    assert {"energy/gpu0_j", "gpu0_sm_mhz", "gpu0_percent", "gpu0_used_bytes"} <= set(gone)


def test_a_device_that_nvml_does_not_know(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "nvml.c").write_text(STUB % {"uuid": "GPU-another"})
    library = str(other / "libnvidia-ml.so.1")
    command = ["cc", "-shared", "-fPIC", "-w", "-o", library, str(other / "nvml.c")]
    subprocess.run(command, check=True)
    path = os.pathsep.join((str(other), str(folder)))
    found, _, context = read(folder, LD_LIBRARY_PATH=path)
    assert "NVML does not find GPU-00000000" in found["gpu0_sm_mhz"]
    assert "NVML does not find" in context["gpu_nvml"]
