"""The comparison of variants that took turns: what a duel's ``comparison.json`` holds.

    rounds of each launch ── stats.paired ──> ratio of B to A, its interval ── judge ──> verdict

The words and the error control are those of every comparison; only the design differs, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from harness.compare.second_opinion import disagreement
from harness.compare.verdicts import Verdict
from harness.errors import NothingComparable
from harness.maybe import Maybe, Unavailable
from harness.spec import TURNS
from harness.stats.paired import (
    LaunchRatio,
    PairedRatio,
    after_looks,
    batches_of,
    estimate_of,
    of_launch,
    over_launches,
)
from harness.stats.two_samples import MIN_LAUNCHES, Adjusted, Estimate, adjust, judge

MINIMUM_EFFECT = 0.005  # of paired rounds, which resolve more than separate launches do
ALPHA = 0.01
DESIGN = TURNS
UNMETERED = Unavailable("no energy was measured")
_WIDEST = 300.0  # of logarithms; what a float can hold
Ended = Literal["interval", "launches", "most launches", "interrupted", "failed", "going on"]


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """One launch. A sequence a variant, in it one figure a round, in ns an inference.

    ``latency``: median of the turn's iterations that count. ``cold``: of the turn's first iteration
    alone. ``cpu``: the process's processor time. ``resting``: shares of a core.
    """

    latency: tuple[tuple[float, ...], ...]
    cold: tuple[tuple[float, ...], ...]
    cpu: tuple[tuple[float, ...], ...]
    resting: tuple[float, ...]


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """How it was measured. ``goal``: relative half-width of the ratio's interval, None: fixed."""

    block_ms: float
    left_out: int  # iterations at the beginning of each turn
    seed: int  # of the order
    goal: float | None
    cpus: tuple[int, ...]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One side: its name here, its run, and how it began its turns and rested between them."""

    name: str
    run: str
    latency_ms: Maybe[float]  # median of the rounds' medians
    cold_ms: Maybe[float]  # median of the first iteration of each turn
    cpu_ms: Maybe[float]  # processor time an inference, median of the rounds
    resting_share: Maybe[float]  # of a core, while others had the turn; the worst launch's
    gross_j: Maybe[float] = UNMETERED  # joules an inference, over all stretches
    net_j: Maybe[float] = UNMETERED  # beyond what the machine draws while all stand still


class PairedEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """``b``'s joules an inference over ``a``'s, by ``meter``, from alternate stretches.

    ``shared``: others used more than 5 % of the processors in one of them.
    """

    meter: str
    pairs: int
    launches: int
    stretch_s: float  # of each, on average
    gross_ratio: Maybe[float]
    gross_interval: Maybe[tuple[float, float]]  # 95 %
    net_ratio: Maybe[float]
    net_interval: Maybe[tuple[float, float]]
    shared: bool


class PairedLaunch(msgspec.Struct, frozen=True, kw_only=True):
    ratio: float
    error: float  # standard error of its logarithm, from the rounds
    rounds: int


class PairedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """``b`` over ``a``, the first variant. ``doubt``: what speaks against the verdict."""

    a: str
    b: str
    verdict: Verdict
    reason: str
    ratio: Maybe[float]
    interval: Maybe[tuple[float, float]]  # 95 %
    p_adjusted: Maybe[float]
    detectable: Maybe[float]
    launches: tuple[PairedLaunch, ...]
    cpu_ratio: Maybe[float]
    cpu_interval: Maybe[tuple[float, float]]
    doubt: str
    minimum_effect: float = MINIMUM_EFFECT
    energy: Maybe[PairedEnergy] = UNMETERED


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """All of one duel. ``ended``: what ended it; ``problem``: what went wrong, if anything did."""

    design: Design
    variants: tuple[Variant, ...]
    verdicts: tuple[PairedVerdict, ...]
    launches: int
    rounds: int
    ended: Ended
    problem: str = ""


def paired(
    names: Sequence[str],
    runs: Sequence[str],
    design: Design,
    launches: Sequence[Rounds],
    ended: Ended,
    problem: str = "",
) -> Paired:
    """The record of a duel, as far as it got. Launches with too few rounds count for nothing."""
    looked = design.goal is not None
    pairs = [
        _Pair(names[0], names[index], index, launches, looked=looked)
        for index in range(1, len(names))
    ]
    tested = [pair.p_values for pair in pairs]
    adjusted = iter(adjust([p for p in tested if p is not None], ALPHA))
    return Paired(
        design=design,
        variants=tuple(
            _variant(name, run, index, launches)
            for index, (name, run) in enumerate(zip(names, runs, strict=True))
        ),
        verdicts=tuple(
            pair.verdict(next(adjusted) if p is not None else None)
            for pair, p in zip(pairs, tested, strict=True)
        ),
        launches=len(launches),
        rounds=sum(len(one.latency[0]) for one in launches),
        ended=ended,
        problem=problem,
    )


def ratio_of(launches: Sequence[Rounds], index: int, *, looked: bool = True) -> Maybe[PairedRatio]:
    """Variant ``index`` over the first; absent with fewer rounds than an interval needs.

    ``looked``: whether a rule ends the duel that looks at this ratio after each launch.
    """
    return _ratio([(one.latency[0], one.latency[index]) for one in launches], looked=looked)


class Rules(NamedTuple):
    """By which a paired ratio is judged where others than a duel's own hold: those of a policy."""

    minimum_effect: float
    alpha: float
    minimum_launches: int
    looked: bool  # as of `ratio_of`


