"""Every figure of a result once more, from the samples and series that lie beside it.

    samples.npz ── start and end of every iteration ──> timing, throughput    must be equal
    series.npz  ── readings of every sensor         ──> channels              must be equal
                                                    ──> energy by counters    within its uncertainty
    the result itself ── answers, sizes             ──> top-1, size ratio     must be equal

The same functions make them that made the result. What rests on something that a run does not keep
is listed with the reason, and never called checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.analysis.channels import summarise
from harness.analysis.drift import diagnose
from harness.analysis.energy.series import Load, Sensor, Series, counter_energy
from harness.analysis.latency import latency_stats
from harness.analysis.profiles import merge
from harness.analysis.throughput import launch_rate, throughput
from harness.errors import HarnessError
from harness.maybe import Maybe, Unavailable, explain
from harness.protocols import Channel
from harness.records.result import IN_TURNS, NOT_KEPT, EnergySource, Profiles, Result
from harness.records.samples import Samples

T = TypeVar("T")
State = Literal["agrees", "differs", "not recomputed"]
Times = NDArray[np.int64]
Streams = list[tuple[Times, Times]]
# one launch's readings: channel -> times in ns, values
Readings = Mapping[str, tuple[Times, NDArray[np.float64]]]
_OF_STRETCHES = Unavailable("it is of stretches beside the window, whose bounds are not kept")
_EQUAL = 1e-9  # relative: the libraries below sum in an order of their own
_SURE = 3.0  # standard deviations
_STATS = ("mean", "std", "min", "max", "median", "p90", "p95", "p99", "p99_9", "iqr", "mad")
_DIAGNOSIS = ("autocorrelation", "effective_samples", "outliers", "drift", "between_launch_cv")
_OF_A_LAUNCH = ("median", "mean", "p90", "p95", "p99")
_CHANNEL = ("mean", "min", "max", "first", "last")
_ONCE = {
    "first_inference_ms": "the worker timed it once",
    "load_s": "the worker timed it once",
    "compile_s": "the runtime's adapter timed it once",
    "cpu_ms": "the worker read its clock once",
    "yardstick_ms": "the worker timed it once",
    "device_median_ms": "the device's own times are not kept",
    "memory_peak_bytes": "it is the kernel's high-water mark, of which no series is kept",
    "device_memory_peak_bytes": "it is the allocator's own mark, of which no series is kept",
    "joules_per_inference": "the energy of all launches together is recomputed",
    "average_power_w": "the energy of all launches together is recomputed",
}
_NOT_KEPT = {
    "timing.cpu_ms": "the workers read their clocks once",
    "timing.device_ms.median": "the device's own times are not kept",
    "memory.window_peak_bytes": "it is the kernel's high-water mark, of which no series is kept",
    "memory.baseline_bytes": "it was read once, and no series is kept",
    "memory.loaded_bytes": "it was read once, and no series is kept",
    "accuracy.macro_f1": "which class was answered is not kept, only whether it was right",
    "precision.file_size_bytes": "the model's file is not kept",
    "precision.fidelity": "outputs are not kept",
    "serving.achieved_per_s": "when the schedule began and ended is not kept",
}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure by its path in the result. ``why`` is set where it was not recomputed."""

    figure: str
    state: State
    recorded: Any
    recomputed: Any = None
    why: str = ""


def recompute(
    result: Result, samples: Maybe[Samples], readings: Sequence[Maybe[Readings]]
) -> list[Figure]:
    """Every figure of ``result``, held against its data. ``readings``: one entry per launch."""
    windows = samples if isinstance(samples, Unavailable) else _windows(samples)
    found = list(_timing(result, samples, windows))
    found += _channels(result, windows, readings)
    found += _energy(result, windows, readings)
    found += _of_itself(result)
    for path, why in _NOT_KEPT.items():
        recorded = _read(result, path)
        if recorded is not None and not isinstance(recorded, Unavailable):
            shown = recorded if isinstance(recorded, int | float) else "present"
            found.append(_unknown(path, shown, why))
    return found


