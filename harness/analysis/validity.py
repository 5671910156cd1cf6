"""The validity checks: what could make this run's figures wrong, each held against a stated limit.

One ``warn`` makes a run ``degraded``. A check whose evidence could not be read is ``unknown`` with
the reason, which is neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec

from harness.analysis.fidelity_check import fidelity_check
from harness.maybe import Maybe, Unavailable, explain
from harness.records.result import Check, CheckVerdict, Fidelity

FOREIGN_LIMIT = 0.05  # of one core
RESTING_LIMIT = 0.005
STEAL_LIMIT = 0.01
DRIFT_LIMIT = 0.03
CLOCK_DRIFT_LIMIT = 0.03
SPEED_LIMIT = 0.05
DISTURBED_LIMIT = 0.2  # of the blocks
SAMPLER_CPU_LIMIT = 0.02
# Where a processor is free for the sampler: asking an H100 for its energy takes its driver 4.6 ms.
SAMPLER_SPARE_LIMIT = 0.1
SAMPLER_GAP_PERIODS = 5.0
TIMER_LIMIT = 0.01
FIXED_WINDOW_LIMIT = 0.05
HELD_BACK_LIMIT = 0.01  # of the window, where the driver counts the time
SEEN_HELD_BACK_LIMIT = 0.05  # where it was seen in samples, one of which may be a change of state
# Why a GPU's clocks are held back, in words. The power limit is no fault: under full load most
# boards run into it, steadily.
HELD_BACK = {
    "sw_thermal": "for heat (the driver)",
    "hw_thermal": "for heat (the chip)",
    "power_brake": "by the server's power brake",
    "hw_slowdown": "by the chip's own protection",
    "sync_boost": "to wait for slower GPUs",
}


class GpuFacts(msgspec.Struct, kw_only=True):
    """What the checks of the GPU under test look at; the worst launch's."""

    # reason -> share of the window, and whether the driver counted it (else it was seen in samples)
    held_back: Maybe[dict[str, tuple[float, bool]]]
    clock_drift: Maybe[float]
    other_processes: Maybe[float]
    silenced: Maybe[dict[str, Unavailable]]  # channels that were read at first, and why no longer


class Facts(msgspec.Struct, kw_only=True):
    """What the checks look at. Shares are of one core's time over the windows."""

    warmup_ends: Sequence[str]
    max_warmup_s: float
    goal: float | None
    half_width: Maybe[float]  # relative, of the median
    drift: Maybe[float]
    drift_p: Maybe[float]
    foreign_share: Maybe[float]
    steal_share: Maybe[float]
    disturbed_blocks: Maybe[tuple[int, int]]  # how many, of how many
    throttle_events: Maybe[float]
    clock_drift: Maybe[float]
    speed_change: Maybe[float]  # of the machine, by its yardstick before and after a window
    threads: int
    concurrency: int
    usable_cpus: int
    busy_cpus: Maybe[float]  # what the worker kept busy, on average
    sampler_cpu_share: Maybe[float]
    sampler_gap_s: Maybe[float]
    sampler_period_s: float
    timer_share: Maybe[float]  # clock cost inside the interval / median
    nan: Maybe[Sequence[str]]  # outputs that hold any
    integer_nodes: Maybe[int]
    precision: str
    fidelity: Maybe[Fidelity] | None = None  # None: the run is its own reference
    labelled: bool = False  # the fidelity is of labelled samples
    unverified: str = ""  # what ended the worker after the window, before it had verified
    gpu: GpuFacts | None = None  # None: the device under test is no GPU
    infinite: Sequence[str] = ()
    unseen: Mapping[str, str] = {}  # outputs that could not be looked at, and what they are
    allow_infinite: bool = False
    drawn: bool = False  # the bound inputs are
    threads_ran: Maybe[int] | None = None  # by the runtime's own word; None: nobody asked it
    inputs_kept: str = ""  # what the session had to do to keep them
    # outputs that differ after the window from those of the same inputs bound anew
    changed_outputs: Maybe[Sequence[str]] | None = None
    resting_share: float | None = None  # of a run that took turns with others


