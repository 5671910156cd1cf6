"""A stand-in for pynvml that replays a trace: GPUs for machines that have none.

    with fake_gpu("load") as library: ...       profilers of this process find the GPU of the trace
    os.environ.update(variables("load"))        NVML of processes that are started from now on

Nothing here is a second description of NVML. Every name is looked up in the installed pynvml, and
arguments are bound to the signature found there: a function that pynvml lacks is an AttributeError,
a wrong argument a TypeError. Errors are pynvml's own classes, structures its own structures.

A trace is a table of answers, by function and arguments::

    "nvmlDeviceGetClockInfo(1)": 1980               a number or a text
    "nvmlDeviceGetMemoryInfo": {"used": 1, ...}     a structure, whatever the arguments
    "field(NVML_FI_DEV_POWER_INSTANT, 0)": 400000   a field value, by scope
    "*": {"error": "GpuIsLost"}                     every function of this device

with frames that change some of them from ``t_s`` seconds after nvmlInit on. The frames are repeated
every ``repeat_s``; what is named in ``grows`` is by so much higher each time. What the trace does
not answer is NVMLError_NotSupported.

The traces shipped in ``nvml_traces`` are synthetic, as their provenance says; a script of the
repository (``benchmarks/record_nvml.py``) records real ones in this form.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pynvml

from harness.host.gpus import CudaDevice

Answer = Any  # a number, a text, a list, a dict of a structure's fields, or {"error": NAME}
SCHEMA = "harness.nvml-trace/1"
TRACE_VARIABLE = "HARNESS_NVML_TRACE"
_FOLDER = Path(__file__).parent / "nvml_traces"
_STRUCTURES = {
    "nvmlDeviceGetMemoryInfo": pynvml.c_nvmlMemory_v2_t,
    "nvmlDeviceGetUtilizationRates": pynvml.c_nvmlUtilization_t,
    "nvmlDeviceGetAttributes_v2": pynvml.c_nvmlDeviceAttributes,
}
_LISTED = pynvml.c_nvmlProcessInfo_v3_t


class TraceFrame(msgspec.Struct, frozen=True):
    """From ``t_s`` on these answers hold."""

    t_s: float
    answers: dict[str, Answer]


class DeviceTrace(msgspec.Struct, frozen=True):
    """One handle: a GPU, or a slice of one (then ``parent`` is the UUID of its GPU)."""

    answers: dict[str, Answer] = {}
    frames: tuple[TraceFrame, ...] = ()
    repeat_s: float | None = None
    grows: dict[str, float] = {}
    parent: str = ""

    def at(self, t_s: float) -> dict[str, Answer]:
        """Every answer at ``t_s`` seconds."""
        rounds, inside = 0, t_s
        if self.repeat_s is not None:
            rounds = int(t_s // self.repeat_s)
            inside = t_s - rounds * self.repeat_s
        found = dict(self.answers)
        for frame in self.frames:
            if frame.t_s <= inside:
                found.update(frame.answers)
        for name, step in self.grows.items():
            found[name] += step * rounds
        return found


class NvmlTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML answers over time. ``provenance`` says where it comes from."""

    schema: str = SCHEMA
    provenance: dict[str, str]
    system: dict[str, Answer] = {}
    devices: dict[str, DeviceTrace] = {}  # by UUID


def load_trace(name: str | Path) -> NvmlTrace:
    """The trace in a file, or a shipped one by its name. Raises `ValueError` for no such trace."""
    path = Path(name) if str(name).endswith(".json") else _FOLDER / f"{name}.json"
    try:
        trace = msgspec.json.decode(path.read_bytes(), type=NvmlTrace)
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"{path} is no trace of NVML: {error}") from error
    if trace.schema != SCHEMA:
        raise ValueError(f"{path} has the schema {trace.schema!r}, not {SCHEMA!r}")
    return trace


def trace_names() -> list[str]:
    """The traces that are shipped."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def variables(trace: str | Path) -> dict[str, str]:
    """What makes Harness's processes read ``trace`` in the place of the driver."""
    return {"HARNESS_NVML_LIBRARY": f"{__name__}:library", TRACE_VARIABLE: str(trace)}


def device_of(trace: NvmlTrace) -> CudaDevice:
    """The trace's first device as CUDA would name it."""
    uuid, first = next(iter(trace.devices.items()), ("GPU-none", DeviceTrace()))
    return CudaDevice(
        index=0,
        name=str(first.answers.get("nvmlDeviceGetName", "a fake GPU")),
        uuid=uuid,
        whole_uuid=first.parent or uuid,
        mig=bool(first.parent),
        compute_capability="9.0",
        pci_bus_id="0000:01:00.0",
        memory_bytes=150_754_820_096,
        multiprocessors=132,
        compute_mode="default",
        integrated=False,
        driver_cuda="13.0",
    )


@contextlib.contextmanager
def fake_gpu(
    trace: NvmlTrace | str, clock: Callable[[], float] = time.monotonic
) -> Iterator[FakeNvml]:
    """Meanwhile every profiler of this process finds the trace's first device as its own."""
    played = load_trace(trace) if isinstance(trace, str) else trace
    library = FakeNvml(played, clock)

    def device(name: str) -> CudaDevice:
        return device_of(played)

    with (
        patch("harness.profiles.nvml.device.load_library", lambda: library),
        patch("harness.profiles.nvml.device.cuda_device", device),
        patch("harness.profiles.nvml.facts.cuda_device", device),
    ):
        yield library