# --- from the samples -------------------------------------------------------------------------


def _windows(samples: Samples) -> dict[int, Streams]:
    """Launch -> its streams' timed iterations; a launch that timed nothing has no window."""
    found: dict[int, Streams] = {}
    for launch in np.unique(samples.launch):
        inside = samples.launch == launch
        streams = []
        for stream in np.unique(samples.stream[inside]):
            timed = inside & (samples.stream == stream) & (samples.timed == 1)
            streams.append((samples.start_ns[timed], samples.end_ns[timed]))
        if samples.due_ns is not None:  # one that shares a schedule may have got nothing
            streams = [(starts, ends) for starts, ends in streams if len(starts)]
        if streams and all(len(starts) for starts, _ in streams):
            found[int(launch)] = streams
    return found


def _timing(
    result: Result, samples: Maybe[Samples], windows: Maybe[dict[int, Streams]]
) -> Iterator[Figure]:
    timing = result.timing
    if isinstance(timing, Unavailable):
        return
    if isinstance(windows, Unavailable) or isinstance(samples, Unavailable):
        yield from _without("timing.latency_ms", timing.latency_ms, _STATS, windows)
        return
    lacking = next((check for check in result.validity if check.name == "samples"), None)
    if lacking is not None or not windows:
        why = Unavailable(lacking.reason if lacking else "the file holds no timed iteration")
        yield from _without("timing.latency_ms", timing.latency_ms, _STATS, why)
        return
    values: Maybe[dict[str, Any]] = _sane(partial(_recomputed, result, samples, windows))
    if isinstance(values, Unavailable):
        yield from _without("timing.latency_ms", timing.latency_ms, _STATS, values)
        return
    for path, value in values.items():
        yield _held(path, _read(result, path), value)
    for index, launch in enumerate(timing.launches):
        for name, reason in _ONCE.items():
            recorded = getattr(launch, name)
            if not isinstance(recorded, Unavailable):
                yield _unknown(f"timing.launches.{index}.{name}", recorded, reason)


def _recomputed(result: Result, samples: Samples, windows: dict[int, Streams]) -> dict[str, Any]:
    spec = result.spec
    of = {launch: _latencies(samples, launch) for launch in windows}
    latencies = list(of.values())
    stats, diagnosis = latency_stats(latencies), diagnose(latencies)
    rate = throughput(list(windows.values()), spec.batch_size, spec.concurrency)
    found: dict[str, Any] = {
        "timing.iterations": sum(map(len, latencies)),
        "timing.window_s": sum(_seconds(streams) for streams in windows.values()),
        **{f"timing.latency_ms.{name}": getattr(stats, name) for name in _STATS},
        **{f"timing.latency_ms.ci95.{name}": value for name, value in stats.ci95.items()},
        **{f"timing.{name}": getattr(diagnosis, name) for name in _DIAGNOSIS},
    }
    if not spec.scheduled:
        found["throughput.inferences_per_s"] = rate.inferences_per_s
        found["throughput.ci95"] = rate.ci95
    for index, (launch, streams) in enumerate(windows.items()):
        own = latency_stats([of[launch]])
        figures = {
            "iterations": len(of[launch]),
            "warmup_iterations": _warm_up(samples, launch),
            "window_s": _seconds(streams),
            **(
                {}
                if spec.scheduled
                else {"inferences_per_s": launch_rate(streams, spec.batch_size)}
            ),
            **{f"{name}_ms": getattr(own, name) for name in _OF_A_LAUNCH},
        }
        found |= {f"timing.launches.{index}.{name}": value for name, value in figures.items()}
    return found


def _latencies(samples: Samples, launch: int) -> Times:
    """Of the timed iterations, stream by stream, then in the order in which they ended."""
    timed = np.flatnonzero((samples.launch == launch) & (samples.timed == 1))
    timed = timed[np.argsort(samples.stream[timed], kind="stable")]
    ordered: Times = samples.latency_ns[timed][np.argsort(samples.end_ns[timed], kind="stable")]
    return ordered


