"""Joules per inference from what the sampler read, or the reason why there are none.

            idle        guard ├────────── window ──────────┤ guard       idle
        ────┬─────┬─load─────▕                              ▏───────┬──┬─────┬────
     W      │     │   ▁▂▅▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▅▂▁  │     │
            └ before               gross = E / N                   after ┘
                             net = (E - w x mean(before, after)) / N

The same load runs through the guards, so that a sensor's averaging smears load into the window's
edges and not idle. A counter is the primary figure, the integral of its own power the check: more
than 5 % apart, neither is given. Nothing is estimated from a data sheet.

Uncertainties are standard deviations. *Comparative* joins (in squares) the counter's or integral's
own (see `power_series`), missing guards, and, where there are several launches, their spread;
*absolute* adds the instrument's gain error, and is absent for an uncalibrated one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.energy.meters import Meter, SourceReadings, group, totals_of
from harness.analysis.energy.self_test import self_test
from harness.analysis.energy.series import (
    PAUSE_EVERY,
    Figure,
    Load,
    counter_energy,
    held_energy,
    resonance_delay,
)
from harness.maybe import Maybe, Unavailable, coded, present
from harness.records.primary import headline, primary_of
from harness.records.result import Energy, EnergySource, SelfTest, Spread

__all__ = [
    "PAUSE_EVERY",
    "SourceReadings",
    "Window",
    "attribute",
    "idle_floor_s",
    "resonance_delay",
    "window_floor_s",
]

MIN_WINDOW_S = 5.0
MIN_IDLE_S = 5.0
MIN_PERIODS = 50
MIN_ITERATIONS = 32
DISAGREEMENT = 0.05
BASELINE_DRIFT = 0.05
FOREIGN_SHARE = 0.05
ROUNDING = 0.99  # a window asked for at its floor may begin a little late
RESOLVABLE = 3.0  # net energy must exceed this many of its standard deviations

Span = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """The timed window and its surroundings, in monotonic nanoseconds.

    ``iterations`` of ``batch_size`` inferences ran in it, on ``concurrency`` streams. The guards
    are how long the same load ran before and after. ``load`` is the warm-up, on which meters are
    tested; ``random_phase`` tells that there were random pauses of `resonance_delay`, without which
    the mean latency ``latency_s`` follows from the rest.
    """

    start_ns: int
    end_ns: int
    iterations: int
    batch_size: int = 1
    concurrency: int = 1
    guard_before_s: float = 0.0
    guard_after_s: float = 0.0
    idle_before: Span | None = None
    idle_after: Span | None = None
    load: Span | None = None
    random_phase: bool = False
    latency_s: float | None = None

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def inferences(self) -> int:
        return self.iterations * self.batch_size

    @property
    def iteration_s(self) -> float:
        """From one iteration to the next of its stream, pauses included."""
        return self.seconds / self.iterations * self.concurrency

    def span(self, span: Span) -> tuple[float, float]:
        """``span`` in seconds from the window's start."""
        return (span[0] - self.start_ns) / 1e9, (span[1] - self.start_ns) / 1e9


def window_floor_s(period_s: float | None, iteration_s: float = 0.0) -> float:
    """Shortest window that a meter of this update period can answer for, in seconds.

    50 periods keep the error of the two edges (0.41 T / w) under 1 %.
    """
    return max(MIN_WINDOW_S, MIN_PERIODS * (period_s or 0.0), MIN_ITERATIONS * iteration_s)


def idle_floor_s(period_s: float | None) -> float:
    """Shortest idle stretch, before and after, that gives a baseline, in seconds."""
    return max(MIN_IDLE_S, 1.2 * 20 * (period_s or 0.0))


def attribute(
    sources: Sequence[SourceReadings],
    window: Window,
    *,
    device: str = "cpu",
    foreign_cpu_share: float | None = None,
    sockets: int = 1,
) -> Maybe[Energy]:
    """The energy of one window by every meter; `Unavailable` where there is none at all.

    ``foreign_cpu_share`` is the CPU time of other processes over what was available, 0 to 1.
    ``sockets`` is how many the machine has: who counts fewer has no sum over them.
    """
    if window.seconds <= 0 or window.iterations <= 0:
        return coded("window_too_short", "the window holds no finished iteration")
    meters = group(sources, window.start_ns)
    if not meters:
        return coded("not_present", "no meter was read", "see `harness doctor`")
    shared = _shared(device, foreign_cpu_share)
    parts = {meter.name: _source(meter, window, shared) for meter in meters}
    totals = {
        total.name: _source(total, window, shared, [parts[name] for name in total.parts])
        for total in totals_of(meters, sockets)
    }
    found = totals | parts
    primary = primary_of([found], device)
    return Energy(
        primary=primary,
        joules_per_inference=headline(found, primary, device),
        window_s=window.seconds,
        inferences=window.inferences,
        shared=shared,
        sources=found,
    )


# --- one meter over one window ----------------------------------------------------------------


