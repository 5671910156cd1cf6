"""What makes one doubt a server run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.analysis.capacity import bound_of, held
from harness.maybe import Unavailable, explain
from harness.records.result import Check, Serving

LATENESS_LIMIT = 0.1  # median lateness over the median service time
LATENESS_FLOOR_MS = 0.1  # and where that is less, nobody doubts the generator


def serving_checks(found: Serving) -> tuple[Check, ...]:
    return (_stationary(found), _lateness(found))


def _stationary(found: Serving) -> Check:
    threshold = "no backlog that grows"
    if found.stationary:
        reason = f"{found.backlog} requests were waiting when the schedule ended"
        return Check(name="stationary", verdict="pass", reason=reason, threshold=threshold)
    left = f", {found.unserved} of them for good" if found.unserved else ""
    reason = (
        f"overloaded: {found.offered_per_s:.4g} requests a second came and"
        f" {found.achieved_per_s:.4g} were served; {found.backlog} were waiting at the end{left}:"
        " no quantile here is that of a lasting load; lower --rate"
    )
    return Check(name="stationary", verdict="warn", reason=reason, threshold=threshold)


def _lateness(found: Serving) -> Check:
    limit_ms = max(LATENESS_LIMIT * found.service_ms.median, LATENESS_FLOOR_MS)
    threshold = f"median start at most {limit_ms:.3g} ms after it could be"
    if isinstance(found.lateness_ms, Unavailable):
        reason = explain(found.lateness_ms)
        return Check(name="lateness", verdict="unknown", reason=reason, threshold=threshold)
    median_ms = found.lateness_ms.median
    good = median_ms <= limit_ms
    reason = f"servers that were free started {median_ms:.3g} ms late in the median"
    remedy = "" if good else "; it is part of every latency: measure on a quieter machine"
    return Check(
        name="lateness", verdict="pass" if good else "warn", reason=reason + remedy,
        threshold=threshold,
    )  # fmt: skip


def bound_checks(
    bounds: Sequence[str], latencies_ms: NDArray[np.float64], stationary: bool
) -> tuple[Check, ...]:
    """One a bound: whether it holds, or cannot be told from so many requests."""
    checks = []
    for text in bounds:
        bound = bound_of(text)
        found = held(bound, latencies_ms, stationary=stationary)
        verdict = {"pass": "pass", "fail": "warn", "undecided": "unknown"}[found.verdict]
        reason = (
            f"{found.late:.2%} of the requests took longer than {bound.limit_ms:g} ms, as many as "
            f"{found.effective} independent ones would tell"
        )
        threshold = f"at most {bound.allowed:.3g} of them"
        checks.append(
            Check(name=f"bound {text}", verdict=verdict, reason=reason, threshold=threshold)  # type: ignore[arg-type]
        )
    return tuple(checks)
