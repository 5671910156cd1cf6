"""One verdict per metric of two sides of a cell, judged together with all the others.

    draft(side a, side b, metric) ── Draft ──┐   one p value each, where something is tested
    draft(...)                    ── Draft ──┼── judge_all ──> MetricVerdict, ...
    draft(...)                    ── Draft ──┘   adjusted for their number

    improved         better, beyond doubt and beyond the minimum effect
    regressed        worse, likewise
    unchanged        no difference that matters
    inconclusive     none of these is certain; the reason says what could have been seen
    not comparable   no pair of figures, and why

``a`` and ``b`` are what a run says everywhere else; of several runs, the median of their launches.
``ratio`` is an estimate of its own (Hodges-Lehmann): the median of all quotients of a launch of B
and a launch of A, which is not quite the quotient of the two.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol

import msgspec

from harness.compare.match import Match
from harness.compare.sides import Side, doubts, same_night
from harness.compare.yardsticks import doubt, speed_shift
from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable, explain
from harness.records.cell import cell_of
from harness.records.figures import figures, single, value
from harness.records.metric import COMPARED, METRICS, Better, Metric
from harness.records.result import Accuracy
from harness.stats.mcnemar import Paired, mcnemar
from harness.stats.two_samples import (
    MIN_LAUNCHES,
    Adjusted,
    Estimate,
    Question,
    adjust,
    estimate,
    judge,
    night_floor,
)

Verdict = Literal["improved", "regressed", "unchanged", "inconclusive", "not comparable"]
ONE_FIGURE = "one figure a run, so there is no spread to judge by"
_NOT_TESTED = Unavailable("not tested")


class NightSd(Protocol):
    """(cell key, machine fingerprint, metric) -> spread of the logs of a night's level."""

    def get(self, key: tuple[str, str, str], /) -> float | None: ...


class MetricVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of both sides. ``verdict`` is None where both values are shown and not judged."""

    metric: str
    unit: str
    better: Better
    verdict: Verdict | None
    reason: str
    a: Maybe[float]
    b: Maybe[float]
    ratio: Maybe[float] = _NOT_TESTED
    interval: Maybe[tuple[float, float]] = _NOT_TESTED  # 95 %
    p: Maybe[float] = _NOT_TESTED  # one-sided, of the direction seen
    p_adjusted: Maybe[float] = _NOT_TESTED  # for the number of comparisons made at once
    detectable: Maybe[float] = _NOT_TESTED  # smallest worsening found in 80 % of such comparisons
    launches: tuple[int, int] = (0, 0)
    cv: tuple[float | None, float | None] = (None, None)  # of the launches of each side
    minimum_effect: float = 0.0
    doubt: str = ""  # what weakens the verdict: degraded runs, nights that differ


_NO_NIGHTS: NightSd = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to judge. ``minimum_effects`` overrides a metric's own, by (cell name, metric)."""

    alpha: float = 0.01
    minimum_launches: int = MIN_LAUNCHES
    metrics: tuple[str, ...] = COMPARED
    minimum_effects: Callable[[str, str], float | None] = lambda _cell, _metric: None
    night_sd: NightSd = _NO_NIGHTS


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a metric before the others are looked at. ``row`` lacks the verdict."""

    row: MetricVerdict
    estimate: Estimate | None = None
    paired: Paired | None = None
    note: str = ""  # doubts that go with whatever verdict
    speed_shift: float = 0.0  # of the machine between the sides, as a logarithm

    @property
    def p_values(self) -> tuple[float, float] | None:
        if self.paired is not None:
            differing = self.paired.lost + self.paired.gained
            return (self.paired.p_worse, self.paired.p_better) if differing else None
        return self.estimate.p_values if self.estimate else None


def drafts(match: Match, settings: Settings, always: Collection[str] = ()) -> list[Draft]:
    """One per metric that either side has a figure of, in the order of the settings.

    Those in ``always`` are there even without a figure: the reason is worth reading.
    """
    found = [draft(match, METRICS[name], settings) for name in settings.metrics]
    return [one for one in found if _measured(one.row) or one.row.metric in always]


def draft(match: Match, kind: Metric, settings: Settings) -> Draft:
    """The question that one metric poses."""
    minimum, note = _minimum(match, kind, settings)
    if kind.rule == "paired":
        found = _paired(match, kind, minimum)
    elif kind.rule == "exact":
        found = _exact(match, kind, minimum)
    else:
        found = _launches(match, kind, minimum, settings.minimum_launches)
    sides = zip("AB", match.sides, strict=True)
    told = [f"{name} {text}" for name, side in sides for text in _shaky(side, kind)]
    turns = _turns(match) if kind.rule == "launches" else ""
    notes = "; ".join(filter(None, (note, turns, ", ".join(told))))
    return msgspec.structs.replace(found, note=notes)


def _turns(match: Match) -> str:
    """What is to be said where a side took turns, and not with the other."""
    a, b = ({run.tags.get("duel") for run in side.finished if run.spec.in_turns}
            for side in match.sides)  # fmt: skip
    if a & b or not a | b:
        return ""
    if a and b:
        return "each took turns in a duel of its own, and not with the other: separate launches"
    turned, alone = ("A", "B") if a else ("B", "A")
    return f"{turned} took turns in a duel, after rests, and {alone} ran by itself"


def _shaky(side: Side, kind: Metric) -> list[str]:
    """What weakens the figures of a side: degraded runs, and runs that have none."""
    if kind.rule in ("exact", "paired"):
        return []
    absent = sum(isinstance(single(run, kind.name), Unavailable) for run in side.finished)
    told = [doubts(side)] if kind.rule == "launches" else []
    if 0 < absent < len(side.finished):
        told.append(f"{absent} of {len(side.finished)} runs have no figure and are left out")
    return [text for text in told if text]


def judge_all(found: Sequence[Draft], alpha: float) -> list[MetricVerdict]:
    """The verdicts, each p value adjusted for the number of all (Benjamini and Hochberg)."""
    tested = [one.p_values for one in found]
    adjusted = iter(adjust([p for p in tested if p is not None], alpha))
    return [
        _judged(one, next(adjusted) if p is not None else None, alpha)
        for one, p in zip(found, tested, strict=True)
    ]


def _measured(row: MetricVerdict) -> bool:
    return not (isinstance(row.a, Unavailable) and isinstance(row.b, Unavailable))


def _minimum(match: Match, kind: Metric, settings: Settings) -> tuple[float, str]:
    """The smallest change that counts here, and what is to be said of it."""
    asked = settings.minimum_effects(match.cell, kind.name)
    minimum = kind.minimum_effect if asked is None else asked
    if kind.rule in ("exact", "paired") or same_night(*match.sides):
        return minimum, ""
    found = [_night_sd(side, kind, settings) for side in match.sides]
    known = [sd for sd in found if sd is not None]
    if not known:
        return minimum, "measured in different nights, whose own spread is not known"
    floor = night_floor(minimum, math.hypot(*known) / math.sqrt(len(known)))
    told = f"measured in different nights: changes count from {100 * floor:.1f} % on"
    if len(known) < len(found):
        told += f", by the nights of {'B' if found[0] is None else 'A'} alone"
    return floor, told


def _night_sd(side: Side, kind: Metric, settings: Settings) -> float | None:
    run = side.first
    return settings.night_sd.get((cell_of(run).key, run.machine.fingerprint, kind.name))


def _row(kind: Metric, a: Maybe[float], b: Maybe[float], minimum: float) -> MetricVerdict:
    return MetricVerdict(
        metric=kind.name,
        unit=kind.unit,
        better=kind.better,
        verdict="not comparable",
        reason="",
        a=a,
        b=b,
        minimum_effect=minimum,
    )


def _refused(row: MetricVerdict, reason: str) -> Draft:
    return Draft(row=msgspec.structs.replace(row, reason=reason))


def _absent(row: MetricVerdict) -> Draft | None:
    told = [
        f"{name} {explain(value)}"
        for name, value in (("A has none:", row.a), ("B has none:", row.b))
        if isinstance(value, Unavailable)
    ]
    if isinstance(row.a, Unavailable) and row.a == row.b:
        told = [explain(row.a)]
    return _refused(row, "; ".join(told)) if told else None


def _launches(match: Match, kind: Metric, minimum: float, needed: int) -> Draft:
    values = [figures(side.finished, kind.name) for side in match.sides]
    known = [() if isinstance(found, Unavailable) else found for found in values]
    if not all(known):  # files of before there was a figure per launch have one per run
        return _whole_runs(match, kind, minimum)
    row = _row(kind, *_values(match, kind), minimum)
    row = msgspec.structs.replace(
        row, launches=(len(known[0]), len(known[1])), cv=(_cv(known[0]), _cv(known[1]))
    )
    if why := _other_batches(match, kind):
        return _refused(row, why)
    question = Question(
        a=known[0],
        b=known[1],
        minimum_effect=minimum,
        better=kind.better,
        deterministic=kind.rule == "deterministic",
        minimum_launches=needed,
    )
    try:
        shift = speed_shift(*match.sides)
        return Draft(row=row, estimate=estimate(question), speed_shift=shift)
    except NothingComparable as error:
        return _refused(row, f"{error}")


def _values(match: Match, kind: Metric) -> tuple[Maybe[float], Maybe[float]]:
    a, b = match.sides
    return value(a.finished, kind.name), value(b.finished, kind.name)


def _whole_runs(match: Match, kind: Metric, minimum: float) -> Draft:
    a, b = _values(match, kind)
    row = _row(kind, a, b, minimum)
    if (absent := _absent(row)) is not None:
        return absent
    if why := _other_batches(match, kind):
        return _refused(row, why)
    return _doubtful(row, ONE_FIGURE)


def _exact(match: Match, kind: Metric, minimum: float) -> Draft:
    """Of the newest run of each side: a file's size does not vary."""
    a, b = _values(match, kind)
    row = _row(kind, a, b, minimum)
    if isinstance(a, Unavailable) or isinstance(b, Unavailable):
        return _absent(row) or _refused(row, "")
    if not (a > 0 and b > 0):
        return _refused(row, "only positive values have a ratio")
    ratio = b / a
    verdict = _by_size(math.log(ratio), kind.better, minimum)
    return Draft(
        row=msgspec.structs.replace(
            row,
            verdict=verdict,
            reason="exact",
            ratio=ratio,
            interval=(ratio, ratio),
            detectable=minimum,
        )
    )