def _source(
    meter: Meter, window: Window, shared: Maybe[bool], parts: Sequence[EnergySource] = ()
) -> EnergySource:
    """What ``meter`` says; a total says nothing of what one of its ``parts`` does not."""
    named = list(zip(meter.parts, parts, strict=True))
    test = self_test(meter, None if window.load is None else window.span(window.load))
    counter, integral = _both(meter, window)
    refusal = _lacking(named, "energy_j") or _refusal(meter, window, test, counter, integral)
    common: dict[str, Any] = {
        "source": meter.channel.source,
        "scope": meter.channel.scope,
        "parts": meter.parts,
        "self_test": test,
        "counted_by": meter.counted_by,
    }
    if refusal is not None:
        return _refused(refusal, common, counter, integral)
    by_counter = not isinstance(counter, Unavailable)
    figure = integral if isinstance(counter, Unavailable) else counter
    assert not isinstance(figure, Unavailable)
    spans = (window.idle_before, window.idle_after)
    idle = [
        _lacking(named, name) or _idle_power(meter, window, span, by_counter)
        for name, span in zip(("idle_before_w", "idle_after_w"), spans, strict=True)
    ]
    sd = math.hypot(figure.sd_j, _guard_sd(figure, window, idle))
    gain = meter.channel.sensor.gain_rel
    energy = _spread(figure.energy_j, sd, gain)
    gross = _per(energy, window.inferences)
    alone = shared is not True or meter.channel.scope.startswith("gpu")
    return EnergySource(
        **common,
        method="counter" if by_counter else "integral",
        energy_j=energy,
        counter_j=_joules(counter),
        integral_j=_joules(integral),
        average_power_w=figure.energy_j / window.seconds,
        idle_before_w=_watts(idle[0]),
        idle_after_w=_watts(idle[1]),
        gross_j_per_inference=gross,
        net_j_per_inference=_net(figure, sd, idle, gain, window),
        energy_delay_product_js=gross.value * (window.latency_s or window.iteration_s),
        update_period_s=figure.period_s,
        updates=figure.updates,
        status="ok" if alone else "shared",
        notes=_notes(meter, window, figure, counter),
    )


def _lacking(parts: Iterable[tuple[str, EnergySource]], quantity: str) -> Unavailable | None:
    """Why there is no sum of this quantity: the first part that has none, by name."""
    for name, part in parts:
        absent = getattr(part, quantity)
        if isinstance(absent, Unavailable):
            code, _, detail = absent.reason.partition(": ")
            told = f"{code}: {name}: {detail}" if detail else f"{name}: {code}"
            return Unavailable(told.replace(f"{name}: {name}: ", f"{name}: "), absent.remedy)
    return None


def _both(meter: Meter, window: Window) -> tuple[Maybe[Figure], Maybe[Figure]]:
    """Counter difference and integral of power over the window."""
    load = Load(window.iteration_s, window.random_phase)
    end = window.seconds
    why = meter.channel.unavailable
    counter: Maybe[Figure] = why or coded("not_supported", "this meter has no counter")
    integral: Maybe[Figure] = why or coded("not_supported", "this meter gives no power")
    if meter.counter is not None:
        counter = counter_energy(meter.counter, 0.0, end, meter.sensor, load)
    if meter.power is not None:
        integral = held_energy(meter.power, 0.0, end, meter.power_sensor, load)
    return counter, integral


def _refusal(
    meter: Meter, window: Window, test: SelfTest, counter: Maybe[Figure], integral: Maybe[Figure]
) -> Unavailable | None:
    """Why nothing is to be derived from this meter, None where all is well."""
    if meter.channel.unavailable is not None:
        return meter.channel.unavailable
    if test.verdict == "fail":
        return coded("error", f"self-test: {test.reason}", "see `harness doctor`")
    floor = window_floor_s(meter.period_s, window.iteration_s)
    if window.seconds < ROUNDING * floor:
        detail = f"{window.seconds:.3g} s, and this meter needs {floor:.3g} s"
        return coded("window_too_short", detail, f"add --duration {math.ceil(floor)}")
    if isinstance(counter, Unavailable) and isinstance(integral, Unavailable):
        return counter if meter.counter is not None else integral
    if isinstance(counter, Unavailable) or isinstance(integral, Unavailable):
        return None
    if _apart(counter.energy_j, integral.energy_j) <= DISAGREEMENT:
        return None
    raw = f"{counter.energy_j:.6g} J by the counter, {integral.energy_j:.6g} J by its power"
    return coded("disagreement", raw, "trust neither before comparing with another meter")


def _apart(one: float, other: float) -> float:
    """Relative difference, against the mean of the two."""
    return abs(one - other) / max(abs(one + other) / 2, 1e-300)


def _refused(
    why: Unavailable, common: dict[str, Any], counter: Maybe[Figure], integral: Maybe[Figure]
) -> EnergySource:
    """A source without a figure. A disagreement alone keeps the two raw ones."""
    disagrees = why.reason.startswith("disagreement")
    return EnergySource(
        **common,
        method="none",
        energy_j=why,
        counter_j=_joules(counter) if disagrees else why,
        integral_j=_joules(integral) if disagrees else why,
        average_power_w=why,
        idle_before_w=why,
        idle_after_w=why,
        gross_j_per_inference=why,
        net_j_per_inference=why,
        energy_delay_product_js=why,
        update_period_s=why,
        updates=0 if isinstance(counter, Unavailable) else counter.updates,
        status="disagreement" if disagrees else "unavailable",
    )


