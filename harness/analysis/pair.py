"""Two results side by side: what may be compared, and what comes out.

Timing is compared by its launches (`harness.analysis.compare`). Quantities that a run has once,
such as energy or memory, give a ratio and no verdict: one value a side has no spread. File sizes
are exact, so their ratio decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.analysis.compare import Comparison, compare
from harness.analysis.metrics import Metric, metric
from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable
from harness.records.lookup import lookup
from harness.records.result import Result, Timing

# what a latency means depends on these; nothing of two results compares where they differ
_MUST_MATCH = ("scenario", "boundary", "device")
# metric -> where its one value lies
_SINGLES = {
    "energy_per_inference": "energy.joules_per_inference.value",
    "memory_peak": "memory.window_peak_bytes",
    "file_size": "precision.file_size_bytes",
}
_EXACT = ("file_size",)


class PairRow(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity of both. ``comparison`` is of b over a."""

    metric: str
    unit: str
    a: Maybe[float]
    b: Maybe[float]
    comparison: Maybe[Comparison]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """``differences``: what differs between the runs besides the outcome, as (in a, in b)."""

    a: str
    b: str
    rows: tuple[PairRow, ...]
    differences: dict[str, tuple[str, str]]


def pair(a: Result, b: Result) -> Pair:
    """Compare ``b`` with the reference ``a``.

    Raises `NothingComparable` for other hardware, another kind of run, or runs without figures.
    """
    _same_conditions(a, b)
    rows = (_latency(a, b), _throughput(a, b), *(_single(name, a, b) for name in _SINGLES))
    if all(isinstance(row.comparison, Unavailable) for row in rows):
        broken = next((run for run in (a, b) if isinstance(run.timing, Unavailable)), a)
        why = broken.error.message if broken.error else broken.status
        raise NothingComparable(f"the two runs share no figure: {broken.id} is {why}")
    return Pair(
        a=a.id,
        b=b.id,
        rows=(
            *rows,
            _shown("top1", "accuracy.top1", a, b),
            _shown("f1", "accuracy.macro_f1", a, b),
        ),
        differences=_differences(a, b),
    )


def _same_conditions(a: Result, b: Result) -> None:
    if a.machine.fingerprint != b.machine.fingerprint:
        ours, theirs = a.machine.factors, b.machine.factors
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        told = [f"{n} ({ours.get(n, 'absent')} and {theirs.get(n, 'absent')})" for n in names]
        raise NothingComparable(
            f"the machines differ: {', '.join(told) or 'their fingerprints'}",
            "measure both on one machine",
        )
    for name in _MUST_MATCH:
        ours, theirs = getattr(a.spec, name), getattr(b.spec, name)
        if ours != theirs:
            raise NothingComparable(
                f"the runs differ in {name}: {ours} and {theirs}", "measure both alike"
            )


def _latency(a: Result, b: Result) -> PairRow:
    kind = metric("latency_median")
    values = [lookup(run, "timing.latency_ms.median") for run in (a, b)]
    if a.spec.batch_size != b.spec.batch_size:
        sizes = f"batches of {a.spec.batch_size} and {b.spec.batch_size} take different times"
        return _row(kind, values, Unavailable(sizes, "compare the throughput"))
    medians = [[launch.median_ms for launch in _timing(run).launches] if _timed(run) else []
               for run in (a, b)]  # fmt: skip
    return _row(kind, values, _compared(kind, *medians))


def _throughput(a: Result, b: Result) -> PairRow:
    """Per launch as in the result: samples over the length of the window."""
    kind = metric("throughput")
    values = [lookup(run, "throughput.inferences_per_s") for run in (a, b)]
    rates = [
        [launch.iterations * run.spec.batch_size / launch.window_s
         for launch in _timing(run).launches if launch.window_s > 0] if _timed(run) else []
        for run in (a, b)
    ]  # fmt: skip
    return _row(kind, values, _compared(kind, *rates))


def _timed(run: Result) -> bool:
    return not isinstance(run.timing, Unavailable)


def _timing(run: Result) -> Timing:
    assert not isinstance(run.timing, Unavailable)
    return run.timing


def _single(name: str, a: Result, b: Result) -> PairRow:
    kind = metric(name)
    values = [lookup(run, _SINGLES[name]) for run in (a, b)]
    present = [[] if isinstance(value, Unavailable) else [value] for value in values]
    compared = _compared(kind, *present)
    if not isinstance(compared, Unavailable):
        compared = _exact(compared) if name in _EXACT else _unjudged(compared)
    return _row(kind, values, compared)


def _exact(found: Comparison) -> Comparison:
    """The verdict of a quantity without any spread."""
    worse = found.ratio if found.better == "lower" else 1 / found.ratio
    small = 1 / (1 + found.minimum_effect) <= worse <= 1 + found.minimum_effect
    verdict = "unchanged" if small else "regressed" if worse > 1 else "improved"
    return msgspec.structs.replace(
        found, verdict=verdict, reason="exact", interval=(found.ratio, found.ratio)
    )


def _unjudged(found: Comparison) -> Comparison:
    reason = "one figure a run, so there is no spread to judge by"
    return msgspec.structs.replace(found, verdict="inconclusive", reason=reason)


def _compared(kind: Metric, a: Sequence[float], b: Sequence[float]) -> Maybe[Comparison]:
    if not (a and b):
        return Unavailable(f"{'A' if not a else 'B'} has no such figure")
    try:
        return compare(a, b, kind.minimum_effect, better=kind.better)
    except NothingComparable as error:
        return Unavailable(error.message, error.remedy)


def _row(kind: Metric, values: Sequence[Maybe[float]], compared: Maybe[Comparison]) -> PairRow:
    return PairRow(metric=kind.name, unit=kind.unit, a=values[0], b=values[1], comparison=compared)


def _shown(name: str, path: str, a: Result, b: Result) -> PairRow:
    """Both values, without a verdict."""
    return PairRow(
        metric=name,
        unit="",
        a=lookup(a, path),
        b=lookup(b, path),
        comparison=Unavailable("shown, not tested"),
    )


def _differences(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """Spec, model, versions and settings that differ, by dotted name."""
    sides = [_conditions(run) for run in (a, b)]
    names = {**sides[0], **sides[1]}
    found = {name: (sides[0].get(name, "absent"), sides[1].get(name, "absent")) for name in names}
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _conditions(run: Result) -> dict[str, str]:
    spec = {
        name: str(value)
        for name, value in msgspec.structs.asdict(run.spec).items()
        if name not in ("out", "tags", "timeout_s")
    }
    settings = {name: run.machine.context.get(name, "absent") for name in ("kernel", "governor")}
    model = {} if isinstance(run.model, Unavailable) else {"model file": run.model.sha256[:12]}
    return {**spec, **model, **settings, **run.software.versions}
