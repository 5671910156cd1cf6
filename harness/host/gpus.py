"""Which device ``cuda:1`` is: the second one as CUDA itself counts, found without a framework.

    cuda_device("cuda:1") ──> [child: libcuda.so.1, cuInit, no context] ──> index 1 = GPU-5f0c…
                                                                              │ the UUID
                      NVML, which counts by itself, finds the same one by ────┘

CUDA alone knows how CUDA counts: CUDA_VISIBLE_DEVICES takes indices, UUIDs, their beginnings and
MIG slices, ends at the first entry that makes no sense, and CUDA_DEVICE_ORDER turns it all round.
So the driver is asked, and nothing is parsed here. Where the variable is not set, devices are
counted in PCI order, as nvidia-smi does (`device_order`, which the worker is given too).

The driver is asked in a child process, always. A driver whose GPU has fallen off the bus may hang
or crash whoever calls it, and a process that has called ``cuInit`` must never fork: neither is a
risk to take in the process that conducts a run, nor in the one that will be timed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from harness.errors import UsageError
from harness.host import gpus_query as devices_query
from harness.host.child import unanswered
from harness.host.procfs import read_text
from harness.maybe import Unavailable, coded

ANSWER_S = 60.0  # eight GPUs without persistence mode take ten seconds to come up
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_CPU = "or use --device cpu"
_INSTALL = "install NVIDIA's driver (in a container: start it with --gpus all)"
_RESET = "see the kernel log for Xid errors (dmesg | grep -i xid), then reset the GPU or reboot"
# The first driver branch that runs programs of a CUDA major version.
_BRANCHES = {11: 450, 12: 525, 13: 580}
ComputeMode = Literal["default", "exclusive_thread", "prohibited", "exclusive_process"]
_MODES = get_args(ComputeMode)  # by CUcomputemode


class CudaDevice(msgspec.Struct, frozen=True):
    """One device as CUDA counts them. UUIDs are spelled as NVML and nvidia-smi spell them."""

    index: int  # the N of cuda:N
    name: str
    uuid: str  # GPU-..., or MIG-... of a slice
    whole_uuid: str  # of the GPU that a slice is part of; the same as ``uuid`` elsewhere
    mig: bool
    compute_capability: str  # "9.0"
    pci_bus_id: str  # "0000:65:00.0"
    memory_bytes: int
    multiprocessors: int
    compute_mode: ComputeMode
    integrated: bool  # shares the host's memory
    driver_cuda: str  # the newest CUDA that this driver runs: "13.0"


class _Raw(msgspec.Struct):
    name: str
    uuid: str
    whole_uuid: str
    major: int
    minor: int
    pci_bus_id: str
    memory_bytes: int
    multiprocessors: int
    compute_mode: int
    integrated: int


class _Answer(msgspec.Struct):
    """What the child prints."""

    driver: int = 0
    devices: list[_Raw] = []
    failed: str = ""
    code: int = 0
    error: str = ""


def device_order() -> str:
    """How CUDA is to count: as the user's CUDA_DEVICE_ORDER says, else in PCI order."""
    return os.environ.get(ORDER) or "PCI_BUS_ID"


def cuda_device(device: str, cuda: tuple[int, int] = (0, 0)) -> CudaDevice | Unavailable:
    """The device that ``cuda`` or ``cuda:N`` names here, or why there is none, and the remedy.

    ``cuda``: the version that the caller's runtime was built for; a driver of an older major
    version cannot run it. Raises `UsageError` for text that names no CUDA device.
    """
    index = _index(device)
    found = cuda_devices()
    if isinstance(found, Unavailable):
        return found
    if index >= len(found):
        return _beyond(device, found)
    chosen = found[index]
    return _too_old(chosen, cuda) or _prohibited(chosen) or chosen


def cuda_devices(root: str = "/") -> tuple[CudaDevice, ...] | Unavailable:
    """Every device that CUDA shows to this process, at least one, in CUDA's order.

    Asked once per process and setting; the answer is left in the environment for the processes
    started from here, for eight GPUs that sleep take ten seconds to answer. ``root`` is where /sys
    and /dev are looked for.
    """
    setting = _setting()
    found = _known.get(setting) or _inherited(setting)
    if found is None:
        answer = _ask(dict(os.environ))
        if isinstance(answer, Unavailable):
            return answer
        if answer.failed or not answer.devices:
            return _failure(answer, root)
        found = _devices(answer)
    _known[setting] = found
    os.environ[_MEMO] = msgspec.json.encode(_Memo(setting, found)).decode()
    return found


_MEMO = "HARNESS_CUDA_DEVICES"
_known: dict[str, tuple[CudaDevice, ...]] = {}


class _Memo(msgspec.Struct):
    setting: str
    devices: tuple[CudaDevice, ...]