def _idle_power(
    meter: Meter, window: Window, span: Span | None, by_counter: bool
) -> Maybe[tuple[float, float]]:
    """Mean power over an idle stretch and its standard deviation, in watts."""
    if span is None:
        return coded("not_present", "no idle stretch was recorded", "set --idle")
    start, end = window.span(span)
    if end - start < ROUNDING * MIN_IDLE_S:
        detail = f"{end - start:.3g} s of idle where {MIN_IDLE_S:g} s are needed"
        return coded("window_too_short", detail, f"set --idle {MIN_IDLE_S:g}")
    if by_counter and meter.counter is not None:
        figure = counter_energy(meter.counter, start, end, meter.sensor, Load())
    elif meter.power is not None:
        figure = held_energy(meter.power, start, end, meter.power_sensor, Load())
    else:
        return coded("not_supported", "this meter gives no power")
    if isinstance(figure, Unavailable):
        return figure
    return figure.energy_j / (end - start), figure.sd_j / (end - start)


def _guard_sd(figure: Figure, window: Window, idle: Sequence[Maybe[tuple[float, float]]]) -> float:
    """What an edge without a guard can hide: up to half the step in power over the missing time.

    Both edges err in the same direction, so their bounds add; over sqrt(3) as for a uniform error.
    """
    power = figure.energy_j / window.seconds
    step = max(power - min((p[0] for p in map(present, idle) if p), default=0.0), 0.0)
    missing = sum(
        max(figure.reach_s - guard, 0.0) for guard in (window.guard_before_s, window.guard_after_s)
    )
    return step * missing / 2 / math.sqrt(3)


def _net(
    figure: Figure,
    sd: float,
    idle: Sequence[Maybe[tuple[float, float]]],
    gain: float | None,
    window: Window,
) -> Maybe[Spread]:
    """Energy beyond idling, per inference; absent where it drowns in its uncertainty."""
    for power in idle:
        if isinstance(power, Unavailable):
            return power
    (before, sd_before), (after, sd_after) = (power for power in map(present, idle) if power)
    if _apart(before, after) > BASELINE_DRIFT:
        detail = f"idle drew {before:.4g} W before and {after:.4g} W after"
        return coded("not_resolvable", detail, "let the machine settle, then measure again")
    # The two baselines are taken as the ends of a drift, of whose mean half their distance is the
    # bound of the error.
    sd_idle = math.hypot(sd_before / 2, sd_after / 2, (before - after) / 2 / math.sqrt(3))
    net = figure.energy_j - (before + after) / 2 * window.seconds
    sd_net = math.hypot(sd, sd_idle * window.seconds)
    if net < RESOLVABLE * sd_net:
        detail = f"{net:.4g} J beyond idle, known to {sd_net:.2g} J"
        return coded("not_resolvable", detail, "measure for longer, or with more load")
    return _per(_spread(net, sd_net, gain), window.inferences)


def _spread(value: float, comparative: float, gain: float | None) -> Spread:
    absolute: Maybe[float] = coded("not_supported", "nobody calibrated this meter")
    if gain is not None:
        absolute = math.hypot(comparative, gain * value)
    return Spread(value=value, comparative=comparative, absolute=absolute)


def _per(spread: Spread, count: int) -> Spread:
    absolute = spread.absolute
    return Spread(
        value=spread.value / count,
        comparative=spread.comparative / count,
        absolute=absolute if isinstance(absolute, Unavailable) else absolute / count,
    )


def _joules(figure: Maybe[Figure]) -> Maybe[float]:
    return figure if isinstance(figure, Unavailable) else figure.energy_j


def _watts(power: Maybe[tuple[float, float]]) -> Maybe[float]:
    return power if isinstance(power, Unavailable) else power[0]


def _notes(meter: Meter, window: Window, figure: Figure, counter: Maybe[Figure]) -> tuple[str, ...]:
    notes = []
    if meter.counter is not None and isinstance(counter, Unavailable):
        notes.append(f"from its power, for the counter gave nothing: {counter.reason}")
    if min(window.guard_before_s, window.guard_after_s) < figure.reach_s:
        notes.append("the load did not run on beyond both edges of the window")
    if meter.channel.sensor.filtered:
        notes.append("SGX is on, so the processor adds noise to this counter (INTEL-SA-00389)")
    if malformed := meter.channel.sensor.malformed_rows:
        notes.append(f"{malformed:.0f} malformed rows were left out")
    return tuple(notes)


# --- all meters together ----------------------------------------------------------------------


def _shared(device: str, foreign_cpu_share: float | None) -> Maybe[bool]:
    if foreign_cpu_share is not None:
        return foreign_cpu_share > FOREIGN_SHARE
    return coded("not_present", f"the share of other processes on {device} was not watched")
