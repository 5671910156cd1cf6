"""Ask the CUDA driver what devices it has, and print the answer as JSON.

    python -I -S harness/host/gpus_query.py    run by `harness.host.gpus`, in a process of its own

Standard library alone: the interpreter comes up in milliseconds and imports nothing of ours. No
context is created, so no memory is taken and a device in exclusive use answers as well.

The answer is ``{"driver": VERSION, "devices": [...]}``, or ``{"failed": FUNCTION, "code": CUresult,
"error": name}``; the function is ``load`` where the library itself is the trouble.
"""

from __future__ import annotations

import ctypes
import json
import sys
import uuid
from collections.abc import Callable
from typing import Any

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_SYMBOL = -1  # in the place of a CUresult: the library lacks the function

# CUdevice_attribute
_ATTRIBUTES = {
    "multiprocessors": 16,
    "integrated": 18,
    "compute_mode": 20,
    "major": 75,
    "minor": 76,
}


class _Uuid(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 16)]


class Failed(Exception):
    """A function of the driver gave a code other than CUDA_SUCCESS."""

    def __init__(self, function: str, code: int, text: str = "") -> None:
        super().__init__(function, code, text)
        self.function, self.code, self.text = function, code, text


class Driver:
    """The functions of the library, each raising `Failed`."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise Failed("load", 0, str(error)) from error

    def has(self, name: str) -> bool:
        return hasattr(self._library, name)

    def call(self, name: str, *arguments: Any) -> None:
        """Call it. Raises `Failed` for any answer but success."""
        try:
            function: Callable[..., int] = getattr(self._library, name)
        except AttributeError as error:
            raise Failed(name, NO_SYMBOL) from error
        code = function(*arguments)
        if code:
            raise Failed(name, code, self._error_name(code))

    def integer(self, name: str, *arguments: Any) -> int:
        """The ``int`` that ``name`` writes through its first argument."""
        value = ctypes.c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def text(self, name: str, device: ctypes.c_int, size: int = 256) -> str:
        buffer = ctypes.create_string_buffer(size)
        self.call(name, buffer, ctypes.c_int(size), device)
        return buffer.value.decode(errors="replace")

    def uuid(self, name: str, device: ctypes.c_int) -> str:
        found = _Uuid()
        self.call(name, ctypes.byref(found), device)
        return str(uuid.UUID(bytes=bytes(found.bytes)))

    def _error_name(self, code: int) -> str:
        if not self.has("cuGetErrorName"):
            return ""
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")


def describe(driver: Driver, index: int) -> dict[str, Any]:
    """Identity and size of the device that CUDA calls ``index``."""
    device = ctypes.c_int(driver.integer("cuDeviceGet", ctypes.c_int(index)))
    memory = ctypes.c_size_t()
    driver.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    found: dict[str, Any] = {
        name: driver.integer("cuDeviceGetAttribute", ctypes.c_int(number), device)
        for name, number in _ATTRIBUTES.items()
    }
    own = driver.uuid("cuDeviceGetUuid_v2", device)
    # The first version of the function knows no slices: it gives the UUID of the whole GPU.
    whole = driver.uuid("cuDeviceGetUuid", device) if driver.has("cuDeviceGetUuid") else own
    return {
        **found,
        "name": driver.text("cuDeviceGetName", device),
        "pci_bus_id": driver.text("cuDeviceGetPCIBusId", device, 64),
        "uuid": own,
        "whole_uuid": whole,
        "memory_bytes": memory.value,
    }


def query() -> dict[str, Any]:
    """The answer of the module's docstring."""
    try:
        driver = Driver()
        driver.call("cuInit", ctypes.c_uint(0))
        count = driver.integer("cuDeviceGetCount")
        return {
            "driver": driver.integer("cuDriverGetVersion"),
            "devices": [describe(driver, index) for index in range(count)],
        }
    except Failed as failed:
        return {"failed": failed.function, "code": failed.code, "error": failed.text}


if __name__ == "__main__":
    # On a line of its own, the last one: libraries that are loaded into a driver may talk.
    print("\n" + json.dumps(query()))
