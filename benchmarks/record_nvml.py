"""Record what NVML answers about one GPU, in the form that `harness.testing.nvml` replays.

    python benchmarks/record_nvml.py -o load.json --seconds 30 --note "resnet50, batch 32"

Every profiler of Harness is opened on the device and read 100 times a second, which is faster than
any sensor is renewed, so the trace shows when each figure changed. Put the GPU under load yourself,
in another process, or leave it idle. UUID and serial number are replaced: the trace tells what kind
of GPU it was and not which one. Look at it before you share it: it lists process numbers.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pynvml

from harness.host.gpus import CudaDevice, cuda_device
from harness.maybe import Unavailable, explain
from harness.profiles.clocks import ClocksProfiler
from harness.profiles.memory import MemoryProfiler
from harness.profiles.nvml import device as nvml
from harness.profiles.nvml.errors import NvmlFailure
from harness.profiles.nvml.facts import device_facts
from harness.profiles.nvml.power import NvmlPowerSource
from harness.profiles.utilization import UtilizationProfiler
from harness.protocols import Available, Profiler, ProfilerContext
from harness.testing.cuda import fake_uuid
from harness.testing.nvml import DeviceTrace, NvmlTrace, TraceFrame

RATE_HZ = 100.0
_SERIAL = "nvmlDeviceGetSerial"
_FIELDS = {value: name for name, value in vars(pynvml).items() if name.startswith("NVML_FI_DEV_")}


class RecordingNvml:
    """pynvml, with everything that it answers written down by device: see `table`."""

    def __init__(self, device: CudaDevice, library: Any) -> None:
        self.table: dict[str, dict[str, Any]] = {"": {}}  # UUID ("" for none) -> call -> answer
        self._device = device
        self._library = library
        self._uuids: dict[int, tuple[Any, str]] = {}  # id of a handle -> the handle, its UUID

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._library, name)
        if not name.startswith("nvml") or not callable(real):
            return real
        return lambda *arguments: self._call(name, real, arguments)

    def _call(self, name: str, real: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        uuid, rest = self._whose(arguments)
        key = f"{name}({', '.join(map(str, rest))})" if rest else name
        try:
            answer = real(*arguments)
        except pynvml.NVMLError as error:
            self._write(uuid, key, {"error": type(error).__name__.removeprefix("NVMLError_")})
            raise
        if name == "nvmlDeviceGetHandleByUUID":
            self._keep(answer, arguments[0])
        elif name == "nvmlDeviceGetDeviceHandleFromMigDeviceHandle":
            self._keep(answer, self._device.whole_uuid)
        elif name == "nvmlDeviceGetFieldValues":
            for value in answer:
                self._write(uuid, *_field(value))
        elif answer is not None:
            self._write(uuid, key, _plain(answer))
        return answer

    def _whose(self, arguments: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        if arguments and id(arguments[0]) in self._uuids:
            return self._uuids[id(arguments[0])][1], arguments[1:]
        return "", arguments

    def _keep(self, handle: Any, uuid: str) -> None:
        self._uuids[id(handle)] = (handle, uuid)
        self.table.setdefault(uuid, {})

    def _write(self, uuid: str, key: str, answer: Any) -> None:
        self.table.setdefault(uuid, {})[key] = "0" if key == _SERIAL else answer


def _field(value: Any) -> tuple[str, Any]:
    key = f"field({_FIELDS[value.fieldId]}, {value.scopeId})"
    if value.nvmlReturn:
        error = type(pynvml.NVMLError(value.nvmlReturn)).__name__
        return key, {"error": error.removeprefix("NVMLError_")}
    members = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    return key, getattr(value.value, members[value.valueType])


def _plain(answer: Any) -> Any:
    """An answer as JSON has it: structures and listed processes by their fields."""
    if isinstance(answer, ctypes.Structure):
        names = [field[0] for field in answer._fields_]
        return {name: getattr(answer, name) for name in names if name != "version"}
    if isinstance(answer, list):
        return [_plain(one) for one in answer]
    if isinstance(answer, pynvml.nvmlFriendlyObject):
        return {"pid": answer.pid, "usedGpuMemory": answer.usedGpuMemory}
    return answer


def record(
    device: CudaDevice,
    library: Any,
    seconds: float,
    provenance: dict[str, str],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> NvmlTrace:
    """Watch ``device`` for so long. Raises `NvmlFailure` where NVML does not know it."""
    recording = RecordingNvml(device, library)
    context = ProfilerContext(os.getpid(), f"cuda:{device.index}")
    with (
        patch.object(nvml, "load_library", lambda: recording),
        patch.object(nvml, "cuda_device", lambda name: device),
        patch("harness.profiles.nvml.facts.cuda_device", lambda name: device),
    ):
        device_facts(context.device)
        profilers: list[Profiler] = [
            kind(context)
            for kind in (NvmlPowerSource, ClocksProfiler, UtilizationProfiler, MemoryProfiler)
        ]
        opened = [p for p in profilers if isinstance(p.open(), Available)]
        first = _copy(recording.table)
        frames = _watch(recording, opened, seconds, clock, sleep)
        for profiler in profilers:
            profiler.close()
    return _trace(device, first, frames, provenance)


Table = dict[str, dict[str, Any]]


def _copy(table: Table) -> Table:
    return {uuid: dict(answers) for uuid, answers in table.items()}


def _watch(
    recording: RecordingNvml,
    profilers: Sequence[Profiler],
    seconds: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> dict[str, list[TraceFrame]]:
    """UUID -> what changed, and when."""
    began_s, before = clock(), _copy(recording.table)
    frames: dict[str, list[TraceFrame]] = {}
    while (t_s := clock() - began_s) < seconds:
        for profiler in profilers:
            profiler.read()
        for uuid, answers in recording.table.items():
            old = before.get(uuid, {})
            fresh = {key: value for key, value in answers.items() if old.get(key) != value}
            if fresh:
                frames.setdefault(uuid, []).append(TraceFrame(round(t_s, 4), fresh))
        before = _copy(recording.table)
        sleep(1 / RATE_HZ)
    return frames


def _trace(
    device: CudaDevice,
    first: Table,
    frames: dict[str, list[TraceFrame]],
    provenance: dict[str, str],
) -> NvmlTrace:
    """With UUIDs that are nobody's."""
    whole = fake_uuid(0)
    names = {device.whole_uuid: whole, device.uuid: whole}
    if device.mig:
        names[device.uuid] = "MIG" + fake_uuid(1).removeprefix("GPU")
    devices = {
        names[uuid]: DeviceTrace(
            answers={**first[uuid], "nvmlDeviceGetName": device.name},
            frames=tuple(frames.get(uuid, ())),
            parent=whole if device.mig and uuid == device.uuid else "",
        )
        for uuid in sorted(filter(None, first), key=lambda uuid: uuid != device.uuid)
    }
    return NvmlTrace(provenance=provenance, system=first[""], devices=devices)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="the trace to write")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--note", default="", help="what the GPU did meanwhile")
    args = parser.parse_args()
    device = cuda_device(args.device)
    if isinstance(device, Unavailable):
        print(explain(device), file=sys.stderr)
        return 3
    provenance = {
        "kind": "recorded",
        "note": args.note or "no note was given",
        "device": device.name,
        "driver_cuda": device.driver_cuda,
        "nvidia_ml_py": str(getattr(pynvml, "__version__", "unknown")),
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rate_hz": f"{RATE_HZ:g}",
    }
    try:
        trace = record(device, nvml.load_library(), args.seconds, provenance)
    except NvmlFailure as failure:
        print(explain(failure.reason), file=sys.stderr)
        return 3
    args.out.write_bytes(msgspec.json.format(msgspec.json.encode(trace), indent=1) + b"\n")
    count = sum(len(found.frames) for found in trace.devices.values())
    print(f"{args.out}: {len(trace.devices)} device(s), {count} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
