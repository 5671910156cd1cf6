"""Where the time goes, found out by the worker after its window.

    plain inferences ── profiled ones ── plain ones ── roofs

The plain ones, before and after, say what the profiler costs; the roofs are measured at once, since
a machine that is throttled a minute later is another machine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np

from harness.analysis.operators import of_launch
from harness.engine.wire.messages import Job
from harness.maybe import Maybe, Unavailable
from harness.protocols import Backend, OperatorProfiled, RoofCall, Roofed, RoofLoad, Session
from harness.records.operators import LaunchOperators, Roof

_SECONDS = 1.5  # of profiled inferences, and of plain ones
_LEAST, _MOST = 5, 1000
_ROOF_S, _ROOF_LEAST = 0.25, 5
_NO_OPERATORS = Unavailable(
    "this backend does not tell its operators",
    "a session with a method profile_operators does: see harness.protocols",
)
_NO_ROOFS = Unavailable("this backend measures no roofs", "a backend with a method roof_loads does")


def profile(backend: Backend, session: Session, job: Job) -> Maybe[LaunchOperators]:
    """Raises what the runtime raises."""
    if not isinstance(session, OperatorProfiled):
        return _NO_OPERATORS
    first_ms = float(np.median(_latencies(session, _LEAST)))
    count = max(_LEAST, min(_MOST, int(_SECONDS * 1e3 / max(first_ms, 1e-6))))
    before = _latencies(session, count // 2)
    found = session.profile_operators(count)
    if isinstance(found, Unavailable):
        return found
    after = _latencies(session, count // 2)
    roofs = measured_roofs(backend, job)
    return of_launch(found, float(np.median([*before, *after])), roofs)


def _latencies(session: Session, count: int) -> list[float]:
    """In ms, of inferences one at a time."""
    found = []
    for _ in range(count):
        began = time.perf_counter_ns()
        session.enqueue()
        session.synchronize()
        found.append((time.perf_counter_ns() - began) / 1e6)
    return found


def measured_roofs(backend: Backend, job: Job) -> Maybe[tuple[Roof, ...]]:
    """The fastest of each known piece of work; those that this runtime cannot do are left out."""
    if not isinstance(backend, Roofed):
        return _NO_ROOFS
    loads: Sequence[RoofLoad] = backend.roof_loads(job.artifact.precision, job.options)
    found = tuple(_measured(loads))
    return found or Unavailable("the runtime refused every piece of work that shows a roof")


def _measured(loads: Sequence[RoofLoad]) -> Iterator[Roof]:
    for load in loads:
        with contextlib.suppress(Exception):  # a precision without kernels here has no roof
            ms = _fastest_ms(load.start())
            yield Roof(
                name=load.name, bound=load.bound, precision=load.precision,
                per_s=load.work / ms * 1e3, bytes=load.bytes, ms=ms,
            )  # fmt: skip


def _fastest_ms(call: RoofCall) -> float:
    call()
    began, best, count = time.perf_counter_ns(), float("inf"), 0
    while count < _ROOF_LEAST or time.perf_counter_ns() - began < _ROOF_S * 1e9:
        start = time.perf_counter_ns()
        told_ms = call()
        passed_ms = (time.perf_counter_ns() - start) / 1e6
        best = min(best, passed_ms if told_ms is None else told_ms)
        count += 1
    return best
