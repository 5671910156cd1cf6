"""A duel for a person: who takes what share of whose time, and what else there is to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.compare.paired import Paired, PairedEnergy, PairedVerdict, Variant
from harness.maybe import Maybe, Unavailable, explain
from harness.records.result import Result
from harness.views.terminal import render_table, style_of
from harness.views.text import count, number, plain, quantity, size

_ENDED = {
    "interval": "the ratio is known as well as asked for",
    "launches": "all launches are done",
    "most launches": "the most launches are done, and the ratio is not yet known as well as asked",
    "interrupted": "interrupted",
    "failed": "a side failed",
    "going on": "cut short while it went on",
}


def render_duel(found: Paired, results: Sequence[Result]) -> RenderableType:
    """One sentence a pair, a table of the variants, and below it what it rests on."""
    parts: list[RenderableType] = []
    for verdict in found.verdicts:
        parts += _sentences(verdict)
    parts += [Text(""), _table(found.variants, results), Text("")]
    parts += [Text(text, style="dim") for text in _notes(found, results)]
    if found.problem:
        parts.append(Text(plain(found.problem), style="red"))
    return Group(*parts)


def live_line(
    phase: str,
    launch: int,
    launches: int,
    reference: str,
    ratios: Mapping[str, tuple[float, float, float]],
) -> str:
    """``launch 2/5, taking turns: INT8 / FP32 0.612 ± 0.8 %``."""
    place = f"launch {launch + 1}/{max(launches, launch + 1)}, " if phase != "preparing" else ""
    told = [
        f"{shown_name(name)} / {shown_name(reference)} {ratio_text(ratio, (low, high))} "
        f"± {half_width(ratio, (low, high))}"
        for name, (ratio, low, high) in ratios.items()
    ]
    return f"{place}{phase}{': ' if told else ''}{', '.join(told)}"


def sentence(verdict: PairedVerdict) -> str:
    """``INT8 takes 0.61 of FP32's time, ± 0.4 %``."""
    a, b = shown_name(verdict.a), shown_name(verdict.b)
    if isinstance(verdict.ratio, Unavailable) or isinstance(verdict.interval, Unavailable):
        return f"{b} against {a}: no ratio ({plain(explain(_absence(verdict)))})"
    taken = ratio_text(verdict.ratio, verdict.interval)
    return f"{b} takes {taken} of {a}'s time, ± {half_width(verdict.ratio, verdict.interval)}"


def ratio_text(ratio: float, interval: tuple[float, float]) -> str:
    """With as many digits as the interval supports."""
    half = (interval[1] - interval[0]) / 2
    return f"{ratio:.{4 if half < 0.001 else 3 if half < 0.01 else 2}f}"


def half_width(ratio: float, interval: tuple[float, float]) -> str:
    """Of the 95 % interval, relative: ``0.4 %``."""
    return f"{100 * (interval[1] - interval[0]) / 2 / ratio:.2g} %"


def shown_name(name: str) -> str:
    """Precisions as people write them."""
    return name.upper() if name in ("fp32", "fp16", "bf16", "int8") else plain(name)


def _absence(verdict: PairedVerdict) -> Unavailable:
    return verdict.ratio if isinstance(verdict.ratio, Unavailable) else Unavailable(verdict.reason)


def _sentences(verdict: PairedVerdict) -> list[Text]:
    head = Text(sentence(verdict), style="bold")
    if verdict.verdict != "not comparable":
        head.append(": ").append(verdict.verdict, style=style_of(verdict.verdict))
    found = [head, Text(f"  {plain(verdict.reason)}", style="dim")]
    if not isinstance(verdict.cpu_ratio, Unavailable):
        text = f"  processor time per inference: {number(verdict.cpu_ratio)}"
        if not isinstance(verdict.cpu_interval, Unavailable):
            text += f" [{number(verdict.cpu_interval[0])}, {number(verdict.cpu_interval[1])}]"
        found.append(Text(text, style="dim"))
    if not isinstance(verdict.energy, Unavailable):
        found.append(Text(f"  {_joules(verdict.energy)}", style="dim"))
    if verdict.doubt:
        found.append(Text(f"  doubt: {plain(verdict.doubt)}", style="yellow"))
    return found


def _joules(energy: PairedEnergy) -> str:
    """``joules per inference: gross 0.71 [0.70, 0.72], net n/a (cpu-package, 5 pairs of 5 s)``."""
    parts = [
        _with_interval("gross", energy.gross_ratio, energy.gross_interval),
        _with_interval("net", energy.net_ratio, energy.net_interval),
    ]
    shared = ", others worked meanwhile" if energy.shared else ""
    return (
        f"joules per inference: {', '.join(parts)} ({plain(energy.meter)}, "
        f"{count(energy.pairs, 'pair')} of {number(energy.stretch_s)} s{shared})"
    )


def _with_interval(name: str, ratio: Maybe[float], interval: Maybe[tuple[float, float]]) -> str:
    if isinstance(ratio, Unavailable):
        return f"{name} n/a ({plain(ratio.reason)})"
    told = "no interval"
    if not isinstance(interval, Unavailable):
        told = f"[{number(interval[0])}, {number(interval[1])}]"
    return f"{name} {number(ratio)} {told}"


def _table(variants: Sequence[Variant], results: Sequence[Result]) -> RenderableType:
    header = ["", "latency", "after a rest", "processor", "accuracy", "size", "memory", "energy"]
    return render_table(header, [_row(*pair) for pair in zip(variants, results, strict=False)])


def _row(variant: Variant, result: Result) -> list[str]:
    precision, memory, energy = result.precision, result.memory, result.energy
    return [
        shown_name(variant.name),
        *(_ms(value) for value in (variant.latency_ms, variant.cold_ms, variant.cpu_ms)),
        "n/a" if isinstance(result.accuracy, Unavailable) else f"{result.accuracy.top1:.2%}",
        "n/a" if isinstance(precision, Unavailable) else size(precision.file_size_bytes),
        "n/a"
        if isinstance(memory, Unavailable) or isinstance(memory.window_peak_bytes, Unavailable)
        else size(memory.window_peak_bytes),
        "n/a"
        if isinstance(energy, Unavailable) or isinstance(energy.joules_per_inference, Unavailable)
        else quantity(energy.joules_per_inference.value, "J"),
    ]


def _ms(value: Maybe[float]) -> str:
    return "n/a" if isinstance(value, Unavailable) else quantity(value, "ms")


def _notes(found: Paired, results: Sequence[Result]) -> list[str]:
    design = found.design
    notes = [
        f"{count(found.rounds, 'round')} in {count(found.launches, 'launch', 'launches')}, "
        f"turns of {number(design.block_ms)} ms, of each the first "
        f"{count(design.left_out, 'iteration')} left out; ended: {_ENDED[found.ended]}"
    ]
    for result in results:
        doubts = [c for c in result.validity if c.verdict in ("warn", "fail")]
        if doubts:
            told = ", ".join(plain(check.name) for check in doubts)
            notes.append(f"{plain(result.id)}: {result.status} ({told})")
    absent = next((one.energy for one in results if isinstance(one.energy, Unavailable)), None)
    if absent is not None:
        notes.append(f"energy: {plain(explain(absent))}")
    return notes
