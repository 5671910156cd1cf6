"""pyRAPL as a source, for those who ask for it by name (``--power-source pyrapl``).

It is not the default: a wrapped counter turns into None or a negative number there, dies and
platform counters are unknown to it, and it reports its errors in half a dozen ways. This adapter
turns all of them into reasons.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from harness.host.procfs import is_virtual
from harness.maybe import Unavailable, coded
from harness.profiles.power.powercap import GRANT, UPDATE_PERIOD_S
from harness.protocols import Available, Channel, ProfilerContext

REMEDY = "use --power-source powercap, which reads the same counters"


class PyRaplSource:
    """Joules since `open` of each socket's package and memory, as pyRAPL reports them."""

    name = "pyrapl"

    def __init__(self, context: ProfilerContext) -> None:
        self._root = context.root
        self._measurement: Any = None
        self._channels: list[Channel] = []
        self._last: list[float] = []

    def open(self) -> Available | Unavailable:
        """Imports pyRAPL, which looks at /sys and nowhere else."""
        self.close()
        if self._root != "/":
            return coded("not_supported", "pyRAPL reads /sys and cannot be redirected", REMEDY)
        try:
            with _quiet():
                import pyRAPL

                pyRAPL.setup()
                self._measurement = pyRAPL.Measurement("harness")
                self._measurement.begin()
                readings = self._readings()
        except Exception as error:  # bare OSErrors, its own and those it did not foresee
            return self._reason(error)
        if not readings:
            return coded("error", "pyRAPL gives no reading at all", REMEDY)
        self._channels = [_channel(meter, scope) for meter, scope, _ in readings]
        self._last = [0.0] * len(readings)
        version = str(getattr(pyRAPL, "__version__", "unknown"))
        return Available({"pyRAPL": version})

    def _readings(self) -> list[tuple[str, str, float]]:
        """(meter, scope, joules since `open`) of each device that pyRAPL gives a figure for."""
        self._measurement.end()
        result = self._measurement.result
        return [
            (f"package-{socket}{suffix}", scope, microjoules / 1e6)
            for values, suffix, scope in (
                (result.pkg, "", "cpu-package"),
                (result.dram, "-dram", "dram"),
            )
            for socket, microjoules in enumerate(values or ())
            if microjoules != -1  # its mark for a socket without this device
        ]

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self) -> Sequence[float | None]:
        """One value per channel; None for ever once pyRAPL's figures stopped making sense."""
        if self._measurement is None or all(c.unavailable for c in self._channels):
            return [None] * len(self._channels)
        try:
            found = {f"energy/{meter}_j": joules for meter, _, joules in self._readings()}
        except Exception as error:  # the boundary: see `open`
            self._channels = [_lose(channel, self._reason(error)) for channel in self._channels]
            return [None] * len(self._channels)
        return [self._checked(index, found) for index in range(len(self._channels))]

    def _checked(self, index: int, found: dict[str, float]) -> float | None:
        channel = self._channels[index]
        if channel.unavailable is not None:
            return None
        joules = found.get(channel.name)
        if joules is None or joules < self._last[index]:
            detail = f"pyRAPL gave {'None' if joules is None else f'{joules:.0f} J'} after a wrap"
            self._channels[index] = _lose(channel, coded("counter_reset", detail, REMEDY))
            return None
        self._last[index] = joules
        return joules

    def close(self) -> None:
        """pyRAPL never closes its files; dropping it is all that can be done."""
        self._measurement = None

    def _reason(self, error: Exception) -> Unavailable:
        text = f"pyRAPL: {type(error).__name__}: {error}".removesuffix(": ")
        if isinstance(error, ImportError):
            return coded("not_present", "pyRAPL is not installed", "pip install 'hw-harness[rapl]'")
        if isinstance(error, PermissionError):
            return coded("permission_denied", text, GRANT)
        if type(error).__name__ == "PyRAPLCantRecordEnergyConsumption":
            if is_virtual(self._root):
                return coded("virtualized", f"{text}: a virtual machine has no RAPL", REMEDY)
            return coded("not_supported", f"{text}: it finds no package counter", REMEDY)
        return coded("error", text, REMEDY)


def _channel(meter: str, scope: str) -> Channel:
    tag = f"energy/{meter}_j"
    return Channel(
        name=tag,
        unit="J",
        kind="counter",
        tag=tag,
        scope=scope,
        source="pyrapl",
        period_s=UPDATE_PERIOD_S,
        meter=meter,
    )


def _lose(channel: Channel, reason: Unavailable) -> Channel:
    return channel if channel.unavailable else msgspec.structs.replace(channel, unavailable=reason)


@contextmanager
def _quiet() -> Iterator[None]:
    """Importing pyRAPL warns of an invalid escape, and logs on the root logger, configuring it."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    disabled = root.disabled
    root.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.disabled = disabled
        root.removeHandler(handler)
