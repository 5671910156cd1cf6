"""Turns: the timed loop runs for a moment, then the process rests until it has the turn again.

    driver   Turn ─┐            ┌ stop        continue, Turn ─┐
    worker         └ iterations ┴ stands still                └ iterations ...
    other                         └ its own turn ┘

A runtime's threads go on after a call: pools spin for up to 0.1 s in the hope of more work. A side
that spins takes the processor from the one whose turn it is, so the driver has the kernel stop the
whole process between its turns. Its threads go on where they were when it continues, spinning or
asleep, as they would in a loop without turns.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.loads.closed import StreamLoop
from harness.engine.loads.load import Drive, Load, Taken
from harness.engine.loads.threads import Threads
from harness.engine.wire.messages import Event, Peer, Rested, Turn, Turns
from harness.engine.wire.timeline import Stream, Timeline
from harness.errors import UsageError
from harness.maybe import decode

if TYPE_CHECKING:
    from harness.engine.wire.messages import Job
    from harness.protocols import Session
    from harness.records.result import Check
    from harness.spec import RunSpec


class InTurns(Load):
    """A closed loop whose window consists of turns, between which the process rests."""

    def drive(self, timeline: Timeline, sessions: Sequence[Session], job: Job, peer: Peer) -> Drive:
        assert job.turns is not None
        if len(sessions) > 1:
            raise UsageError("several streams cannot take turns", "leave out --concurrency")
        return _Turns(timeline, sessions, job.turns, peer)

    def checks(self, spec: RunSpec, taken: Sequence[Taken]) -> tuple[Check, ...]:
        from harness.analysis.validity import resting

        shares = [one.resting_share for one in taken if one.resting_share is not None]
        return (resting(max(shares)),) if shares else ()


class _Turns(Threads):
    """The window has turns; the warm-up has not."""

    def __init__(
        self, timeline: Timeline, sessions: Sequence[Session], turns: Turns, peer: Peer
    ) -> None:
        super().__init__(timeline, sessions)
        self._stream = timeline.streams[0]
        self._turns = turns
        self._peer = peer

    def window(self) -> None:
        pin_busiest(self._turns)
        take_turns(self.loops[0], self._stream, self._peer)


def take_turns(loop: StreamLoop, stream: Stream, peer: Peer) -> None:
    """Take turns until the driver says that no more come. Raises `EOFError` when it is gone.

    The window starts with the first timed turn.
    """
    peer.send(Event("resting"))
    while (turn := _next(peer)).ns:
        start_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        first, last = loop.turn(turn.ns, turn.at_least)
        end_ns, cpu_end_ns = time.perf_counter_ns(), time.process_time_ns()
        if turn.timed and stream.window_start < 0:
            stream.window_start = first
        rested = Rested(first, last, start_ns, end_ns, cpu_ns, cpu_end_ns)
        peer.send(Event("rested", rested=rested))
    if stream.window_start >= 0:
        stream.window_end = stream.written


def _next(peer: Peer) -> Turn:
    while True:
        lines = peer.receive()
        if lines is None:
            raise EOFError("the driver is gone")
        if lines:
            return decode(lines[0], Turn)


def stay_on(cpus: Sequence[int]) -> None:
    """Have every thread of this process run on ``cpus`` alone; those to come inherit it."""
    for thread in _threads() if cpus else ():
        _pin(thread, set(cpus))


def pin_busiest(turns: Turns) -> None:
    """Pin the threads that have worked most so far, each to a processor of its own.

    Where two threads of a pool share a processor for a while, one side of that launch is slower by
    far, for no reason of its own. Other threads stay where they may run.
    """
    if len(turns.cpus) < turns.threads:
        return
    work = _threads()
    for cpu, thread in zip(turns.cpus, sorted(work, key=work.__getitem__)[::-1], strict=False):
        _pin(thread, {cpu})


def _pin(thread: int, cpus: set[int]) -> None:
    # where the system has no such call, the thread has ended, or a container forbids it: no matter
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(thread, cpus)


def _threads() -> dict[int, int]:
    """This process's threads, and the processor time of each so far, in ticks."""
    found: dict[int, int] = {}
    for folder in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = int(fields[11]) + int(fields[12])
    return found
