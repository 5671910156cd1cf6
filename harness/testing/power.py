"""Meters that are not there: one that replays a trace, and one that simulates how meters err.

`SimulatedMeter` answers from a power curve whose true energy is known, the way real sensors do:

    true power ──boxcar of averaging_s──> every period_s: publish ──lag_s──> visible, x gain
    true energy ───────────────────────> every period_s: publish, in steps of tick_j
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.analysis.energy.attribute import SourceReadings
from harness.maybe import Unavailable
from harness.protocols import Available, Channel

Floats = NDArray[np.float64]


class ReplayPower:
    """A power source that replays readings: each `read` gives the next row, None after the last.

    ``refusal`` is what `open` answers instead, to play a source that cannot be used.
    """

    name = "replay"

    def __init__(
        self,
        channels: Sequence[Channel],
        rows: Sequence[Sequence[float | None]],
        refusal: Unavailable | None = None,
    ) -> None:
        self.channels = tuple(channels)
        self._rows = iter(rows)
        self._refusal = refusal

    def open(self) -> Available | Unavailable:
        return self._refusal or Available({"channels": str(len(self.channels))})

    def read(self) -> Sequence[float | None]:
        return next(self._rows, [None] * len(self.channels))

    def close(self) -> None:
        self._rows = iter(())


@dataclass(frozen=True)
class PowerCurve:
    """Power held constant between breakpoints: ``watts[i]`` from ``times_s[i]`` to the next.

    Before the first and after the last breakpoint it stays what it is there.
    """

    times_s: Floats
    watts: Floats

    def energy_j(self, t: Floats | float) -> Floats:
        """True energy since the first breakpoint at time ``t`` [s]; negative before it."""
        steps = np.concatenate(([0.0], np.cumsum(np.diff(self.times_s) * self.watts[:-1])))
        at = np.asarray(t, dtype=np.float64)
        index = np.clip(np.searchsorted(self.times_s, at, "right") - 1, 0, self.times_s.size - 1)
        joules: Floats = steps[index] + (at - self.times_s[index]) * self.watts[index]
        return joules

    def mean_w(self, end: Floats, width_s: float) -> Floats:
        """Mean power over the ``width_s`` before each of the times ``end`` [s]."""
        return (self.energy_j(end) - self.energy_j(end - width_s)) / width_s


def square_load(
    start_s: float,
    end_s: float,
    iteration_s: float,
    idle_w: float,
    low_w: float,
    high_w: float,
    duty: float = 0.5,
    pauses_s: Callable[[int], Floats] | None = None,
) -> tuple[PowerCurve, Floats]:
    """Idle, then iterations that draw ``high_w`` for the share ``duty`` and ``low_w`` after, idle.

    ``pauses_s(n)`` gives n pauses, at ``low_w``, between iterations. Returns the curve and the
    start of every iteration (with the end of the last one).
    """
    count = math.ceil((end_s - start_s) / iteration_s)
    lengths = np.full(count, iteration_s)
    if pauses_s is not None:
        lengths = lengths + pauses_s(count)
    starts = start_s + np.concatenate(([0.0], np.cumsum(lengths)))
    times = np.column_stack((starts[:-1], starts[:-1] + duty * iteration_s)).ravel()
    watts = np.tile([high_w, low_w], count)
    curve = PowerCurve(
        np.concatenate(([start_s - 1e3], times, [starts[-1]])),
        np.concatenate(([idle_w], watts, [idle_w])),
    )
    return curve, starts


@dataclass(frozen=True)
class SimulatedMeter:
    """How a meter distorts a power curve; see the module's drawing. Times in seconds.

    ``phase`` (0 to 1) is where in its period the meter stands at time 0.
    """

    period_s: float
    averaging_s: float
    lag_s: float = 0.0
    gain: float = 1.0
    tick_j: float = 0.0
    noise_w: float = 0.0
    phase: float = 0.0
    seed: int = 0

    def publications(self, start_s: float, end_s: float) -> Floats:
        """When a new value is formed, from a little before ``start_s`` on."""
        reach = self.averaging_s + self.lag_s + 2 * self.period_s
        first = math.floor((start_s - reach) / self.period_s)
        last = math.ceil(end_s / self.period_s) + 1
        formed: Floats = (np.arange(first, last, dtype=np.float64) + self.phase) * self.period_s
        return formed

    def power_at(self, curve: PowerCurve, reads_s: Floats) -> Floats:
        """What a reader sees at each of ``reads_s``, in watts."""
        formed = self.publications(reads_s[0], reads_s[-1])
        values = self.gain * curve.mean_w(formed, self.averaging_s)
        if self.noise_w:
            values = values + np.random.default_rng(self.seed).normal(0, self.noise_w, values.size)
        newest: Floats = values[np.searchsorted(formed + self.lag_s, reads_s, "right") - 1]
        return newest

    def counter_at(self, curve: PowerCurve, reads_s: Floats) -> Floats:
        """What a reader of the energy counter sees, in joules since the first read."""
        formed = self.publications(reads_s[0], reads_s[-1])
        joules = self.gain * curve.energy_j(formed)
        if self.tick_j:
            joules = np.floor(joules / self.tick_j) * self.tick_j
        newest = joules[np.searchsorted(formed + self.lag_s, reads_s, "right") - 1]
        since: Floats = newest - newest[0]
        return since

    def channels(self, gain_rel: float | None = None) -> tuple[Channel, Channel]:
        """The counter and the power of a meter named ``sim``, with what a driver would declare."""
        facts = {} if gain_rel is None else {"gain_rel": gain_rel}
        counter = Channel(
            name="energy/sim_j",
            unit="J",
            kind="counter",
            tag="energy/sim_j",
            scope="cpu-package",
            source="simulated",
            period_s=self.period_s,
            facts={"resolution_j": self.tick_j, "lag_s": self.lag_s, **facts},
            meter="sim",
        )
        power = msgspec.structs.replace(
            counter,
            name="power/sim_w",
            unit="W",
            kind="gauge",
            tag="power/sim_w",
            facts={"averaging_s": self.averaging_s, "lag_s": self.lag_s, **facts},
        )
        return counter, power

    def readings(
        self, curve: PowerCurve, reads_s: Floats, kind: str, gain_rel: float | None = None
    ) -> list[SourceReadings]:
        """Readings as the sampler would hand them over: ``kind`` is counter, gauge or both."""
        counter, power = self.channels(gain_rel)
        times = [round(t * 1e9) for t in reads_s]
        both = [
            SourceReadings(counter, times, list(self.counter_at(curve, reads_s))),
            SourceReadings(power, times, list(self.power_at(curve, reads_s))),
        ]
        return {"counter": both[:1], "gauge": both[1:], "both": both}[kind]
