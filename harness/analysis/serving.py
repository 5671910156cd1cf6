"""What requests of a schedule met: waiting, service, how busy the servers were, and the queue.

    waiting      start - due, a batch's delay included
    service      end - start, of each inference once
    lateness     start - when it could have been, where the server was free: our own fault
    utilization  servers' busy time within the period / (servers x period)

The period is the schedule's: from when the first timed request could be due to when no further
timed one could. A server was free if its last inference had ended before the request was due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.latency import latency_stats, launch_estimate
from harness.maybe import Maybe, Unavailable
from harness.records.result import Serving, Throughput
from harness.stats.trend import spearman
from harness.stats.two_samples import MIN_LAUNCHES

Times = NDArray[np.int64]
Rows = Mapping[str, Times]  # of one stream: start, end and due of every request, in ns
Facts = Mapping[str, int]
QUEUE_POINTS = 200
_BLOCKS = 20
_SIGNIFICANT = 0.01


class Inferences(NamedTuple):
    """Of one stream, in order: a batch of requests each."""

    start: Times
    end: Times
    due: Times  # of the first request in it
    last_due: Times
    size: Times


def inferences(rows: Rows) -> Inferences:
    """Requests of one batch share their start."""
    start, end, due = rows["start"], rows["end"], rows["due"]
    first = np.flatnonzero(np.diff(start, prepend=start[:1] - 1))
    size = np.diff(first, append=len(start))
    last = first + size - 1
    return Inferences(start[first], end[first], due[first], due[last], size)


def achieved_per_s(rows: Sequence[Rows], timed: Sequence[Rows], facts: Facts) -> float:
    """Requests that ended within the period, over its length, whether they were timed or not."""
    begin, until = period(timed, facts)
    ended = sum(int(((one["end"] > begin) & (one["end"] <= until)).sum()) for one in rows)
    return ended / ((until - begin) / 1e9)


def period(timed: Sequence[Rows], facts: Facts) -> tuple[int, int]:
    """As the worker told it; of one that was killed, from the first due to the last."""
    if "until_ns" in facts and facts["until_ns"] > facts["from_ns"]:
        return facts["from_ns"], facts["until_ns"]
    dues = np.concatenate([one["due"] for one in timed])
    return int(dues.min()), int(dues.max()) + 1


def rate_of(rates: Sequence[float], batch_size: int, servers: int) -> Throughput:
    """The throughput of a run whose schedule sets the pace."""
    interval: Maybe[tuple[float, float]]
    if len(rates) >= MIN_LAUNCHES:
        value, interval = launch_estimate(rates)
    else:
        value = float(np.mean(rates))
        interval = Unavailable("the schedule sets the rate", "harness capacity, for the highest")
    return Throughput(
        inferences_per_s=value,
        ci95=interval,
        batch_size=batch_size,
        concurrency=servers,
        method="requests that ended within the schedule's window, over its length, x batch size",
    )


class _Launch(NamedTuple):
    waiting: Times
    service: Times
    lateness: Times
    sizes: Times
    busy_ns: int
    period_ns: int
    due: int
    unserved: int
    achieved: float
    queue: NDArray[np.float64]  # length at `QUEUE_POINTS` equal steps
    backlog: int
    growing: bool


def serving(
    launches: Sequence[tuple[Sequence[Rows], Sequence[Rows], Facts]],
    *,
    arrivals: str,
    rate_per_s: float | None,
    servers: int,
    batching: tuple[int, float] | None,
) -> Serving:
    """Over all launches. Of each: all rows and the timed ones, by stream, and its facts."""
    found = [_launch(*one, servers, batching) for one in launches]
    period_s = sum(one.period_ns for one in found) / 1e9
    late = [one.lateness for one in found if len(one.lateness)]
    queue = np.mean([one.queue for one in found], axis=0)
    seconds = found[0].period_ns / 1e9
    return Serving(
        arrivals=arrivals,
        rate_per_s=Unavailable("a file says when requests come")
        if rate_per_s is None
        else rate_per_s,
        servers=servers,
        batching="" if batching is None else f"{batching[0]}:{batching[1] * 1e3:g}ms",
        requests=sum(len(one.waiting) for one in found),
        unserved=sum(one.unserved for one in found),
        offered_per_s=sum(one.due for one in found) / period_s,
        achieved_per_s=float(np.mean([one.achieved for one in found])),
        waiting_ms=latency_stats([one.waiting for one in found]),
        service_ms=latency_stats([one.service for one in found]),
        lateness_ms=latency_stats(late)
        if late
        else Unavailable("no request found its server free", "lower --rate"),
        utilization=sum(one.busy_ns for one in found) / (servers * period_s * 1e9),
        requests_per_inference=float(np.mean(np.concatenate([one.sizes for one in found]))),
        queue_mean=float(np.mean([one.queue.mean() for one in found])),
        queue_max=int(max(one.queue.max() for one in found)),
        queue=tuple(
            (round(seconds * (index + 0.5) / len(queue), 6), float(length))
            for index, length in enumerate(queue)
        ),
        backlog=max(one.backlog for one in found),
        stationary=not any(one.growing for one in found),
    )


def _launch(
    rows: Sequence[Rows],
    timed: Sequence[Rows],
    facts: Facts,
    servers: int,
    batching: tuple[int, float] | None,
) -> _Launch:
    begin, until = period(timed, facts)
    order = np.argsort(np.concatenate([one["due"] for one in timed]), kind="stable")
    due, start = (np.concatenate([one[name] for one in timed])[order] for name in ("due", "start"))
    parts = [inferences(one) for one in timed]
    unserved = facts.get("unserved", 0)
    queue = _queue(rows, begin, until, unserved)
    free = [
        _free(part, one, everything, batching) for part, one, everything in _paired(timed, rows)
    ]
    latenesses = np.concatenate([late for late, _ in free])
    return _Launch(
        waiting=start - due,
        service=_in_order(
            [part.start for part in parts], [part.end - part.start for part in parts]
        ),
        lateness=latenesses,
        sizes=np.concatenate([part.size for part in parts]),
        busy_ns=sum(_busy(one, begin, until) for one in rows),
        period_ns=until - begin,
        due=facts.get("due", len(due)),
        unserved=unserved,
        achieved=achieved_per_s(rows, timed, facts),
        queue=queue,
        backlog=int((start[due < until] >= until).sum()) + unserved,
        growing=_grows(start - due, due, np.concatenate([at for _, at in free]), begin, until)
        or unserved > 0,
    )


def _paired(
    timed: Sequence[Rows], rows: Sequence[Rows]
) -> list[tuple[Inferences, Rows, Inferences]]:
    return [
        (inferences(one), one, inferences(whole)) for one, whole in zip(timed, rows, strict=True)
    ]


def _in_order(when: Sequence[Times], what: Sequence[Times]) -> Times:
    ordered: Times = np.concatenate(what)[np.argsort(np.concatenate(when), kind="stable")]
    return ordered


def _free(
    part: Inferences, timed: Rows, whole: Inferences, batching: tuple[int, float] | None
) -> tuple[Times, Times]:
    """Of the inferences whose server was free when they could start: how late, and when due."""
    if not len(part.start):
        return part.start, part.start
    at = np.searchsorted(whole.start, part.start)
    before = np.where(at > 0, whole.end[at - 1], np.iinfo(np.int64).min)
    go = part.due
    if batching is not None:
        full = part.size >= batching[0]
        go = np.where(full, part.last_due, part.due + round(batching[1] * 1e9))
        go = np.minimum(go, part.start)  # a batch that was full earlier than its last row says
    free = before < part.due
    return (part.start - go)[free], part.due[free]


def _busy(rows: Rows, begin: int, until: int) -> int:
    """The time of this stream's inferences within the period."""
    one = inferences(rows)
    inside = np.minimum(one.end, until) - np.maximum(one.start, begin)
    return int(np.maximum(inside, 0).sum())


