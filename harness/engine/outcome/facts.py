"""What the validity checks look at, gathered from a run's evidence."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.channels import foreign_share, steal_share
from harness.analysis.drift import Diagnosis
from harness.analysis.latency import half_width
from harness.analysis.processor import busy_cpus, speed_change, yardstick_ms
from harness.analysis.profiles import disturbed_blocks, throttle_events
from harness.analysis.sensor_facts import Window, cpu_clock_drift, gpu_facts, worst_share
from harness.analysis.validity import Facts
from harness.engine.outcome.evidence import Evidence, LaunchRecord, Pair
from harness.engine.wire.messages import Verified
from harness.host.clock import clock_cost_ms
from harness.maybe import Maybe, Unavailable
from harness.records import result as records
from harness.records.result import NOT_REACHED


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
        half_width=timing if isinstance(timing, Unavailable) else half_width(timing.latency_ms),
        drift=diagnosis.drift if diagnosis else NOT_REACHED,
        drift_p=diagnosis.trend_p if diagnosis else NOT_REACHED,
        foreign_share=worst_share(windows, foreign_share),
        steal_share=worst_share(windows, steal_share),
        throttle_events=profiles
        if isinstance(profiles, Unavailable)
        else throttle_events(profiles),
        disturbed_blocks=profiles
        if isinstance(profiles, Unavailable)
        else disturbed_blocks(profiles),
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


def _windows(timed: Sequence[Pair]) -> list[Window]:
    """Those that were sampled."""
    return [
        (sampled, *record.window_ns)
        for record, sampled in timed
        if sampled is not None and record.window_ns is not None
    ]


def _clock_cost_ms(evidence: Evidence) -> float:
    return evidence.installed.clock_cost_ms if evidence.installed else clock_cost_ms()