def _bounds(streams: Streams) -> tuple[int, int]:
    return min(int(s[0]) for s, _ in streams), max(int(e[-1]) for _, e in streams)


def _seconds(streams: Streams) -> float:
    start, end = _bounds(streams)
    return (end - start) / 1e9


def _warm_up(samples: Samples, launch: int) -> int:
    """Iterations before the first timed one of their stream."""
    inside = samples.launch == launch
    count = 0
    for stream in np.unique(samples.stream[inside]):
        timed = samples.timed[inside & (samples.stream == stream)] == 1
        count += int(np.argmax(timed)) if timed.any() else len(timed)
    return count


# --- from the series --------------------------------------------------------------------------


def _channels(
    result: Result,
    windows: Maybe[dict[int, Streams]],
    readings: Sequence[Maybe[Readings]],
) -> Iterator[Figure]:
    profiles = result.profiles
    if isinstance(profiles, Unavailable):
        return
    present = {n: c for n, c in profiles.channels.items() if not isinstance(c, Unavailable)}
    whole = _whole(windows, readings)
    if isinstance(whole, Unavailable):
        yield from (_unknown(f"profiles.channels.{n}", "present", explain(whole)) for n in present)
        return
    for name, channel in present.items():
        again: Maybe[Any] = _sane(partial(_summary, name, channel, whole))
        for field in _CHANNEL:
            path = f"profiles.channels.{name}.{field}"
            recorded = getattr(channel, field)
            if isinstance(again, Unavailable):
                yield _unknown(path, recorded, explain(again))
            else:
                yield _held(path, recorded, getattr(again, field))


_Launch = tuple[tuple[int, int], Readings]


def _whole(
    windows: Maybe[dict[int, Streams]], readings: Sequence[Maybe[Readings]]
) -> Maybe[list[_Launch]]:
    """Window and readings of each launch that has a window, or what is missing."""
    if isinstance(windows, Unavailable):
        return windows
    found: list[_Launch] = []
    for launch, streams in windows.items():
        if launch >= len(readings):
            return Unavailable(f"launch {launch} has no file of readings")
        one = readings[launch]
        if isinstance(one, Unavailable):
            return one
        found.append((_bounds(streams), one))
    return found or Unavailable("no launch timed anything")


def _summary(name: str, recorded: Any, launches: Sequence[_Launch]) -> Maybe[Any]:
    channel = Channel(name, recorded.unit, recorded.kind, name, recorded.scope, recorded.source)
    made = []
    for (start, end), readings in launches:
        if name not in readings:
            return Unavailable("its readings are not kept")
        made.append(Profiles(
            sampler=Unavailable("not asked"),
            channels={name: summarise(channel, *readings[name], start, end)},
        ))  # fmt: skip
    return merge(made).channels[name]


def _energy(
    result: Result,
    windows: Maybe[dict[int, Streams]],
    readings: Sequence[Maybe[Readings]],
) -> Iterator[Figure]:
    energy = result.energy
    if isinstance(energy, Unavailable):
        return
    whole: Maybe[list[_Launch]] = _OF_STRETCHES
    if result.throughput != IN_TURNS:
        whole = _whole(windows, readings)
    for name, source in energy.sources.items():
        recorded = source.energy_j
        if isinstance(recorded, Unavailable):
            continue
        path = f"energy.sources.{name}.energy_j.value"
        parts = [(part, energy.sources.get(part)) for part in source.parts] or [(name, source)]
        joules = whole if isinstance(whole, Unavailable) else _sane(partial(_joules, parts, whole))
        if isinstance(joules, Unavailable):
            yield _unknown(path, recorded.value, explain(joules))
            continue
        yield _held(path, recorded.value, joules, _SURE * recorded.comparative)
        net = source.net_j_per_inference
        if not isinstance(net, Unavailable):
            why = "where the idle stretches lay is not kept"
            yield _unknown(f"energy.sources.{name}.net_j_per_inference.value", net.value, why)
    primary = energy.sources.get(energy.primary)
    headline = energy.joules_per_inference
    if primary is not None and not isinstance(headline, Unavailable):
        total = primary.energy_j
        again = None
        if not isinstance(total, Unavailable) and energy.inferences > 0:
            again = total.value / energy.inferences
        yield _held("energy.joules_per_inference.value", headline.value, again)


