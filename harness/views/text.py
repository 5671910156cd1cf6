"""A Result as rows of text, shared by the terminal's table and the Markdown summary.

Nothing is computed here: a figure in a row is a figure in the result, in a unit that reads well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from harness.maybe import Maybe, Unavailable, explain
from harness.protocols import Proof, QuantizationCost
from harness.records.result import (
    NOT_ASKED,
    NOT_REACHED,
    NOT_SERVED,
    Accuracy,
    Check,
    Energy,
    EnergySource,
    Fidelity,
    LatencyStats,
    Memory,
    OutputFidelity,
    Overflows,
    PrecisionInfo,
    Result,
    Serving,
    Spread,
    Throughput,
    Timing,
)
from harness.text import plain as plain

_QUANTILES = ("median", "p90", "p95", "p99", "p99_9")
_TIME_MS = ((1e3, "s"), (1.0, "ms"), (1e-3, "µs"), (1e-6, "ns"))
_JOULES = ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_VERDICTS = ("fail", "warn", "unknown")
_LAYERS_SHOWN = 3  # of those left in fp32; the result has all
_DOUBTS = ("n/a", *_VERDICTS)


class Line(NamedTuple):
    """``section`` is set on the first row of its section alone."""

    section: str
    name: str
    value: str
    note: str


def why(absent: Unavailable) -> str:
    """Why something is absent, fit for a table."""
    return plain(explain(absent))


def title(result: Result) -> str:
    """``resnet18 (random weights), int8, onnxruntime on cpu``."""
    spec, model = result.spec, result.model
    name = spec.model if isinstance(model, Unavailable) else model.name
    random = not isinstance(model, Unavailable) and model.random_weights
    marked = f"{name} (random weights)" if random else name
    return plain(f"{marked}, {spec.precision}, {spec.backend} on {spec.device}")


def subtitle(result: Result) -> str:
    """The conditions of the measurement."""
    spec = result.spec
    parts = [f"batch {spec.batch_size}", f"{spec.scenario} scenario", f"{spec.boundary} boundary"]
    if spec.concurrency > 1:
        parts.append(f"concurrency {spec.concurrency}")
    if spec.threads is not None:
        parts.append(count(spec.threads, "thread"))
    return ", ".join([*parts, count(spec.launches, "launch", "launches")])


def rows(result: Result) -> list[Line]:
    """Every figure worth reading, in reading order."""
    return once(all_rows(result))


def once(found: Iterable[Line]) -> list[Line]:
    """Each section named on its first row alone, and each remedy given where it is first needed."""
    out: list[Line] = []
    section, told = "", set[str]()
    for row in found:
        note = row.note
        if row.value in _DOUBTS or note.startswith("no interval"):
            reason, *advice = note.split("; ")
            note = "; ".join([reason, *(text for text in advice if text not in told)])
            told.update(advice)
        out.append(Line("" if row.section == section else row.section, row.name, row.value, note))
        section = row.section
    return out


def all_rows(result: Result) -> list[Line]:
    """As `rows`, with the section in every row and every remedy."""
    sections: list[tuple[str, Maybe[Any], Callable[[Any], Iterable[tuple[str, str, str]]]]] = [
        ("Latency", result.timing, _timing),
        *([] if result.serving == NOT_SERVED else [("Requests", result.serving, _serving)]),
        ("Throughput", result.throughput, _throughput),
        ("Energy", result.energy, _energy),
        ("Memory", result.memory, _memory),
        ("Accuracy", result.accuracy, _accuracy),
        ("Precision", result.precision, _precision),
    ]
    out = list(_error(result))
    for section, record, describe in sections:
        if record == NOT_REACHED and result.error is not None:
            continue  # the error says it once
        if isinstance(record, Unavailable):
            out.append(Line(section, "", "n/a", why(record)))
            continue
        out += [Line(section, name, value, plain(note)) for name, value, note in describe(record)]
    return [*out, *_overhead(result), *_validity(result)]


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 launch``, ``2 launches``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def number(value: float, digits: int = 4) -> str:
    """``value`` to ``digits`` significant digits, without an exponent in everyday ranges."""
    if value == 0 or not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits}g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def duration(seconds: float) -> str:
    """``34 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _scale(value: float, units: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    """The largest unit in which ``value`` is at least 1, as (factor, name)."""
    return next((unit for unit in units if abs(value) >= unit[0]), units[-1])


def scale_ms(value_ms: float) -> tuple[float, str]:
    """The unit in which a time reads best, as (what to divide by, its name)."""
    return _scale(value_ms, _TIME_MS)


_UNITS = {"ms": _TIME_MS, "J": _JOULES, "bytes": _BYTES}


def quantity(value: float, unit: str) -> str:
    """``value``, given in ``unit``, in the unit of its kind that reads best."""
    factor, name = _scale(value, _UNITS.get(unit, ((0.0, unit),)))
    return f"{number(value / (factor or 1.0))} {name}"


def size(size_bytes: float) -> str:
    """In decimal units: 1 MB is 10^6 bytes."""
    return quantity(size_bytes, "bytes")


def _maybe(value: Maybe[Any], text: Callable[[Any], str], note: str = "") -> tuple[str, str]:
    """(value, note) of a cell that may be absent."""
    return ("n/a", why(value)) if isinstance(value, Unavailable) else (text(value), note)


def _timing(timing: Timing) -> Iterator[tuple[str, str, str]]:
    yield from _latency(timing.latency_ms)
    if not isinstance(timing.device_ms, Unavailable):
        name, value, note = next(iter(_latency(timing.device_ms)))
        yield f"gpu {name}", value, note
    if not isinstance(timing.cpu_ms, Unavailable):
        yield "cpu", quantity(timing.cpu_ms, "ms"), "processor time of each, over all threads"
    window = f"{count(timing.iterations, 'iteration')}, {_count_launches(timing)}"
    yield (
        "window",
        f"{number(timing.window_s, 3)} s",
        f"{window}; ended by {timing.stop_reason}, warm-up by {timing.warmup_end};"
        f" {count(timing.outliers, 'outlier')} kept",
    )


def _count_launches(timing: Timing) -> str:
    return count(len(timing.launches), "launch", "launches")


def _latency(stats: LatencyStats) -> Iterator[tuple[str, str, str]]:
    factor, unit = _scale(stats.median, _TIME_MS)  # one unit for all, so that they compare at sight

    def scaled(value_ms: float) -> str:
        return number(value_ms / factor)

    for name in (*_QUANTILES, "mean"):
        interval = stats.ci95.get(name, Unavailable("no interval"))
        if isinstance(interval, Unavailable):
            note = f"no interval: {why(interval)}"
        else:
            note = f"95 % interval {scaled(interval[0])} to {scaled(interval[1])}"
        value, note = _maybe(getattr(stats, name), lambda v: f"{scaled(v)} {unit}", note)
        yield name.replace("_", "."), value, note
    yield "std", f"{scaled(stats.std)} {unit}", f"min {scaled(stats.min)}, max {scaled(stats.max)}"


def _serving(serving: Serving) -> Iterator[tuple[str, str, str]]:
    came = f"{number(serving.offered_per_s)} /s came, {serving.arrivals}"
    came += f", batching {serving.batching}" if serving.batching else ""
    yield "served", f"{number(serving.achieved_per_s)} /s", came
    for name, stats in (("waiting", serving.waiting_ms), ("service", serving.service_ms)):
        yield name, *_median_and_p99(stats)
    if isinstance(serving.lateness_ms, Unavailable):
        yield "lateness", "n/a", why(serving.lateness_ms)
    else:
        value, note = _median_and_p99(serving.lateness_ms)
        yield "lateness", value, f"{note}; of starts with a free server, part of every latency"
    several = f" of {serving.servers} servers" if serving.servers > 1 else ""
    yield "busy", f"{serving.utilization:.1%}", f"{several} of the time".strip()
    if serving.batching:
        yield "batch", number(serving.requests_per_inference, 3), "requests an inference, mean"
    left = f", {serving.unserved} of them for good" if serving.unserved else ""
    note = f"most {serving.queue_max}; {serving.backlog} at the end{left}"
    yield (
        "queue",
        number(serving.queue_mean, 3),
        note + ("" if serving.stationary else "; it grows"),
    )


def _median_and_p99(stats: LatencyStats) -> tuple[str, str]:
    value, p99 = quantity(stats.median, "ms"), stats.p99
    return value, "median" + (
        "" if isinstance(p99, Unavailable) else f"; p99 {quantity(p99, 'ms')}"
    )


def _throughput(throughput: Throughput) -> Iterator[tuple[str, str, str]]:
    interval = throughput.ci95
    if isinstance(interval, Unavailable):
        note = f"no interval: {why(interval)}"
    else:
        note = f"95 % interval {number(interval[0])} to {number(interval[1])}"
    yield "", f"{number(throughput.inferences_per_s)} /s", note


def _energy(energy: Energy) -> Iterator[tuple[str, str, str]]:
    whole = {part: name for name, source in energy.sources.items() for part in source.parts}
    for name, source in energy.sources.items():
        primary = name == energy.primary
        where = f"{source.source} ({source.scope}, {source.method})"
        where += "" if source.status == "ok" else f": {source.status}"
        where += f", a part of {plain(whole[name])}" if name in whole else ""
        yield _spread("per inf." if primary else plain(name), source.gross_j_per_inference, where)
        if primary:
            yield _spread("net of idle", source.net_j_per_inference, "")
            yield (
                "power",
                *_maybe(source.average_power_w, lambda w: f"{number(w)} W", _idle(source)),
            )
    if not energy.sources:
        yield _spread("per inf.", energy.joules_per_inference, energy.primary)


def _idle(source: EnergySource) -> str:
    before, after = source.idle_before_w, source.idle_after_w
    if isinstance(before, Unavailable) or isinstance(after, Unavailable):
        return "idle power unknown"
    return f"idle {number(before)} W before, {number(after)} W after"


def _spread(name: str, spread: Maybe[Spread], note: str) -> tuple[str, str, str]:
    if isinstance(spread, Unavailable):
        return name, "n/a", why(spread)
    factor, unit = _scale(spread.value, _JOULES)
    bounds = f"± {number(spread.comparative / factor, 2)} between runs"
    if not isinstance(spread.absolute, Unavailable):
        bounds += f", ± {number(spread.absolute / factor, 2)} in all"
    return name, f"{number(spread.value / factor)} {unit}", "; ".join(filter(None, (bounds, note)))


def _memory(memory: Memory) -> Iterator[tuple[str, str, str]]:
    yield "peak", *_maybe(memory.window_peak_bytes, size, f"in the window, {memory.kind}")
    yield "warm-up", *_maybe(memory.warmup_peak_bytes, size, "peak while warming up")
    yield "loaded", *_maybe(memory.loaded_bytes, size, "after the model was loaded")
    yield "baseline", *_maybe(memory.baseline_bytes, size, "the runtime without the model")
    if not isinstance(memory.device, Unavailable):
        for name, amount in memory.device.items():
            yield plain(name).removesuffix("_bytes"), *_maybe(amount, size, "on the device")


def _accuracy(accuracy: Accuracy) -> Iterator[tuple[str, str, str]]:
    yield "top-1", f"{accuracy.top1:.2%}", f"{accuracy.dataset}, {accuracy.samples} samples"
    named = accuracy.scores.endswith("(--scores)")
    yield "macro F1", f"{accuracy.macro_f1:.2%}", f"of {plain(accuracy.scores)}" if named else ""


def _precision(precision: PrecisionInfo) -> Iterator[tuple[str, str, str]]:
    if isinstance(precision.operators, Unavailable):
        yield "ran in", "n/a", why(precision.operators)
    else:
        for kind, operators in _by_precision(precision.operators).items():
            nodes = sum(operators.values())
            listed = ", ".join(f"{name} {n}" for name, n in operators.items())
            yield plain(f"ran {kind}"), count(nodes, "node"), listed
    made = precision.quantization
    if made is not None:
        source = (
            f"calibrated on {made.calibration_source} ({count(made.calibration_samples, 'sample')})"
        )
        yield "made by", plain(made.method), f"{made.route}; {made.scheme}; {source}"
        if made.cost is not None:
            yield from _cost(made.cost)
        if made.proof is not None:
            yield from _proof(made.proof)
    if not isinstance(precision.overflows, Unavailable):
        yield _overflows(precision.overflows)
    yield "file", size(precision.file_size_bytes), _size_note(precision)
    if isinstance(precision.fidelity, Unavailable):
        if precision.requested != "fp32":
            yield "fidelity", "n/a", why(precision.fidelity)
    else:
        yield from _fidelity(precision.fidelity)


def _overflows(found: Overflows) -> tuple[str, str, str]:
    """Which layers may answer otherwise on another processor."""
    on = f"by weights and the activations of {count(found.samples, 'sample')}"
    if not found.layers:
        return "16-bit sums", "safe", f"no two products leave 16 bits, {on}"
    ordered = sorted(found.layers, key=lambda one: -abs(one.reached))
    named = [
        f"{plain(one.name)} ({one.reached}, {one.filters} of {one.of} filters)"
        for one in ordered[:_LAYERS_SHOWN]
    ]
    more = [f"{len(ordered) - _LAYERS_SHOWN} more"] if len(ordered) > _LAYERS_SHOWN else []
    here = "as this one is" if found.here else "this one has it"
    note = f"can overflow on x86 without VNNI ({here}), {on}: {', '.join(named + more)}"
    return "16-bit sums", count(len(ordered), "layer"), note


def _cost(cost: QuantizationCost) -> Iterator[tuple[str, str, str]]:
    """Of making the artifact, when it was made."""
    peak, note = _maybe(cost.peak_rss_bytes, size, "")
    told = f"{cost.cpu_s:.1f} s of processor time, memory peak {peak}"
    yield "made in", f"{number(cost.duration_s, 3)} s", f"{told}{f' ({note})' if note else ''}"


def _proof(proof: Proof) -> Iterator[tuple[str, str, str]]:
    """How near to FP32 the worst layer is, and what was left in FP32."""
    against = f"each of {count(proof.layers, 'layer')} against fp32, given fp32's own inputs"
    if proof.floor_db is not None:
        against += f"; {proof.floor_db:g} dB is the least"
    if proof.worst_sqnr_db is not None:
        note = f"{plain(proof.worst)}; {against}"
        yield "worst layer", f"{proof.worst_sqnr_db:.2f} dB", note
    if proof.left:
        shown = [
            f"{plain(name)} {plain(why)}" for name, why in list(proof.left.items())[:_LAYERS_SHOWN]
        ]
        rest = (
            [f"{len(proof.left) - _LAYERS_SHOWN} more"] if len(proof.left) > _LAYERS_SHOWN else []
        )
        yield "left in fp32", count(len(proof.left), "layer"), "; ".join(shown + rest)


def _by_precision(operators: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """precision -> operator -> nodes, the most frequent operator first."""
    turned: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for operator, kinds in operators.items():
        for kind, nodes in kinds.items():
            turned[kind][operator] = nodes
    return {
        kind: dict(sorted(nodes.items(), key=lambda item: (-item[1], item[0])))
        for kind, nodes in sorted(turned.items())
    }


def _size_note(precision: PrecisionInfo) -> str:
    fp32, ratio = precision.fp32_file_size_bytes, precision.size_ratio
    if isinstance(fp32, Unavailable) or isinstance(ratio, Unavailable):
        return ""
    return f"fp32 {size(fp32)}, ratio {number(ratio, 3)}"


def _fidelity(fidelity: Fidelity) -> Iterator[tuple[str, str, str]]:
    """Of the worst output, with its name where there are several, and each of the others below."""
    samples = count(fidelity.samples, "sample")
    against = f"against {fidelity.reference}, {samples}"
    if fidelity.inputs.startswith("the bound inputs"):
        against += f": {plain(fidelity.inputs)}"
    several = len(fidelity.outputs) > 1
    if several:
        yield "worst output", plain(fidelity.output), against
    note = "" if several else against
    yield "cosine", *_maybe(fidelity.cosine, lambda value: f"{value:.6f}", note)
    yield "SQNR", *_maybe(fidelity.sqnr_db, lambda value: f"{value:.2f} dB")
    whose = f" of {plain(fidelity.top1_output)}" if several and fidelity.top1_output else ""
    same = f"same top-1 class{whose}"
    yield "agreement", *_maybe(fidelity.top1_agreement, lambda v: f"{v:.2%}", same)
    yield "max error", *_maybe(fidelity.max_abs_error, number)
    for name, one in fidelity.outputs.items() if several else ():
        if name != fidelity.output:
            yield "output", *_output(name, one)


def _output(name: str, one: Maybe[OutputFidelity]) -> tuple[str, str]:
    """What became of one output, and its name."""
    if isinstance(one, Unavailable):
        return "n/a", why(one)
    if not isinstance(one.equal_non_zero, Unavailable):
        return f"{one.equal:.2%}", f"{plain(name)}, {one.dtype}: elements that are equal"
    if isinstance(one.sqnr_db, Unavailable):
        return "n/a", f"{plain(name)}: {why(one.sqnr_db)}"
    return f"{one.sqnr_db:.2f} dB", f"{plain(name)}, SQNR"


def _overhead(result: Result) -> Iterator[Line]:
    """Only where it was asked for."""
    found = result.overhead
    if isinstance(found, Unavailable):
        if found != NOT_ASKED:
            yield Line("Overhead", "", "n/a", why(found))
        return
    note = f"watched over left alone, 95 % interval {_range(found.median_ci95)}"
    yield Line("Overhead", "median", f"{found.median:.4f}", note)
    if isinstance(found.p99, Unavailable) or isinstance(found.p99_ci95, Unavailable):
        return
    yield Line("Overhead", "p99", f"{found.p99:.4f}", f"95 % interval {_range(found.p99_ci95)}")


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def _validity(result: Result) -> Iterator[Line]:
    for verdict in _VERDICTS:
        checks = [check for check in result.validity if check.verdict == verdict]
        if verdict == "unknown" and result.error is not None:
            yield from _named(checks, verdict)  # the error says why, once
            continue
        for check in checks:
            held = check.threshold and verdict != "unknown"
            rule = f" (wanted: {plain(check.threshold)})" if held else ""
            yield Line("Validity", plain(check.name), verdict, plain(check.reason) + rule)
    yield from _named([check for check in result.validity if check.verdict == "pass"], "pass")


def _named(checks: list[Check], verdict: str) -> Iterator[Line]:
    if checks:
        names = ", ".join(plain(check.name) for check in checks)
        yield Line("Validity", count(len(checks), "check"), verdict, names)


def _error(result: Result) -> Iterator[Line]:
    error = result.error
    if error is not None:
        text = "; ".join(filter(None, (error.message, error.remedy)))
        yield Line("Error", plain(error.phase), plain(error.kind), plain(text))
        for line in error.stderr_tail.splitlines()[-5:]:
            yield Line("Error", "", "stderr", plain(line))
