"""The INA3221 power monitors of NVIDIA Jetson boards: volts times amperes, rail by rail."""

from __future__ import annotations

from pathlib import Path

from harness.host.procfs import read_text
from harness.profiles.power.hwmon import Sensor, SensorSource
from harness.protocols import Channel

# Rails through which the whole module is fed; the others lie behind these.
INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")


class JetsonSource(SensorSource):
    """Gauges in watts, one a rail: ``in*_input`` [mV] x ``curr*_input`` [mA].

    The chip sums its rails in further ``in`` and ``curr`` files, which have no partner of the same
    number and a bus voltage, so only rails 1 to 3 are read.
    """

    name = "jetson"

    def find(self, root: Path) -> list[Sensor]:
        drivers = root / "sys/bus/i2c/drivers"
        pattern = "ina3221*/*/hwmon/hwmon*/in[123]_input"
        return [_rail(path) for path in sorted(drivers.glob(pattern))]


def _rail(volts: Path) -> Sensor:
    number = volts.name[2]
    device = volts.parent.parent.parent.name
    label = read_text(str(volts.parent), f"in{number}_label") or f"rail{number}"
    # Two chips of a board may give their rails the same labels.
    meter = f"{device}-{label}".replace(" ", "-").lower()
    tag = f"power/{meter}_w"
    channel = Channel(
        name=tag,
        unit="W",
        kind="gauge",
        tag=tag,
        scope="soc" if label in INPUT_RAILS else "rail",
        source="jetson",
        meter=meter,
    )
    amperes = volts.with_name(f"curr{number}_input")
    return Sensor(channel, [volts, amperes], lambda millivolts, ma: millivolts * ma / 1e6)