def _setting() -> str:
    """All that decides what CUDA shows, as text."""
    chosen = {k: v for k, v in os.environ.items() if k.startswith(("CUDA", "LD_"))}
    return msgspec.json.encode({**chosen, ORDER: device_order()}, order="sorted").decode()


def _inherited(setting: str) -> tuple[CudaDevice, ...] | None:
    """What the process that started this one was told, if it asked under the same setting."""
    try:
        memo = msgspec.json.decode(os.environ.get(_MEMO, ""), type=_Memo)
    except msgspec.DecodeError:
        return None
    return memo.devices if memo.setting == setting and memo.devices else None


def _index(device: str) -> int:
    match = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", device)
    if match is None:
        raise UsageError(f"device is {device!r}", "give cuda or cuda:N")
    return int(match[1] or 0)


# -- asking ---------------------------------------------------------------------------------------


def _ask(environment: dict[str, str]) -> _Answer | Unavailable:
    """What the driver says to a process of this environment."""
    command = [sys.executable, "-I", "-S", devices_query.__file__]
    child = subprocess.Popen(
        command,
        env={**environment, ORDER: device_order()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = child.communicate(timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        return _hung(child)
    try:
        return msgspec.json.decode(out.strip().rpartition(b"\n")[2], type=_Answer)
    except msgspec.DecodeError:
        how = unanswered(child.returncode, err)
        return coded("error", f"asking the NVIDIA driver ended with {how}", _RESET)


def _hung(child: subprocess.Popen[bytes]) -> Unavailable:
    """Kill it, and wait no longer than a moment: inside a dead driver it cannot be killed."""
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=1.0)
    return coded("error", f"the NVIDIA driver did not answer within {ANSWER_S:g} s", _RESET)


def _devices(answer: _Answer) -> tuple[CudaDevice, ...]:
    version = f"{answer.driver // 1000}.{answer.driver % 1000 // 10}"
    return tuple(_device(i, raw, version) for i, raw in enumerate(answer.devices))


def _device(index: int, raw: _Raw, version: str) -> CudaDevice:
    mig = raw.uuid != raw.whole_uuid or " MIG " in raw.name
    return CudaDevice(
        index=index,
        name=raw.name,
        uuid=f"{'MIG' if mig else 'GPU'}-{raw.uuid}",
        whole_uuid=f"GPU-{raw.whole_uuid}",
        mig=mig,
        compute_capability=f"{raw.major}.{raw.minor}",
        pci_bus_id=raw.pci_bus_id.lower(),
        memory_bytes=raw.memory_bytes,
        multiprocessors=raw.multiprocessors,
        compute_mode=_MODES[raw.compute_mode] if raw.compute_mode < len(_MODES) else "default",
        integrated=bool(raw.integrated),
        driver_cuda=version,
    )


# -- refusing -------------------------------------------------------------------------------------


def _hidden() -> tuple[CudaDevice, ...]:
    """What CUDA_VISIBLE_DEVICES hides together with what it shows; empty where it is not set."""
    if VISIBLE not in os.environ:
        return ()
    answer = _ask({k: v for k, v in os.environ.items() if k != VISIBLE})
    return () if isinstance(answer, Unavailable) or answer.failed else _devices(answer)


def _names(devices: tuple[CudaDevice, ...]) -> str:
    return ", ".join(f"{index} {device.name}" for index, device in enumerate(devices))


def _count(devices: tuple[CudaDevice, ...]) -> str:
    return f"{len(devices)} CUDA device" + ("s" if len(devices) > 1 else "")


def _beyond(device: str, found: tuple[CudaDevice, ...]) -> Unavailable:
    give = f"give cuda:0 to cuda:{len(found) - 1}" if len(found) > 1 else "give cuda:0"
    hidden = _hidden()
    if len(hidden) > len(found):
        setting = f"{VISIBLE}={os.environ[VISIBLE]!r} shows {len(found)} of {len(hidden)}"
        reason = f"there is no {device}: {setting} devices ({_names(found)})"
        return coded("not_present", reason, f"{give}, or change {VISIBLE}")
    reason = f"there is no {device}: this machine has {_count(found)} ({_names(found)})"
    return coded("not_present", reason, give)


def _too_old(device: CudaDevice, needed: tuple[int, int]) -> Unavailable | None:
    """Within a major version older drivers run newer programs; across majors they do not."""
    if int(device.driver_cuda.partition(".")[0]) >= needed[0]:
        return None
    branch = _BRANCHES.get(needed[0])
    newer = f"install driver {branch} or newer" if branch else "install a newer driver"
    reason = f"the NVIDIA driver runs CUDA {device.driver_cuda} at most, CUDA {needed[0]} is needed"
    return coded("not_supported", reason, newer)


def _prohibited(device: CudaDevice) -> Unavailable | None:
    if device.compute_mode != "prohibited":
        return None
    reason = f"{device.name} is in compute mode prohibited: no program may use it"
    return coded("permission_denied", reason, f"sudo nvidia-smi -i {device.pci_bus_id} -c 0")


def _failure(answer: _Answer, root: str) -> Unavailable:
    if answer.failed == "load":
        return _no_library(answer.error, root)
    if answer.code == devices_query.NO_SYMBOL:
        reason = f"the NVIDIA driver is too old: its library has no {answer.failed}"
        return coded("not_supported", reason, "install driver 525 or newer")
    if answer.code in (0, _NO_DEVICE) or (answer.code == _BAD_DEVICE and VISIBLE in os.environ):
        return _no_device(root)
    known = _ERRORS.get(answer.code)
    error = f"{answer.error or 'error'} ({answer.code})"
    if known is None:
        return coded("error", f"{answer.failed} of the NVIDIA driver gave {error}", _RESET)
    reason, remedy = known
    return coded("error", f"{reason}: {answer.failed} gave {error}", remedy)


_NO_DEVICE = 100
_BAD_DEVICE = 101  # of a list of visible devices: a slice that is no more, for one
# CUresult -> what it means where cuInit gives it, and what to do
_ERRORS: Mapping[int, tuple[str, str]] = {
    2: ("the host has no memory left for the NVIDIA driver", "free memory"),
    3: ("the NVIDIA driver could not start", "load its kernel modules: sudo nvidia-modprobe -u"),
    34: ("a stub stands in for the driver's library", "take .../stubs out of LD_LIBRARY_PATH"),
    35: ("the NVIDIA driver is too old for its library", "install a newer driver"),
    46: ("the device is in exclusive use", "end the program that holds it: nvidia-smi"),
    101: ("a device is in no state to be used", "nvidia-smi shows its MIG mode and state"),
    102: ("this virtual GPU has no licence", "see the licence service of the vGPU driver"),
    214: ("the GPU's memory has an uncorrectable error", _RESET),
    304: ("the operating system refused the NVIDIA driver", "look at the rights of /dev/nvidia*"),
    802: (
        "the GPUs' fabric is not ready yet",
        "start it: sudo systemctl start nvidia-fabricmanager",
    ),
    803: ("the driver's library and its kernel module differ in version", "reboot"),
    804: ("the CUDA compatibility package does not support this GPU", "install a newer driver"),
    805: ("the MPS server cannot be reached", "start it, or unset CUDA_MPS_PIPE_DIRECTORY"),
    806: ("the MPS server failed", "restart it: echo quit | nvidia-cuda-mps-control"),
    807: ("the MPS server is not ready", "wait a moment, or restart it"),
    808: ("the MPS server has no client to spare", "end one of its other clients"),
    809: ("the MPS server has no connection to spare", "end one of its other clients"),
    999: (
        "the NVIDIA driver could not start",
        "load its kernel modules (sudo nvidia-modprobe -u), see dmesg, or reboot",
    ),
}


def _no_device(root: str) -> Unavailable:
    hidden = _hidden()
    if hidden:
        setting = f"{VISIBLE}={os.environ[VISIBLE]!r}"
        reason = f"{setting} hides the machine's {_count(hidden)} ({_names(hidden)})"
        return coded("not_present", reason, f"unset {VISIBLE}, {_CPU}")
    cards = _cards(root)
    if cards:
        reason = f"the NVIDIA driver is there, but shows no GPU, although {cards} is one"
        return coded("permission_denied", reason, "start the container with --gpus all")
    reason = "the NVIDIA driver is there, but no GPU"
    return coded("not_present", reason, f"start the container with --gpus all, {_CPU}")


def _no_library(error: str, root: str) -> Unavailable:
    library = devices_query.LIBRARY
    if "cannot open shared object file" not in error and error:
        return coded("error", f"{library} cannot be loaded: {error}", _INSTALL)
    cards = _cards(root)
    if (Path(root) / "dev/nvidiactl").exists():
        reason = f"the NVIDIA driver is loaded, but its library {library} is not found"
        remedy = "add its folder to LD_LIBRARY_PATH, or start the container with --gpus all"
        return coded("not_present", reason, remedy)
    if cards:
        return coded("not_present", f"{cards} is an NVIDIA GPU, but has no driver", _INSTALL)
    reason = f"no NVIDIA GPU and no NVIDIA driver ({library}) is here"
    return coded("not_present", reason, f"run on a machine with an NVIDIA GPU, {_CPU}")


def _cards(root: str) -> str:
    """The PCI addresses of NVIDIA's graphics and compute cards, which need no driver to be seen."""
    found = []
    for path in sorted((Path(root) / "sys/bus/pci/devices").glob("*")):
        vendor, kind = (read_text(str(path), name) or "" for name in ("vendor", "class"))
        if vendor == "0x10de" and kind.startswith(("0x0300", "0x0302")):
            found.append(path.name)
    return "PCI device " + ", ".join(found) if found else ""
