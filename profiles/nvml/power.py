"""Power and energy of the GPU under test, as its driver reports them.

    energy/gpu0_j           nvmlDeviceGetTotalEnergyConsumption: counts mJ, Volta and newer
    power/gpu0_w            the instant field (186): mean over W, renewed every T
    power/gpu0-average_w    the average field (185): mean over 1 s, about half a second late
    power/gpu0-reported_w   nvmlDeviceGetPowerUsage, only where the fields are absent

Plain ``nvmlDeviceGetPowerUsage`` is the instant or the average, by chip and by driver, so each
field is asked for by its number, and the average is a meter of its own. T and W are not documented.
They were measured on more than seventy boards against an external meter ("Part-time Power
Measurements", SC'24, doi 10.1109/SC41406.2024.00028), and go into the channels' facts:

    =======================  ======  =======  ==========================================
    P100, V100               20 ms   10 ms    sees half of the time
    A100, H100               100 ms  25 ms    sees a quarter of the time
    Turing, GA10x, Ada       100 ms  100 ms   sees all of it (Quadro RTX 8000: 20 ms)
    =======================  ======  =======  ==========================================

A chip newer than the measured ones is taken to see a quarter: too little is the safe side. Boards
of these were off by up to 6 % in gain, hence ``gain_rel`` 0.05, the vendor's own figure for older
boards; it is the same for both sides of a comparison on one board. The counter's tick is taken to
be T, and what the readings show overrules that where it moves more slowly. Reading faster than T
shows nothing new: the sampler's 10 Hz, or 20 Hz where T is 20 ms, is enough.

The figures cover the board, memory and regulators included (``gpu-board``), or the whole module
with its CPU (``gpu-module``) where that is all that the driver gives, as on Grace. They cover the
whole GPU: for a MIG slice there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.maybe import Maybe, Unavailable, coded
from harness.profiles.files import Values
from harness.profiles.nvml.device import SOURCE, Gpu, NvmlGroup, Reading, channel_prefix, open_gpu
from harness.profiles.nvml.errors import NvmlFailure
from harness.protocols import Available, Channel, ProfilerContext

GAIN_REL = 0.05
AVERAGE_S = 1.0
_SCOPES = (
    ("gpu-board", "NVML_POWER_SCOPE_GPU"),
    ("gpu-module", "NVML_POWER_SCOPE_MODULE"),
)
_INSTANT, _AVERAGE = "NVML_FI_DEV_POWER_INSTANT", "NVML_FI_DEV_POWER_AVERAGE"
_PASCAL, _VOLTA, _TURING, _AMPERE, _ADA = 4, 5, 6, 7, 8  # NVML_DEVICE_ARCH_*
_GA100 = ("A100", "A800", "A30")  # Ampere's data centre chip; the rest of Ampere differs
_WHOLE_MODULES = ("GH200",)  # whose energy counter counts the module, whatever the power covers


class Timing(msgspec.Struct, frozen=True):
    """How often the readings are renewed, and over how long the instant one is a mean."""

    period_s: float
    window_s: float


def timing(architecture: int | None, name: str) -> Timing:
    """T and W of the module's table. None: an architecture that the driver does not name."""
    if architecture is not None and architecture in (_PASCAL, _VOLTA):
        return Timing(0.02, 0.01)
    if architecture == _TURING and "RTX 8000" in name:
        return Timing(0.1, 0.02)
    if architecture in (_TURING, _AMPERE, _ADA) and not _is_ga100(name):
        return Timing(0.1, 0.1)
    return Timing(0.1, 0.025)


def _is_ga100(name: str) -> bool:
    return any(word in _GA100 for word in name.replace("-", " ").split())


class NvmlPowerSource:
    """The meters of the GPU under test; a source of `harness.profiles.power.sources`."""

    name = SOURCE

    def __init__(self, context: ProfilerContext) -> None:
        self._context = context
        self._gpu: Gpu | None = None
        self._groups: list[NvmlGroup] = []

    def open(self) -> Available | Unavailable:
        """Find the device and try every way to its power; the reason where none works."""
        self.close()
        gpu = open_gpu(self._context)
        if isinstance(gpu, Unavailable):
            return gpu
        self._gpu = gpu
        if gpu.device.mig:
            self.close()
            reason = "NVML knows the power of the whole GPU alone, and this is a MIG slice of it"
            return coded("not_supported", reason, "measure energy on a GPU without MIG")
        readings, facts = _readings(gpu, channel_prefix(self._context))
        self._groups = [NvmlGroup(gpu, reading) for reading in readings]
        for group in self._groups:
            group.open()
        reasons = [channel.unavailable for channel in self.channels]
        if None not in reasons:
            self.close()
            assert reasons[0] is not None
            return reasons[0]
        return Available(facts)

    @property
    def channels(self) -> Sequence[Channel]:
        return [channel for group in self._groups for channel in group.channels]

    def read(self) -> Values:
        if self._gpu is None:
            return [None] * len(self.channels)
        return [value for group in self._groups for value in group.read()]

    def close(self) -> None:
        """Let go of NVML. Idempotent; the channels stay, for whoever asks what they were."""
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None


