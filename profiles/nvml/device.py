"""NVML: the device under test as NVIDIA's driver shows it, and the one place that meets its errors.

    cuda:1 ──harness.host.gpus──> UUID ──nvmlDeviceGetHandleByUUID──> `Gpu`
                                                                     ├ memory, processes  of a slice
                                                                     └ everything else    of its GPU

NVML counts devices in its own order, sees those that CUDA_VISIBLE_DEVICES hides, and has a handle
of its own for a MIG slice, whose power, clocks and temperature are known for the whole GPU alone.

What a device can tell is found by asking it: every channel is read once when it is opened, and an
answer that is no figure becomes the channel's reason. Later on a failed reading is a gap; after
five in a row the channel says why, until it answers again. A GPU that is gone is not asked again,
and all its channels say so. The run goes on.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from harness.errors import UsageError
from harness.host.gpus import CudaDevice, cuda_device
from harness.maybe import Maybe, Unavailable, coded
from harness.profiles.files import Values, absent
from harness.profiles.nvml.errors import MEANINGS, NEWER, STRANGE, NvmlFailure
from harness.protocols import Channel, ProfilerContext

# Names another module, or MODULE:ATTRIBUTE, with the functions of pynvml (see `testing.nvml`).
LIBRARY_VARIABLE = "HARNESS_NVML_LIBRARY"
SOURCE = "nvml"
STRIKES = 5
_LINUX_PID_NAMESPACE = "pid:[4026531836]"  # the first one, by the kernel's constant


def load_library() -> Any:
    """The pynvml module, or what stands in for it. Raises `NvmlFailure`."""
    name = os.environ.get(LIBRARY_VARIABLE) or "pynvml"
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except (ImportError, AttributeError) as error:
        why = coded("not_present", f"{name} cannot be loaded: {error}", "pip install nvidia-ml-py")
        raise NvmlFailure(why) from error


def _lacking(name: str) -> Unavailable:
    reason = f"this nvidia-ml-py has no {name}"
    return coded("not_supported", reason, "pip install -U nvidia-ml-py")


class Gpu:
    """One device of an initialized NVML. Use as a context manager, or `close` it.

    ``handle`` is the device under test, ``whole`` the GPU; they differ for a MIG slice.
    """

    def __init__(self, device: CudaDevice, library: Any = None) -> None:
        """Raises `NvmlFailure` where NVML or the device cannot be reached."""
        self.device = device
        self.library = load_library() if library is None else library
        self.gone: Unavailable | None = None
        self._no_whole: NvmlFailure | None = None
        self._virtual: bool | None = None
        self._call("the driver", self.library.nvmlInit)
        self._open = True
        try:
            find = self.library.nvmlDeviceGetHandleByUUID
            self.handle = self._call(device.uuid, find, device.uuid)
        except NvmlFailure:
            self.close()
            raise
        self.whole = self.handle
        if device.mig:
            self._find_whole()

    def _find_whole(self) -> None:
        """A container that was given a slice may not be allowed to see the GPU around it."""
        parent = self.library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle
        try:
            self.whole = self._call(f"the GPU of {self.device.uuid}", parent, self.handle)
        except NvmlFailure as failure:
            self.whole, self._no_whole = None, failure

    def constant(self, name: str) -> int:
        """A constant of pynvml. Raises `NvmlFailure` where an older one has no such name."""
        found = getattr(self.library, name, None)
        if found is None:
            raise NvmlFailure(_lacking(name))
        return int(found)

    def ask(self, what: str, function: str, *arguments: object, part: bool = False) -> Any:
        """What ``function`` of pynvml says of the GPU, or, with ``part``, of the device under test.

        ``what`` names the quantity for the reason. Raises `NvmlFailure`.
        """
        if self.gone is not None:
            raise NvmlFailure(self.gone, gone=True)
        found = getattr(self.library, function, None)
        if found is None:  # an older nvidia-ml-py
            raise NvmlFailure(_lacking(function))
        if self._no_whole is not None and not part:
            raise self._no_whole
        return self._call(what, found, self.handle if part else self.whole, *arguments)

    def system(self, function: str) -> str:
        """What ``function`` of pynvml says of the whole system. Raises `NvmlFailure`."""
        return str(self._call("the system", getattr(self.library, function)))

    def try_ask(self, what: str, function: str, *arguments: object, part: bool = False) -> Any:
        """Like `ask`, but the reason is returned and not raised."""
        try:
            return self.ask(what, function, *arguments, part=part)
        except NvmlFailure as failure:
            return failure.reason

    def fields(self, what: str, ids: Sequence[tuple[str, int]]) -> list[Maybe[float]]:
        """Field values by (constant's name, scope) in one call, each a figure or its own reason.

        Raises `NvmlFailure` where the call as a whole fails.
        """
        known = [index for index, (name, _) in enumerate(ids) if hasattr(self.library, name)]
        answers: list[Maybe[float]] = [_lacking(name) for name, _ in ids]
        if known:
            pairs = [(self.constant(ids[index][0]), ids[index][1]) for index in known]
            values = self.ask(what, "nvmlDeviceGetFieldValues", pairs)
            for index, value in zip(known, values, strict=True):
                answers[index] = self._field(what, value)
        return answers

    def _field(self, what: str, value: Any) -> Maybe[float]:
        if value.nvmlReturn != 0:
            failure = self._failure(what, self.library.NVMLError(value.nvmlReturn))
            return failure.reason
        kind = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")[value.valueType]
        return float(getattr(value.value, kind))

    def _call(self, what: str, function: Callable[..., Any], *arguments: object) -> Any:
        """The boundary: whatever pynvml raises becomes `NvmlFailure` here and nowhere else."""
        try:
            return function(*arguments)
        except self.library.NVMLError as error:
            raise self._failure(what, error) from error
        except self.library.NVMLLibraryMismatchError as error:
            raise NvmlFailure(coded("not_supported", f"{what}: {error}", NEWER)) from error

    def _failure(self, what: str, error: Exception) -> NvmlFailure:
        kind = type(error).__name__.removeprefix("NVMLError_")
        meaning = MEANINGS.get(kind, STRANGE)
        reason = meaning.reason.format(what=what)
        if meaning.code == "error":
            reason += f" (NVML: {error})"
        found = coded(meaning.code, reason, meaning.remedy)
        if kind == "NotSupported":
            found = self._hidden(what) or found
        if meaning.gone:
            self.gone = found
        return NvmlFailure(found, meaning.gone)

    def _hidden(self, what: str) -> Unavailable | None:
        """A better reason than *not supported*: the device is a part of a GPU."""
        if self.device.mig:
            reason = f"NVML does not report {what} while the GPU is cut into MIG slices"
            return coded("not_supported", reason, "measure on a GPU without MIG")
        if self.virtual:
            reason = f"a virtual GPU (vGPU) is not shown {what}"
            return coded("virtualized", reason, "measure on the bare machine, or pass the GPU on")
        return None

    @property
    def virtual(self) -> bool:
        """Whether this is a share of a GPU in a virtual machine. A GPU passed on whole is not."""
        if self._virtual is None:
            self._virtual = self._ask_virtual()
        return self._virtual

    def _ask_virtual(self) -> bool:
        try:
            mode = self.library.nvmlDeviceGetVirtualizationMode(self.handle)
        except (self.library.NVMLError, AttributeError):  # too old to tell
            return False
        return bool(mode == self.constant("NVML_GPU_VIRTUALIZATION_MODE_VGPU"))

    def close(self) -> None:
        """Idempotent."""
        if self._open:
            self._open = False
            try:
                self.library.nvmlShutdown()
            except self.library.NVMLError:
                return  # of a GPU that is gone; there is nothing left to release

    def __enter__(self) -> Gpu:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_gpu(context: ProfilerContext) -> Gpu | Unavailable:
    """The device that ``context`` names; the reason where it has no GPU or NVML cannot see it."""
    if not context.device.startswith("cuda"):
        reason = f"the run is on {context.device}: a GPU is watched where it is the device"
        return coded("not_present", reason, "give --device cuda")
    if context.root != "/":
        return coded("not_supported", "NVML cannot be redirected to a folder", "leave root out")
    try:
        device = cuda_device(context.device)
    except UsageError as error:
        return coded("not_present", error.message, error.remedy)
    if isinstance(device, Unavailable):
        return device
    try:
        return Gpu(device)
    except NvmlFailure as failure:
        return failure.reason


def in_first_pid_namespace() -> bool:
    """Whether process numbers here are those that the driver goes by: the host's."""
    try:
        return os.readlink("/proc/self/ns/pid") == _LINUX_PID_NAMESPACE  # noqa: PTH115
    except OSError:
        return False


class Reading(NamedTuple):
    """Channels that one ``call`` reads: per channel a figure, or the reason for none.

    ``late``: what is absent at first may come later. ``every_s``: what is slow to read is read no
    more often; in between there is no value.
    """

    channels: Sequence[Channel]
    call: Callable[[Gpu], Sequence[Maybe[float]]]
    late: bool = False
    every_s: float = 0.0


class NvmlGroup:
    """One `Reading` of an open device, as a `Group` of `harness.profiles.files`."""

    def __init__(
        self, gpu: Gpu, reading: Reading, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gpu = gpu
        self._reading = reading
        self._clock = clock
        self._due_s = float("-inf")
        count = len(reading.channels)
        self._absent: list[Unavailable | None] = [None] * count  # for good
        self._failing: list[Unavailable | None] = [None] * count  # so far
        self._strikes = [0] * count

    @property
    def channels(self) -> Sequence[Channel]:
        reasons = zip(self._reading.channels, self._absent, self._failing, strict=True)
        return tuple(
            msgspec.structs.replace(channel, unavailable=absent or failing)
            for channel, absent, failing in reasons
        )

    def open(self) -> None:
        """Ask once: what gives no figure now has none, or none yet."""
        for index, answer in enumerate(self._answers()):
            if isinstance(answer, Unavailable):
                (self._failing if self._reading.late else self._absent)[index] = answer

    def read(self) -> Values:
        if self._clock() < self._due_s or all(self._absent):
            return [None] * len(self._absent)
        self._due_s = self._clock() + self._reading.every_s
        return [self._taken(index, answer) for index, answer in enumerate(self._answers())]

    def close(self) -> None:
        """The GPU is closed by whoever opened it."""

    def _answers(self) -> Sequence[Maybe[float]]:
        try:
            return self._reading.call(self._gpu)
        except NvmlFailure as failure:
            return [failure.reason] * len(self._absent)

    def _taken(self, index: int, answer: Maybe[float]) -> float | None:
        if self._absent[index] is not None:
            return None
        if not isinstance(answer, Unavailable):
            self._strikes[index], self._failing[index] = 0, None
            return answer
        self._strikes[index] += 1
        if self._gpu.gone is not None:
            self._absent[index] = self._gpu.gone
        elif self._strikes[index] >= STRIKES:
            self._failing[index] = answer
        return None


class NvmlGroups:
    """Several readings of the device under test as one `Group`, which opens and closes NVML."""

    def __init__(self, context: ProfilerContext, readings: Sequence[Reading]) -> None:
        self._context = context
        self._readings = readings
        self._gpu: Gpu | None = None
        self._groups: list[NvmlGroup] = []
        self._why: Unavailable | None = None

    @property
    def channels(self) -> Sequence[Channel]:
        if self._groups:
            return [channel for group in self._groups for channel in group.channels]
        plain = [channel for reading in self._readings for channel in reading.channels]
        return plain if self._why is None else absent(plain, self._why)

    @property
    def unavailable(self) -> Unavailable | None:
        """Why there is no device to read, as far as `open` found."""
        return self._why

    @property
    def gpu(self) -> Gpu | None:
        """The device, while it is open."""
        return self._gpu

    def open(self) -> None:
        self.close()
        found = open_gpu(self._context)
        if isinstance(found, Unavailable):
            self._why = found
            return
        self._gpu, self._why = found, None
        self._groups = [NvmlGroup(found, reading) for reading in self._readings]
        for group in self._groups:
            group.open()

    def read(self) -> Values:
        if self._gpu is None:
            return [None] * len(self.channels)
        return [value for group in self._groups for value in group.read()]

    def close(self) -> None:
        """Let go of NVML; the channels keep what they learned."""
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None


def channel_prefix(context: ProfilerContext) -> str:
    """How channels call the device of ``context``: by CUDA's number."""
    return "gpu" + (context.device.partition(":")[2] or "0")