def rejudged(found: Sequence[PairedVerdict], rules: Sequence[Rules]) -> list[PairedVerdict]:
    """The same ratios by other rules, their p values adjusted for the number of all."""
    estimates = [_estimate(one, rule) for one, rule in zip(found, rules, strict=True)]
    tested = [one.p_values if one else None for one in estimates]
    alpha = rules[0].alpha if rules else ALPHA
    adjusted = iter(adjust([p for p in tested if p is not None], alpha))
    judged: list[PairedVerdict] = []
    for one, estimate, p in zip(found, estimates, tested, strict=True):
        mine = next(adjusted) if p is not None else None
        judged.append(one if estimate is None else _by(one, estimate, mine, alpha))
    return judged


def _estimate(found: PairedVerdict, rules: Rules) -> Estimate | None:
    if not found.launches:
        return None
    launches = [
        LaunchRatio(math.log(one.ratio), one.error, batches_of(one.rounds) - 1, one.rounds)
        for one in found.launches
    ]
    ratio = over_launches(launches)
    ratio = after_looks(ratio) if rules.looked else ratio
    return estimate_of(ratio, rules.minimum_effect, "lower", rules.minimum_launches)


def _by(
    one: PairedVerdict, estimate: Estimate, adjusted: Adjusted | None, alpha: float
) -> PairedVerdict:
    found = judge(estimate, adjusted, alpha)
    return msgspec.structs.replace(
        one,
        verdict=found.verdict,
        reason=found.reason,
        p_adjusted=found.p_adjusted,
        detectable=found.detectable,
        minimum_effect=estimate.terms.minimum_effect,
    )


def interval_of(found: PairedRatio) -> tuple[float, float]:
    """95 %, as ratios."""
    centre, half = found.log_ratio, min(found.half_width, _WIDEST)
    return math.exp(centre - half), math.exp(centre + half)


def _ratio(
    sides: Sequence[tuple[Sequence[float], Sequence[float]]], *, looked: bool
) -> Maybe[PairedRatio]:
    found: list[LaunchRatio] = []
    why = Unavailable("no launch was measured", "measure longer")
    for a, b in sides:
        try:
            found.append(of_launch(a, b))
        except NothingComparable as error:
            why = Unavailable(error.message, error.remedy)
    if not found:
        return why
    return after_looks(over_launches(found)) if looked else over_launches(found)


class _Pair:
    """The first variant and another."""

    def __init__(
        self, a: str, b: str, index: int, launches: Sequence[Rounds], *, looked: bool
    ) -> None:
        self._names = a, b
        self.ratio = ratio_of(launches, index, looked=looked)
        self.cpu = _ratio([(one.cpu[0], one.cpu[index]) for one in launches], looked=looked)
        self.estimate = (
            None
            if isinstance(self.ratio, Unavailable)
            else estimate_of(self.ratio, MINIMUM_EFFECT, "lower", MIN_LAUNCHES)
        )

    @property
    def p_values(self) -> tuple[float, float] | None:
        return self.estimate.p_values if self.estimate else None

    def verdict(self, adjusted: Adjusted | None) -> PairedVerdict:
        a, b = self._names
        cpu_ratio, cpu_interval = _shown(self.cpu)
        ratio, interval = _shown(self.ratio)
        if self.estimate is None or isinstance(self.ratio, Unavailable):
            assert isinstance(self.ratio, Unavailable)
            return PairedVerdict(
                a=a, b=b, verdict="not comparable", reason=self.ratio.reason, ratio=ratio,
                interval=interval, p_adjusted=self.ratio, detectable=self.ratio, launches=(),
                cpu_ratio=cpu_ratio, cpu_interval=cpu_interval, doubt="",
            )  # fmt: skip
        found = judge(self.estimate, adjusted, ALPHA)
        return PairedVerdict(
            a=a, b=b, verdict=found.verdict, reason=found.reason, ratio=ratio, interval=interval,
            p_adjusted=found.p_adjusted, detectable=found.detectable,
            launches=tuple(
                PairedLaunch(ratio=math.exp(one.log_ratio), error=one.error, rounds=one.rounds)
                for one in self.ratio.launches
            ),
            cpu_ratio=cpu_ratio, cpu_interval=cpu_interval,
            doubt=disagreement(interval, cpu_ratio, cpu_interval),
        )  # fmt: skip


def _shown(found: Maybe[PairedRatio]) -> tuple[Maybe[float], Maybe[tuple[float, float]]]:
    if isinstance(found, Unavailable):
        return found, found
    return math.exp(found.log_ratio), interval_of(found)


def _variant(name: str, run: str, index: int, launches: Sequence[Rounds]) -> Variant:
    nothing = Unavailable("no round was measured")

    def middle(rows: Sequence[Sequence[float]]) -> Maybe[float]:
        values = [value for row in rows for value in row]
        return median(values) / 1e6 if values else nothing

    return Variant(
        name=name,
        run=run,
        latency_ms=middle([one.latency[index] for one in launches]),
        cold_ms=middle([one.cold[index] for one in launches]),
        cpu_ms=middle([one.cpu[index] for one in launches]),
        resting_share=max((one.resting[index] for one in launches), default=nothing),
    )
