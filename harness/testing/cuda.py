"""A stand-in for the CUDA driver's library, built with the C compiler: devices by decree.

    with FakeCuda(tmp_path, [FakeDevice("NVIDIA H200"), FakeDevice("NVIDIA L4")]).environment():
        cuda_device("cuda:1")

It answers what `harness.host.gpus` asks (`cuInit` and the identity of devices) and nothing more: no
kernel can run on it. CUDA_VISIBLE_DEVICES works as in the driver: indices and beginnings of UUIDs,
up to the first entry that makes no sense. CUDA_DEVICE_ORDER=FASTEST_FIRST takes the device with
the most multiprocessors first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

_SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
typedef struct {
    const char *name, *pci, *uuid, *whole;
    size_t memory;
    int sms, mode, major, minor;
} Device;
static const Device all[] = { %(devices)s { 0 } };
static int shown[64], count = 0;

static void show(int index) { if (count < 64) shown[count++] = index; }

static int named(const char *word, int total) {
    char *end, text[64];
    long index = strtol(word, &end, 10);
    if (end != word && *end == 0) return index >= 0 && index < total ? (int)index : -1;
    for (int i = 0; i < total; i++) {
        snprintf(text, sizeof text, "%%s", all[i].uuid);
        if (strlen(word) > 4 && !strncmp(text, word, strlen(word))) return i;
    }
    return -1;
}

int cuInit(unsigned flags) {
    const char *order = getenv("CUDA_DEVICE_ORDER"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    int total = %(total)d, sorted[64];
    %(before_init)s
    if (%(init)d) return %(init)d;
    for (int i = 0; i < total; i++) sorted[i] = i;
    if (!order || strcmp(order, "PCI_BUS_ID"))
        for (int i = 0; i < total; i++)
            for (int j = i + 1; j < total; j++)
                if (all[sorted[j]].sms > all[sorted[i]].sms) {
                    int other = sorted[i]; sorted[i] = sorted[j]; sorted[j] = other;
                }
    if (!visible) for (int i = 0; i < total; i++) show(sorted[i]);
    else {
        char *copy = strdup(visible);
        for (char *word = strtok(copy, ","); word; word = strtok(NULL, ",")) {
            int index = named(word, total);
            if (index < 0) break;
            show(word[0] == 'G' || word[0] == 'M' ? index : sorted[index]);
        }
        free(copy);
    }
    return count ? 0 : 100;
}
int cuDriverGetVersion(int *version) { *version = %(driver)d; return 0; }
int cuDeviceGetCount(int *out) { *out = count; return 0; }
int cuDeviceGet(int *device, int index) { *device = shown[index]; return %(get)d; }
int cuDeviceGetName(char *out, int size, int d) {
    snprintf(out, size, "%%s", all[d].name); return 0;
}
int cuDeviceGetPCIBusId(char *out, int size, int d) {
    snprintf(out, size, "%%s", all[d].pci); return 0;
}
int cuDeviceTotalMem_v2(size_t *out, int d) { *out = all[d].memory; return 0; }
int cuDeviceGetAttribute(int *out, int attribute, int d) {
    switch (attribute) {
        case 16: *out = all[d].sms; return 0;
        case 18: *out = 0; return 0;
        case 20: *out = all[d].mode; return 0;
        case 75: *out = all[d].major; return 0;
        case 76: *out = all[d].minor; return 0;
    }
    return 1;
}
static int octets(unsigned char *out, const char *text) {
    for (const char *c = strchr(text, '-') + 1; *c; ) {
        if (*c == '-') { c++; continue; }
        unsigned value; sscanf(c, "%%2x", &value); *out++ = (unsigned char)value; c += 2;
    }
    return 0;
}
int cuDeviceGetUuid(unsigned char *out, int d) { return octets(out, all[d].whole); }
int %(uuid_v2)s(unsigned char *out, int d) { return octets(out, all[d].uuid); }
int cuGetErrorName(int code, const char **out) {
    static char text[32];
    snprintf(text, sizeof text, "CUDA_ERROR_FAKE_%%d", code); *out = text; return 0;
}
"""


class FakeDevice(msgspec.Struct, frozen=True):
    """One device. ``uuid`` defaults to GPU- and the digits of its place; ``whole_uuid`` to it."""

    name: str = "NVIDIA H200"
    uuid: str = ""
    whole_uuid: str = ""
    compute_capability: tuple[int, int] = (9, 0)
    memory_bytes: int = 150_754_820_096
    multiprocessors: int = 132
    compute_mode: int = 0

    def row(self, index: int) -> str:
        """Its line of the table in C."""
        own = self.uuid or fake_uuid(index)
        strings = (self.name, f"0000:{index + 1:02X}:00.0", own, self.whole_uuid or own)
        texts = ", ".join('"' + text.replace('"', '\\"') + '"' for text in strings)
        major, minor = self.compute_capability
        numbers = (self.memory_bytes, self.multiprocessors, self.compute_mode, major, minor)
        return f"{{ {texts}, {', '.join(map(str, numbers))} }},"


def fake_uuid(index: int) -> str:
    """The UUID of the device in place ``index`` that was given none."""
    return f"GPU-{index:08x}-0000-4000-8000-{index:012x}"


def has_compiler() -> bool:
    """Whether a `FakeCuda` can be built here."""
    return shutil.which("cc") is not None


class FakeCuda:
    """Builds the library into ``folder``. Raises `subprocess.CalledProcessError`."""

    def __init__(
        self,
        folder: Path,
        devices: Sequence[FakeDevice] = (FakeDevice(),),
        init: int = 0,
        driver: int = 13000,
        get: int = 0,
        before_init: str = "",
        old: bool = False,
    ) -> None:
        """``init`` and ``get`` are what cuInit and cuDeviceGet answer, ``driver`` is the version.

        ``before_init`` is C that cuInit begins with; ``old`` leaves cuDeviceGetUuid_v2 out.
        """
        self.folder = folder
        table = " ".join(device.row(index) for index, device in enumerate(devices))
        source = folder / "cuda.c"
        source.write_text(
            _SOURCE
            % {
                "devices": table,
                "total": len(devices),
                "init": init,
                "driver": driver,
                "get": get,
                "before_init": before_init,
                "uuid_v2": "unused" if old else "cuDeviceGetUuid_v2",
            }
        )
        library = str(folder / "libcuda.so.1")
        command = ["cc", "-shared", "-fPIC", "-w", "-o", library, str(source)]
        subprocess.run(command, check=True, capture_output=True)

    def variables(self) -> dict[str, str]:
        """What leads a new process to it."""
        before = os.environ.get("LD_LIBRARY_PATH")
        folders = [str(self.folder), *([before] if before else [])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(folders)}

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Processes that are started meanwhile find it."""
        before = {name: os.environ.get(name) for name in self.variables()}
        os.environ.update(self.variables())
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