def _queue(rows: Sequence[Rows], begin: int, until: int, unserved: int) -> NDArray[np.float64]:
    """How many were due and had not started, at equal steps; of those never served it is known that
    they were due by the end."""
    due = np.sort(np.concatenate([one["due"] for one in rows]))
    start = np.sort(np.concatenate([one["start"] for one in rows]))
    steps = begin + (until - begin) * (np.arange(QUEUE_POINTS) + 0.5) / QUEUE_POINTS
    length = np.searchsorted(due, steps, "right") - np.searchsorted(start, steps, "right")
    if unserved:  # they came after the last that was served
        late = steps > due[-1]
        length = length + np.where(late, unserved * (steps - due[-1]) / max(until - due[-1], 1), 0)
    found: NDArray[np.float64] = np.maximum(length, 0).astype(np.float64)
    return found


def _grows(waiting: Times, due: Times, free_at: Times, begin: int, until: int) -> bool:
    """Whether the backlog grows: waits that rise from block to block, and no server that was ever
    free in the second half. A queue that is merely long runs empty now and then."""
    if len(waiting) < _BLOCKS or bool((free_at > (begin + until) // 2).any()):
        return False
    means = np.array([block.mean() for block in np.array_split(waiting, _BLOCKS)])
    trend = spearman(means)
    return trend.rho > 0 and trend.p_value < _SIGNIFICANT


def in_order_of_arrival(launches: Sequence[Sequence[Rows]]) -> NDArray[np.float64]:
    """Latencies in ms of the timed requests, launch after launch. ``launches``: timed rows."""
    found = []
    for timed in launches:
        due = np.concatenate([one["due"] for one in timed])
        times = np.concatenate([one["end"] - one["due"] for one in timed])
        found.append(times[np.argsort(due, kind="stable")] / 1e6)
    return np.concatenate(found)