class _Handle:
    """Of a device; like NVML's own it is good for nothing but to be handed back."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid


class FakeNvml:
    """The module's stand-in. ``clock`` gives seconds; ``calls`` counts what was asked."""

    def __init__(self, trace: NvmlTrace, clock: Callable[[], float] = time.monotonic) -> None:
        self.trace = trace
        self.calls: dict[str, int] = {}
        self.initialized = 0
        self._clock = clock
        self._began_s: float | None = None

    def __getattr__(self, name: str) -> Any:
        real = getattr(pynvml, name)  # what pynvml lacks, this lacks
        if not (name.startswith("nvml") and inspect.isfunction(real)):
            return real
        return partial(self._call, name, inspect.signature(real))

    def _call(self, name: str, signature: inspect.Signature, *arguments: Any) -> Any:
        given = list(signature.bind(*arguments).arguments.values())
        self.calls[name] = self.calls.get(name, 0) + 1
        if name in ("nvmlInit", "nvmlShutdown"):
            return self._switch(name)
        if not self.initialized:
            _raise({"error": "Uninitialized"})
        if name == "nvmlDeviceGetHandleByUUID":
            return self._handle(given[0])
        if given and isinstance(given[0], _Handle):
            return self._of_device(name, given[0], given[1:])
        return _answer(name, self.trace.system, given)

    def _switch(self, name: str) -> None:
        if name in self.trace.system:
            _answer(name, self.trace.system, [])
        self.initialized += 1 if name == "nvmlInit" else -1
        if self.initialized < 0:
            _raise({"error": "Uninitialized"})
        if self._began_s is None:
            self._began_s = self._clock()

    def _handle(self, uuid: str) -> _Handle:
        if uuid not in self.trace.devices:
            _raise({"error": "NotFound"})
        return _Handle(uuid)

    def _of_device(self, name: str, handle: _Handle, rest: Sequence[Any]) -> Any:
        assert self._began_s is not None
        device = self.trace.devices[handle.uuid]
        table = device.at(self._clock() - self._began_s)
        if "*" in table:
            _raise(table["*"])
        if name == "nvmlDeviceGetDeviceHandleFromMigDeviceHandle" and device.parent:
            return _Handle(device.parent)
        if name == "nvmlDeviceGetFieldValues":
            return _field_values(table, rest[0])
        return _answer(name, table, rest)


def _answer(name: str, table: Mapping[str, Answer], arguments: Sequence[Any]) -> Any:
    exact = f"{name}({', '.join(map(str, arguments))})"
    found = table.get(exact, table.get(name, {"error": "NotSupported"}))
    if isinstance(found, dict) and "error" in found:
        _raise(found)
    if isinstance(found, dict):
        return _structure(_STRUCTURES[name], found)
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return [_listed(one) for one in found]
    return found


def _raise(error: Mapping[str, str]) -> None:
    raise getattr(pynvml, f"NVMLError_{error['error']}")


def _structure(kind: Any, fields: Mapping[str, Any]) -> Any:
    _check(kind, fields)
    made = kind()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _listed(fields: Mapping[str, Any]) -> Any:
    """A process as pynvml lists it."""
    _check(_LISTED, fields)
    return pynvml.nvmlFriendlyObject({"usedGpuMemory": None, **fields})


def _check(kind: Any, fields: Mapping[str, Any]) -> None:
    """ctypes takes any attribute; a field that the structure lacks is a mistake in the trace."""
    unknown = fields.keys() - {field[0] for field in kind._fields_}
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")


def _field_values(table: Mapping[str, Answer], ids: Sequence[Any]) -> Any:
    names: dict[int, list[str]] = {}  # a field may go by several
    for name, value in vars(pynvml).items():
        if name.startswith("NVML_FI_DEV_"):
            names.setdefault(value, []).append(name)
    values = (pynvml.c_nvmlFieldValue_t * len(ids))()
    for made, asked in zip(values, ids, strict=True):
        number, scope = asked if isinstance(asked, tuple) else (asked, 0)
        made.fieldId, made.scopeId = number, scope
        keys = [f"field({name}, {scope})" for name in names.get(number, ())]
        found = next((table[key] for key in keys if key in table), {"error": "NotSupported"})
        _fill(made, found)
    return values


def _fill(made: Any, found: Answer) -> None:
    if isinstance(found, dict):
        error = getattr(pynvml, f"NVMLError_{found['error']}")()
        made.nvmlReturn = error.value
    elif isinstance(found, float):
        made.valueType, made.value.dVal = pynvml.NVML_VALUE_TYPE_DOUBLE, found
    else:
        made.valueType, made.value.ullVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, found


def __getattr__(name: str) -> Any:
    """``library``: a `FakeNvml` of the trace that the environment names (see `variables`)."""
    if name != "library":
        raise AttributeError(name)
    if name not in _made:
        _made[name] = FakeNvml(load_trace(os.environ[TRACE_VARIABLE]))
    return _made[name]


_made: dict[str, FakeNvml] = {}