def checks(facts: Facts) -> tuple[Check, ...]:
    """Every check, in the order of the documentation."""
    return (
        _steady(facts),
        _interval(facts),
        _drift(facts),
        _limit("foreign load", facts.foreign_share, FOREIGN_LIMIT, "other processes took {:.1%}"
               " of a core", "stop them, or set --cpus"),
        _limit("steal", facts.steal_share, STEAL_LIMIT, "the hypervisor took {:.1%} of a core",
               "measure on a quieter host"),
        _blocks(facts),
        _limit("throttled", facts.throttle_events, 0, "{:g} throttle events in the window",
               "cool the machine or lower its load"),
        _limit("clocks", facts.clock_drift, CLOCK_DRIFT_LIMIT, "clocks drifted by {:.1%}",
               "fix the governor and boost, or warm up longer"),
        _limit("machine speed", facts.speed_change, SPEED_LIMIT, "a fixed piece of work took {:.1%}"
               " more or less after the window than before it", _speed_remedy(facts)),
        _affinity(facts),
        _sampler(facts),
        _limit("timer", facts.timer_share, TIMER_LIMIT, "reading the clock is {:.2%} of the median",
               "raise --batch-size, or read latencies as upper bounds"),
        *_threads(facts),
        *_inputs(facts),
        _finite(facts),
        _precision(facts),
        *_fidelity(facts),
        *([_unverified(facts.unverified)] if facts.unverified else []),
        *(gpu_checks(facts.gpu) if facts.gpu is not None else ()),
    )  # fmt: skip


def _speed_remedy(facts: Facts) -> str:
    if facts.resting_share is not None:
        return "the ratio of variants that took turns stands, their latencies are of both speeds"
    return "measure on a quieter machine, or compare in turns: harness duel"


def resting(share: float) -> Check:
    """Of a run that took turns; others have none. ``share``: of a core, the worst launch's."""
    return _check(
        "resting",
        share <= RESTING_LIMIT,
        f"its threads used {share:.2%} of a core while others had the turn",
        f"at most {RESTING_LIMIT:.1%} of a core",
        "it was not stopped as it should have been: measure with --threads 1",
    )


def _unverified(why: str) -> Check:
    """Of a run whose worker did not come to the end of its verification; others have none."""
    return Check(
        name="verification",
        verdict="warn",
        reason=f"{why}, after the window: what was measured stands, what it computes is not known",
        threshold="the worker verifies its outputs and leaves",
    )


def lacking(iterations: int) -> Check:
    """Of a run whose sample file lacks so many; one that lacks none has no such check."""
    return Check(
        name="samples",
        verdict="warn",
        reason=f"{iterations} iterations could not be written beside the result, whose figures are "
        "of all of them; free some space on the disk",
        threshold="every iteration is on the disk",
    )


def gpu_checks(gpu: GpuFacts) -> tuple[Check, ...]:
    """The checks of a run on a GPU, after all others."""
    return (
        _held_back(gpu.held_back),
        _limit("GPU clocks", gpu.clock_drift, CLOCK_DRIFT_LIMIT, "the GPU's clock drifted by {:.1%}"
               " from the window's first third to its last", "warm up longer, or fix its clocks"),
        _limit("GPU shared", gpu.other_processes, 0, "{:g} other processes have a context on the"
               " GPU", "end them: nvidia-smi lists them"),
        _sensors(gpu.silenced),
    )  # fmt: skip


def _held_back(shares: Maybe[dict[str, tuple[float, bool]]]) -> Check:
    name, threshold = "GPU throttled", f"at most {HELD_BACK_LIMIT:.0%} of the window"
    if isinstance(shares, Unavailable):
        return _unknown(name, shares, threshold)
    found = [
        f"{share:.1%} of the window {HELD_BACK[reason]}"
        for reason, (share, counted) in shares.items()
        if reason in HELD_BACK and share > (HELD_BACK_LIMIT if counted else SEEN_HELD_BACK_LIMIT)
    ]
    text = f"clocks were held back {', '.join(found)}" if found else "nothing held the clocks back"
    capped, _ = shares.get("power_cap", (0.0, False))
    if capped > HELD_BACK_LIMIT:
        text += f"; the power limit was reached {capped:.0%} of the window, as is usual under load"
    return _check(name, not found, text, threshold, "cool the machine or lower its load")


