"""Where the time goes, found out by the worker after its window.

    plain inferences ── profiled ones ── plain ones ── roofs

The plain ones, before and after, say what the profiler costs; the roofs are measured at once, since
a machine that is throttled a minute later is another machine.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from harness.analysis.operators import of_launch
from harness.engine.wire.messages import Job
from harness.errors import one_line
from harness.host.procfs import cgroup_chain, cpu_quota_of, read_text
from harness.maybe import Maybe, Unavailable
from harness.protocols import (
    Backend,
    Idled,
    OperatorProfiled,
    RoofCall,
    Roofed,
    RoofLoad,
    Session,
)
from harness.records.operators import NO_COST, LaunchOperators, Roof

_SECONDS = 1.5  # of profiled inferences, and of plain ones
_LEAST, _MOST = 5, 1000
_IDLE_RUNS = 100
_ROOF_S, _ROOF_LEAST = 0.25, 3
_LONGEST_MS = 100.0  # of a repetition
_NO_OPERATORS = Unavailable(
    "this backend does not tell its operators",
    "a session with a method profile_operators does: see harness.protocols",
)
_NO_ROOFS = Unavailable("this backend measures no roofs", "a backend with a method roof_loads does")


def profile(backend: Backend, session: Session, job: Job) -> Maybe[LaunchOperators]:
    """Raises what the runtime raises."""
    if not isinstance(session, OperatorProfiled):
        return _NO_OPERATORS
    stopped = throttles()
    first_ms = float(np.median(_latencies(session, _LEAST)))
    count = max(_LEAST, min(_MOST, int(_SECONDS * 1e3 / max(first_ms, 1e-6))))
    before = _latencies(session, count // 2)
    found = session.profile_operators(count)
    if isinstance(found, Unavailable):
        return found
    after = _latencies(session, count // 2)
    plain_ms = float(np.median([*before, *after]))
    lasting_ms = plain_ms if throttles() > stopped else 0.0
    roofs = measured_roofs(backend, job, lasting_ms)
    return of_launch(found, plain_ms, roofs, profiler_cost(backend, job))


def profiler_cost(backend: Backend, job: Job) -> Maybe[float]:
    """What the profiler adds to an inference for each operator in it, in ms."""
    if not isinstance(backend, Idled) or job.options.device != "cpu":
        return NO_COST
    try:
        load = backend.idle_load(job.options)
        before = [_repeated_ms(load.run, 1) for _ in range(_IDLE_RUNS)]
        found = load.profile(_IDLE_RUNS)
        after = [_repeated_ms(load.run, 1) for _ in range(_IDLE_RUNS)]
    except Exception as error:  # a runtime's own
        return Unavailable(f"what the profiler costs cannot be measured: {one_line(error)}")
    if isinstance(found, Unavailable):
        return found
    added_ms = float(np.median(found.latency_ms) - np.median([*before, *after]))
    return max(0.0, added_ms / sum(one.calls for one in found.operators))


def throttles() -> int:
    """How often a quota of processor time has stopped this process so far; 0 without a quota."""
    _, chain = cgroup_chain("/", "cpu", os.getpid())
    limited = [folder for folder in chain if cpu_quota_of(folder) is not None]
    words = (read_text(str(limited[0]), "cpu.stat") or "").split() if limited else []
    counts = dict(zip(words[::2], words[1::2], strict=False))
    return int(counts.get("nr_throttled", 0))


def _latencies(session: Session, count: int) -> list[float]:
    """In ms, of inferences one at a time."""
    found = []
    for _ in range(count):
        began = time.perf_counter_ns()
        session.enqueue()
        session.synchronize()
        found.append((time.perf_counter_ns() - began) / 1e6)
    return found


def measured_roofs(backend: Backend, job: Job, lasting_ms: float) -> Maybe[tuple[Roof, ...]]:
    """The fastest of each known piece of work; those that this runtime cannot do are left out.

    Where a quota stops the processors every few milliseconds, ``lasting_ms`` is an inference's:
    a repetition lasts as long, and is stopped as often. A short one would fall between the stops.
    """
    if not isinstance(backend, Roofed):
        return _NO_ROOFS
    loads: Sequence[RoofLoad] = backend.roof_loads(job.artifact.precision, job.options)
    found = tuple(measured(loads, lasting_ms))
    return found or Unavailable("the runtime refused every piece of work that shows a roof")


def measured(loads: Sequence[RoofLoad], least_ms: float) -> Iterator[Roof]:
    for load in loads:
        with contextlib.suppress(Exception):  # a precision without kernels here has no roof
            ms = _fastest_ms(load.start(), min(least_ms, _LONGEST_MS))
            yield Roof(
                name=load.name, bound=load.bound, precision=load.precision,
                per_s=load.work / ms * 1e3, bytes=load.bytes, ms=ms,
            )  # fmt: skip


def _fastest_ms(call: RoofCall, least_ms: float) -> float:
    """Of one call, over repetitions of so many that they last ``least_ms``."""
    call()
    times = max(1, math.ceil(least_ms / max(_repeated_ms(call, 1), 1e-6)))
    began, best, count = time.perf_counter_ns(), float("inf"), 0
    while count < _ROOF_LEAST or time.perf_counter_ns() - began < _ROOF_S * 1e9:
        best = min(best, _repeated_ms(call, times))
        count += 1
    return best


def _repeated_ms(call: RoofCall, times: int) -> float:
    """Of one of ``times`` calls: what they tell themselves, else what passed."""
    start = time.perf_counter_ns()
    told = [call() for _ in range(times)]
    passed_ms = (time.perf_counter_ns() - start) / 1e6
    known = [ms for ms in told if ms is not None]
    return (sum(known) if len(known) == times else passed_ms) / times
