"""What the GPU under test did: busy share, clocks, temperatures, and what held its clocks back.

*Busy* is the driver's: the share of its last sample period (1/6 to 1 s) in which at least one
kernel ran. One small kernel makes 100 %: it is a measure of waiting and never of efficiency.

Clocks are held back for reasons that the driver names. Newer drivers count the time spent with
each, in nanoseconds: a difference misses nothing. All drivers show the reasons of the moment as a
bit mask; a sample of that is 1 where the bit is set, and the mean of the samples is the share.

    power_cap     the power limit is reached: the ordinary state of a board under full load
    sw_thermal    the driver slows it down, for heat
    hw_thermal    the chip slows itself down, for heat
    power_brake   the server pulled the emergency brake on power
    hw_slowdown   the chip slows itself down, for heat, the brake or its supply
    sync_boost    it waits for slower GPUs of its group

PCIe traffic is left out: ``nvmlDeviceGetPcieThroughput`` measures for 20 ms while the caller waits,
which no sampler can afford.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.maybe import Maybe, Unavailable, coded
from harness.profiles.nvml.device import SOURCE, Gpu, Reading
from harness.protocols import Channel

# reason -> bit of the mask (nvmlClocksEventReason...), field that counts its time
REASONS: dict[str, tuple[str, str | None]] = {
    "power_cap": (
        "nvmlClocksEventReasonSwPowerCap",
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP",
    ),
    "sw_thermal": (
        "nvmlClocksEventReasonSwThermalSlowdown",
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
    ),
    "hw_thermal": (
        "nvmlClocksEventReasonHwThermalSlowdown",
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
    ),
    "power_brake": (
        "nvmlClocksEventReasonHwPowerBrakeSlowdown",
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
    ),
    "sync_boost": (
        "nvmlClocksEventReasonSyncBoost",
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST",
    ),
    "hw_slowdown": ("nvmlClocksEventReasonHwSlowdown", None),
}


def utilization_readings(name: str) -> list[Reading]:
    """Busy shares of the device called ``name``, in per cent."""
    channels = [
        _gauge(f"{name}_percent", "%", f"utilization/{name}_percent"),
        _gauge(f"{name}_memory_percent", "%", f"utilization/{name}_memory_percent"),
    ]

    def busy(gpu: Gpu) -> Sequence[Maybe[float]]:
        found = gpu.ask("utilization", "nvmlDeviceGetUtilizationRates")
        return [float(found.gpu), float(found.memory)]

    return [Reading(channels, busy)]


def clock_readings(name: str) -> list[Reading]:
    """Clocks, temperatures and what held the clocks back, of the device called ``name``."""
    return [
        _clock(name, "sm", "NVML_CLOCK_SM"),
        _clock(name, "memory", "NVML_CLOCK_MEM"),
        Reading(
            [_gauge(f"{name}_temperature_c", "°C", f"temperature/{name}_c")],
            lambda gpu: [_core_celsius(gpu)],
        ),
        Reading(
            [_gauge(f"{name}_memory_temperature_c", "°C", f"temperature/{name}_memory_c")],
            _memory_celsius,
        ),
        _held_back_s(name),
        _held_back_now(name),
    ]


def _gauge(name: str, unit: str, tag: str) -> Channel:
    return Channel(name, unit, "gauge", tag, "gpu", SOURCE)


def _clock(name: str, which: str, kind: str) -> Reading:
    channel = _gauge(f"{name}_{which}_mhz", "MHz", f"clocks/{name}_{which}_mhz")

    def mhz(gpu: Gpu) -> Sequence[Maybe[float]]:
        constant = gpu.constant(kind)
        return [float(gpu.ask(f"its {which} clock", "nvmlDeviceGetClockInfo", constant))]

    return Reading([channel], mhz)


def _core_celsius(gpu: Gpu) -> float:
    sensor, what = gpu.constant("NVML_TEMPERATURE_GPU"), "its temperature"
    found = gpu.try_ask(what, "nvmlDeviceGetTemperatureV", sensor)
    if isinstance(found, Unavailable):  # an older driver; one that is gone raises here
        found = gpu.ask(what, "nvmlDeviceGetTemperature", sensor)
    return float(found)


def _memory_celsius(gpu: Gpu) -> Sequence[Maybe[float]]:
    what = "the temperature of its memory"
    (found,) = gpu.fields(what, [("NVML_FI_DEV_MEMORY_TEMP", 0)])
    if not isinstance(found, Unavailable) and found <= 0:  # GDDR boards give 0 for no sensor
        return [coded("not_supported", "this GPU does not report " + what, "none on this GPU")]
    return [found]


def _held_back_s(name: str) -> Reading:
    timed = {field: reason for reason, (_, field) in REASONS.items() if field is not None}
    channels = [
        Channel(
            name=f"{name}_{reason}_s",
            unit="s",
            kind="counter",
            tag=f"clocks/{name}_{reason}_percent",
            scope="gpu",
            source=SOURCE,
        )
        for reason in timed.values()
    ]

    def seconds(gpu: Gpu) -> Sequence[Maybe[float]]:
        answers = gpu.fields("how long its clocks were held back", [(field, 0) for field in timed])
        return [a if isinstance(a, Unavailable) else a / 1e9 for a in answers]

    return Reading(channels, seconds)


def _held_back_now(name: str) -> Reading:
    channels = [
        _gauge(f"{name}_{reason}", "share", f"clocks/{name}_{reason}") for reason in REASONS
    ]

    def flags(gpu: Gpu) -> Sequence[Maybe[float]]:
        mask = _mask(gpu)
        return [float(bool(mask & gpu.constant(bit))) for bit, _ in REASONS.values()]

    return Reading(channels, flags)


def _mask(gpu: Gpu) -> int:
    what = "what holds its clocks back"
    found = gpu.try_ask(what, "nvmlDeviceGetCurrentClocksEventReasons")
    if isinstance(found, Unavailable):  # drivers before 535 know the older name
        found = gpu.ask(what, "nvmlDeviceGetCurrentClocksThrottleReasons")
    return int(found)