def _sensors(silenced: Maybe[dict[str, Unavailable]]) -> Check:
    name, threshold = "GPU sensors", "none fell silent"
    if isinstance(silenced, Unavailable):
        return _unknown(name, silenced, threshold)
    reasons = dict.fromkeys(
        why.reason.partition(": ")[2] or why.reason for why in silenced.values()
    )
    remedy = next((why.remedy for why in silenced.values()), "")
    text = f"{len(silenced)} channels fell silent: {', '.join(reasons)}"
    return _check(name, not silenced, text if silenced else "all answered", threshold, remedy)


def worst(found: Iterable[Check]) -> CheckVerdict:
    """``fail`` before ``warn`` before ``pass``; ``unknown`` does not degrade."""
    verdicts = {check.verdict for check in found}
    return "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "pass"


def _check(name: str, good: bool, reason: str, threshold: str, remedy: str) -> Check:
    text = reason if good else f"{reason}; {remedy}"
    return Check(name=name, verdict="pass" if good else "warn", reason=text, threshold=threshold)


def _unknown(name: str, why: Unavailable, threshold: str = "") -> Check:
    return Check(name=name, verdict="unknown", reason=explain(why), threshold=threshold)


def _limit(name: str, value: Maybe[float], limit: float, reason: str, remedy: str) -> Check:
    threshold = f"at most {limit:.0%}" if limit != 0 else "none"
    if isinstance(value, Unavailable):
        return _unknown(name, value, threshold)
    return _check(name, value <= limit, reason.format(value), threshold, remedy)


def _steady(facts: Facts) -> Check:
    late = sum(end != "steady" for end in facts.warmup_ends)
    return _check(
        "steady",
        not late,
        "every warm-up ended steady"
        if not late
        else f"{late} of {len(facts.warmup_ends)} warm-ups hit the cap of {facts.max_warmup_s:g} s",
        "two successive windows within 2 % and no trend",
        "raise --max-warmup, or quieten the machine",
    )


def _interval(facts: Facts) -> Check:
    limit = facts.goal if facts.goal is not None else FIXED_WINDOW_LIMIT
    goal = f"median's 95% interval within ±{limit:.2%}"
    if isinstance(facts.half_width, Unavailable):
        return _unknown("interval", facts.half_width, goal)
    reason = f"the median is known to ±{facts.half_width:.2%}"
    return _check(
        "interval",
        facts.half_width <= limit,
        reason,
        goal,
        "measure longer, or quieten the machine",
    )


def _drift(facts: Facts) -> Check:
    threshold = f"last third within {DRIFT_LIMIT:.0%} of the first, or no significant trend"
    for value in (facts.drift, facts.drift_p):
        if isinstance(value, Unavailable):
            return _unknown("drift", value, threshold)
    assert not isinstance(facts.drift, Unavailable)
    assert not isinstance(facts.drift_p, Unavailable)
    good = abs(facts.drift) <= DRIFT_LIMIT or facts.drift_p >= 0.05
    reason = f"last third's median {facts.drift:+.2%} against the first (p = {facts.drift_p:.2g})"
    return _check("drift", good, reason, threshold, "warm up longer, or look for heat")


def _blocks(facts: Facts) -> Check:
    threshold = f"at most {DISTURBED_LIMIT:.0%} of the blocks with foreign load or steal"
    if isinstance(facts.disturbed_blocks, Unavailable):
        return _unknown("disturbed blocks", facts.disturbed_blocks, threshold)
    disturbed, blocks = facts.disturbed_blocks
    return _check(
        "disturbed blocks",
        disturbed <= DISTURBED_LIMIT * blocks,
        f"{disturbed} of {blocks} blocks of about a second were disturbed",
        threshold,
        "see profiles.blocks; measure on a quieter machine",
    )


def _affinity(facts: Facts) -> Check:
    asked = facts.threads * facts.concurrency
    return _check(
        "affinity",
        asked <= facts.usable_cpus,
        f"{asked} threads on {facts.usable_cpus} usable processors",
        "no more threads than processors",
        "lower --threads or --concurrency",
    )


