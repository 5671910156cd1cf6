"""Ask backends and profilers what they can do here, without letting one take the command down.

Asking a backend imports its framework, and a broken driver or wheel may end the process that does.
So each is asked in a process of its own (``python -P -m harness.inspect.probe NAME``), all at once.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import get_args

import msgspec

from harness import maybe, registry
from harness.errors import HarnessError
from harness.host.child import unanswered
from harness.host.gpus import CudaDevice, cuda_devices
from harness.maybe import Maybe, Unavailable
from harness.protocols import (
    Available,
    Backend,
    Channel,
    Option,
    Precision,
    ProfilerContext,
    SessionOptions,
)

DEVICES = ("cpu", "cuda:0")
_PATIENCE_S = 60.0
_REPAIR = "repair or uninstall the plug-in"


class BackendStatus(msgspec.Struct, frozen=True):
    """``devices``: device -> whether the backend can use it here."""

    name: str
    devices: dict[str, Maybe[Available]]
    options: tuple[Option, ...] = ()
    default_device: str = "cpu"


class GpuStatus(msgspec.Struct, frozen=True):
    """A device as CUDA counts it here. ``channels``: what NVML tells of it, or why not."""

    device: CudaDevice
    channels: tuple[Channel, ...]


class ProfilerStatus(msgspec.Struct, frozen=True):
    """``channels`` are what `read` returns, or would, those that cannot be read included."""

    name: str
    status: Maybe[Available]
    channels: tuple[Channel, ...]


def backends() -> list[BackendStatus]:
    """Every registered backend on every kind of device."""
    # -P: a file in the user's folder must not shadow a module
    command = [sys.executable, "-P", "-m", "harness.inspect.probe"]
    names = registry.backend_names()
    children = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in names
    ]
    return [_answer(name, child) for name, child in zip(names, children, strict=True)]


def _answer(name: str, child: subprocess.Popen[bytes]) -> BackendStatus:
    with child:
        try:
            out, err = child.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return _none(name, Unavailable(f"it did not answer within {_PATIENCE_S:g} s"))
    if child.returncode == 0:
        try:
            return maybe.decode(out, BackendStatus)
        except msgspec.DecodeError as error:
            return _none(name, Unavailable(f"its answer makes no sense: {error}", _REPAIR))
    how = unanswered(child.returncode, err)
    return _none(name, Unavailable(f"asking it ended the process with {how}", _REPAIR))


def _none(name: str, reason: Unavailable) -> BackendStatus:
    return BackendStatus(name, dict.fromkeys(DEVICES, reason))


def ask(name: str) -> BackendStatus:
    """The backend's own answers, in this process. Raises whatever a stranger's code raises."""
    found = registry.find_backend(name)
    if isinstance(found, registry.Broken):
        return _none(name, found.cause)
    said = registry.declared(name)
    able = {device: _able(found, device) for device in DEVICES}
    return BackendStatus(name, able, said.options, said.default_device)


def _able(backend: Backend, device: str) -> Maybe[Available]:
    """Its availability, with the precisions that it would run."""
    status = backend.availability(device)
    if not isinstance(status, Available):
        return status
    runs = [name for name in get_args(Precision) if _accepts(backend, name, device)]
    return Available({"runs": " ".join(runs), **status.details})


def _accepts(backend: Backend, precision: str, device: str) -> bool:
    try:
        backend.wants(precision, SessionOptions(device=device))
    except Exception:  # a refusal, or whatever a stranger's code raises
        return False
    return True


def profilers(pid: int, power_source: str = "auto") -> list[ProfilerStatus]:
    """Every registered profiler, opened on process ``pid`` and closed again."""
    context = ProfilerContext(pid=pid, power_source=power_source)
    return [_profiler(name, context) for name in registry.profiler_names()]


def _profiler(name: str, context: ProfilerContext) -> ProfilerStatus:
    profiler = registry.find_profiler(name, context)
    if isinstance(profiler, registry.Broken):
        return ProfilerStatus(name, profiler.cause, ())
    try:
        status = profiler.open()
        return ProfilerStatus(name, status, tuple(profiler.channels))
    except HarnessError as error:
        return ProfilerStatus(name, Unavailable(error.message, error.remedy), ())
    except Exception as error:  # a stranger's plug-in may raise anything; the others still count
        text = f"opening it raised {type(error).__name__}: {error}"
        return ProfilerStatus(name, Unavailable(text, _REPAIR), ())
    finally:
        with contextlib.suppress(Exception):
            profiler.close()


def gpus() -> Maybe[list[GpuStatus]]:
    """Every CUDA device here with its sensors; the reason where there is none."""
    found = cuda_devices()
    if isinstance(found, Unavailable):
        return found
    from harness.profiles.nvml.sensors import sensors

    contexts = [ProfilerContext(os.getpid(), f"cuda:{device.index}") for device in found]
    return [
        GpuStatus(device, tuple(sensors(context)))
        for device, context in zip(found, contexts, strict=True)
    ]


if __name__ == "__main__":
    answer_fd = os.dup(1)
    os.dup2(2, 1)  # frameworks greet on stdout
    answer = msgspec.json.encode(
        ask(sys.argv[1]), enc_hook=str
    )  # a version may be a str of its own
    with os.fdopen(answer_fd, "wb") as answer_file:
        answer_file.write(answer)