def _readings(gpu: Gpu, name: str) -> tuple[list[Reading], dict[str, str]]:
    """What to read, and which function and field each meter stands for."""
    architecture = gpu.try_ask("its architecture", "nvmlDeviceGetArchitecture")
    known = None if isinstance(architecture, Unavailable) else int(architecture)
    taken = timing(known, gpu.device.name)
    scope, fields, lacking = _fields(gpu)
    module = scope == "gpu-module" or any(chip in gpu.device.name for chip in _WHOLE_MODULES)
    readings = [_counter(name, "gpu-module" if module else scope, taken)]
    facts = {
        "device": f"{gpu.device.name}, {gpu.device.uuid}",
        "energy": "nvmlDeviceGetTotalEnergyConsumption",
    }
    if _INSTANT in fields:
        facts["power"] = f"{_INSTANT} of {scope}, mean over {taken.window_s * 1e3:g} ms"
    if _AVERAGE in fields:
        facts["average power"] = f"{_AVERAGE} of {scope}, mean over {AVERAGE_S:g} s"
    if fields:
        readings.append(_power(name, scope, fields, taken))
    else:
        instant = known is not None and (known < _AMPERE or _is_ga100(gpu.device.name))
        readings.append(_reported(name, taken, instant))
        facts["power"] = f"nvmlDeviceGetPowerUsage, for the fields are absent: {lacking}"
    return readings, facts


def _fields(gpu: Gpu) -> tuple[str, list[str], str]:
    """The scope in which power fields answer, those that do, and why not the others."""
    reason = ""
    for scope, constant in _SCOPES:
        try:
            pairs = [(field, gpu.constant(constant)) for field in (_INSTANT, _AVERAGE)]
            answers = gpu.fields("power", pairs)
        except NvmlFailure as failure:
            return "gpu-board", [], failure.reason.reason
        found = [
            field
            for (field, _), answer in zip(pairs, answers, strict=True)
            if not isinstance(answer, Unavailable) and answer > 0
        ]
        if found:
            return scope, found, ""
        reason = reason or next(
            (answer.reason for answer in answers if isinstance(answer, Unavailable)), "0 W"
        )
    return "gpu-board", [], reason


def _stem(name: str, scope: str) -> str:
    """A counter and a power reading of one stem measure the same thing."""
    return f"{name}-module" if scope == "gpu-module" else name


def _counter(name: str, scope: str, taken: Timing) -> Reading:
    meter = _stem(name, scope)
    tag = f"energy/{meter}_j"
    channel = Channel(
        name=tag,
        unit="J",
        kind="counter",
        tag=tag,
        scope=scope,
        source=SOURCE,
        period_s=taken.period_s,
        facts={"resolution_j": 1e-3, "gain_rel": GAIN_REL},
        meter=meter,
    )
    first_mj: list[int] = []

    def joules(gpu: Gpu) -> list[Maybe[float]]:
        now_mj = int(gpu.ask("energy", "nvmlDeviceGetTotalEnergyConsumption"))
        if not first_mj:
            first_mj.append(now_mj)
        return [(now_mj - first_mj[0]) / 1e3]

    return Reading([channel], joules)


def _power(name: str, scope: str, fields: Sequence[str], taken: Timing) -> Reading:
    """The power fields, in one call: each call may wait for the GPU's own processor."""
    kinds = {_INSTANT: (name, taken.window_s), _AVERAGE: (f"{name}-average", AVERAGE_S)}
    constant = dict(_SCOPES)[scope]

    def watts(gpu: Gpu) -> list[Maybe[float]]:
        pairs = [(field, gpu.constant(constant)) for field in fields]
        return [_watts(value) for value in gpu.fields("power", pairs)]

    stems = [kinds[field] for field in fields]
    return Reading(
        [_gauge(_stem(stem, scope), scope, taken.period_s, window_s) for stem, window_s in stems],
        watts,
    )


def _reported(name: str, taken: Timing, instant: bool) -> Reading:
    """The plain figure. From GA10x on it may be either field, so that its window is not known."""
    stem, window_s = (name, taken.window_s) if instant else (f"{name}-reported", None)
    channel = _gauge(stem, "gpu-board", taken.period_s, window_s)
    return Reading([channel], lambda gpu: [_watts(gpu.ask("power", "nvmlDeviceGetPowerUsage"))])


def _gauge(name: str, scope: str, period_s: float, window_s: float | None) -> Channel:
    tag = f"power/{name}_w"
    facts = {"gain_rel": GAIN_REL} | ({} if window_s is None else {"averaging_s": window_s})
    return Channel(
        name=tag,
        unit="W",
        kind="gauge",
        tag=tag,
        scope=scope,
        source=SOURCE,
        period_s=period_s,
        facts=facts,
        meter=name,
    )


def _watts(milliwatts: Maybe[float]) -> Maybe[float]:
    """No board draws 0 W: it is what some drivers give in the place of nothing."""
    if isinstance(milliwatts, Unavailable):
        return milliwatts
    if milliwatts <= 0:
        return coded("not_supported", "the driver reports a power of 0 W", "none on this GPU")
    return float(milliwatts) / 1e3