def _by_size(shift: float, better: Better, minimum: float) -> Verdict:
    if abs(shift) <= math.log1p(minimum):
        return "unchanged"
    return "regressed" if (shift > 0) == (better == "lower") else "improved"


def _paired(match: Match, kind: Metric, minimum: float) -> Draft:
    """Accuracy, by the answers of the newest run of each side that has them."""
    found = [_newest_accuracy(side) for side in match.sides]
    values = [one if isinstance(one, Unavailable) else one.top1 for one in found]
    row = _row(kind, values[0], values[1], minimum)
    a, b = found
    if isinstance(a, Unavailable) or isinstance(b, Unavailable):
        return _absent(row) or _refused(row, "")
    if a.top1 > 0:
        row = msgspec.structs.replace(row, ratio=b.top1 / a.top1)
    if a.dataset_sha256 != b.dataset_sha256:
        hashes = f"{a.dataset_sha256[:12]} and {b.dataset_sha256[:12]}"
        return _refused(row, f"the datasets differ: {a.dataset}, {b.dataset} (SHA-256 {hashes})")
    try:
        return Draft(row=row, paired=mcnemar(a.correct, b.correct))
    except NothingComparable as error:
        return _refused(row, f"{error}")


def _newest_accuracy(side: Side) -> Maybe[Accuracy]:
    found = [run.accuracy for run in side.finished]
    known = [one for one in found if not isinstance(one, Unavailable)]
    return known[-1] if known else found[-1]