def _joules(
    parts: Sequence[tuple[str, EnergySource | None]], launches: Sequence[_Launch]
) -> Maybe[float]:
    """What the counters of these meters grew by in all windows."""
    total = 0.0
    for name, source in parts:
        if source is None or source.method != "counter":
            return Unavailable("what its power readings average over is not kept")
        if source.scope == "wall":
            return Unavailable("its readings carry times of their own")
        for (start, end), readings in launches:
            times, values = readings.get(f"energy/{name}_j", (np.empty(0), np.empty(0)))
            if not len(times):
                return Unavailable(f"the readings of {name} are not kept")
            known = np.isfinite(values)
            series = Series((times[known] - start) / 1e9, values[known])
            period = source.update_period_s
            sensor = Sensor(None if isinstance(period, Unavailable) else period)
            figure = counter_energy(series, 0.0, (end - start) / 1e9, sensor, Load())
            if isinstance(figure, Unavailable):
                return figure
            total += figure.energy_j
    return total


# --- from the result itself -------------------------------------------------------------------


def _of_itself(result: Result) -> Iterator[Figure]:
    accuracy, precision = result.accuracy, result.precision
    if not isinstance(accuracy, Unavailable) and accuracy.correct:
        again = accuracy.correct.count("1") / len(accuracy.correct)
        yield _held("accuracy.top1", accuracy.top1, again)
        yield _held("accuracy.samples", accuracy.samples, len(accuracy.correct))
    if isinstance(precision, Unavailable):
        return
    ratio, before = precision.size_ratio, precision.fp32_file_size_bytes
    if not isinstance(ratio, Unavailable) and not isinstance(before, Unavailable):
        now = before / precision.file_size_bytes if precision.file_size_bytes else math.nan
        yield _held("precision.size_ratio", ratio, now)


# --- one figure -------------------------------------------------------------------------------


def _read(record: Any, path: str) -> Any:
    """As `harness.records.lookup.lookup`, into lists too; None where there is nothing."""
    value = record
    for name in path.split("."):
        if value is None or isinstance(value, Unavailable):
            return value
        if isinstance(value, tuple):
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value


def _sane(make: Callable[[], T]) -> T | Unavailable:
    """What ``make`` gives; data that nobody measured can break any formula."""
    try:
        with np.errstate(all="ignore"):
            return make()
    except (ArithmeticError, LookupError, ValueError, HarnessError) as error:
        return Unavailable(f"the data make no sense: {type(error).__name__}: {error}")


def _held(path: str, recorded: Any, again: Any, within: float = 0.0) -> Figure:
    if recorded in (NOT_KEPT, IN_TURNS):
        return _unknown(path, None, "this result does not state it")
    recorded, again = _shown(recorded), _shown(again)
    state: State = "agrees" if _equal(recorded, again, within) else "differs"
    return Figure(figure=path, state=state, recorded=recorded, recomputed=again)


def _equal(one: Any, other: Any, within: float) -> bool:
    absent = [isinstance(value, Unavailable) for value in (one, other)]
    if any(absent):
        return all(absent)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other, [within] * len(one)))
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return False
    return math.isclose(one, other, rel_tol=_EQUAL, abs_tol=max(within, 1e-300))


def _shown(value: Any) -> Any:
    """As JSON has it: numbers are Python's own."""
    if isinstance(value, tuple):
        return tuple(map(_shown, value))
    return value.item() if isinstance(value, np.generic) else value


def _without(path: str, record: Any, names: Sequence[str], why: Maybe[Any]) -> Iterator[Figure]:
    told = explain(why) if isinstance(why, Unavailable) else ""
    for name in names:
        yield _unknown(f"{path}.{name}", _shown(getattr(record, name)), told)


def _unknown(path: str, recorded: Any, why: str) -> Figure:
    return Figure(figure=path, state="not recomputed", recorded=recorded, why=why)
