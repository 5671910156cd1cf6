"""What the validity checks look at, gathered from a run's evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.analysis import channels as shares
from harness.analysis.drift import Diagnosis
from harness.analysis.processor import busy_cpus, speed_change, yardstick_ms
from harness.analysis.sampled import Sampled
from harness.analysis.sensor_facts import Window, cpu_clock_drift, gpu_facts
from harness.analysis.validity import Facts
from harness.engine.outcome.evidence import Evidence, LaunchRecord
from harness.engine.wire.messages import Verified
from harness.maybe import Maybe, Unavailable
from harness.records import result as records
from harness.records.result import NOT_REACHED

Pair = tuple[LaunchRecord, Sampled | None]


def validity_facts(
    evidence: Evidence,
    timed: Sequence[Pair],
    timing: Maybe[records.Timing],
    diagnosis: Diagnosis | None,
    profiles: Maybe[records.Profiles],
) -> Facts:
    spec, windows = evidence.spec, _windows(timed)
    verified = next((r.verified for r in evidence.launches if r.verified), None)
    operators = verified.description.operators if verified else NOT_REACHED
    looked = verified.looked if verified else NOT_REACHED
    why_not = next((r.unverified for r in evidence.launches if r.unverified), "")
    model = evidence.prepared.model if evidence.prepared else None
    sampled = profiles if isinstance(profiles, Unavailable) else profiles.sampler
    return Facts(
        warmup_ends=[record.warmup_end for record, _ in timed],
        max_warmup_s=spec.max_warmup_s,
        goal=None if any(record.turns for record, _ in timed) else spec.goal,
        half_width=_half_width(timing),
        drift=diagnosis.drift if diagnosis else NOT_REACHED,
        drift_p=diagnosis.trend_p if diagnosis else NOT_REACHED,
        foreign_share=_worst_share(windows, shares.foreign_share),
        steal_share=_worst_share(windows, shares.steal_share),
        throttle_events=_throttles(profiles),
        disturbed_blocks=_disturbed(profiles),
        clock_drift=cpu_clock_drift(windows),
        speed_change=speed_change([yardstick_ms(record.yardstick_ns) for record, _ in timed]),
        threads=evidence.placement.threads,
        concurrency=spec.concurrency,
        usable_cpus=evidence.placement.usable,
        busy_cpus=busy_cpus([_processor(record) for record, _ in timed]),
        sampler_cpu_share=sampled if isinstance(sampled, Unavailable) else sampled.cpu_share,
        sampler_gap_s=sampled if isinstance(sampled, Unavailable) else sampled.gap_max_s,
        sampler_period_s=0.0 if isinstance(sampled, Unavailable) else 1 / sampled.requested_rate_hz,
        timer_share=NOT_REACHED
        if isinstance(timing, Unavailable)
        else _clock_cost_ms(evidence) / max(timing.latency_ms.median, 1e-9),
        nan=looked if isinstance(looked, Unavailable) else looked.nan,
        infinite=() if isinstance(looked, Unavailable) else looked.infinite,
        unseen={} if isinstance(looked, Unavailable) else looked.unseen,
        allow_infinite=spec.allow_infinite,
        drawn=model is not None and model.input_data.startswith("drawn"),
        threads_ran=verified.description.threads if verified else NOT_REACHED,
        inputs_kept=verified.description.inputs if verified else "",
        changed_outputs=verified.changed if verified else NOT_REACHED,
        integer_nodes=operators
        if isinstance(operators, Unavailable)
        else sum(counts.get(spec.precision, 0) for counts in operators.values()),
        precision=spec.precision,
        fidelity=_fidelity(evidence, verified),
        unverified=why_not,
        labelled=verified is not None and isinstance(verified.accuracy, records.Accuracy),
        gpu=gpu_facts(spec.device, windows),
        resting_share=max(
            (record.turns.resting_share for record, _ in timed if record.turns), default=None
        ),
    )


def _processor(record: LaunchRecord) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """What the worker spent, and in which time; of turns that time is not the window's."""
    spent = record.spent
    if spent is None or record.turns is not None:
        return None, None
    return (spent.cpu_ns, spent.iterations), record.window_ns


def _fidelity(evidence: Evidence, verified: Verified | None) -> Maybe[records.Fidelity] | None:
    if evidence.prepared is None or evidence.prepared.reference is None:
        return None
    return (verified.fidelity if verified else None) or NOT_REACHED


def _disturbed(profiles: Maybe[records.Profiles]) -> Maybe[tuple[int, int]]:
    """How many blocks were disturbed, of how many."""
    if isinstance(profiles, Unavailable):
        return profiles
    if not profiles.blocks:
        return Unavailable("the window was not cut into blocks", "lengthen --duration")
    for block in profiles.blocks:
        if isinstance(block.disturbed, Unavailable):
            return block.disturbed
    return sum(block.disturbed is True for block in profiles.blocks), len(profiles.blocks)


def _half_width(timing: Maybe[records.Timing]) -> Maybe[float]:
    if isinstance(timing, Unavailable):
        return timing
    interval, median = timing.latency_ms.ci95["median"], timing.latency_ms.median
    if isinstance(interval, Unavailable):
        return interval
    return (interval[1] - interval[0]) / 2 / median if median else 0.0


def _windows(timed: Sequence[Pair]) -> list[Window]:
    """Those that were sampled."""
    return [
        (sampled, *record.window_ns)
        for record, sampled in timed
        if sampled is not None and record.window_ns is not None
    ]


def _worst_share(windows: Sequence[Window], share: Callable[..., Maybe[float]]) -> Maybe[float]:
    """The largest of the launches' shares, of one core; the first absence where none is known."""
    found = [share(sampled.series, start_ns, end_ns) for sampled, start_ns, end_ns in windows]
    known = [value for value in found if not isinstance(value, Unavailable)]
    if known:
        return max(known)
    return found[0] if found else Unavailable("nothing was sampled", "give --sample-rate above 0")


_THROTTLE_CHANNELS = ("core_throttles", "package_throttles", "cgroup_throttles")


def _throttles(profiles: Maybe[records.Profiles]) -> Maybe[float]:
    """Throttle events of every counter that could be read, absent where none could."""
    if isinstance(profiles, Unavailable):
        return profiles
    absent: Unavailable | None = None
    counted: list[float] = []
    for name in _THROTTLE_CHANNELS:
        channel = profiles.channels.get(name)
        if isinstance(channel, Unavailable):
            absent = absent or channel
        elif channel is not None:
            counted.append(channel.last - channel.first)  # type: ignore[operator]
    if counted:
        return float(sum(counted))
    return absent or Unavailable("this machine shows no throttle counters", "see harness doctor")


def _clock_cost_ms(evidence: Evidence) -> float:
    return evidence.installed.clock_cost_ms if evidence.installed else clock_cost_ms()


def clock_cost_ms(reads: int = 1000) -> float:
    """What one clock reading adds to a measured interval, in ms: the least of several trials."""
    clock = time.perf_counter_ns
    best = min(_trial(clock, reads) for _ in range(5))
    return best / reads / 1e6


def _trial(clock: Callable[[], int], reads: int) -> int:
    began = clock()
    for _ in range(reads):
        clock()
    return clock() - began