def _other_batches(match: Match, kind: Metric) -> str:
    a, b = (side.first.spec.batch_size for side in match.sides)
    if a == b or not kind.per_batch:
        return ""
    return f"batches of {a} and {b} take different times; compare the throughput"


def _cv(values: Sequence[float]) -> float | None:
    """Coefficient of variation: relative to the largest, so that no square overflows."""
    largest = max(values)
    if len(values) < 2 or not 0 < largest < math.inf:
        return None
    relative = [value / largest for value in values]
    return statistics.stdev(relative) / statistics.fmean(relative)


def _doubtful(row: MetricVerdict, reason: str) -> Draft:
    assert not isinstance(row.a, Unavailable) and not isinstance(row.b, Unavailable)
    ratio = row.b / row.a if row.a > 0 else Unavailable("only positive values have a ratio")
    return Draft(
        row=msgspec.structs.replace(row, verdict="inconclusive", reason=reason, ratio=ratio)
    )


def _judged(one: Draft, adjusted: Adjusted | None, alpha: float) -> MetricVerdict:
    row = one.row
    if one.estimate is not None:
        row = _by_machine(_by_launches(row, one.estimate, adjusted, alpha), one.speed_shift)
    elif one.paired is not None and adjusted is None:
        same = f"the same ones of {one.paired.samples} samples are right"
        row = msgspec.structs.replace(row, verdict="unchanged", reason=same)
    elif one.paired is not None and adjusted is not None:
        row = _by_answers(row, one.paired, adjusted, alpha)
    if not one.note or row.verdict == "not comparable":
        return row
    return msgspec.structs.replace(row, doubt=one.note)


def _by_launches(
    row: MetricVerdict, found: Estimate, adjusted: Adjusted | None, alpha: float
) -> MetricVerdict:
    shift = judge(found, adjusted, alpha)
    p = found.p_values
    family = f", adjusted for {adjusted.family} tests" if adjusted else ""
    many = adjusted is not None and adjusted.family > 1
    tested = shift.verdict in ("regressed", "improved") and many
    reason = f"{shift.reason[:-1]}{family})" if tested else shift.reason
    return msgspec.structs.replace(
        row,
        verdict=shift.verdict,
        reason=reason,
        ratio=shift.ratio,
        interval=shift.interval,
        p=min(p) if p else _NOT_TESTED,
        p_adjusted=shift.p_adjusted,
        detectable=shift.detectable,
    )


def _by_machine(row: MetricVerdict, shift: float) -> MetricVerdict:
    """``row``, undecided where the machine changed by more than the change that is judged."""
    if row.verdict in ("not comparable", "inconclusive") or isinstance(row.ratio, Unavailable):
        return row
    effect = max(abs(math.log(row.ratio)), math.log1p(row.minimum_effect))
    why = doubt(row.metric, shift, effect)
    return msgspec.structs.replace(row, verdict="inconclusive", reason=why) if why else row


def _by_answers(
    row: MetricVerdict, paired: Paired, adjusted: Adjusted, alpha: float
) -> MetricVerdict:
    told = f"{paired.lost} lost and {paired.gained} gained of {paired.samples} samples"
    difference = (paired.gained - paired.lost) / paired.samples
    base = row.a if not isinstance(row.a, Unavailable) and row.a > 0 else 1.0
    limit = row.minimum_effect * base
    verdict: Verdict = "inconclusive"
    if abs(difference) <= limit:
        verdict = "unchanged"
    elif difference < 0 and adjusted.p_worse < alpha:
        verdict = "regressed"
    elif difference > 0 and adjusted.p_better < alpha:
        verdict = "improved"
    p = paired.p_worse if difference < 0 else paired.p_better
    p_adjusted = adjusted.p_worse if difference < 0 else adjusted.p_better
    return msgspec.structs.replace(
        row,
        verdict=verdict,
        reason=f"{told} (McNemar, p = {p_adjusted:.2g})" if difference else told,
        p=min(1.0, p),
        p_adjusted=p_adjusted,
    )
