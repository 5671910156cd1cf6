"""Power and energy sensors that drivers publish under hwmon: labelled by chip, never added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from harness.host.procfs import KernelFile, read_text
from harness.maybe import Unavailable, coded
from harness.protocols import Available, Channel, ProfilerContext

# What a chip measures. Others keep their own name as scope: a board's regulators differ too much.
SCOPES = {
    "amd_energy": "cpu-package",
    "fam15h_power": "cpu-package",
    "zenpower": "cpu-package",
    "amdgpu": "gpu-board",
    "power_meter": "psys",
}


class Sensor:
    """A reading computed from one or more files that stay open."""

    def __init__(
        self, channel: Channel, paths: Sequence[Path], convert: Callable[..., float]
    ) -> None:
        self.channel = channel
        self._convert = convert
        self._files: list[KernelFile] = []
        try:
            for path in paths:
                self._files.append(KernelFile(path, 64))
            self._compute()
        except (OSError, ValueError) as error:
            self.close()
            self.channel = msgspec.structs.replace(channel, unavailable=_reason(error, paths[0]))

    def _compute(self) -> float:
        return self._convert(*[int(file.read()) for file in self._files])

    def read(self) -> float | None:
        """The value now; None for a failed reading."""
        if self.channel.unavailable is not None:
            return None
        try:
            return self._compute()
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        for file in self._files:
            file.close()


class SensorSource:
    """What hwmon and Jetson share: sensors found below a root. A subclass finds them."""

    name = ""

    def __init__(self, context: ProfilerContext) -> None:
        self._root = Path(context.root)
        self._sensors: list[Sensor] = []

    def find(self, root: Path) -> list[Sensor]:
        """Every sensor below ``root``, opened."""
        raise NotImplementedError

    def open(self) -> Available | Unavailable:
        self.close()
        self._sensors = self.find(self._root)
        reasons = [sensor.channel.unavailable for sensor in self._sensors]
        failed = [reason for reason in reasons if reason is not None]
        if not reasons:
            detail = f"this machine has no {self.name} power sensor"
            return coded("not_present", detail, "load its driver, or use a wall meter")
        if len(failed) == len(reasons):
            return failed[0]
        return Available({"sensors": ", ".join(sensor.channel.name for sensor in self._sensors)})

    @property
    def channels(self) -> Sequence[Channel]:
        return [sensor.channel for sensor in self._sensors]

    def read(self) -> Sequence[float | None]:
        return [sensor.read() for sensor in self._sensors]

    def close(self) -> None:
        for sensor in self._sensors:
            sensor.close()


class HwmonSource(SensorSource):
    """``power*_input`` (or ``_average``) in watts and ``energy*_input`` in joules of every chip."""

    name = "hwmon"

    def find(self, root: Path) -> list[Sensor]:
        folders = sorted((root / "sys/class/hwmon").glob("hwmon*"))
        chips = [read_text(str(folder), "name") or folder.name for folder in folders]
        return [
            sensor
            for folder, chip in zip(folders, chips, strict=True)
            # Numbers change from boot to boot: only twins are told apart by theirs.
            for sensor in _chip(folder, chip, folder.name if chips.count(chip) > 1 else "")
        ]


def _chip(folder: Path, chip: str, suffix: str) -> list[Sensor]:
    paths = [*sorted(folder.glob("power*_input")), *sorted(folder.glob("energy*_input"))]
    known = {path.name.partition("_")[0] for path in paths}
    averages = sorted(folder.glob("power*_average"))
    paths += [path for path in averages if path.name.partition("_")[0] not in known]
    return [_sensor(folder, chip, path, suffix) for path in paths if not _one_core(folder, path)]


def _one_core(folder: Path, path: Path) -> bool:
    """amd_energy counts every core by itself as well; those are no package."""
    label = read_text(str(folder), path.name.partition("_")[0] + "_label") or ""
    return label.startswith("Ecore")


def _sensor(folder: Path, chip: str, path: Path, suffix: str) -> Sensor:
    item = path.name.partition("_")[0]
    label = read_text(str(folder), f"{item}_label") or item
    name = "-".join(part for part in (chip, label, suffix) if part)
    meter = name.replace(" ", "-").replace("/", "-").lower()
    counter = item.startswith("energy")
    tag = f"energy/{meter}_j" if counter else f"power/{meter}_w"
    channel = Channel(
        name=tag,
        unit="J" if counter else "W",
        kind="counter" if counter else "gauge",
        tag=tag,
        scope=SCOPES.get(chip, chip),
        source="hwmon",
        meter=meter,
    )
    return Sensor(channel, [path], lambda micro: micro / 1e6)


def _reason(error: OSError | ValueError, path: Path) -> Unavailable:
    if isinstance(error, PermissionError):
        grant = f"sudo chmod a+r {path}"
        return coded("permission_denied", f"{path} is forbidden to this user", grant)
    return coded("error", f"{path} cannot be read: {error}", "see the kernel log")