def _sampler(facts: Facts) -> Check:
    spare = not isinstance(facts.busy_cpus, Unavailable) and (
        facts.busy_cpus + 1 <= facts.usable_cpus
    )
    limit = SAMPLER_SPARE_LIMIT if spare else SAMPLER_CPU_LIMIT
    threshold = f"at most {limit:.0%} of a core, no gap over {SAMPLER_GAP_PERIODS:g} periods"
    for value in (facts.sampler_cpu_share, facts.sampler_gap_s):
        if isinstance(value, Unavailable):
            return _unknown("sampler", value, threshold)
    assert not isinstance(facts.sampler_cpu_share, Unavailable)
    assert not isinstance(facts.sampler_gap_s, Unavailable)
    good = (
        facts.sampler_cpu_share <= limit
        and facts.sampler_gap_s <= SAMPLER_GAP_PERIODS * facts.sampler_period_s
    )
    reason = (
        f"sampling took {facts.sampler_cpu_share:.2%} of a core, "
        f"its largest gap was {facts.sampler_gap_s:.3g} s"
    )
    return _check("sampler", good, reason, threshold, "lower --sample-rate")


def _threads(facts: Facts) -> tuple[Check, ...]:
    """A model may set the number itself."""
    name, threshold, ran = "threads", "as many as asked for", facts.threads_ran
    if ran is None:
        return ()
    if isinstance(ran, Unavailable):
        return (_unknown(name, ran, threshold),)
    return (
        _check(
            name,
            ran == facts.threads,
            f"it ran on {ran} thread{'' if ran == 1 else 's'}, of {facts.threads} asked for",
            threshold,
            f"the model sets the number as it runs: take that out, or ask for --threads {ran}",
        ),
    )


def _inputs(facts: Facts) -> tuple[Check, ...]:
    """A model may work in place."""
    name, changed = "inputs unchanged", facts.changed_outputs
    threshold = "the outputs after the window are those of the same inputs bound anew"
    if changed is None:
        return ()
    if isinstance(changed, Unavailable):
        return (_unknown(name, changed, threshold),)
    reason, remedy = "the same outputs after the window as on inputs bound anew", ""
    if facts.inputs_kept:
        reason, remedy = facts.inputs_kept, "have forward work on a copy"
    elif changed:
        reason = f"{', '.join(changed)} differs after the window from what inputs bound anew give"
        remedy = "the model changes its inputs, or keeps a state: have forward work on a copy"
    return (_check(name, not remedy, reason, threshold, remedy),)


def _finite(facts: Facts) -> Check:
    name, threshold = "finite outputs", "no NaN, and no infinity but with --allow-infinite"
    if isinstance(facts.nan, Unavailable):
        return _unknown(name, facts.nan, threshold)
    drawn = " (on drawn inputs: --inputs FILE.npz binds real ones)" * facts.drawn
    infinite = f"infinity in {', '.join(facts.infinite)}"
    if facts.nan:
        reason, verdict = f"NaN in {', '.join(facts.nan)}{drawn}", "fail"
    elif facts.infinite and not facts.allow_infinite:
        remedy = f"; if it is an answer, --allow-infinite{drawn}"
        reason, verdict = infinite + remedy, "fail"
    elif facts.unseen:
        told = ", ".join(f"{output} is {what}" for output, what in facts.unseen.items())
        reason, verdict = f"not every output could be looked at: {told}", "unknown"
    elif facts.infinite:
        reason, verdict = f"{infinite}, as allowed; no NaN", "pass"
    else:
        reason, verdict = "every output is finite", "pass"
    return Check(name=name, verdict=cast(CheckVerdict, verdict), reason=reason, threshold=threshold)


def _precision(facts: Facts) -> Check:
    name, threshold = "precision ran", "at least one operator runs in the precision asked for"
    if isinstance(facts.integer_nodes, Unavailable):
        return _unknown(name, facts.integer_nodes, threshold)
    count = facts.integer_nodes
    return _check(
        name,
        count > 0,
        f"{count} operator{'' if count == 1 else 's'} ran in {facts.precision}",
        threshold,
        "see precision.operators: the runtime fell back",
    )


def _fidelity(facts: Facts) -> tuple[Check, ...]:
    if facts.fidelity is None:
        return ()
    return (fidelity_check(facts.fidelity, facts.precision, facts.labelled),)
